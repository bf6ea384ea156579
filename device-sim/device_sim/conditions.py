"""When a device asks for labels and when it trains: conditions that can say what is still missing.

A condition looks at a state made of counts and ages, and answers with a list of what is missing, in words for a status
page; an empty list means that it holds. Ages come from a clock that may jump. An age below zero means the clock was set
back; it counts as old enough, since waiting for the clock to catch up could take a year.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from device_sim.events import EventKind
from device_sim.records import LabelSource, State
from device_sim.sampling import Kind
from device_sim.store import Store
from tutelage.errors import UsageError


@dataclass(frozen=True)
class LabelState:
    """What a label condition looks at."""

    waiting: int
    """Failed attempts whose second samples nobody has answered for."""
    oldest_s: float
    """Seconds since the oldest of them was captured; 0 where none waits."""
    since_last_s: float
    """Seconds since labels were last asked for; infinite if never."""


@dataclass(frozen=True)
class LabelCondition:
    """Holds when enough attempts wait or one has waited too long, and the teacher was not just asked."""

    min_count: int = 4
    """Attempts worth one call: each costs a connection, and a teacher is faster on a batch."""
    max_age_s: float = 3600.0
    """Seconds after which even a single attempt is sent: its person may be standing at the door every day."""
    min_gap_s: float = 60.0
    """Seconds between two calls, so that a device in trouble does not keep the teacher busy."""

    def missing(self, state: LabelState) -> tuple[str, ...]:
        """What is still missing; empty when the condition holds."""
        if state.waiting == 0:
            return ("no attempt waits for a label",)
        lacks = []
        if state.waiting < self.min_count and state.oldest_s < self.max_age_s:
            lacks.append(
                f"{state.waiting} of {self.min_count} attempts wait for a label, "
                f"the oldest for {state.oldest_s:.0f} of {self.max_age_s:.0f} s"
            )
        return (*lacks, *_gap("the teacher was asked", state.since_last_s, self.min_gap_s))


@dataclass(frozen=True)
class TrainingState:
    """What a training condition looks at."""

    fresh: int
    """Labelled samples no training has seen."""
    persons: int
    """Persons these are of."""
    since_last_s: float
    """Seconds since a training last started, whatever came of it; infinite if never."""
    running: bool
    """Whether a training is under way."""
    now_s: float = 0.0
    """Seconds since 1970 in UTC."""


@dataclass(frozen=True)
class Window:
    """Times that come again at which a device may train: every night, or Sundays from two to five.

    Raises:
        UsageError: it would never be open, or never closed.
    """

    start_s: float
    """When it opens, seconds after 1970-01-01T00:00Z; and `period_s` later, and so on."""
    length_s: float
    period_s: float = 86_400.0

    def __post_init__(self) -> None:
        """Refuse a window without an inside or an outside."""
        if not 0.0 < self.length_s < self.period_s:
            raise UsageError(f"a window is open for some of its {self.period_s:g} s, not for {self.length_s:g} s")

    def opens_in_s(self, now_s: float) -> float:
        """Seconds until it is open; 0 while it is."""
        since = (now_s - self.start_s) % self.period_s
        return 0.0 if since < self.length_s else self.period_s - since


@dataclass(frozen=True)
class TrainingCondition:
    """Holds when there is enough to learn from and the device has had its rest."""

    min_fresh: int = 32
    """Labelled fresh samples: with fewer the part held back for the gate is too small to prove anything."""
    min_persons: int = 2
    """Persons they are of: from one person alone a model learns to say that name."""
    min_gap_s: float = 3600.0
    """Seconds between two starts, so that a training that fails does not try again at once and wear the device out."""
    window: Window | None = None
    """When it may start; at any time without one."""

    def missing(self, state: TrainingState) -> tuple[str, ...]:
        """What is still missing; empty when the condition holds."""
        lacks = ["the training under way has to end"] if state.running else []
        if state.fresh < self.min_fresh:
            lacks.append(f"{state.fresh} of {self.min_fresh} labelled fresh samples")
        if state.persons < self.min_persons:
            lacks.append(f"samples of {state.persons} of {self.min_persons} persons")
        if self.window is not None and (wait := self.window.opens_in_s(state.now_s)):
            lacks.append(f"the training window opens in {wait:.0f} s")
        return (*lacks, *_gap("a training was started", state.since_last_s, self.min_gap_s))


def label_state(store: Store, now_s: float) -> LabelState:
    """How it stands with labels at `now_s`."""
    waiting = [s for s in store.samples(State.FRESH) if s.kind is Kind.SECOND and s.label is None]
    oldest_s = max((_age(now_s, sample.time_s) for sample in waiting), default=0.0)
    attempts = len({sample.attempt_end for sample in waiting})
    return LabelState(attempts, oldest_s, _since(store, EventKind.LABELS_ASKED, now_s))


def training_state(store: Store, now_s: float, *, running: bool) -> TrainingState:
    """How it stands with training at `now_s`; only the caller knows whether one is `running`."""
    labels = [sample.label for sample in store.samples(State.FRESH) if sample.label is not None]
    known = [label.person for label in labels if label.source is not LabelSource.ABSTAINED]
    since_last_s = _since(store, EventKind.TRAINING_STARTED, now_s)
    return TrainingState(len(known), len(set(known)), since_last_s, running, now_s)


def _gap(what: str, since_last_s: float, min_gap_s: float) -> tuple[str, ...]:
    if since_last_s >= min_gap_s:
        return ()
    return (f"{what} {since_last_s:.0f} s ago, {min_gap_s - since_last_s:.0f} s are still to wait",)


def _since(store: Store, kind: EventKind, now_s: float) -> float:
    last = store.last_event(kind)
    return math.inf if last is None else _age(now_s, last.time_s)


def _age(now_s: float, time_s: float) -> float:
    """Seconds from `time_s` to `now_s`; infinite where the clock was set back in between."""
    return now_s - time_s if now_s >= time_s else math.inf
