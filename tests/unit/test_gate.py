from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from device_sim.evidence import Evidence, ScoredCapture
from device_sim.gate import Check, GateRules, Verdict, judge_gate
from tutelage.biometrics.calibration import LinearScore
from tutelage.errors import Code, InputError, PersonError, UsageError

RULES = GateRules()
HIT, MISS = 40.0, 20.0
# All of them stay below every mark.
FAR = (1.0,) * 160


def samples(*own: float, other: float | None = 0.0, person: str = "") -> tuple[ScoredCapture, ...]:
    """Held-back samples with these scores, two a person unless one is named."""
    return tuple(ScoredCapture(person or f"p{i // 2}", score, other) for i, score in enumerate(own))


def lone(persons: int, *, others: Sequence[float] = ()) -> tuple[ScoredCapture, ...]:
    """One reference a person, the first ones with these scores to another person's."""
    padded = (*others, *(0.0,) * (persons - len(others)))
    return tuple(ScoredCapture(f"p{i}", None, other) for i, other in enumerate(padded))


def evidence(
    held_back: tuple[ScoredCapture, ...] = samples(*(HIT,) * 20),
    references: tuple[ScoredCapture, ...] = lone(16),
    strangers: tuple[float, ...] = FAR,
    latency_s: tuple[float, ...] = (0.010,),
) -> Evidence:
    return Evidence(held_back, references, strangers, latency_s)


def accepted(count: int, score: float = HIT) -> tuple[float, ...]:
    return (*(score,) * count, *FAR[count:])


def check(name: str, running: Evidence, candidate: Evidence, rules: GateRules = RULES) -> Check:
    (found,) = (c for c in judge_gate(running, candidate, rules).checks if c.name == name)
    return found


# Slow counterparts of the formulas


def at_least(k: int, n: int, p: float) -> float:
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


def upper_bound(k: int, n: int, confidence: float) -> float:
    """Largest rate at which k or fewer of n are no rarer than half the risk, by halving the interval."""
    if k == n:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if 1.0 - at_least(k + 1, n, middle) > (1 - confidence) / 2:
            low = middle
        else:
            high = middle
    return low


def by_chance(n: int, rate: float, confidence: float) -> int:
    return next(k for k in range(n + 1) if at_least(k + 1, n, rate) <= 1 - confidence)


# The verdict


def test_an_equal_student_passes_everything():
    verdict = judge_gate(evidence(), evidence(), RULES)
    assert verdict.passed
    assert verdict.reasons == ()
    names = ["held-back", "persons", "references", "strangers", "strangers-near", "other-persons", "latency"]
    assert [c.name for c in verdict.checks] == names


def test_one_failed_check_refuses_and_says_why():
    slow = evidence(latency_s=(0.020,))
    verdict = judge_gate(evidence(), slow, RULES)
    assert not verdict.passed
    assert verdict.reasons == ("latency: 20.00 ms at best, before 10.00 ms: 2.00 times, 1.1 allowed",)
    assert verdict.lines()[0] == "refused by the gate"
    assert len(verdict.lines()) == 8
    assert [line for line in verdict.lines() if line.startswith("FAILS")] == [f"FAILS  {verdict.reasons[0]}"]
    assert judge_gate(evidence(), evidence(), RULES).lines()[0] == "passed the gate"


def test_a_verdict_is_plain_json_and_names_nobody():
    verdict = judge_gate(
        evidence(samples(*(MISS,) * 20, person="p0")), evidence(samples(*(HIT,) * 20, person="p0")), RULES
    )
    text = json.dumps(verdict.as_json(), allow_nan=False)
    told = json.loads(text)
    assert told["passed"] is True
    assert told["rules"]["accept_score"] == 30.0
    assert told["checks"][0]["numbers"] == dict(verdict.checks[0].numbers)
    assert verdict.numbers["held-back"] == 1.0
    assert verdict.numbers["held-back.gained"] == 20
    assert len(verdict.numbers) == sum(1 + len(c.numbers) for c in verdict.checks)
    assert "p0" not in text
    assert isinstance(verdict, Verdict)


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


def shared(*own: float) -> tuple[ScoredCapture, ...]:
    """References of persons who have several."""
    return tuple(ScoredCapture(f"p{i}", score, 0.0) for i, score in enumerate(own))


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


# latency


@pytest.mark.parametrize(("latency_s", "passed"), [((0.0109, 9.0, 9.0), True), ((0.0111, 0.0112), False)])
def test_latency_compares_what_each_needs_undisturbed(latency_s: tuple[float, ...], passed: bool):
    assert check("latency", evidence(), evidence(latency_s=latency_s)).passed is passed


# What cannot be judged


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"held_back": samples(*(HIT,) * 19)}, "held-back samples"),
        ({"held_back": samples(*(HIT,) * 20, person="p0")}, "held-back samples"),
        ({"references": lone(17)}, "references"),
        ({"strangers": FAR[1:]}, "strangers"),
    ],
)
def test_both_students_are_measured_on_the_same_captures(change: dict, what: str):
    with pytest.raises(UsageError, match=f"same {what}"):
        judge_gate(evidence(), evidence(**change), RULES)


def test_both_students_need_a_latency():
    with pytest.raises(UsageError, match="latency"):
        judge_gate(evidence(), evidence(latency_s=()), RULES)


@pytest.mark.parametrize(
    "change",
    [
        {"held_back": samples(math.nan)},
        {"references": lone(1, others=(math.nan,))},
        {"strangers": (math.nan,)},
        {"latency_s": (0.0,)},
        {"latency_s": (math.nan,)},
    ],
)
def test_evidence_that_is_no_number_is_refused(change: dict):
    with pytest.raises(InputError) as caught:
        evidence(**change)
    assert caught.value.code is Code.DATA_INSUFFICIENT


@pytest.mark.parametrize("capture", [ScoredCapture("absent", HIT, 0.0), ScoredCapture("p0", None, 0.0)])
def test_a_sample_of_nobody_enrolled_is_refused(capture: ScoredCapture):
    with pytest.raises(PersonError):
        evidence((capture,))


@pytest.mark.parametrize(
    "change",
    [
        {"confidence": 1.0},
        {"person_confidence": 0.0},
        {"chance_loss": 0.0},
        {"accept_score": math.inf},
        {"max_latency_ratio": 0.0},
        {"min_held_back": 0},
        {"min_strangers": 0},
    ],
)
def test_rules_that_decide_nothing_are_refused(change: dict):
    with pytest.raises(UsageError):
        replace(RULES, **change)


# Evidence from cosines


def test_evidence_is_the_best_score_over_own_and_over_other_references(rng: np.random.Generator):
    owners = ["a", "b", "a", "c", "b", "a"]
    truth = ["a", "b", "b", "c"]
    mutual, held_back, strangers = (rng.uniform(-1, 1, (rows, 6)) for rows in (6, 4, 7))
    found = Evidence.measured(
        LinearScore(),
        owners,
        mutual,
        held_back_persons=truth,
        held_back=held_back,
        strangers=strangers,
        latency_s=[0.5],
    )
    for i, person in enumerate(truth):
        own = max(held_back[i, j] for j in range(6) if owners[j] == person)
        other = max(held_back[i, j] for j in range(6) if owners[j] != person)
        assert found.held_back[i] == ScoredCapture(person, 50 * (1 + own), 50 * (1 + other))
    for i, person in enumerate(owners):
        own = max((mutual[i, j] for j in range(6) if owners[j] == person and j != i), default=None)
        other = max(mutual[i, j] for j in range(6) if owners[j] != person)
        assert found.references[i] == ScoredCapture(person, None if own is None else 50 * (1 + own), 50 * (1 + other))
    assert found.references[3].own is None
    assert found.strangers == tuple(50 * (1 + max(row)) for row in strangers)
    assert found.latency_s == (0.5,)


def test_nothing_is_measured_where_nothing_is():
    empty = Evidence.measured(
        LinearScore(),
        ["a"],
        [[1.0]],
        held_back_persons=[],
        held_back=np.empty((0, 1)),
        strangers=np.empty((0, 1)),
        latency_s=[],
    )
    assert empty == Evidence((), (ScoredCapture("a", None, None),), (), ())


@pytest.mark.parametrize("wrong", ["references", "held_back", "strangers"])
def test_cosines_of_another_size_are_refused(wrong: str):
    tables = {"references": np.ones((2, 2)), "held_back": np.ones((3, 2)), "strangers": np.ones((4, 2))}
    tables[wrong] = np.ones((5, 3))
    with pytest.raises(UsageError, match="are needed"):
        Evidence.measured(LinearScore(), ["a", "b"], held_back_persons=["a"] * 3, latency_s=[1.0], **tables)


def test_a_student_that_gives_no_numbers_is_refused():
    with pytest.raises(InputError):
        Evidence.measured(
            LinearScore(),
            ["a", "b"],
            np.ones((2, 2)),
            held_back_persons=["a"],
            held_back=np.array([[math.nan, 0.0]]),
            strangers=np.ones((1, 2)),
            latency_s=[1.0],
        )


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
