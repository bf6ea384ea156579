"""A device's memory: who is enrolled, what was recognised, what was kept, labelled and learnt, and why.

Every method that writes is one transaction, event included: after a power cut the store holds all of it or nothing.
Captures are sealed before they are written and opened when asked for; `schema` describes the rows. The store is bounded
in bytes: before a write, `eviction` makes room. It decides nothing about samples: the rules do (`sampling`), and the
device acts on them.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType

from device_sim import eviction, rows
from device_sim.database import PAGE_BYTES, Database
from device_sim.events import Event, EventKind
from device_sim.forgetting import NOTE, Forgetting
from device_sim.lessons import latest_set, write_lessons
from device_sim.pointer import Generation
from device_sim.pseudonyms import Pseudonyms, pseudonymise
from device_sim.records import DecisionRecord, Reference, Sample, State, event_from_row
from device_sim.resealing import reseal
from device_sim.sampling import MAX_BYTES, Kind
from device_sim.schema import NAMED_IN_PLAIN, migrate
from device_sim.scrubbing import Scrubbing
from device_sim.vault import Vault
from tutelage.captures import Pixels, encode_png
from tutelage.errors import Code, StorageError, UsageError
from tutelage.labelling import LabelAnswer
from tutelage.sealing import OVERHEAD_BYTES

MIN_BYTES = 2 * 2**20
"""A smaller bound would leave no place for captures beside the history that always stays."""
DAY_S = 86_400.0

_ROW_BYTES = 2 * PAGE_BYTES
"""Room asked for a row besides its capture: the row itself and what it makes the tables grow by."""


class Store:
    """The one place a device keeps anything in; safe for several threads. Close it, or use it in a `with`."""

    def __init__(self, database: Database, key: bytes, clock: Callable[[], float]) -> None:
        """Take over an open `database`: bring its layout up to date and try the `key` on it."""
        self._database, self._clock, self.scrubbing = database, clock, Scrubbing(database)
        try:
            self._use(self._unlocked(key))
        except BaseException:
            database.close()
            raise
        # On a full disk a device starts all the same, and scrubs another time.
        with contextlib.suppress(StorageError):
            self.scrubbing.scrub()

    def _unlocked(self, key: bytes) -> Vault:
        """The vault of the store in the present layout, to which it is brought all at once."""
        with self._database.transaction() as connection:
            layout = migrate(connection)
            vault = Vault.unlock(connection, self._database, key)
            if layout == NAMED_IN_PLAIN:
                pseudonymise(connection, vault)
                Scrubbing.mark(connection)
        return vault

    @classmethod
    def open(cls, path: Path, *, key: bytes, clock: Callable[[], float], max_bytes: int = MAX_BYTES) -> Store:
        """The store at `path`, made if absent; `key` has 32 bytes, `clock` tells seconds since the epoch.

        File and log together stay within `max_bytes`, except for as long as one write is under way.

        Raises:
            StorageError: `key-wrong`; `store-corrupt`, a page is damaged or it is no store; `storage-full`;
                `storage-failed`.
            UsageError: `max_bytes` is below `MIN_BYTES`.
        """
        return cls(Database.open(path, _bound(max_bytes)), key, clock)

    @classmethod
    def in_memory(cls, *, key: bytes, clock: Callable[[], float], max_bytes: int = MAX_BYTES) -> Store:
        """A store that is gone when closed; all else is the same, sealing included.

        Raises:
            UsageError: `max_bytes` is below `MIN_BYTES`.
        """
        return cls(Database.in_memory(_bound(max_bytes)), key, clock)

    def _use(self, vault: Vault) -> None:
        self._vault, self._pseudonyms = vault, Pseudonyms(vault)
        self.forgetting = Forgetting(self._database, vault, self._pseudonyms, self._clock)

    def reseal(self, key: bytes) -> int:
        """Seal everything with another `key`, which alone opens the store from now on; returns how many parts.

        Raises:
            StorageError: `storage-full`, `storage-failed`, `store-corrupt`, `key-wrong`; nothing has changed then.
        """
        with self._database.transaction() as connection:
            vault, parts = reseal(connection, self._vault, key)
            Scrubbing.mark(connection)
            self._tell(connection, EventKind.KEY_ROTATED, "it was asked for", {"parts": parts})
        self._use(vault)
        return parts

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def used_bytes(self) -> int:
        """Bytes of the pages in use."""
        return self._database.used_bytes()

    # Persons and references

    def enrol(self, person: str, captures: Sequence[Pixels]) -> tuple[int, ...]:
        """Add references of `person`, who may be known already; returns their ids. None is ever changed or evicted.

        Raises:
            UsageError: the name is empty or there is no capture.
            StorageError: `storage-full`, `storage-failed`, `store-corrupt`; nobody was enrolled then.
        """
        if not person or not captures:
            raise UsageError("to enrol needs a person's name and at least one capture")
        images, now_s = [encode_png(capture) for capture in captures], self._clock()
        with self._writing(images) as connection:
            pseudonym = self._pseudonyms.given(connection, person)
            connection.execute("INSERT OR IGNORE INTO persons VALUES (?, ?)", (pseudonym, now_s))
            ids = tuple(rows.add_reference(connection, self._vault, pseudonym, now_s, image) for image in images)
            self._tell(connection, EventKind.ENROLLED, "enrolled", {"references": len(ids), "first_reference": ids[0]})
        return ids

    def persons(self) -> tuple[str, ...]:
        """All enrolled persons, by name."""
        named = self._pseudonyms.name
        return tuple(sorted(named(row["person"]) for row in self._database.rows("SELECT person FROM persons")))

    def references(self) -> tuple[Reference, ...]:
        """All references of all persons, oldest first."""
        found = self._database.rows("SELECT id, person, enrolled_s FROM reference_captures ORDER BY id")
        named = self._pseudonyms.name
        return tuple(Reference(row["id"], named(row["person"]), row["enrolled_s"]) for row in found)

    def reference_capture(self, reference_id: int) -> Pixels:
        """The capture of a reference, as it was enrolled.

        Raises:
            UsageError: there is no such reference.
            StorageError: `store-corrupt`, it is damaged.
        """
        return self._vault.capture("reference_captures", reference_id)

    # Decisions and samples

    def next_decision_id(self) -> int:
        """Id for the next decision; never given to another one before, evicted ones included."""
        return self._vault.next_id("decisions")

    def record(self, decision: DecisionRecord, captures: Mapping[int, Pixels]) -> tuple[int, ...]:
        """Keep a decision and, as its outcome says, the captures to learn from; returns the ids of the samples.

        `captures` are by decision id: none for an outcome that keeps nothing, the capture itself for a first sample,
        and for a second sample that of this decision and any of the earlier ones in `outcome.captures`. A first sample
        is labelled with the person matched.

        Raises:
            UsageError: the captures are not those the outcome speaks of.
            StorageError: `storage-full`, `storage-failed`, `store-corrupt`; nothing was kept then.
        """
        _check_captures(decision, captures)
        images, name = {of: encode_png(captures[of]) for of in sorted(captures)}, decision.observation.person
        with self._writing(list(images.values())) as connection:
            if name is not None and self._pseudonyms.is_erased(connection, name):
                images = {}  # answered before, and too late to be kept
            person = None if name is None else self._pseudonyms.lent(connection, name)
            rows.add_decision(connection, decision, person)
            add = partial(rows.add_sample, connection, self._vault, decision, person=person)
            ids = tuple(add(of, image) for of, image in images.items())
            for sample_id in ids:
                self._tell(connection, EventKind.SAMPLE_KEPT, decision.outcome.reason, {"sample": sample_id})
        return ids

    def decision(self, decision_id: int) -> DecisionRecord:
        """One decision.

        Raises:
            UsageError: there is none of that id, or it is no longer kept.
        """
        return DecisionRecord.from_row(self._row("decisions", decision_id), self._pseudonyms.name)

    def decisions(self, *, after: int = 0) -> tuple[DecisionRecord, ...]:
        """Decisions with an id above `after`, oldest first."""
        found = self._database.rows("SELECT * FROM decisions WHERE id > ? ORDER BY id", after)
        return tuple(DecisionRecord.from_row(row, self._pseudonyms.name) for row in found)

    def kept_today(self, person: str, time_s: float) -> int:
        """First samples of `person` captured on the day (UTC) of `time_s`, whatever became of them."""
        sql = "SELECT count(*) FROM samples WHERE kind = 'first' AND label = ? AND time_s >= ? AND time_s < ?"
        pseudonym = self._pseudonyms.found(person)
        return 0 if pseudonym is None else self._count(sql, pseudonym, *_day(time_s))

    def second_today(self, time_s: float) -> int:
        """Second samples captured on the day (UTC) of `time_s`, whatever became of them."""
        sql = "SELECT count(*) FROM samples WHERE kind = 'second' AND time_s >= ? AND time_s < ?"
        return self._count(sql, *_day(time_s))

    def sample(self, sample_id: int) -> Sample:
        """One sample, dropped ones included.

        Raises:
            UsageError: there is none of that id, or it is no longer kept.
        """
        return Sample.from_row(self._row("samples", sample_id), self._pseudonyms.name)

    def samples(self, *states: State) -> tuple[Sample, ...]:
        """The samples in one of these states, oldest first."""
        marks = ", ".join("?" * len(states))
        sql = f"SELECT * FROM samples WHERE state IN ({marks}) ORDER BY id"  # noqa: S608 - marks alone
        return tuple(Sample.from_row(row, self._pseudonyms.name) for row in self._database.rows(sql, *states))

    def sample_capture(self, sample_id: int) -> Pixels:
        """The capture of a sample, as it was captured.

        Raises:
            UsageError: there is no such sample, or it was dropped.
            StorageError: `store-corrupt`, it is damaged.
        """
        return self._vault.capture("samples", sample_id)

    def label(self, sample_ids: Sequence[int], answer: LabelAnswer) -> int:
        """Store the teacher's answer with the second samples of one attempt; returns with how many.

        Samples that were dropped while the teacher was asked are left as they are. Those of somebody who was erased
        meanwhile are dropped.

        Raises:
            StorageError: `storage-full`, `storage-failed`, `store-corrupt`.
        """
        kind = EventKind.LABEL_ABSTAINED if answer.person is None else EventKind.LABEL_STORED
        with self._writing([b""] * len(sample_ids)) as connection:
            kept = self._with_pseudonyms(connection, answer)
            stored = [i for i in sample_ids if rows.label_sample(connection, i, kept)]
            for sample_id in stored:
                numbers = {"sample": sample_id, "confidence": answer.confidence, "margin": answer.margin}
                self._tell(connection, kind, answer.reason or "the teacher named a person", numbers)
            if answer.person is not None and self._pseudonyms.is_erased(connection, answer.person):
                for sample_id in stored:
                    rows.mark_sample(connection, sample_id, State.DROPPED, NOTE, None)
        return len(stored)

    def _with_pseudonyms(self, connection: sqlite3.Connection, answer: LabelAnswer) -> LabelAnswer:
        """A teacher's answer with pseudonyms in the place of names."""
        named = {n: self._pseudonyms.lent(connection, n) for n in {*answer.soft, answer.person} if n is not None}
        soft = {named[name]: share for name, share in answer.soft.items()}
        return replace(answer, person=None if answer.person is None else named[answer.person], soft=soft)

    def mark(self, sample_ids: Sequence[int], state: State, *, note: str, training_set: int | None = None) -> int:
        """Move samples to `state` and say why; returns how many. Dropping deletes the capture and cannot be undone.

        A `training_set` once given stays until another is given.

        Raises:
            StorageError: `storage-full`, `storage-failed`, `store-corrupt`.
        """
        with self._writing([]) as connection:
            moved = [i for i in sample_ids if rows.mark_sample(connection, i, state, note, training_set)]
            for sample_id in moved if state in _TOLD else []:
                self._tell(connection, _TOLD[state], note, {"sample": sample_id})
        return len(moved)

    def add_lessons(
        self,
        generation: Generation,
        training_set: int,
        persons: Iterable[str],
        *,
        parent: Generation,
        kept: Collection[Generation],
    ) -> None:
        """Keep whom `generation` will have learnt from before its training starts: `persons`, and as its `parent`.

        Besides it, only what is known of the generations `kept` stays.

        Raises:
            StorageError: `storage-full`, `storage-failed`, `store-corrupt`.
        """
        with self._writing([]) as connection:
            named = {self._pseudonyms.given(connection, person) for person in persons}
            write_lessons(connection, generation, training_set, named, parent=parent, kept=kept)

    def latest_set(self, generation: Generation) -> int:
        """Number of the latest training set that `generation` learnt from; 0 for a released version."""
        with self._database.transaction() as connection:
            return latest_set(connection, generation)

    def add_event(self, kind: EventKind, reason: str, numbers: Mapping[str, float], generation: str) -> None:
        """Keep what happened, at the clock's time; `generation` is empty where no student is concerned.

        Raises:
            StorageError: `storage-full`, `storage-failed`, `store-corrupt`.
        """
        with self._writing([]) as connection:
            rows.add_event(connection, self._clock(), kind, reason, numbers, generation=generation)

    def events(self, *, after: int = 0) -> tuple[Event, ...]:
        """Events with an id above `after`, oldest first."""
        found = self._database.rows("SELECT * FROM events WHERE id > ? ORDER BY id", after)
        return tuple(event_from_row(row) for row in found)

    def latest_event_id(self) -> int:
        """Id of the latest event; 0 where nothing happened yet."""
        return self._count("SELECT coalesce(max(id), 0) FROM events")

    def last_event(self, kind: EventKind) -> Event | None:
        """The latest event of a kind; `None` where there was none."""
        found = self._database.rows("SELECT * FROM events WHERE kind = ? ORDER BY id DESC LIMIT 1", kind.value)
        return event_from_row(found[0]) if found else None

    @contextlib.contextmanager
    def _writing(self, parts: Sequence[bytes]) -> Iterator[sqlite3.Connection]:
        """A transaction in which there is room for these `parts`, a row each, or for a row without."""
        needed = _ROW_BYTES + sum(_ROW_BYTES + OVERHEAD_BYTES + len(part) for part in parts)
        with self._database.transaction() as connection:
            evicted = eviction.make_room(connection, self._database.used_bytes, self._database.max_used_bytes - needed)
            if not evicted.enough:
                raise StorageError(
                    Code.STORAGE_FULL, "references fill the store to its bound: raise max_bytes or remove persons"
                )
            if evicted.captures:
                numbers = {"samples": evicted.captures, "history_rows": evicted.rows}
                self._tell(connection, EventKind.SAMPLE_DROPPED, eviction.NOTE, numbers)
            yield connection

    def _tell(self, connection: sqlite3.Connection, kind: EventKind, reason: str, numbers: Mapping[str, float]) -> None:
        rows.add_event(connection, self._clock(), kind, reason, numbers)

    def _row(self, table: str, row_id: int) -> sqlite3.Row:
        found = self._database.rows(f"SELECT * FROM {table} WHERE id = ?", row_id)  # noqa: S608 - a name of ours
        if not found:
            raise UsageError(f"there is no row {row_id} in {table}: it never was, or is no longer kept")
        return found[0]

    def _count(self, sql: str, *values: str | float) -> int:
        return int(self._database.rows(sql, *values)[0][0])


_TOLD = {State.DROPPED: EventKind.SAMPLE_DROPPED, State.QUARANTINED: EventKind.SAMPLE_QUARANTINED}
"""States that are events of their own; the others are told of by the training that caused them."""


def _check_captures(decision: DecisionRecord, captures: Mapping[int, Pixels]) -> None:
    """Refuse to keep what the sample rules did not keep."""
    own, outcome = decision.observation.id, decision.outcome
    allowed = {Kind.NOTHING: set(), Kind.FIRST: {own}, Kind.SECOND: set(outcome.captures)}[outcome.kind]
    if not set(captures) <= allowed or (allowed and own not in captures):
        raise UsageError(
            f"decision {own} keeps {outcome.kind.value}: its captures are {sorted(allowed)}, not {sorted(captures)}"
        )


def _bound(max_bytes: int) -> int:
    if max_bytes < MIN_BYTES:
        raise UsageError(f"a store needs {MIN_BYTES} bytes or more, not {max_bytes}")
    return max_bytes


def _day(time_s: float) -> tuple[float, float]:
    """Start and end of the day (UTC) of `time_s`."""
    start_s = math.floor(time_s / DAY_S) * DAY_S
    return start_s, start_s + DAY_S
