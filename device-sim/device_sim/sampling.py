"""Which captures a device keeps to learn from, and which it must not.

A *first sample* was surely recognised, yet not so easily that it teaches nothing: an accepted capture whose score lies
in the sample interval; its label is the person matched. A *second sample* is what recognition missed: the last capture
of several consecutive failures within one attempt; its label has to come from the teacher. Limits stand beside both,
because whoever decides what is learnt decides who is let in tomorrow: fewer than ten injected captures have been enough
to impersonate (Lovisotto et al. 2020). The rules are numbers in, verdict out: no pixels, no clock, no store. Every
verdict carries all numbers it was made from, so that it can be made again (`replay`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Protocol

from tutelage.biometrics.matching import Decision
from tutelage.captures import Pixels
from tutelage.errors import UsageError

MAX_BYTES = 64 * 2**20
"""Bound of a device's store: some ten thousand captures of 64 x 64."""
NO_NEIGHBOUR = -1.0
"""Cosine to the nearest kept sample where there is none: the lowest there is."""

_RULES_PREFIX = "rules."


class Kind(StrEnum):
    """What a capture is kept as."""

    FIRST = "first"
    SECOND = "second"
    NOTHING = "nothing"


class Rule(StrEnum):
    """The one rule that decided about a capture; the first two keep it, all others do not."""

    SAMPLE_INTERVAL = "sample-interval"
    REPEATED_FAILURE = "repeated-failure"
    NOT_LIVE = "not-live"
    NO_SCORE = "no-score"
    RETRIES_LEFT = "retries-left"
    SECOND_DAY_LIMIT = "second-day-limit"
    NOT_ACCEPTED = "not-accepted"
    BELOW_INTERVAL = "below-interval"
    ABOVE_INTERVAL = "above-interval"
    FAR_FROM_REFERENCES = "far-from-references"
    NEAR_DUPLICATE = "near-duplicate"
    PERSON_DAY_LIMIT = "person-day-limit"


class Liveness(Protocol):
    """Whoever can tell a living person from a picture of one."""

    def live(self, capture: Pixels) -> bool:
        """Whether `capture`, (H, W) or (H, W, 3), may be of a living person; what fails is never learnt from."""


class PassThroughLiveness:
    """Takes every capture for live: for sensors that check this themselves, and for simulation."""

    def live(self, capture: Pixels) -> bool:  # noqa: ARG002 - the interface's argument
        """Always true."""
        return True


@dataclass(frozen=True)
class SampleRules:
    """Thresholds and limits of sampling; scores are -10·log10(FMR)."""

    accept_score: float = 30.0
    """Score at which a person is accepted; below it a capture is a failure. 30: one false match in 1,000."""
    sample_low: float = 33.0
    """Lowest score of a first sample, against the original references too: half the false matches of `accept_score`,
    since a wrong label is learnt again and again while a wrong acceptance happens once."""
    sample_high: float = 60.0
    """First samples score below this: what is recognised as surely as one false match in a million is boring."""
    retries: int = 3
    """Consecutive failures that make a second sample; 1 or more. With fewer, every slip of a finger would go to the
    teacher."""
    attempt_window_s: float = 30.0
    """Seconds from the first failure to the last: beyond, it may be another person who stands there."""
    per_person_per_day: int = 10
    """First samples kept of one person in one day (UTC), so that nobody can shift their own model, or have it shifted,
    within a day."""
    second_per_day: int = 300
    """Second samples kept in one day (UTC), so that a stranger who hammers the sensor does not fill the store."""
    max_duplicate_cosine: float = 0.995
    """A first sample whose cosine to a kept one of the same person is above this is its duplicate: it teaches nothing
    and gives one moment too much weight."""
    max_bytes: int = MAX_BYTES
    """Bytes of the device's whole store, captures and history; what was used or is boring goes first."""

    def __post_init__(self) -> None:
        """Refuse rules that contradict each other.

        Raises:
            UsageError: names the field and its value.
        """
        _require(self.accept_score <= self.sample_low, "sample_low must not be below accept_score", self.sample_low)
        _require(self.sample_low < self.sample_high, "sample_high must be above sample_low", self.sample_high)
        _require(self.retries >= 1, "retries must be 1 or more", self.retries)
        _require(self.attempt_window_s > 0, "attempt_window_s must be above 0", self.attempt_window_s)
        _require(self.per_person_per_day >= 0, "per_person_per_day must not be negative", self.per_person_per_day)
        _require(self.second_per_day >= 0, "second_per_day must not be negative", self.second_per_day)
        _require(
            -1 <= self.max_duplicate_cosine <= 1, "max_duplicate_cosine must be a cosine", self.max_duplicate_cosine
        )


@dataclass(frozen=True)
class Observation:
    """What is known of one recognised capture when the rules look at it."""

    id: int
    """The decision's number in the store; grows with every capture."""
    time_s: float
    """Seconds since the epoch by the device's clock, which may be wrong and may jump."""
    attempt: str
    """Id of the attempt, where the sensor knows when somebody comes and goes; else always the same text."""
    person: str | None
    """Nearest person; `None` where nobody is enrolled."""
    score: float
    """Score of `person`; anything that is not a finite number counts as no score."""
    extrapolated: bool
    """Whether the score lies beyond what the calibration could measure."""
    decision: Decision
    """What the device answered."""
    reference_score: float
    """Score against the *original* references of `person`; equals `score` where the gallery holds nothing else."""
    duplicate_cosine: float = NO_NEIGHBOUR
    """Cosine to the nearest kept sample of `person`, [-1, 1]."""
    kept_today: int = 0
    """First samples of `person` kept on this day, whatever became of them."""
    second_today: int = 0
    """Second samples kept on this day, whatever became of them."""
    live: bool = True
    """What the liveness hook said."""


@dataclass(frozen=True)
class Outcome:
    """Verdict of the rules on one capture."""

    kind: Kind
    """What to keep it as."""
    rule: Rule
    """The rule that decided; where it is a limit, the limit that was hit."""
    reason: str
    """The same for a person to read; names nobody."""
    numbers: Mapping[str, float]
    """Every number that was looked at, and all rules as `rules.<field>`."""
    captures: tuple[int, ...] = ()
    """Ids of the run of failures that this capture continues, oldest first, itself last. With a second sample they are
    one person's and can be labelled together. Empty where the capture is no failure."""


class Sampler:
    """Follows the captures of one sensor in order and remembers the run of failures; not safe for several threads."""

    def __init__(self, rules: SampleRules) -> None:
        """Start with no failures behind."""
        self.rules = rules
        self._run: tuple[int, ...] = ()
        self._attempt = ""
        self._started_s = 0.0
        self._last_s = 0.0

    def observe(self, observation: Observation) -> Outcome:
        """Verdict on the next capture.

        A run of failures ends with anything but a failure, with a second sample, with another attempt, when its window
        is over, and when the clock went backwards: then nobody knows how long it took.
        """
        if self._over(observation):
            self._run = ()
        if not self._run:
            self._started_s = observation.time_s
        outcome = judge(self.rules, observation, self._run)
        self._run = outcome.captures if outcome.rule is Rule.RETRIES_LEFT else ()
        self._attempt, self._last_s = observation.attempt, observation.time_s
        return outcome

    def _over(self, observation: Observation) -> bool:
        """Whether `observation` cannot belong to the run behind."""
        return not (
            observation.attempt == self._attempt
            and self._last_s <= observation.time_s <= self._started_s + self.rules.attempt_window_s
        )


def judge(rules: SampleRules, observation: Observation, earlier: tuple[int, ...]) -> Outcome:
    """Verdict of the rules alone; `earlier` are the ids of the failures that directly precede in the same attempt."""
    failed = observation.live and observation.score < rules.accept_score
    run = (*earlier, observation.id) if failed and math.isfinite(observation.score) else ()
    kind, rule, reason = _verdict(rules, observation, len(run))
    return Outcome(kind, rule, reason, _numbers(rules, observation, len(run)), run)


def replay(observation: Observation, recorded: Outcome) -> Outcome:
    """The verdict made again from what was recorded with it; equals `recorded` unless the record was changed."""
    rules = SampleRules(**_recorded_rules(recorded.numbers))
    return judge(rules, observation, recorded.captures[:-1])


def _verdict(rules: SampleRules, seen: Observation, failures: int) -> tuple[Kind, Rule, str]:
    """Kind, rule and reason."""
    if not seen.live:
        return Kind.NOTHING, Rule.NOT_LIVE, "the liveness check failed"
    if not math.isfinite(seen.score):
        return Kind.NOTHING, Rule.NO_SCORE, "the score is not a number"
    if seen.score < rules.accept_score:
        return _failure(rules, seen, failures)
    return _acceptance(rules, seen)


def _failure(rules: SampleRules, seen: Observation, failures: int) -> tuple[Kind, Rule, str]:
    """Verdict on a capture that scored below the accept score, the last of so many `failures`."""
    if failures < rules.retries:
        return Kind.NOTHING, Rule.RETRIES_LEFT, f"failure {failures} of {rules.retries} within one attempt"
    if seen.second_today >= rules.second_per_day:
        reason = f"{seen.second_today} second samples were kept that day, {rules.second_per_day} are allowed"
        return Kind.NOTHING, Rule.SECOND_DAY_LIMIT, reason
    reason = (
        f"{failures} consecutive scores below {rules.accept_score:g} within {rules.attempt_window_s:g} s, "
        f"the last one {seen.score:.1f}"
    )
    return Kind.SECOND, Rule.REPEATED_FAILURE, reason


def _acceptance(rules: SampleRules, seen: Observation) -> tuple[Kind, Rule, str]:
    """Verdict on a capture that scored high enough to be accepted: the first limit it breaks, else a first sample."""
    for rule, holds, reason in _limits(rules, seen):
        if not holds:
            return Kind.NOTHING, rule, reason
    kept = f"score {seen.score:.1f} lies in the sample interval {rules.sample_low:g} to {rules.sample_high:g}"
    return Kind.FIRST, Rule.SAMPLE_INTERVAL, kept


def _limits(rules: SampleRules, seen: Observation) -> Iterator[tuple[Rule, bool, str]]:
    """Each limit on first samples, whether it holds (what is no number never does), and what to say if not."""
    low, high, score = rules.sample_low, rules.sample_high, seen.score
    accepted = seen.decision is Decision.ACCEPT and seen.person is not None
    yield Rule.NOT_ACCEPTED, accepted, f"the device answered {seen.decision.value}"
    yield (
        Rule.BELOW_INTERVAL,
        score >= low,
        f"score {score:.1f} is accepted, but below {low:g}: too close to learn from",
    )
    yield Rule.ABOVE_INTERVAL, score < high, f"score {score:.1f} is not below {high:g}: boring"
    yield (
        Rule.FAR_FROM_REFERENCES,
        seen.reference_score >= low,
        f"score {seen.reference_score:.1f} against the original references is below {low:g}",
    )
    yield (
        Rule.NEAR_DUPLICATE,
        seen.duplicate_cosine <= rules.max_duplicate_cosine,
        f"cosine {seen.duplicate_cosine:.4f} to a kept sample is above {rules.max_duplicate_cosine:g}",
    )
    yield (
        Rule.PERSON_DAY_LIMIT,
        seen.kept_today < rules.per_person_per_day,
        f"{seen.kept_today} samples of the person were kept that day, {rules.per_person_per_day} are allowed",
    )


def _numbers(rules: SampleRules, seen: Observation, failures: int) -> dict[str, float]:
    looked_at = {
        "score": seen.score,
        "reference_score": seen.reference_score,
        "duplicate_cosine": seen.duplicate_cosine,
        "kept_today": seen.kept_today,
        "second_today": seen.second_today,
        "live": int(seen.live),
        "failures": failures,
    }
    return looked_at | {f"{_RULES_PREFIX}{name}": value for name, value in asdict(rules).items()}


def _recorded_rules(numbers: Mapping[str, float]) -> dict[str, Any]:
    return {field.name: numbers[_RULES_PREFIX + field.name] for field in fields(SampleRules)}


def _require(holds: bool, rule: str, value: float) -> None:
    if not holds:
        raise UsageError(f"{rule}: {value}")
