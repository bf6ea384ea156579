"""The nearest person, the runner-up and the decision, against loops over every reference."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tutelage.biometrics import matching
from tutelage.biometrics.features import Features, cosines
from tutelage.biometrics.matching import Decision, DecisionRule, Gallery, Match
from tutelage.errors import Code, InputError, SpaceMismatchError, UsageError

SPACE = "sha256:a"


def features(seed: int, count: int, space: str = SPACE) -> Features:
    rows = np.random.default_rng(seed).standard_normal((count, 12))
    return Features((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), space)


def plane(*degrees: float) -> Features:
    """Unit vectors in a plane, whose cosines are those of the angles between them."""
    turns = np.deg2rad(np.asarray(degrees))
    return Features(np.stack([np.cos(turns), np.sin(turns)], axis=1).reshape(-1, 2), SPACE)


def slow_identify(gallery: Gallery, probe: Features) -> Match:
    best: dict[str, float] = {}
    for row, person in enumerate(gallery.persons):
        cosine = float(cosines(probe, gallery.features[row : row + 1])[0, 0])
        best[person] = max(best.get(person, -math.inf), cosine)
    ranked = sorted(best.items(), key=lambda entry: (-entry[1], entry[0]))
    second = ranked[1] if len(ranked) > 1 else (None, -1.0)
    return Match(ranked[0][0], ranked[0][1], second[0], second[1])


@pytest.mark.parametrize("seed", range(5))
def test_identify_agrees_with_a_loop_over_references(seed: int) -> None:
    rng = np.random.default_rng(seed)
    persons = tuple(f"person {i}" for i in rng.integers(0, 7, 40))
    gallery, probes = Gallery(persons, features(seed, 40)), features(seed + 100, 25)
    matches = gallery.identify(probes)
    assert len(matches) == 25
    for i, match in enumerate(matches):
        slow = slow_identify(gallery, probes[i : i + 1])
        assert (match.person, match.runner_up) == (slow.person, slow.runner_up)
        assert match.cosine == pytest.approx(slow.cosine, abs=1e-6)
        assert match.runner_up_cosine == pytest.approx(slow.runner_up_cosine, abs=1e-6)
        assert match.margin == match.cosine - match.runner_up_cosine


def test_ten_thousand_persons_with_unequal_numbers_of_references_are_all_looked_at() -> None:
    rng = np.random.default_rng(3)
    owners = np.sort(rng.integers(0, 10_000, 25_000))
    shuffled = rng.permutation(owners)
    gallery, probes = Gallery(tuple(f"person {i:05d}" for i in shuffled), features(4, 25_000)), features(5, 20)
    table = probes.vectors @ gallery.features.vectors.T
    for match, row in zip(gallery.identify(probes), table, strict=True):
        best = np.full(10_000, -np.inf)
        np.maximum.at(best, shuffled, row)
        second, first = np.argsort(best)[-2:]
        assert (match.person, match.runner_up) == (f"person {first:05d}", f"person {second:05d}")
        assert (match.cosine, match.runner_up_cosine) == pytest.approx((best[first], best[second]), abs=1e-6)


def test_the_runner_up_is_another_person_not_another_reference() -> None:
    gallery = Gallery(("ann", "bob", "ann"), plane(0, 60, 10))
    (match,) = gallery.identify(plane(4))
    assert (match.person, match.runner_up) == ("ann", "bob")
    assert match.cosine == pytest.approx(math.cos(math.radians(4)), abs=1e-6)
    assert match.runner_up_cosine == pytest.approx(math.cos(math.radians(56)), abs=1e-6)


def test_large_batches_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, probes = Gallery(tuple("abcabc"), features(0, 6)), features(1, 11)
    whole = gallery.identify(probes)
    monkeypatch.setattr(matching, "MAX_COSINES", 12)  # two probes at a time
    parts = gallery.identify(probes)
    assert [m.person for m in parts] == [m.person for m in whole]
    np.testing.assert_allclose([m.cosine for m in parts], [m.cosine for m in whole], atol=1e-6)
    monkeypatch.setattr(matching, "MAX_COSINES", 1)  # fewer than one probe needs
    assert [m.person for m in gallery.identify(probes)] == [m.person for m in whole]


def test_of_equally_near_persons_the_first_by_name_is_taken() -> None:
    twins = Gallery(("zoe", "amy", "eve"), plane(0, 0, 90))
    (match,) = twins.identify(plane(0))
    assert (match.person, match.runner_up, match.margin) == ("amy", "zoe", 0.0)


def test_a_gallery_of_one_has_no_runner_up() -> None:
    (match,) = Gallery(("ann", "ann"), plane(0, 20)).identify(plane(20))
    assert match == Match("ann", pytest.approx(1.0), None, -1.0)  # type: ignore[arg-type]
    assert match.margin == pytest.approx(2.0)


def test_even_the_opposite_person_can_be_the_runner_up() -> None:
    (match,) = Gallery(("ann", "bob"), plane(0, 180)).identify(plane(0))
    assert (match.runner_up, match.runner_up_cosine) == ("bob", -1.0)


def test_an_empty_gallery_names_nobody() -> None:
    empty = Gallery((), features(0, 0))
    assert empty.identify(features(1, 3)) == [Match(None, -1.0, None, -1.0)] * 3
    assert empty.identify(features(1, 1))[0].margin == 0.0


def test_no_probes_no_matches() -> None:
    assert Gallery(("ann",), features(0, 1)).identify(features(1, 0)) == []


@pytest.mark.parametrize("count", [0, 2])
def test_probes_of_another_space_are_an_error(count: int) -> None:
    gallery = Gallery(("ann",) * count, features(0, count))
    with pytest.raises(SpaceMismatchError) as caught:
        gallery.identify(features(1, 1, "sha256:b"))
    assert caught.value.code is Code.SPACE_MISMATCH


def test_every_reference_has_a_person() -> None:
    with pytest.raises(InputError) as caught:
        Gallery(("ann",), features(0, 2))
    assert caught.value.code is Code.DATA_INSUFFICIENT


def test_verify_takes_the_best_reference_of_the_claimed_person() -> None:
    persons = tuple("cabacb")
    gallery, probes = Gallery(persons, features(0, 6)), features(1, 4)
    table = cosines(probes, gallery.features)
    for person in "abc":
        slow = [max(table[i, j] for j in range(6) if persons[j] == person) for i in range(4)]
        np.testing.assert_allclose(gallery.verify(person, probes), slow, atol=1e-6)
    assert gallery.verify("a", features(1, 0)).shape == (0,)


@pytest.mark.parametrize("person", ["", "aa", "bob", "zoe"])
def test_verify_of_somebody_without_reference_is_an_error(person: str) -> None:
    with pytest.raises(InputError) as caught:
        Gallery(("ann", "eve"), features(0, 2)).verify(person, features(1, 1))
    assert caught.value.code is Code.DATA_INSUFFICIENT
    with pytest.raises(InputError):
        Gallery((), features(0, 0)).verify(person, features(1, 1))


def test_verify_in_another_space_is_an_error() -> None:
    with pytest.raises(SpaceMismatchError):
        Gallery(("ann",), features(0, 1)).verify("ann", features(1, 1, "sha256:b"))


@pytest.mark.parametrize(
    ("score", "decision"),
    [
        (-1.0, Decision.UNKNOWN),
        (9.999, Decision.UNKNOWN),
        (10.0, Decision.REJECT),
        (29.999, Decision.REJECT),
        (30.0, Decision.ACCEPT),
        (math.inf, Decision.ACCEPT),
        (math.nan, Decision.REJECT),
    ],
)
def test_decisions_at_and_beside_the_thresholds(score: float, decision: Decision) -> None:
    assert DecisionRule().decide(score) is decision


def test_one_threshold_for_both_leaves_no_rejection() -> None:
    rule = DecisionRule(accept_score=20.0, unknown_score=20.0)
    assert {rule.decide(score) for score in (0.0, 19.9, 20.0, 40.0)} == {Decision.ACCEPT, Decision.UNKNOWN}


@pytest.mark.parametrize(("accept", "unknown"), [(10.0, 30.0), (math.nan, 1.0), (30.0, math.nan), (math.inf, 1.0)])
def test_thresholds_out_of_order_are_refused(accept: float, unknown: float) -> None:
    with pytest.raises(UsageError):
        DecisionRule(accept_score=accept, unknown_score=unknown)


def test_a_higher_score_never_gets_a_worse_decision() -> None:
    order = [Decision.UNKNOWN, Decision.REJECT, Decision.ACCEPT]
    rule = DecisionRule(accept_score=33.0, unknown_score=7.0)
    ranks = [order.index(rule.decide(score)) for score in np.linspace(-10, 130, 1_000)]
    assert ranks == sorted(ranks)
