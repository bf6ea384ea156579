"""Everything that happened on a device, as events with a reason and its numbers.

An event is written in the transaction that changes what it tells of, so there is never one without the other. Kinds are
a closed set: whoever reads events (the report, a status call, a fleet's counters) can rely on knowing them all. Events
hold numbers and names of generations, never pixels or features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class EventKind(StrEnum):
    """What can happen on a device."""

    ENROLLED = "enrolled"
    SAMPLE_KEPT = "sample-kept"
    SAMPLE_DROPPED = "sample-dropped"
    SAMPLE_QUARANTINED = "sample-quarantined"
    LABELS_ASKED = "labels-asked"
    LABEL_STORED = "label-stored"
    LABEL_ABSTAINED = "label-abstained"
    TRAINING_STARTED = "training-started"
    TRAINING_RESUMED = "training-resumed"
    TRAINING_FINISHED = "training-finished"
    TRAINING_FAILED = "training-failed"
    GATE_PASSED = "gate-passed"
    GATE_FAILED = "gate-failed"
    GENERATION_SWAPPED = "generation-swapped"
    GENERATION_REVERTED = "generation-reverted"
    REVERT_FAILED = "revert-failed"
    WATCH_PASSED = "watch-passed"
    RELEASE_INSTALLED = "release-installed"
    PERSON_ERASED = "person-erased"
    KEY_ROTATED = "key-rotated"
    RELEASE_REFUSED = "release-refused"


@dataclass(frozen=True)
class Event:
    """One thing that happened."""

    id: int
    """Grows with every event and is never used twice, whatever the clock does."""
    time_s: float
    """Seconds since the epoch by the device's clock."""
    kind: EventKind
    """What happened."""
    reason: str
    """Why, for a person to read."""
    numbers: Mapping[str, float]
    """What the reason rests on: counts, scores, ids of samples."""
    generation: str
    """The student concerned, like `v3+7`; empty where none is."""
