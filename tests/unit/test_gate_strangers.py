"""What the gate asks about those who do not belong: strangers, and persons taken for one another."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gate_evidence import (
    FAR,
    HIT,
    RULES,
    accepted,
    by_chance,
    check,
    evidence,
    lone,
    samples,
    shared,
    upper_bound,
)

from device_sim.evidence import Evidence, ScoredCapture
from device_sim.gate import judge_gate
from tutelage.errors import UsageError

# strangers


@pytest.mark.parametrize("before", [0, 1, 2, 5, 9, 160])
def test_strangers_are_bounded_by_the_former_student_and_by_chance(before: int):
    high = upper_bound(before, 160, 0.95)
    chance = by_chance(160, 1 - (1 - 1e-3) ** 16, 0.95)
    allowed = min(int(high * 160), max(chance, before))
    for after in {0, before, allowed, min(allowed + 1, 160), 160}:
        found = check("strangers", evidence(strangers=accepted(before)), evidence(strangers=accepted(after)))
        assert found.passed is (after <= allowed)
        assert found.numbers["allowed"] == allowed
        assert found.numbers["running_high"] == pytest.approx(high)
        assert found.numbers["nominal_rate"] == pytest.approx(1 - (1 - 1e-3) ** 16)
        assert found.numbers["nominal_allowed"] == chance
        assert found.numbers["newly_accepted"] == max(0, after - before)


@pytest.mark.parametrize(("before", "allowed"), [(0, 3), (1, 5), (2, 5), (5, 5), (6, 6), (20, 20)])
def test_strangers_allowed_with_sixteen_references_and_160_captures(before: int, allowed: int):
    running = evidence(strangers=accepted(before))
    assert check("strangers", running, evidence(strangers=accepted(allowed))).passed
    assert not check("strangers", running, evidence(strangers=accepted(allowed + 1))).passed


def test_the_rate_cannot_creep_up_from_generation_to_generation():
    count = 0
    for _ in range(6):
        running = evidence(strangers=accepted(count))
        count = max(k for k in range(12) if check("strangers", running, evidence(strangers=accepted(k))).passed)
    assert count == 5


@pytest.mark.parametrize(("name", "score"), [("strangers", HIT), ("strangers-near", 25.0)])
@pytest.mark.parametrize(("released", "most"), [(0, 3), (1, 5), (2, 7)])
def test_no_chain_of_students_walks_beyond_the_bound_of_the_version_they_were_made_of(
    name: str, score: float, released: int, most: int
):
    """However many there are, and however little each takes; chance at the nominal rate is 5 for `strangers`."""
    anchor, count = accepted(released, score), released
    for _ in range(8):
        running = evidence(strangers=accepted(count, score))
        count = max(
            k for k in range(20) if check(name, running, evidence(strangers=accepted(k, score)), released=anchor).passed
        )
    assert count == (min(most, 5) if name == "strangers" else most)


def test_a_student_no_worse_than_one_beyond_the_ceiling_is_not_refused_for_it():
    """Somebody was enrolled meanwhile, to whom strangers are like: no student of today is to blame."""
    running = evidence(strangers=accepted(4))
    found = check("strangers", running, evidence(strangers=accepted(4)), released=accepted(0))
    assert found.passed
    assert (found.numbers["released_accepted"], found.numbers["released_allowed"]) == (0, 3)
    assert not check("strangers", running, evidence(strangers=accepted(5)), released=accepted(0)).passed


def test_the_released_version_must_be_measured_on_the_same_strangers():
    with pytest.raises(UsageError, match="released"):
        judge_gate(evidence(), evidence(), RULES, released=FAR[1:])


def test_a_score_without_a_rate_is_held_to_the_former_student_alone():
    rules = replace(RULES, nominal=False)
    running = evidence(strangers=accepted(5))
    allowed = int(upper_bound(5, 160, 0.95) * 160)
    assert allowed == 11
    found = check("strangers", running, evidence(strangers=accepted(allowed)), rules)
    assert found.passed
    assert "nominal_rate" not in found.numbers
    assert not check("strangers", running, evidence(strangers=accepted(allowed + 1)), rules).passed


def test_strangers_who_come_near_are_held_to_the_former_student():
    near = lambda count: evidence(strangers=accepted(count, 20.0))  # noqa: E731
    allowed = int(upper_bound(24, 160, 0.95) * 160)
    assert allowed == 34
    assert check("strangers-near", near(24), near(allowed)).passed
    failed = check("strangers-near", near(24), near(allowed + 1))
    assert not failed.passed
    assert failed.reason == "35 of 160 strangers' captures at score 20 or more, before 24; 34 allowed"
    assert judge_gate(near(24), near(35), RULES).reasons == (f"strangers-near: {failed.reason}",)


@pytest.mark.parametrize(("count", "passed"), [(0, False), (29, False), (30, True)])
def test_too_few_strangers_prove_nothing(count: int, passed: bool):
    few = evidence(strangers=FAR[:count])
    assert check("strangers", few, few).passed is passed
    assert judge_gate(few, few, RULES).passed is passed


# other-persons


def test_samples_accepted_as_another_person_are_bounded_likewise():
    def with_others(count: int) -> Evidence:
        return evidence(tuple(ScoredCapture(f"p{i}", 50.0, HIT if i < count else 0.0) for i in range(16)))

    rate = 1 - (1 - 1e-3) ** 15
    allowed = min(int(upper_bound(0, 16, 0.95) * 16), by_chance(16, rate, 0.95))
    assert allowed == 1
    assert check("other-persons", with_others(0), with_others(1)).passed
    failed = check("other-persons", with_others(0), with_others(2))
    assert not failed.passed
    assert failed.numbers["nominal_rate"] == pytest.approx(rate)
    assert check("other-persons", with_others(2), with_others(2)).passed


def test_the_nominal_rate_counts_the_references_of_others_alone():
    references = lone(3) + shared(HIT, HIT)  # two references more, of p0 and p1
    held_back = tuple(ScoredCapture(p, HIT, 0.0) for p in ("p0", "p0", "p1", "p2", "p2"))
    both = evidence(held_back, references)
    rates = [1 - (1 - 1e-3) ** others for others in (3, 3, 3, 4, 4)]
    assert check("other-persons", both, both).numbers["nominal_rate"] == pytest.approx(sum(rates) / 5)


def test_nobody_is_mistaken_where_nobody_else_is_enrolled():
    alone = evidence(samples(*(HIT,) * 6, other=None, person="p0"), (ScoredCapture("p0", None, None),))
    assert judge_gate(alone, alone, RULES).passed
