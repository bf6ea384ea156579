"""When a device asks for labels and when it trains: conditions that can say what is still missing.

A condition looks at a state made of counts and ages and at the moment, and answers with a list of what is missing, in
words for a status page; an empty list means that it holds. Ages come from a clock that may jump. One below zero means
the clock was set back; it counts as old enough, since waiting for the clock to catch up could take a year.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from device_sim.events import EventKind
from device_sim.occasion import Moment, Occasion
from device_sim.records import LabelSource, Sample, State
from device_sim.sampling import Kind
from device_sim.store import Store


@dataclass(frozen=True)
class LabelState:
    """What a label condition looks at."""

    waiting: int
    """Failed attempts whose second samples nobody has answered for."""
    oldest_s: float
    """Seconds since the oldest of them was captured; 0 where none waits."""
    since_last_s: float
    """Seconds since labels were last asked for; infinite if never."""
    moment: Moment = field(default_factory=Moment)
    """How the device finds itself."""


@dataclass(frozen=True)
class LabelCondition(Occasion):
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
        gap = _gap("the teacher was asked", state.since_last_s, self.min_gap_s)
        return (*lacks, *self.waits_for("label", state.moment), *gap)


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
    oldest_s: float = 0.0
    """Seconds since the oldest of the fresh samples was captured; 0 where there is none."""
    moment: Moment = field(default_factory=Moment)
    """How the device finds itself."""


@dataclass(frozen=True)
class TrainingCondition(Occasion):
    """Holds when there is enough to learn from, or little that is old, and the device has had its rest."""

    min_fresh: int = 32
    """Labelled fresh samples: with fewer the part held back for the gate is too small to prove anything."""
    min_persons: int = 2
    """Persons they are of: from one person alone a model learns to say that name."""
    min_gap_s: float = 3600.0
    """Seconds between two starts, so that a training that fails does not try again at once and wear the device out."""
    max_age_s: float | None = None
    """Seconds after which the oldest fresh sample is learnt from however few there are, as far as the gate can judge
    by so few; None: never."""

    def missing(self, state: TrainingState) -> tuple[str, ...]:
        """What is still missing; empty when the condition holds."""
        lacks = ["the training under way has to end"] if state.running else []
        aged = self.max_age_s is not None and state.fresh > 0 and state.oldest_s >= self.max_age_s
        if state.fresh < self.min_fresh and not aged:
            lacks.append(f"{state.fresh} of {self.min_fresh} labelled fresh samples")
        if state.persons < self.min_persons:
            lacks.append(f"samples of {state.persons} of {self.min_persons} persons")
        gap = _gap("a training was started", state.since_last_s, self.min_gap_s)
        return (*lacks, *self.waits_for("training", state.moment), *gap)


def waits_for_label(sample: Sample, teacher_space: str) -> bool:
    """Whether the teacher of `teacher_space` has to be asked about a sample; an empty id stands for any teacher.

    Nobody was asked yet, or another teacher abstained and no second one was asked.
    """
    if sample.state is not State.FRESH or sample.kind is not Kind.SECOND:
        return False
    label = sample.label
    if label is None:
        return True
    newer = bool(teacher_space) and label.answer.get("space") != teacher_space
    return label.source is LabelSource.ABSTAINED and newer and label.answer.get("asked", 1) == 1


def label_state(store: Store, moment: Moment, *, teacher_space: str = "") -> LabelState:
    """How it stands with labels at a `moment`, where the teacher to be asked is that of `teacher_space`."""
    now_s = moment.now_s
    waiting = [s for s in store.samples(State.FRESH) if waits_for_label(s, teacher_space)]
    oldest_s = max((_age(now_s, sample.time_s) for sample in waiting), default=0.0)
    attempts = len({sample.attempt_end for sample in waiting})
    return LabelState(attempts, oldest_s, _since(store, EventKind.LABELS_ASKED, now_s), moment)


def training_state(store: Store, moment: Moment, *, running: bool) -> TrainingState:
    """How it stands with training at a `moment`; only the caller knows whether one is `running`."""
    known = [s for s in store.samples(State.FRESH) if s.label and s.label.source is not LabelSource.ABSTAINED]
    oldest_s = max((_age(moment.now_s, sample.time_s) for sample in known), default=0.0)
    since_last_s = _since(store, EventKind.TRAINING_STARTED, moment.now_s)
    persons = len({sample.label.person for sample in known if sample.label})
    return TrainingState(len(known), persons, since_last_s, running, oldest_s, moment)


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
