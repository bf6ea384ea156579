"""What goes first when the store is full, so that it never grows beyond its bound.

In this order, each from the oldest on, until there is room:

1. captures of samples a training has used;
2. captures nobody can learn from: quarantined ones, and those the teacher abstained from;
3. history: decisions no kept capture belongs to, with the rows of their dropped samples, and events; the latest
   `HISTORY_KEPT` of each stay; then receipts of erasures but for the latest `RECEIPTS_KEPT`;
4. fresh first samples, the most easily recognised first: there will be more like them;
5. captures held back for the gate, then second samples: the rarest and the most useful.

References never go. When there is nothing else left, the store refuses new captures with `storage-full`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

HISTORY_KEPT = 1000
"""Latest decisions and events that always stay, so that what just happened can be explained: less than 1 MiB."""

RECEIPTS_KEPT = 100
"""Latest finished erasures whose receipt can be asked for again."""

_CAPTURES_AT_ONCE = 4
_ROWS_AT_ONCE = 200
NOTE = "its place in the store was needed"
"""Note of a sample whose capture was evicted."""

_Step = Callable[[sqlite3.Connection, str], int]


@dataclass(frozen=True)
class Evicted:
    """What had to go for a write."""

    captures: int
    """Samples whose capture is gone."""
    rows: int
    """Decisions and events that are gone."""
    enough: bool
    """Whether there is room now."""


def make_room(connection: sqlite3.Connection, used_bytes: Callable[[], int], target_bytes: int) -> Evicted:
    """Evict within an open transaction until `used_bytes()` is at most `target_bytes`, or nothing is left to evict."""
    counts: dict[_Step, int] = {_drop_captures: 0, _drop_rows: 0}
    room = used_bytes() <= target_bytes
    for step, sql in _ORDER:
        gone = -1
        while not room and gone:
            gone = step(connection, sql)
            counts[step] += gone
            room = used_bytes() <= target_bytes
    return Evicted(counts[_drop_captures], counts[_drop_rows], room)


def _drop_captures(connection: sqlite3.Connection, which: str) -> int:
    """Drop the captures of the next few samples; returns how many."""
    dropped = connection.execute(
        "UPDATE samples SET state = 'dropped', capture = NULL, note = ? WHERE id IN "  # noqa: S608 - constants below
        f"(SELECT id FROM samples WHERE {which} LIMIT {_CAPTURES_AT_ONCE})",
        (NOTE,),
    )
    return dropped.rowcount


def _drop_rows(connection: sqlite3.Connection, sql: str) -> int:
    """Delete the next few rows of history; returns how many."""
    limits = {"kept": HISTORY_KEPT, "receipts": RECEIPTS_KEPT, "at_once": _ROWS_AT_ONCE}
    return connection.execute(sql, limits).rowcount


_OLD_DECISIONS = """
DELETE FROM decisions WHERE id IN (
    SELECT d.id FROM decisions AS d
    WHERE d.id <= (SELECT max(id) FROM decisions) - :kept
    AND NOT EXISTS (SELECT 1 FROM samples AS s WHERE s.decision_id = d.id AND s.state <> 'dropped')
    AND NOT EXISTS (SELECT 1 FROM samples AS s WHERE s.attempt_end = d.id AND s.state <> 'dropped')
    ORDER BY d.id LIMIT :at_once)
"""
_OLD_EVENTS = """
DELETE FROM events WHERE id IN (
    SELECT id FROM events WHERE id <= (SELECT max(id) FROM events) - :kept ORDER BY id LIMIT :at_once)
"""
_OLD_RECEIPTS = """
DELETE FROM erasures WHERE id IN (
    SELECT id FROM erasures WHERE stage = 'done' ORDER BY id DESC LIMIT :at_once OFFSET :receipts)
"""
_ORDER: tuple[tuple[_Step, str], ...] = (
    (_drop_captures, "state = 'used' ORDER BY id"),
    (_drop_captures, "state = 'quarantined' OR (state = 'fresh' AND source = 'abstained') ORDER BY id"),
    (_drop_rows, _OLD_DECISIONS),
    (_drop_rows, _OLD_EVENTS),
    (_drop_rows, _OLD_RECEIPTS),
    (_drop_captures, "state = 'fresh' AND kind = 'first' ORDER BY score DESC, id"),
    (_drop_captures, "state = 'held-back' ORDER BY id"),
    (_drop_captures, "state = 'fresh' ORDER BY id"),
)
