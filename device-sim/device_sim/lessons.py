"""Lessons: whom each student on a device learnt from, so that an erasure knows which students have to go.

A training learns from labelled samples, replays the references of everybody who is enrolled, and starts from a student
that has learnt before. So whom a generation learnt from is written down before its training starts: all enrolled then,
all whose samples are in it, and all whom its parent learnt from. A released version has learnt from nobody here. Where
nothing is written of a local generation, as of those that an older release of this program made, it may have learnt
from anybody.

Rows are written of what is on disk alone: students that recognise or can be fallen back on, and the one in the making.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable

from device_sim.pointer import Generation

ANYBODY = ""
"""In the place of a person: the generation may have learnt from others too."""

_KNOWN = "SELECT person FROM lessons WHERE generation = ?"


def write_lessons(
    connection: sqlite3.Connection,
    generation: Generation,
    training_set: int,
    persons: Iterable[str],
    *,
    parent: Generation,
    kept: Collection[Generation],
) -> None:
    """Write whom `generation` will have learnt from, `persons` being pseudonyms, in the caller's transaction.

    Besides it, only rows of the generations `kept` stay.
    """
    learnt = {*persons, *_learnt(connection, parent), *(_written(connection, generation))}
    names = [str(each) for each in (*kept, generation)]
    marks = ", ".join("?" * len(names))
    connection.execute(f"DELETE FROM lessons WHERE generation NOT IN ({marks})", names)  # noqa: S608 - marks alone
    rows = [(str(generation), person, training_set) for person in sorted(learnt)]
    connection.executemany("INSERT OR REPLACE INTO lessons VALUES (?, ?, ?)", rows)


def learnt_from(connection: sqlite3.Connection, person: str, generations: Iterable[Generation]) -> list[Generation]:
    """Those of `generations` that learnt from `person`, a pseudonym, or may have; sorted by age."""
    return sorted(g for g in set(generations) if {person, ANYBODY} & _learnt(connection, g))


def latest_set(connection: sqlite3.Connection, generation: Generation) -> int:
    """Number of the latest training set that `generation` learnt from; 0 for a released version."""
    sql = "SELECT coalesce(max(training_set), 0) FROM lessons WHERE generation = ?"
    return 0 if generation.is_released else int(connection.execute(sql, (str(generation),)).fetchone()[0])


def _learnt(connection: sqlite3.Connection, generation: Generation) -> set[str]:
    if generation.is_released:
        return set()
    return _written(connection, generation) or {ANYBODY}


def _written(connection: sqlite3.Connection, generation: Generation) -> set[str]:
    return {row[0] for row in connection.execute(_KNOWN, (str(generation),))}
