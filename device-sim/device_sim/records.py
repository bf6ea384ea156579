"""What the store hands out: one frozen row class for each kind of row, never with pixels in it.

Captures are asked for by id, one at a time, so that listing samples neither opens what is sealed nor fills memory.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from device_sim.events import Event, EventKind
from device_sim.sampling import Kind, Observation, Outcome, Rule
from tutelage.biometrics.matching import Decision


class State(StrEnum):
    """Where a sample is in its life."""

    FRESH = "fresh"
    """No training has seen it."""
    USED = "used"
    """A training learnt from it."""
    HELD_BACK = "held-back"
    """Kept from training, for the gate to judge with."""
    QUARANTINED = "quarantined"
    """Kept, but neither learnt from nor judged with: something contradicts its label."""
    DROPPED = "dropped"
    """Its capture is gone for good; only the row is left."""


class LabelSource(StrEnum):
    """Who said so."""

    MATCHED = "matched"
    """The device itself, by recognising the person."""
    TEACHER = "teacher"
    """The teacher named the person."""
    ABSTAINED = "abstained"
    """The teacher was asked and named nobody."""


@dataclass(frozen=True)
class Reference:
    """One enrolment capture; it never changes."""

    id: int
    person: str
    enrolled_s: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class DecisionRecord:
    """One recognised capture: what was seen, what was answered, what the sample rules said."""

    observation: Observation
    """What the sample rules looked at; its `id` is the decision's."""
    cosine: float
    """To the nearest person, [-1, 1]; NaN where nobody is enrolled."""
    margin: float
    """`cosine` minus that of the second nearest person, [0, 2]; NaN where nobody is enrolled."""
    space: str
    """Space the features were compared in."""
    generation: str
    """The student that recognised, like `v3+7`."""
    outcome: Outcome
    """The verdict of the sample rules."""

    def as_row(self, person: str | None) -> tuple[Any, ...]:
        """Values for the columns of `decisions`, in their order; `person` is the pseudonym of the nearest person."""
        seen, outcome = self.observation, self.outcome
        head = (int(seen.id), float(seen.time_s), seen.attempt, person, real(self.cosine), real(self.margin))
        answer = (real(seen.score), int(seen.extrapolated), seen.decision.value, self.space, self.generation)
        verdict = (outcome.kind.value, outcome.rule.value, outcome.reason)
        return (*head, *answer, *verdict, as_json(outcome.numbers), json.dumps([int(i) for i in outcome.captures]))

    @staticmethod
    def from_row(row: sqlite3.Row, named: Callable[[str], str]) -> DecisionRecord:
        """The record of a row of `decisions`; `named` gives the name behind a pseudonym."""
        numbers = json.loads(row["numbers"])
        observation = Observation(
            id=row["id"],
            time_s=row["time_s"],
            attempt=row["attempt"],
            person=None if row["person"] is None else named(row["person"]),
            score=_number(row["score"]),
            extrapolated=bool(row["extrapolated"]),
            decision=Decision(row["decision"]),
            reference_score=numbers["reference_score"],
            duplicate_cosine=numbers["duplicate_cosine"],
            kept_today=numbers["kept_today"],
            second_today=numbers["second_today"],
            live=bool(numbers["live"]),
        )
        captures = tuple(json.loads(row["captures"]))
        outcome = Outcome(Kind(row["kind"]), Rule(row["rule"]), row["reason"], numbers, captures)
        cosine, margin = _number(row["cosine"]), _number(row["margin"])
        return DecisionRecord(observation, cosine, margin, row["space"], row["generation"], outcome)


@dataclass(frozen=True)
class Label:
    """What is known of whose capture a sample is."""

    person: str | None
    """`None` is an abstention."""
    source: LabelSource
    """Who said so."""
    confidence: float
    """In [0, 1]: the teacher's probability of `person`; 1 where the device itself matched."""
    margin: float
    """Cosine of the nearest person minus that of the second nearest, by whoever gave the label; NaN where unknown."""
    answer: Mapping[str, Any]
    """The teacher's answer in full (`soft`, `reason`, `space`) and how often one was `asked`; empty where the device
    itself matched."""


@dataclass(frozen=True)
class Sample:
    """One capture kept to learn from."""

    id: int
    decision_id: int
    """The decision about this very capture."""
    attempt_end: int
    """Decision that completed the failed attempt: second samples with the same one are of one person and are labelled
    together. A first sample's own decision."""
    time_s: float
    """When it was captured, seconds since the epoch."""
    kind: Kind
    score: float
    """Score of the capture; NaN where it had none."""
    label: Label | None
    """`None` while nobody was asked."""
    state: State
    training_set: int | None
    """Number of the training set it was put into; `None` before."""
    note: str
    """Why it is in this state, where that needs a reason."""

    @staticmethod
    def from_row(row: sqlite3.Row, named: Callable[[str], str]) -> Sample:
        """The record of a row of `samples`; `named` gives the name behind a pseudonym."""
        return Sample(
            id=row["id"],
            decision_id=row["decision_id"],
            attempt_end=row["attempt_end"],
            time_s=row["time_s"],
            kind=Kind(row["kind"]),
            score=_number(row["score"]),
            label=_label(row, named),
            state=State(row["state"]),
            training_set=row["training_set"],
            note=row["note"],
        )


def event_from_row(row: sqlite3.Row) -> Event:
    """The event of a row of `events`."""
    kind, numbers = EventKind(row["kind"]), json.loads(row["numbers"])
    return Event(row["id"], row["time_s"], kind, row["reason"], numbers, row["generation"])


def as_json(numbers: Mapping[str, float]) -> str:
    """Numbers as JSON text that reads back as exactly the same numbers; NumPy's are made Python's."""
    return json.dumps({name: value if isinstance(value, int) else float(value) for name, value in numbers.items()})


def real(value: float) -> float | None:
    """A number as a column holds it: SQLite has no NaN and would store NULL in silence."""
    return None if math.isnan(value) else float(value)


def _label(row: sqlite3.Row, named: Callable[[str], str]) -> Label | None:
    if row["source"] is None:
        return None
    confidence, margin, answer = _number(row["confidence"]), _number(row["margin"]), json.loads(row["answer"])
    if "soft" in answer:
        answer["soft"] = {named(person): share for person, share in answer["soft"].items()}
    person = None if row["label"] is None else named(row["label"])
    return Label(person, LabelSource(row["source"]), confidence, margin, answer)


def _number(column: float | None) -> float:
    return math.nan if column is None else column
