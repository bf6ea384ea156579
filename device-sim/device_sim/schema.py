"""Layout of the device's store, and how an older layout becomes the present one.

One SQLite file. Its header says whose it is (`application_id`) and which layout it has (`user_version`).

    meta                one row: the store's own random id, a sealed check value that tells a wrong key, the sealed key
                        of the names' digests, and whether deleted rows have still to be scrubbed from the file
    names               the name behind each pseudonym, sealed, and its keyed digest; see `pseudonyms`
    persons             one row a person who is enrolled
    reference_captures  a person's enrolment captures; a trigger refuses every change
    decisions           one row a recognised capture: what was seen, answered and ruled; no pixels
    samples             what was kept to learn from; `capture` is NULL once dropped, the row stays as evidence
    events              what happened, in order
    lessons             whom a student learnt from; see `lessons`
    erasures            erasures of persons: how far each is, what it removed, its receipt; see `forgetting`

Columns named `capture` hold a PNG, those named `name` a name, `name_key` a key: each sealed with the device's key for
the purpose `<store id>/<table>/<row id>/<column>`, so that none can be moved to another row, table or device. Wherever
else a person is meant (`person`, `label`, in `answer`), a pseudonym stands. Features are in no table: a feature is only
valid in one space, so each start extracts them anew from the captures. Ids are never used twice, and order is by id,
not by time, since the clock may jump. `numbers`, `captures`, `answer` and `removed` are JSON; numbers may be NaN or
Infinity, as Python writes them. Times are seconds since the epoch.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from tutelage.errors import Code, StorageError

APPLICATION_ID = 0x54555445
"""Marks the file as ours: "TUTE"."""

_FIRST_LAYOUT = """
CREATE TABLE meta (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    store_id TEXT NOT NULL,
    check_value BLOB NOT NULL
);

CREATE TABLE persons (
    person TEXT PRIMARY KEY CHECK (person <> ''),
    enrolled_s REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE reference_captures (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    person TEXT NOT NULL REFERENCES persons ON DELETE CASCADE,
    enrolled_s REAL NOT NULL,
    capture BLOB NOT NULL
);
CREATE INDEX reference_captures_person ON reference_captures (person);
CREATE TRIGGER references_never_change BEFORE UPDATE ON reference_captures
BEGIN SELECT RAISE(ABORT, 'references never change'); END;

CREATE TABLE decisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time_s REAL NOT NULL,
    attempt TEXT NOT NULL,
    person TEXT,
    cosine REAL,
    margin REAL,
    score REAL,
    extrapolated INTEGER NOT NULL,
    decision TEXT NOT NULL,
    space TEXT NOT NULL,
    generation TEXT NOT NULL,
    kind TEXT NOT NULL,
    rule TEXT NOT NULL,
    reason TEXT NOT NULL,
    numbers TEXT NOT NULL,
    captures TEXT NOT NULL
);

CREATE TABLE samples (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    decision_id INTEGER NOT NULL UNIQUE REFERENCES decisions ON DELETE CASCADE,
    attempt_end INTEGER NOT NULL REFERENCES decisions ON DELETE CASCADE,
    time_s REAL NOT NULL,
    kind TEXT NOT NULL,
    score REAL,
    capture BLOB,
    label TEXT,
    source TEXT,
    answer TEXT NOT NULL DEFAULT '{}',
    confidence REAL,
    margin REAL,
    state TEXT NOT NULL CHECK ((state = 'dropped') = (capture IS NULL)),
    training_set INTEGER,
    note TEXT NOT NULL DEFAULT ''
);
CREATE INDEX samples_state ON samples (state);
CREATE INDEX samples_attempt_end ON samples (attempt_end);
CREATE INDEX samples_day ON samples (kind, time_s);

CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time_s REAL NOT NULL,
    kind TEXT NOT NULL,
    reason TEXT NOT NULL,
    numbers TEXT NOT NULL,
    generation TEXT NOT NULL
);
CREATE INDEX events_kind ON events (kind);
"""

_ERASABLE_PERSONS = """
ALTER TABLE meta ADD COLUMN name_key BLOB;
ALTER TABLE meta ADD COLUMN scrub_due INTEGER NOT NULL DEFAULT 0;

CREATE TABLE names (
    pseudonym TEXT PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    name BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE lessons (
    generation TEXT NOT NULL,
    person TEXT NOT NULL,
    training_set INTEGER NOT NULL,
    PRIMARY KEY (generation, person)
) WITHOUT ROWID;

CREATE TABLE erasures (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL,
    stage TEXT NOT NULL,
    name BLOB,
    removed TEXT NOT NULL,
    receipt BLOB
);
CREATE INDEX erasures_digest ON erasures (digest);
"""

NAMED_IN_PLAIN = 1
"""The layout in which persons were named in plain words."""

MIGRATIONS: tuple[str, ...] = (_FIRST_LAYOUT, _ERASABLE_PERSONS)
"""Script i makes layout i + 1 of layout i; scripts are only ever added. What needs the key, to put pseudonyms in the
place of names, follows the second one in the same transaction (`pseudonyms`)."""


def migrate(connection: sqlite3.Connection) -> int:
    """Bring an open transaction's store to the present layout; returns the layout it had, 0 for a new file.

    The caller's transaction makes this all or nothing, the marks in the file's header included.

    Raises:
        StorageError: `store-corrupt`, the file is another program's database; `storage-failed`, a newer release wrote
            it.
    """
    version = _pragma(connection, "user_version")
    _check_ours(connection, version)
    for script in MIGRATIONS[version:]:
        for statement in _statements(script):
            connection.execute(statement)
    if version < len(MIGRATIONS):
        # Pragmas take no parameters; both values are numbers of this module.
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    return version


@contextlib.contextmanager
def changeable_references(connection: sqlite3.Connection) -> Iterator[None]:
    """References may be written within, in the caller's transaction: sealed anew, never with another content."""
    sql = "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = 'references_never_change'"
    (trigger,) = connection.execute(sql).fetchone()
    connection.execute("DROP TRIGGER references_never_change")
    yield
    connection.execute(trigger)


def _check_ours(connection: sqlite3.Connection, version: int) -> None:
    owner = _pragma(connection, "application_id")
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if owner != APPLICATION_ID and (owner or version or objects):
        raise StorageError(Code.STORE_CORRUPT, "the file is a database, but no device's store: name another file")
    if version > len(MIGRATIONS):
        raise StorageError(
            Code.STORAGE_FAILED,
            f"the store has layout {version}, this release knows {len(MIGRATIONS)}: install the release that wrote it",
        )


def _statements(script: str) -> list[str]:
    """The statements of a script, one by one: running it whole would commit the caller's transaction."""
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
