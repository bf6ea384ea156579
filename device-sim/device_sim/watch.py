"""The watch window: whether people at the device are worse off since the last swap of students.

The gate judges on samples that were kept; after a swap the device sees everybody. Nobody says who stands there, so what
can be watched is how attempts end: the share that ends without acceptance and the share that takes more than one
capture, since the swap against before it. Captures of one attempt are alike, hence one attempt is one trial.

Each share is held against the former one by Fisher's exact test (Fisher 1934), one-sided: only a rise is harm, and a
rise of acceptance is what a swap is for, so strangers let in cannot be seen here - that is the gate's part. The window
may be looked at after every capture, and whoever looks often sees something odd sooner or later. So the chance of a
wrong revert, 1 - `confidence` for the whole window, is shared out: half to the end of the window, half in equal parts
to the captures before it at which a look is possible, and each again to the two shares (Bonferroni). That holds however
often and however irregularly one looks.

What it can find, simulated with attempts of at most three captures, 200 captures before and 10 % of the attempts failed
then: a rise to 20 % in two of three cases, to 30 % nearly always, and a student that fails every second attempt by the
first look. A sensor that keeps wearing out raises the shares too: a revert says that things got worse, not why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from scipy import stats

from tutelage.biometrics.error_rates import clopper_pearson
from tutelage.errors import UsageError


class WatchDecision(StrEnum):
    """What to do about the student that was swapped in."""

    KEEP_WATCHING = "keep-watching"
    PASSED = "passed"
    REVERT = "revert"


@dataclass(frozen=True)
class WatchRules:
    """Length and strictness of a watch window.

    Raises:
        UsageError: a field is out of its range.
    """

    window_captures: int = 200
    """Captures after which the watch ends."""
    min_captures: int = 40
    """Captures before which nothing is decided."""
    confidence: float = 0.99
    """Least chance that a student as good as the former one survives the whole window."""

    def __post_init__(self) -> None:
        """Refuse a window that never decides."""
        if not 1 <= self.min_captures <= self.window_captures:
            raise UsageError(f"min_captures lies within 1 and {self.window_captures}, got {self.min_captures}")
        if not 0.0 < self.confidence < 1.0:
            raise UsageError(f"a confidence lies between 0 and 1, got {self.confidence}")


@dataclass(frozen=True)
class Tally:
    """How attempts ended over some time; an attempt is one capture where the sensor cannot tell when somebody leaves.

    Raises:
        UsageError: the counts contradict each other.
    """

    captures: int = 0
    attempts: int = 0
    failed: int = 0
    """Attempts that ended without acceptance."""
    retried: int = 0
    """Attempts that took more than one capture."""

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        fits = 0 <= self.failed <= self.attempts and 0 <= self.retried <= self.attempts
        if not fits or self.captures < self.attempts + self.retried:
            raise UsageError(f"these are no counts of attempts: {self}")

    def after(self, captures: int, *, accepted: bool) -> Tally:
        """The tally with one more attempt, which took so many `captures`."""
        return Tally(
            self.captures + captures,
            self.attempts + 1,
            self.failed + (not accepted),
            self.retried + (captures > 1),
        )


@dataclass(frozen=True)
class WatchVerdict:
    """Outcome of one look at the window."""

    decision: WatchDecision
    reason: str
    numbers: Mapping[str, float]
    """Counts, p-values and exact bounds of the shares that the decision rests on."""


def judge_watch(before: Tally, since: Tally, rules: WatchRules) -> WatchVerdict:
    """What to do, given how attempts ended `before` and `since` the swap.

    `before` should reach back about one window: what was long ago compares another sensor and other people.
    """
    risk = _risk(since.captures, rules)
    shares = (("failed", before.failed, since.failed), ("retried", before.retried, since.retried))
    numbers: dict[str, float] = {"captures": since.captures, "attempts": since.attempts, "risk": risk}
    worse = []
    for name, former, now in shares:
        p = _rise(former, before.attempts, now, since.attempts)
        numbers |= {f"{name}_before": former / max(1, before.attempts), f"{name}_since": now / max(1, since.attempts)}
        numbers |= {f"{name}_p": p, f"{name}_low": clopper_pearson(now, since.attempts, rules.confidence)[0]}
        if p <= risk:
            worse.append(f"{now} of {since.attempts} attempts {name}, before {former} of {before.attempts} (p {p:.1g})")
    return _verdict(before, since, rules, worse, numbers)


def _verdict(
    before: Tally, since: Tally, rules: WatchRules, worse: list[str], numbers: Mapping[str, float]
) -> WatchVerdict:
    if worse:
        return WatchVerdict(WatchDecision.REVERT, "; ".join(worse), numbers)
    watched = f"{since.captures} of {rules.window_captures} captures watched"
    if since.captures < rules.window_captures:
        return WatchVerdict(WatchDecision.KEEP_WATCHING, watched, numbers)
    known = f"{since.failed} of {since.attempts} attempts failed, before {before.failed} of {before.attempts}"
    found = f"no clear rise: {known}" if before.attempts else "there was nothing before the swap to compare with"
    return WatchVerdict(WatchDecision.PASSED, f"{watched}, {found}", numbers)


def _risk(captures: int, rules: WatchRules) -> float:
    """Chance of a wrong revert that one look at one share may take; 0 before `min_captures`."""
    if captures < rules.min_captures:
        return 0.0
    half = (1.0 - rules.confidence) / 2.0 / 2.0
    return half if captures >= rules.window_captures else half / (rules.window_captures - rules.min_captures)


def _rise(former: int, attempts_before: int, now: int, attempts_since: int) -> float:
    """Chance of `now` or more among the attempts since, given all that happened, if nothing changed (Fisher 1934)."""
    if not (attempts_before and attempts_since):
        return 1.0
    everything, happened = attempts_before + attempts_since, former + now
    return float(stats.hypergeom.sf(now - 1, everything, happened, attempts_since))
