from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from gate_evidence import (
    FAR,
    HIT,
    MISS,
    RULES,
    check,
    evidence,
    lone,
    samples,
)

from device_sim.evidence import ScoredCapture
from device_sim.gate import Verdict, judge_gate
from device_sim.typed_json import plain
from tutelage.errors import Code, InputError, PersonError, UsageError

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
    text = json.dumps(plain(verdict), allow_nan=False)
    told = json.loads(text)
    assert told["passed"] is True
    assert told["rules"]["accept_score"] == 30.0
    assert told["checks"][0]["numbers"] == dict(verdict.checks[0].numbers)
    assert verdict.numbers["held-back"] == 1.0
    assert verdict.numbers["held-back.gained"] == 20
    assert len(verdict.numbers) == sum(1 + len(c.numbers) for c in verdict.checks)
    assert "p0" not in text
    assert isinstance(verdict, Verdict)


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
