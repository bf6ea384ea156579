"""What the gate asks of those who belong: nobody may be missed more often than before."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gate_evidence import (
    HIT,
    MISS,
    RULES,
    at_least,
    check,
    evidence,
    lone,
    samples,
    shared,
    upper_bound,
)

from device_sim.evidence import ScoredCapture
from device_sim.gate import Check, GateRules
from tutelage.errors import UsageError

# held-back


@pytest.mark.parametrize(
    ("before", "after", "passed"),
    [
        ((HIT,) * 20, (HIT,) * 20, True),
        ((HIT,) * 20, (HIT,) * 19 + (MISS,), False),
        ((MISS,) + (HIT,) * 19, (HIT,) * 19 + (MISS,), True),
        ((MISS,) + (HIT,) * 19, (HIT,) * 18 + (MISS,) * 2, False),
        ((MISS,) * 20, (MISS,) * 20, True),
        ((MISS,) * 20, (HIT,) * 20, True),
    ],
)
def test_misses_must_not_become_more(before: tuple[float, ...], after: tuple[float, ...], passed: bool):
    assert check("held-back", evidence(samples(*before)), evidence(samples(*after))).passed is passed


@pytest.mark.parametrize(("score", "passed"), [(30.0, True), (np.nextafter(30.0, 0), False)])
def test_the_accept_score_itself_is_accepted(score: float, passed: bool):
    candidate = evidence(samples(score, *(HIT,) * 19))
    assert check("held-back", evidence(), candidate).passed is passed


def test_an_acceptance_as_the_wrong_person_is_a_miss():
    confused = (ScoredCapture("p0", 50.0, 50.0), *samples(*(HIT,) * 20)[1:])
    found = check("held-back", evidence(), evidence(confused))
    assert not found.passed
    assert found.numbers["candidate_missed"] == 1


@pytest.mark.parametrize(("count", "passed"), [(0, False), (4, False), (5, True)])
def test_too_few_held_back_samples_prove_nothing(count: int, passed: bool):
    few = evidence(samples(*(HIT,) * count))
    found = check("held-back", few, few)
    assert found.passed is passed
    if not passed:
        assert found.reason == f"{count} held-back samples are too few, 5 are needed"


def test_the_least_number_of_samples_finds_the_loss_of_every_second_capture():
    assert 0.5**RULES.min_held_back < 0.05 < 0.5 ** (RULES.min_held_back - 1)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (0, 3), (1, 0), (5, 0), (2, 2), (6, 1)])
def test_numbers_of_the_held_back_samples(lost: int, gained: int):
    before = (HIT,) * lost + (MISS,) * gained + (MISS,) * 2 + (HIT,) * (18 - lost - gained)
    after = (MISS,) * lost + (HIT,) * gained + (MISS,) * 2 + (HIT,) * (18 - lost - gained)
    numbers = check("held-back", evidence(samples(*before)), evidence(samples(*after))).numbers
    assert numbers["samples"] == 20
    assert (numbers["lost"], numbers["gained"]) == (lost, gained)
    assert (numbers["running_missed"], numbers["candidate_missed"]) == (gained + 2, lost + 2)
    assert numbers["p_not_worse"] == pytest.approx(at_least(lost, lost + gained, 0.5))
    assert numbers["running_high"] == pytest.approx(upper_bound(gained + 2, 20, 0.95))
    assert numbers["candidate_high"] == pytest.approx(upper_bound(lost + 2, 20, 0.95))
    assert numbers["lost_high"] == pytest.approx(upper_bound(lost, 20, 0.95))


# persons


def one_person(lost: int, of: int, gained: int = 0) -> Check:
    """Verdict where one person lost captures, and others gained enough that misses do not become more."""
    others = samples(*(MISS,) * lost, person="p1"), samples(*(HIT,) * lost, person="p1")
    before = samples(*(HIT,) * of, *(MISS,) * gained, person="p0") + others[0]
    after = samples(*(MISS,) * lost, *(HIT,) * (of - lost + gained), person="p0") + others[1]
    return check("persons", evidence(before), evidence(after))


@pytest.mark.parametrize("of", range(1, 13))
def test_a_person_may_lose_what_chance_explains(of: int):
    for lost in range(of + 1):
        p = at_least(lost, of, 0.1)
        found = one_person(lost, of)
        assert found.passed is (p > 0.025), (lost, of)
        assert found.numbers["smallest_p"] == pytest.approx(p)


@pytest.mark.parametrize(
    ("lost", "of", "passed"), [(1, 1, True), (2, 2, False), (2, 3, True), (3, 6, False), (3, 7, True), (4, 10, False)]
)
def test_borderline_losses_of_a_person(lost: int, of: int, passed: bool):
    assert one_person(lost, of).passed is passed


@pytest.mark.parametrize(("gained", "passed"), [(2, False), (3, True), (4, True)])
def test_a_person_who_gains_as_much_is_not_worse(gained: int, passed: bool):
    found = one_person(3, 3, gained)
    assert found.passed is passed
    assert found.numbers["persons"] == 2
    assert found.numbers["worse"] == (not passed)
    assert found.numbers["most_lost"] == 3


# references


@pytest.mark.parametrize(
    ("before", "after", "passed"),
    [
        ((HIT,) * 16, (HIT,) * 16, True),
        ((HIT,) * 16, (HIT,) * 15 + (MISS,), False),
        ((MISS,) + (HIT,) * 15, (MISS,) + (HIT,) * 15, True),
        ((MISS,) + (HIT,) * 15, (HIT,) * 16, True),
        # As many missed as before, but another one.
        ((MISS,) + (HIT,) * 15, (HIT,) * 15 + (MISS,), False),
    ],
)
def test_no_reference_may_be_newly_missed(before: tuple[float, ...], after: tuple[float, ...], passed: bool):
    running, candidate = evidence(references=shared(*before)), evidence(references=shared(*after))
    assert check("references", running, candidate).passed is passed


@pytest.mark.parametrize(("before", "after", "passed"), [(0, 0, True), (0, 1, False), (2, 2, True), (2, 3, False)])
def test_lone_references_may_not_be_mistaken_more_often(before: int, after: int, passed: bool):
    running = evidence(references=lone(16, others=(30.0,) * before))
    candidate = evidence(references=lone(16, others=(30.0,) * after))
    found = check("references", running, candidate)
    assert found.passed is passed
    assert (found.numbers["running_mistaken"], found.numbers["candidate_mistaken"]) == (before, after)


# The slack of references


def references(score: float) -> tuple[ScoredCapture, ...]:
    """Two a person, of which one of the first person's has this score."""
    return (ScoredCapture("p0", score, 0.0), *samples(*(HIT,) * 20))


@pytest.mark.parametrize(("slack", "score", "passes"), [(0.0, 29.9, False), (2.0, 28.0, True), (2.0, 27.9, False)])
def test_a_reference_may_fall_short_by_the_slack_and_no_more(slack: float, score: float, passes: bool):
    running = evidence(references=references(30.1))
    candidate = evidence(references=references(score))
    found = check("references", running, candidate, GateRules(reference_slack=slack))
    assert found.passed is passes
    assert found.numbers["newly_missed"] == (not passes)


@pytest.mark.parametrize("slack", [-0.1, 10.1, math.nan])
def test_a_slack_that_lets_everything_pass_is_refused(slack: float):
    with pytest.raises(UsageError, match="reference_slack"):
        GateRules(reference_slack=slack)
