"""The books of one device's year, kept by one who knows the truth: attempts by recogniser, incidents, promises kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from device_sim.events import EventKind
from device_sim.fleet import DAY_S, EPOCH_S
from device_sim.records import LabelSource, State
from device_sim.results import FROZEN, SELF_DISTILLED
from device_sim.sampling import Kind
from device_sim.store import Store
from device_sim.year.place import Who
from device_sim.year.result import Attempts, Incident, Kept, Promises

TEMPLATE = "template adaptation"
RECOGNISERS = (FROZEN, TEMPLATE, SELF_DISTILLED)
"""In the order of tables."""
KEPT = (State.FRESH, State.USED, State.HELD_BACK, State.QUARANTINED, State.DROPPED)
TOLD = frozenset(
    {
        EventKind.TRAINING_RESUMED,
        EventKind.TRAINING_FAILED,
        EventKind.GATE_FAILED,
        EventKind.GENERATION_SWAPPED,
        EventKind.GENERATION_REVERTED,
        EventKind.REVERT_FAILED,
        EventKind.RELEASE_INSTALLED,
        EventKind.PERSON_ERASED,
    }
)
"""Events of a device that are incidents of its year."""


@dataclass(frozen=True)
class Ending:
    """How one visit ended with one recogniser."""

    first: bool
    """Whether the first capture was taken for the right person; for strangers, for anybody."""
    ever: bool
    """Whether any capture was, of as many as it took the recogniser to accept."""


@dataclass
class Books:
    """Counts since the last page was closed, and what is told of the whole year."""

    genuine: int = 0
    impostors: int = 0
    hostile: int = 0
    missed: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    admitted: Counter[str] = field(default_factory=Counter)
    hostile_admitted: Counter[str] = field(default_factory=Counter)
    incidents: list[Incident] = field(default_factory=list)
    captures: int = 0
    unanswered: int = 0
    enrolments: Counter[str] = field(default_factory=Counter)
    erased: set[str] = field(default_factory=set)
    lost: int = 0
    remembered: int = 0
    mixed: int = 0
    boots: int = 0
    offline_nights: int = 0

    def visit(self, who: Who, endings: Mapping[str, Ending]) -> None:
        """Count a visit by how it ended with each recogniser."""
        self.genuine += who is Who.GENUINE
        self.impostors += who is Who.IMPOSTOR
        self.hostile += who is Who.HOSTILE
        for name, ending in endings.items():
            if who is Who.GENUINE:
                self.missed[name] += not ending.first
                self.failed[name] += not ending.ever
            elif who is Who.IMPOSTOR:
                self.admitted[name] += ending.ever
            else:
                self.hostile_admitted[name] += ending.ever

    def attempts(self) -> Attempts:
        """What was counted since the last time; the next page starts empty."""
        found = Attempts(
            self.genuine,
            self.impostors,
            self.hostile,
            *(_by_name(c) for c in (self.missed, self.failed)),
            *(_by_name(c) for c in (self.admitted, self.hostile_admitted)),
        )
        self.genuine = self.impostors = self.hostile = 0
        for counts in (self.missed, self.failed, self.admitted, self.hostile_admitted):
            counts.clear()
        return found

    def tell(self, day: int, kind: str, words: str) -> None:
        """Write down an incident."""
        self.incidents.append(Incident(day, kind, words))

    def promises(self) -> Promises:
        """What must be zero, and out of how many."""
        again = sum(count - 1 for count in self.enrolments.values())
        return Promises(
            captures=self.captures,
            unanswered=self.unanswered,
            enrolments=sum(self.enrolments.values()),
            re_enrolments=again,
            persons_lost=self.lost,
            erasures=len(self.erased),
            persons_remembered=self.remembered,
            spaces_mixed=self.mixed,
            restarts=self.boots,
            nights_without_labels=self.offline_nights,
        )


def told_by(store: Store) -> list[Incident]:
    """The incidents among a device's own events."""
    return [
        Incident(int((event.time_s - EPOCH_S) // DAY_S), event.kind.value, event.reason)
        for event in store.events()
        if event.kind in TOLD
    ]


def kept_by(store: Store) -> Kept:
    """What lies in a device's store, and what came of its trainings."""
    samples = store.samples(*KEPT)
    second = [s for s in samples if s.kind is Kind.SECOND]
    labels = [s.label for s in second if s.label is not None]
    events = Counter(event.kind for event in store.events())
    seconds = [e.numbers["seconds"] for e in store.events() if e.kind is EventKind.TRAINING_FINISHED]
    return Kept(
        first=len(samples) - len(second),
        second=len(second),
        labelled=sum(label.source is LabelSource.TEACHER for label in labels),
        abstained=sum(label.source is LabelSource.ABSTAINED for label in labels),
        waiting=sum(s.label is None and s.state is State.FRESH for s in second),
        quarantined=sum(s.state is State.QUARANTINED for s in samples),
        generations=events[EventKind.GENERATION_SWAPPED],
        refused=events[EventKind.GATE_FAILED],
        reverted=events[EventKind.GENERATION_REVERTED],
        bytes=store.used_bytes,
        training_seconds=round(float(np.sum(seconds)), 1),
    )


def _by_name(counts: Counter[str]) -> dict[str, int]:
    return {name: int(counts[name]) for name in RECOGNISERS}
