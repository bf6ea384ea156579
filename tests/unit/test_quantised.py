"""References in small integers leave every answer as it is, and are never further off than they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from structlog.testing import capture_logs

from tutelage.biometrics.features import Features
from tutelage.biometrics.matching import COARSE_FROM, Gallery
from tutelage.nn.quantised import quantised

SPACE = "sha256:a"
SIDE = 128
Rows = npt.NDArray[np.float32]


def unit(rows: npt.ArrayLike) -> Rows:
    found = np.asarray(rows, dtype=np.float64)
    lengths = np.linalg.norm(found, axis=-1, keepdims=True)
    return (found / np.where(lengths > 0.0, lengths, 1.0)).astype(np.float32)


def crowd(seed: int, persons: int, each: int, spread: float) -> tuple[tuple[str, ...], Rows]:
    """`each` references of every person, around a centre of the person's own."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.standard_normal((persons, SIDE)), each, axis=0)
    rows = unit(centres + spread * rng.standard_normal(centres.shape))
    order = rng.permutation(len(rows))
    return tuple(f"person {i // each:05d}" for i in order), rows[order]


def probes_near(seed: int, rows: Rows) -> Features:
    """Captures of some of the enrolled, and of as many strangers."""
    rng = np.random.default_rng(seed)
    own = unit(rows[:30] + 0.07 * rng.standard_normal((30, SIDE)))
    return Features(np.concatenate([own, unit(rng.standard_normal((30, SIDE)))]), SPACE)


@pytest.mark.parametrize(("seed", "spread"), [(0, 0.3), (1, 0.8), (2, 3.0)])
def test_answers_are_the_same_to_the_last_bit(seed: int, spread: float) -> None:
    persons, rows = crowd(seed, COARSE_FROM, 2, spread)
    plain = Gallery(persons, Features(rows, SPACE))
    sooner, probes = replace(plain, coarsely=quantised), probes_near(seed, rows)
    for i in range(len(probes)):
        assert sooner.identify(probes[i : i + 1]) == plain.identify(probes[i : i + 1])


def test_they_are_asked_where_there_are_many_references_and_one_probe() -> None:
    asked: list[int] = []

    def counted(references: Rows) -> None:
        asked.append(len(references))

    persons, rows = crowd(3, COARSE_FROM, 1, 0.3)
    few = Gallery(persons[:-1], Features(rows[:-1], SPACE), counted)
    many = Gallery(persons, Features(rows, SPACE), counted)
    few.identify(few.features[:1])
    many.identify(many.features[:2])
    assert asked == []
    assert many.identify(many.features[:1])[0].person == persons[0]
    assert asked == [COARSE_FROM]


def test_equals_among_thousands_are_still_named_in_order() -> None:
    persons, rows = crowd(4, COARSE_FROM, 1, 0.0)
    twins = np.concatenate([rows, rows[:1], rows[:1]])
    gallery = Gallery((*persons, "amy", "zoe"), Features(twins, SPACE), quantised)
    (match,) = gallery.identify(Features(rows[:1], SPACE))
    assert (match.person, match.runner_up, match.margin) == ("amy", persons[0], 0.0)


def test_one_person_with_thousands_of_references_has_no_runner_up() -> None:
    _, rows = crowd(5, COARSE_FROM, 1, 0.3)
    (match,) = Gallery(("ann",) * COARSE_FROM, Features(rows, SPACE), quantised).identify(Features(rows[7:8], SPACE))
    assert (match.person, match.runner_up, match.cosine) == ("ann", None, pytest.approx(1.0))


def shapes(name: str) -> Rows:
    """Rows that are hard to write in few steps."""
    rng = np.random.default_rng(6)
    normal = rng.standard_normal((500, SIDE))
    peaked = np.where(np.arange(SIDE) == rng.integers(SIDE, size=500)[:, None], 30.0, normal)
    return {
        "normal": unit(normal),
        "peaked": unit(peaked),
        "one number": unit(np.eye(SIDE)[rng.integers(SIDE, size=500)]),
        "zero": np.zeros((500, SIDE), np.float32),
        "alike": unit(np.ones((500, SIDE))),
    }[name]


NAMES = ["normal", "peaked", "one number", "zero", "alike"]


@pytest.mark.parametrize("references", NAMES)
@pytest.mark.parametrize("probes", NAMES)
def test_no_cosine_is_further_off_than_said(references: str, probes: str) -> None:
    rows = shapes(references)
    coarse = quantised(rows)
    assert coarse is not None
    for probe in (shapes(probes)[:20], -shapes(probes)[:20]):
        for row in probe:
            found, off = coarse.cosines(row)
            exact = rows.astype(np.float64) @ row.astype(np.float64)
            assert float(np.abs(found - exact).max()) <= off
            assert off < 0.1


def test_what_cannot_be_quantised_is_compared_as_ever() -> None:
    with capture_logs() as logs:
        assert quantised(np.zeros((3, 0), np.float32)) is None
    assert [log["log_level"] for log in logs] == ["warning"]
    persons, rows = crowd(8, COARSE_FROM, 1, 0.3)
    gallery = Gallery(persons, Features(rows, SPACE), lambda references: quantised(references[:, :0]))
    assert gallery.identify(Features(rows[9:10], SPACE))[0].person == persons[9]
