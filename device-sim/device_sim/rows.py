"""How rows are written: the statements behind the store's methods, each within a transaction its caller holds."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping

from device_sim.events import EventKind
from device_sim.records import DecisionRecord, LabelSource, State, as_json, real
from device_sim.sampling import Kind
from device_sim.vault import Vault
from tutelage.errors import UsageError
from tutelage.labelling import LabelAnswer

_EVENT = "INSERT INTO events (time_s, kind, reason, numbers, generation) VALUES (?, ?, ?, ?, ?)"
# Score and time are those of the very capture, not of the decision that completed the attempt.
_SAMPLE = """
INSERT INTO samples
    (id, decision_id, attempt_end, time_s, kind, score, capture, label, source, confidence, margin, state)
SELECT :id, id, :end, time_s, :kind, score, :capture, :label, :source, :confidence, :margin, 'fresh'
FROM decisions WHERE id = :of
"""
_LABEL = """
UPDATE samples SET label = ?, source = ?, answer = ?, confidence = ?, margin = ?
WHERE id = ? AND kind = 'second' AND state <> 'dropped'
"""
_MARK = """
UPDATE samples SET state = :state, note = :note, training_set = coalesce(:training_set, training_set),
    capture = CASE WHEN :state = 'dropped' THEN NULL ELSE capture END
WHERE id = :id AND state <> 'dropped'
"""


def add_event(
    connection: sqlite3.Connection,
    time_s: float,
    kind: EventKind,
    reason: str,
    numbers: Mapping[str, float],
    *,
    generation: str = "",
) -> None:
    """One more row of `events`."""
    connection.execute(_EVENT, (float(time_s), kind.value, reason, as_json(numbers), generation))


def add_reference(connection: sqlite3.Connection, vault: Vault, person: str, enrolled_s: float, image: bytes) -> int:
    """One more row of `reference_captures`, `person` being a pseudonym and `image` a PNG; returns its id."""
    row_id, sealed = vault.put(connection, "reference_captures", image)
    connection.execute("INSERT INTO reference_captures VALUES (?, ?, ?, ?)", (row_id, person, enrolled_s, sealed))
    return row_id


def add_decision(connection: sqlite3.Connection, decision: DecisionRecord, person: str | None) -> None:
    """One more row of `decisions`; `person` is the pseudonym of the nearest one."""
    row = decision.as_row(person)
    connection.execute(f"INSERT INTO decisions VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608 - marks alone


def add_sample(
    connection: sqlite3.Connection,
    vault: Vault,
    decision: DecisionRecord,
    capture_of: int,
    image: bytes,
    *,
    person: str | None,
) -> int:
    """Keep the capture of decision `capture_of`, a PNG, because `decision`, the same or a later one, says so.

    `person` is the pseudonym of the one nearest in `decision`.

    Raises:
        UsageError: decision `capture_of` was not recorded.
    """
    row_id, sealed = vault.put(connection, "samples", image)
    values = {"id": row_id, "of": capture_of, "end": decision.observation.id, "capture": sealed}
    values |= {"kind": decision.outcome.kind.value, **_label_at_once(decision, person)}
    if connection.execute(_SAMPLE, values).rowcount != 1:
        raise UsageError(f"decision {capture_of} is not in the store: record every capture of an attempt in order")
    return row_id


def label_sample(connection: sqlite3.Connection, sample_id: int, answer: LabelAnswer) -> bool:
    """Store the teacher's answer, with pseudonyms for names; false where there is no such second sample any more."""
    source = LabelSource.ABSTAINED if answer.person is None else LabelSource.TEACHER
    before = connection.execute("SELECT source, answer FROM samples WHERE id = ?", (sample_id,)).fetchone()
    asked = 1 + (json.loads(before["answer"]).get("asked", 1) if before and before["source"] else 0)
    text = json.dumps({"soft": dict(answer.soft), "reason": answer.reason, "space": answer.space, "asked": asked})
    values = (answer.person, source.value, text, real(answer.confidence), real(answer.margin))
    return connection.execute(_LABEL, (*values, sample_id)).rowcount == 1


def mark_sample(
    connection: sqlite3.Connection, sample_id: int, state: State, note: str, training_set: int | None
) -> bool:
    """Move a sample to `state`; false where there is no such sample any more."""
    values = {"state": state.value, "note": note, "training_set": training_set, "id": sample_id}
    return connection.execute(_MARK, values).rowcount == 1


def _label_at_once(decision: DecisionRecord, person: str | None) -> dict[str, str | float | None]:
    """A first sample's label is known when it is kept, a second one's is not."""
    if decision.outcome.kind is not Kind.FIRST:
        return {"label": None, "source": None, "confidence": None, "margin": None}
    source, margin = LabelSource.MATCHED.value, real(decision.margin)
    return {"label": person, "source": source, "confidence": 1.0, "margin": margin}
