"""Forgetting: what an erasure does to the rows of a store, and the row of its own by which it is finished in any case.

One transaction takes a person's references, captures and name, so there is no state in between; the row it leaves in
`erasures` says what is still to be done outside the store. Its columns:

    digest   of the name, keyed: finds the erasure when it is asked for again
    stage    BEGUN, then CLEARED once no student or training has anything of the person, then DONE once the store is
             scrubbed and the teacher knows
    name     sealed, for the teacher; NULL once DONE
    removed  what was removed, as JSON: see `Removal`
    receipt  the signed receipt, once DONE

Which samples go: those labelled as the person, whoever said so; and those without a label, where the person was the
nearest in one capture of the attempt, or the nearest in the evidence of a teacher that abstained. Whose those are
nobody knows, and a capture that may be of somebody who asked to be forgotten is not worth its use. Captures that the
device took for somebody else's cannot be told from theirs and stay.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from device_sim import rows
from device_sim.database import Database
from device_sim.events import EventKind
from device_sim.lessons import learnt_from
from device_sim.pointer import Entry, Generation
from device_sim.pseudonyms import Pseudonyms
from device_sim.scrubbing import Scrubbing
from device_sim.typed_json import plain, typed
from device_sim.vault import Vault, following_id

NOTE = "its person was erased"
"""Note of a sample whose capture was erased."""

_OF_PERSON = """
SELECT id, capture FROM samples AS s WHERE s.label = :person OR (s.label IS NULL AND s.attempt_end IN (
    SELECT e.id FROM decisions AS e, json_each(e.captures) AS c JOIN decisions AS d ON d.id = c.value
    WHERE d.person = :person))
ORDER BY id
"""
_ABSTAINED = "SELECT id, capture, answer FROM samples WHERE label IS NULL AND source IS NOT NULL"
_DROP = "UPDATE samples SET state = 'dropped', capture = NULL, note = ? WHERE id = ? AND state <> 'dropped'"
_KEPT = """
SELECT EXISTS (SELECT 1 FROM persons WHERE person = ?1)
    OR EXISTS (SELECT 1 FROM decisions WHERE person = ?1) OR EXISTS (SELECT 1 FROM samples WHERE label = ?1)
"""


class Stage(StrEnum):
    """How far an erasure is."""

    BEGUN = "begun"
    """Gone from the rows of the store."""
    CLEARED = "cleared"
    """Gone from students and trainings too; the store's file has to be scrubbed and the teacher told."""
    DONE = "done"
    """Gone everywhere, and receipted."""


@dataclass(frozen=True)
class Removal:
    """What an erasure removed, as far as it is."""

    asked_s: float
    """Seconds since the epoch, by the device's clock."""
    references: tuple[str, ...] = ()
    """SHA-256 of each reference as it lay sealed in the store."""
    samples: tuple[str, ...] = ()
    """The same of each sample's capture."""
    decisions: int = 0
    """Decisions in which the person was the nearest."""
    students: tuple[Entry, ...] = ()
    """Student packages that learnt from the person."""
    jobs: tuple[str, ...] = ()
    """Names of the students in the making that learnt from the person."""
    student: Entry | None = None
    """The student that recognised once the device was cleared."""
    teacher: Literal["removed", "absent"] | None = None
    """What the teacher answered; None while it was not told."""


@dataclass(frozen=True)
class Erasure:
    """A row of `erasures`."""

    id: int
    digest: str
    stage: Stage
    removal: Removal
    receipt: bytes | None

    @staticmethod
    def from_row(row: sqlite3.Row) -> Erasure:
        """The erasure of a row."""
        removal: Removal = typed(Removal, json.loads(row["removed"]), "an erasure")
        return Erasure(row["id"], row["digest"], Stage(row["stage"]), removal, row["receipt"])


class Forgetting:
    """The erasures of one store; safe for several threads, as its database is."""

    def __init__(self, database: Database, vault: Vault, pseudonyms: Pseudonyms, clock: Callable[[], float]) -> None:
        """Work on the store of an open `database`."""
        self._database, self._vault, self._pseudonyms, self._clock = database, vault, pseudonyms, clock

    def knows(self, name: str) -> bool:
        """Whether anything is kept of the person of this name."""
        person = self._pseudonyms.found(name)
        return person is not None and bool(self._database.rows(_KEPT, person)[0][0])

    def latest(self, name: str) -> Erasure | None:
        """The last erasure of the person of this name; None where there was none, or long ago."""
        sql = "SELECT * FROM erasures WHERE digest = ? ORDER BY id DESC LIMIT 1"
        found = self._database.rows(sql, self._vault.digest(name))
        return Erasure.from_row(found[0]) if found else None

    def unfinished(self) -> tuple[Erasure, ...]:
        """The erasures that are not done, oldest first."""
        found = self._database.rows("SELECT * FROM erasures WHERE stage <> ? ORDER BY id", Stage.DONE.value)
        return tuple(Erasure.from_row(row) for row in found)

    def begin(
        self,
        name: str,
        *,
        students: Iterable[Entry],
        jobs: Iterable[Generation],
        teacher: Literal["removed"] | None,
    ) -> None:
        """Erase the person of this `name` from all rows; `students` are on the disk, `jobs` in the making.

        `teacher` is what the teacher answered, if it was told already.

        Raises:
            StorageError: `storage-full`, `storage-failed`, `store-corrupt`; nothing has changed then.
        """
        packages, making = {entry.named: entry for entry in students}, frozenset(jobs)
        with self._database.transaction() as connection:
            person = self._pseudonyms.given(connection, name)
            learnt = learnt_from(connection, person, [*packages, *making])
            removal = Removal(
                asked_s=float(self._clock()),
                references=_references(connection, person),
                samples=_drop_samples(connection, person),
                decisions=_count(connection, "SELECT count(*) FROM decisions WHERE person = ?", person),
                students=tuple(packages[each] for each in learnt if each in packages),
                jobs=tuple(str(each) for each in learnt if each in making),
                teacher=teacher,
            )
            connection.execute("DELETE FROM persons WHERE person = ?", (person,))
            connection.execute("DELETE FROM lessons WHERE person = ?", (person,))
            Scrubbing.mark(connection)
            self._pseudonyms.forget(connection, person)
            self._write(connection, name, removal)

    def _write(self, connection: sqlite3.Connection, name: str, removal: Removal) -> None:
        row_id = following_id(connection, "erasures")
        sealed = self._vault.seal("erasures", row_id, "name", name.encode())
        row = (row_id, self._vault.digest(name), Stage.BEGUN.value, sealed, _text(removal), None)
        connection.execute("INSERT INTO erasures VALUES (?, ?, ?, ?, ?, ?)", row)
        numbers = {
            "erasure": row_id,
            "references": len(removal.references),
            "samples": len(removal.samples),
            "decisions": removal.decisions,
            "students": len(removal.students),
        }
        rows.add_event(connection, self._clock(), EventKind.PERSON_ERASED, "it was asked for", numbers)

    def cleared(self, erasure: Erasure, student: Entry) -> Erasure:
        """Write down that the device holds nothing of the person any more, and that `student` recognises."""
        removal = replace(erasure.removal, student=student)
        with self._database.transaction() as connection:
            sql = "UPDATE erasures SET stage = ?, removed = ? WHERE id = ?"
            connection.execute(sql, (Stage.CLEARED.value, _text(removal), erasure.id))
        return replace(erasure, stage=Stage.CLEARED, removal=removal)

    def name(self, erasure: Erasure) -> str:
        """Name of the person, which the store holds as long as the teacher was not told.

        Raises:
            StorageError: `store-corrupt`, it is damaged.
        """
        sealed = self._database.rows("SELECT name FROM erasures WHERE id = ?", erasure.id)[0]["name"]
        return self._vault.open("erasures", erasure.id, "name", sealed).decode()

    def done(self, erasure: Erasure, removal: Removal, receipt: bytes) -> None:
        """Keep the receipt, and let the name go."""
        with self._database.transaction() as connection:
            sql = "UPDATE erasures SET stage = ?, removed = ?, receipt = ?, name = NULL WHERE id = ?"
            connection.execute(sql, (Stage.DONE.value, _text(removal), receipt, erasure.id))
        self._database.empty_log()


def _references(connection: sqlite3.Connection, person: str) -> tuple[str, ...]:
    """Digests of the person's references as they lie sealed."""
    sql = "SELECT capture FROM reference_captures WHERE person = ? ORDER BY id"
    return tuple(_sha256(row["capture"]) for row in connection.execute(sql, (person,)))


def _drop_samples(connection: sqlite3.Connection, person: str) -> tuple[str, ...]:
    """Delete the captures of the person's samples; their digests as they lay sealed."""
    found = {row["id"]: row["capture"] for row in connection.execute(_OF_PERSON, {"person": person})}
    for row in connection.execute(_ABSTAINED):
        # The nearest comes first.
        if next(iter(json.loads(row["answer"]).get("soft", {})), None) == person:
            found[row["id"]] = row["capture"]
    connection.executemany(_DROP, [(NOTE, sample_id) for sample_id in found])
    return tuple(_sha256(capture) for _, capture in sorted(found.items()) if capture is not None)


def _count(connection: sqlite3.Connection, sql: str, person: str) -> int:
    return int(connection.execute(sql, (person,)).fetchone()[0])


def _text(removal: Removal) -> str:
    return json.dumps(plain(removal))


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
