"""The summary of error rates, against slow loops over all pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tutelage.biometrics.error_summary import impostor_count, summarise
from tutelage.biometrics.features import Features
from tutelage.errors import InputError


def features(rng: np.random.Generator, persons: list[str], spread: float) -> Features:
    """Unit rows (N, 6) around one direction a person."""
    centres = {person: rng.normal(size=6) for person in sorted(set(persons))}
    rows = np.stack([centres[person] + spread * rng.normal(size=6) for person in persons])
    return Features((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), "s")


def pairs(found: Features, persons: list[str]) -> tuple[list[float], list[float]]:
    """Genuine and impostor cosines, one pair at a time."""
    genuine, impostor = [], []
    for i, j in itertools.combinations(range(len(persons)), 2):
        cosine = float(found.vectors[i] @ found.vectors[j])
        (genuine if persons[i] == persons[j] else impostor).append(cosine)
    return genuine, impostor


@pytest.mark.parametrize("spread", [0.1, 0.5, 1.0])
def test_the_rates_are_those_of_all_pairs(rng: np.random.Generator, spread: float):
    persons = [f"p{number}" for number in range(12) for _ in range(5)]
    found = features(rng, persons, spread)
    genuine, impostor = pairs(found, persons)
    summary = summarise(found, persons)
    assert (summary.persons, summary.captures) == (12, 60)
    assert (summary.genuine, summary.impostor) == (len(genuine), len(impostor)) == (120, 1650)
    ranked = sorted(impostor, reverse=True)
    accepted = int(0.01 * len(impostor))
    assert summary.tar_1e2 == pytest.approx(np.mean([g > ranked[accepted] + 1e-7 for g in genuine]), abs=0.02)
    assert summary.tar_1e3 is None
    steps = [max(np.mean([g < t for g in genuine]), np.mean([i >= t for i in impostor])) for t in genuine + impostor]
    assert summary.eer == pytest.approx(min(steps), abs=0.01)


def test_rank_1_enrols_the_first_capture_of_each_person(rng: np.random.Generator):
    persons = list("abcabcabcbb")
    found = features(rng, persons, 2.0)
    right = 0
    for probe in range(3, len(persons)):
        near = [float(found.vectors[probe] @ found.vectors[reference]) for reference in range(3)]
        right += persons[int(np.argmax(near))] == persons[probe]
    assert summarise(found, persons).rank1 == pytest.approx(right / 8)
    assert 0 < right < 8


@pytest.mark.parametrize(("each", "measured"), [(3, False), (4, True)])
def test_a_tar_takes_ten_false_matches(rng: np.random.Generator, each: int, measured: bool):
    persons = [f"p{number}" for number in range(13) for _ in range(each)]
    summary = summarise(features(rng, persons, 0.3), persons)
    assert (summary.impostor >= 1000) is measured
    assert (summary.tar_1e2 is not None) is measured


@pytest.mark.parametrize("persons", [["a"], ["a", "b", "c"], ["a", "a", "a"]], ids=str)
def test_what_cannot_be_measured_is_none(rng: np.random.Generator, persons: list[str]):
    summary = summarise(features(rng, persons, 0.3), persons)
    assert (summary.rank1, summary.eer, summary.tar_1e2, summary.tar_1e3) == (None,) * 4
    assert summary.captures == len(persons)


@pytest.mark.parametrize("persons", ["", "a", "ab", "aabbb", "abcabca"])
def test_impostor_pairs_are_counted(persons: str):
    assert impostor_count(list(persons)) == sum(a != b for a, b in itertools.combinations(persons, 2))


def test_one_person_a_row(rng: np.random.Generator):
    with pytest.raises(InputError):
        summarise(features(rng, ["a", "b"], 0.1), ["a"])
