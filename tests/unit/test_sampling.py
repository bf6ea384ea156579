from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from device_sim.records import as_json
from device_sim.sampling import (
    Kind,
    Liveness,
    Observation,
    Outcome,
    PassThroughLiveness,
    Rule,
    Sampler,
    SampleRules,
    judge,
    replay,
)
from tutelage.biometrics.matching import Decision
from tutelage.errors import UsageError

RULES = SampleRules()


def seen(score: float, **changes: object) -> Observation:
    """A capture of anna that scored so; the decision is the one the score calls for."""
    decision = Decision.ACCEPT if score >= 30 else Decision.REJECT
    given = {"id": 1, "time_s": 1000.0, "attempt": "", "person": "anna", "extrapolated": False, "decision": decision}
    return Observation(**{**given, "score": score, "reference_score": score, **changes})


def stream(*captures: tuple[float, float], rules: SampleRules = RULES, **changes: object) -> list[Outcome]:
    """Outcomes of captures given as (time, score), with ids from 1 on."""
    sampler = Sampler(rules)
    return [
        sampler.observe(seen(score, id=number, time_s=time_s, **changes))
        for number, (time_s, score) in enumerate(captures, start=1)
    ]


@pytest.mark.parametrize(
    ("score", "kind", "rule"),
    [
        (30.0, Kind.NOTHING, Rule.BELOW_INTERVAL),
        (math.nextafter(33.0, 0), Kind.NOTHING, Rule.BELOW_INTERVAL),
        (33.0, Kind.FIRST, Rule.SAMPLE_INTERVAL),
        (math.nextafter(60.0, 0), Kind.FIRST, Rule.SAMPLE_INTERVAL),
        (60.0, Kind.NOTHING, Rule.ABOVE_INTERVAL),
        (math.nextafter(30.0, 0), Kind.NOTHING, Rule.RETRIES_LEFT),
        (0.0, Kind.NOTHING, Rule.RETRIES_LEFT),
        (math.nan, Kind.NOTHING, Rule.NO_SCORE),
        (math.inf, Kind.NOTHING, Rule.NO_SCORE),
        (-math.inf, Kind.NOTHING, Rule.NO_SCORE),
    ],
)
def test_the_sample_interval_is_closed_below_and_open_above(score: float, kind: Kind, rule: Rule):
    outcome = Sampler(RULES).observe(seen(score))
    assert (outcome.kind, outcome.rule) == (kind, rule)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"live": False}, Rule.NOT_LIVE),
        ({"decision": Decision.UNKNOWN}, Rule.NOT_ACCEPTED),
        ({"person": None}, Rule.NOT_ACCEPTED),
        ({"reference_score": 32.9}, Rule.FAR_FROM_REFERENCES),
        ({"reference_score": math.nan}, Rule.FAR_FROM_REFERENCES),
        ({"duplicate_cosine": 0.9951}, Rule.NEAR_DUPLICATE),
        ({"duplicate_cosine": math.nan}, Rule.NEAR_DUPLICATE),
        ({"kept_today": 10}, Rule.PERSON_DAY_LIMIT),
    ],
)
def test_each_limit_alone_keeps_a_first_sample_out(changes: dict[str, object], rule: Rule):
    outcome = Sampler(RULES).observe(seen(40.0, **changes))
    assert (outcome.kind, outcome.rule) == (Kind.NOTHING, rule)


def test_at_its_limits_a_first_sample_is_still_kept():
    at_limits = seen(40.0, reference_score=33.0, duplicate_cosine=0.995, kept_today=9, second_today=10**6)
    assert Sampler(RULES).observe(at_limits).kind is Kind.FIRST


def test_the_third_consecutive_failure_is_a_second_sample_and_names_all_three():
    outcomes = stream((0, 29.9), (10, 5), (30, 20))
    assert [o.kind for o in outcomes] == [Kind.NOTHING, Kind.NOTHING, Kind.SECOND]
    assert [o.captures for o in outcomes] == [(1,), (1, 2), (1, 2, 3)]
    assert [o.rule for o in outcomes[:2]] == [Rule.RETRIES_LEFT] * 2
    assert outcomes[2].numbers["failures"] == 3


def test_a_second_sample_needs_nobody_enrolled_and_starts_the_count_anew():
    outcomes = stream(*[(t, 1.0) for t in range(7)], person=None, decision=Decision.UNKNOWN)
    assert [n for n, o in enumerate(outcomes, start=1) if o.kind is Kind.SECOND] == [3, 6]
    assert outcomes[5].captures == (4, 5, 6)


def test_an_acceptance_ends_a_run_of_failures():
    outcomes = stream((0, 1), (1, 1), (2, 31), (3, 1), (4, 1))
    assert [o.rule for o in outcomes[2:]] == [Rule.BELOW_INTERVAL, Rule.RETRIES_LEFT, Rule.RETRIES_LEFT]
    assert outcomes[4].captures == (4, 5)


def test_the_window_runs_from_the_first_failure_and_its_end_starts_anew():
    just_within = stream((0, 1), (29, 1), (30.0, 1))
    beyond = stream((0, 1), (29, 1), (30.001, 1), (31, 1), (32, 1))
    assert just_within[2].kind is Kind.SECOND
    assert [o.captures for o in beyond] == [(1,), (1, 2), (3,), (3, 4), (3, 4, 5)]


@pytest.mark.parametrize("jump_s", [-1e-3, -365 * 86_400.0, 365 * 86_400.0, math.nan])
def test_a_clock_that_jumps_starts_anew(jump_s: float):
    outcomes = stream((1000, 1), (1001, 1), (1001 + jump_s, 1))
    assert outcomes[2].captures == (3,)


def test_after_a_jump_back_the_sampler_goes_on_as_ever():
    outcomes = stream((1e9, 1), (5, 1), (6, 1), (7, 1))
    assert outcomes[3].captures == (2, 3, 4)
    assert outcomes[3].kind is Kind.SECOND


def test_failures_of_two_attempts_are_not_added_up():
    sampler = Sampler(RULES)
    outcomes = [sampler.observe(seen(1.0, id=i, attempt=a)) for i, a in enumerate("aabb", start=1)]
    assert [o.captures for o in outcomes] == [(1,), (1, 2), (3,), (3, 4)]


@pytest.mark.parametrize("spoiler", [{"live": False}, {"score": math.nan}])
def test_what_is_not_live_or_has_no_score_ends_a_run_and_is_in_none(spoiler: dict[str, object]):
    sampler = Sampler(RULES)
    captures = [seen(1.0, id=1), seen(1.0, id=2), seen(1.0, id=3, **{k: v for k, v in spoiler.items() if k != "score"})]
    if "score" in spoiler:
        captures[2] = seen(math.nan, id=3)
    outcomes = [sampler.observe(capture) for capture in (*captures, seen(1.0, id=4))]
    assert outcomes[2].kind is Kind.NOTHING
    assert outcomes[2].captures == ()
    assert outcomes[3].captures == (4,)


def test_nothing_that_fails_the_liveness_check_is_ever_learnt_from(rng: np.random.Generator):
    sampler = Sampler(RULES)
    alive = rng.random(500) < 0.8
    scores = rng.uniform(0, 70, 500)
    outcomes = [
        sampler.observe(seen(float(s), id=i, live=bool(a))) for i, (s, a) in enumerate(zip(scores, alive, strict=True))
    ]
    learnt = {i for i, o in enumerate(outcomes) if o.kind is Kind.FIRST}
    learnt |= {i for o in outcomes if o.kind is Kind.SECOND for i in o.captures}
    assert len(learnt) > 100
    assert alive[sorted(learnt)].all()


def test_second_samples_have_their_own_day_limit_and_hitting_it_starts_anew():
    outcomes = stream((0, 1), (1, 1), (2, 1), (3, 1), second_today=300)
    assert (outcomes[2].kind, outcomes[2].rule) == (Kind.NOTHING, Rule.SECOND_DAY_LIMIT)
    assert outcomes[3].captures == (4,)


def test_one_retry_makes_every_failure_a_second_sample():
    outcomes = stream((0, 1), (1, 1), rules=SampleRules(retries=1))
    assert [o.kind for o in outcomes] == [Kind.SECOND] * 2


def test_the_rules_follow_a_slow_reading_of_the_text(rng: np.random.Generator):
    """The run of failures recomputed from the whole past at every capture."""
    rules = SampleRules(retries=3, attempt_window_s=4)
    times = np.cumsum(rng.choice([0.5, 1, 3, -2], 400, p=[0.4, 0.4, 0.15, 0.05]))
    scores = rng.choice([10.0, 31.0], 400, p=[0.8, 0.2])
    attempts = np.cumsum(rng.random(400) < 0.1)
    sampler, run = Sampler(rules), []
    for i in range(400):
        fits = (
            run and i and times[i] >= times[i - 1] and times[i] - times[run[0]] <= 4 and attempts[i] == attempts[i - 1]
        )
        run = run if fits else []
        run = [*run, i] if scores[i] < 30 else []
        outcome = sampler.observe(seen(float(scores[i]), id=i, time_s=float(times[i]), attempt=str(attempts[i])))
        assert outcome.captures == tuple(run)
        assert (outcome.kind is Kind.SECOND) == (len(run) == 3)
        run = [] if len(run) == 3 else run


def test_every_verdict_replays_to_itself_after_a_journey_through_json(rng: np.random.Generator):
    rules = SampleRules(
        accept_score=20, sample_low=25, sample_high=40, retries=2, attempt_window_s=5, max_bytes=4_000_000
    )
    sampler = Sampler(rules)
    rules_met = set()
    for i in range(600):
        score = float(rng.choice([math.nan, rng.uniform(0, 20), rng.uniform(20, 45)], p=[0.05, 0.45, 0.5]))
        observation = seen(
            score,
            id=i,
            time_s=float(i),
            decision=Decision.ACCEPT if rng.random() < 0.9 else Decision.REJECT,
            reference_score=float(score - rng.choice([0, 10], p=[0.8, 0.2])),
            duplicate_cosine=float(rng.uniform(0.9, 1)),
            kept_today=int(rng.integers(0, 12)),
            second_today=int(rng.integers(250, 320)),
            live=bool(rng.random() < 0.9),
        )
        outcome = sampler.observe(observation)
        recorded = dataclasses.replace(outcome, numbers=json.loads(as_json(outcome.numbers)))
        again = replay(observation, recorded)
        assert (again.kind, again.rule, again.reason, again.captures) == (
            outcome.kind,
            outcome.rule,
            outcome.reason,
            outcome.captures,
        )
        rules_met.add(outcome.rule)
    assert rules_met == set(Rule)


def test_a_verdict_that_was_tampered_with_does_not_replay():
    outcome = judge(RULES, seen(40.0), ())
    assert replay(seen(29.0), outcome).kind is Kind.NOTHING


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample_low", 29.9),
        ("sample_high", 33.0),
        ("retries", 0),
        ("attempt_window_s", 0.0),
        ("attempt_window_s", math.nan),
        ("per_person_per_day", -1),
        ("second_per_day", -1),
        ("max_duplicate_cosine", 1.1),
    ],
)
def test_rules_that_contradict_each_other_are_refused_by_name(field: str, value: float):
    with pytest.raises(UsageError, match=field):
        SampleRules(**{field: value})


def test_the_default_liveness_lets_everything_pass():
    liveness: Liveness = PassThroughLiveness()
    assert liveness.live(np.zeros((8, 8), dtype=np.uint8))


def test_a_reason_names_nobody():
    for score in (10.0, 31.0, 40.0, 70.0):
        assert "anna" not in Sampler(RULES).observe(seen(score)).reason
