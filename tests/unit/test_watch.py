from __future__ import annotations

import json
import math
from collections import Counter
from fractions import Fraction

import pytest

from device_sim.watch import Tally, WatchDecision, WatchRules, judge_watch
from tutelage.errors import UsageError

RULES = WatchRules()
# Attempts of one capture each, where nothing else is said.
BEFORE = Tally(captures=150, attempts=150, failed=15)


def since(captures: int, failed: int, retried: int = 0) -> Tally:
    return Tally(captures=captures, attempts=captures - retried, failed=failed, retried=retried)


def rise(former: int, before: int, now: int, after: int) -> float:
    """Fisher's exact test by counting all ways to spread what happened over the attempts."""
    happened = former + now
    ways = sum(math.comb(after, k) * math.comb(before, happened - k) for k in range(now, min(happened, after) + 1))
    return float(Fraction(ways, math.comb(before + after, happened)))


@pytest.mark.parametrize("captures", [40, 41, 120, 199, 200, 260])
def test_fisher_decides_at_the_risk_of_one_look(captures: int):
    risk = 0.01 / 4 if captures >= 200 else 0.01 / 4 / 160
    decisions = Counter()
    for failed in range(captures + 1):
        p = rise(15, 150, failed, captures)
        verdict = judge_watch(BEFORE, since(captures, failed), RULES)
        assert verdict.numbers["failed_p"] == pytest.approx(p, rel=1e-6)
        assert verdict.numbers["risk"] == pytest.approx(risk)
        assert (verdict.decision is WatchDecision.REVERT) is (p <= risk)
        decisions[verdict.decision] += 1
    assert decisions[WatchDecision.REVERT] > 0
    assert decisions[WatchDecision.PASSED if captures >= 200 else WatchDecision.KEEP_WATCHING] > 0


def test_all_looks_together_stay_within_the_risk_of_the_window():
    rules = WatchRules(window_captures=90, min_captures=30, confidence=0.95)
    looks = [judge_watch(BEFORE, since(n, 0), rules).numbers["risk"] for n in range(91)]
    assert looks[:30] == [0.0] * 30
    assert 2 * math.fsum(looks) == pytest.approx(0.05)  # two shares are looked at


@pytest.mark.parametrize(("failed", "reverted"), [(45, True), (44, True), (43, False)])
def test_a_borderline_at_the_end_of_the_window(failed: int, reverted: bool):
    assert (rise(15, 150, failed, 200) <= 0.0025) is reverted
    verdict = judge_watch(BEFORE, since(200, failed), RULES)
    assert verdict.decision is (WatchDecision.REVERT if reverted else WatchDecision.PASSED)


def test_nothing_is_decided_before_the_least_number_of_captures():
    verdict = judge_watch(BEFORE, since(39, 39), RULES)
    assert verdict.decision is WatchDecision.KEEP_WATCHING
    assert verdict.reason == "39 of 200 captures watched"
    assert judge_watch(BEFORE, since(40, 40), RULES).decision is WatchDecision.REVERT


def test_retries_alone_can_revert():
    verdict = judge_watch(BEFORE, since(200, 0, retried=60), RULES)
    assert verdict.decision is WatchDecision.REVERT
    assert verdict.reason.startswith("60 of 140 attempts retried, before 0 of 150 (p ")
    assert verdict.numbers["retried_p"] == pytest.approx(rise(0, 150, 60, 140), rel=1e-6)
    assert verdict.numbers["failed_p"] == 1.0


def test_both_shares_are_told_of():
    verdict = judge_watch(BEFORE, since(200, 100, retried=60), RULES)
    first, second = verdict.reason.split("; ")
    assert first.startswith("100 of 140 attempts failed, before 15 of 150")
    assert second.startswith("60 of 140 attempts retried")


def test_getting_better_passes():
    verdict = judge_watch(Tally(150, 150, 100), since(200, 2), RULES)
    assert verdict.decision is WatchDecision.PASSED
    assert verdict.reason == ("200 of 200 captures watched, no clear rise: 2 of 200 attempts failed, before 100 of 150")


@pytest.mark.parametrize("before", [Tally(), Tally(1, 1, 1)])
def test_little_to_compare_with_never_reverts(before: Tally):
    for captures in (40, 199):
        assert judge_watch(before, since(captures, captures), RULES).decision is WatchDecision.KEEP_WATCHING
    assert judge_watch(before, since(200, 200), RULES).decision is WatchDecision.PASSED


def test_a_first_student_passes_and_says_that_nothing_was_compared():
    verdict = judge_watch(Tally(), since(200, 200), RULES)
    assert verdict.reason == "200 of 200 captures watched, there was nothing before the swap to compare with"


def test_before_anything_happened():
    verdict = judge_watch(Tally(), Tally(), RULES)
    assert verdict.decision is WatchDecision.KEEP_WATCHING
    assert (verdict.numbers["failed_p"], verdict.numbers["failed_low"]) == (1.0, 0.0)


def test_a_verdict_is_plain_json():
    verdict = judge_watch(BEFORE, since(120, 12, retried=8), RULES)
    text = json.loads(json.dumps(dict(verdict.numbers), allow_nan=False))
    assert text["failed_before"] == 0.1
    assert text["failed_since"] == pytest.approx(12 / 112)
    assert text["retried_since"] == pytest.approx(8 / 112)
    assert 0 < text["failed_low"] < 12 / 112


def test_a_tally_grows_by_attempts():
    tally = Tally().after(1, accepted=True).after(3, accepted=False).after(2, accepted=True)
    assert tally == Tally(captures=6, attempts=3, failed=1, retried=2)


@pytest.mark.parametrize(
    "counts",
    [
        {"captures": 3, "attempts": 2, "failed": 3},
        {"captures": 3, "attempts": 2, "failed": -1},
        {"captures": 9, "attempts": 2, "retried": 3},
        {"captures": 1, "attempts": 2},
        {"captures": 3, "attempts": 2, "retried": 2},
        {"captures": 3, "attempts": 2, "retried": -1},
    ],
)
def test_counts_that_contradict_each_other_are_refused(counts: dict[str, int]):
    with pytest.raises(UsageError, match="no counts of attempts"):
        Tally(**counts)


@pytest.mark.parametrize(
    "change",
    [{"min_captures": 0}, {"min_captures": 201}, {"window_captures": 0}, {"confidence": 1.0}, {"confidence": 0.0}],
)
def test_rules_that_decide_nothing_are_refused(change: dict[str, float]):
    with pytest.raises(UsageError):
        WatchRules(**change)


def test_a_window_of_one_look():
    rules = WatchRules(window_captures=50, min_captures=50)
    assert judge_watch(BEFORE, since(49, 49), rules).decision is WatchDecision.KEEP_WATCHING
    assert judge_watch(BEFORE, since(50, 50), rules).decision is WatchDecision.REVERT
    assert judge_watch(BEFORE, since(50, 0), rules).decision is WatchDecision.PASSED
