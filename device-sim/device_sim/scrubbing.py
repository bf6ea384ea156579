"""Scrubbing a store: nothing is left in its file or its log of what was deleted for good.

Deleting writes zeros over rows, yet what a row's neighbours left behind when a page was filled anew may remain. So
every page is written anew. That takes as long as to copy the file, and an answer that has to be recorded would wait for
it: it is put off while people stand at the door, and given up when one comes. Where the door is never quiet for long
enough it is done all the same in the end, for who was erased must not wait for ever.

Whoever deletes for good marks the store in the same transaction: a power cut puts scrubbing off, and nothing else.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from device_sim.activity import Activity
from device_sim.database import Database

PATIENCE_S = 15.0
"""How long it is tried without delaying anybody; well within the deadline of a call."""
QUIET_S = 0.5
"""Nobody was recognised for so long: captures come in bursts."""
_LOOK_S = 0.05


class Scrubbing:
    """The scrubbing of one store; safe for several threads, as its database is."""

    def __init__(self, database: Database) -> None:
        """Work on the store of an open `database`."""
        self._database = database

    @property
    def is_due(self) -> bool:
        """Whether something was deleted for good since the last scrubbing."""
        return bool(self._database.rows("SELECT scrub_due FROM meta")[0][0])

    @staticmethod
    def mark(connection: sqlite3.Connection) -> None:
        """Make it due, in the caller's transaction."""
        connection.execute("UPDATE meta SET scrub_due = 1")

    def scrub(self) -> bool:
        """Scrub if it is due; false where `give_way` ended it. Whoever writes meanwhile waits.

        Raises:
            StorageError: `storage-full`, `storage-failed`; it is still due.
        """
        if self.is_due:
            if not self._database.scrub():
                return False
            with self._database.transaction() as connection:
                connection.execute("UPDATE meta SET scrub_due = 0")
        return True

    def scrub_quietly(self, activity: Activity, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Scrub if it is due, when nobody is recognised; after `PATIENCE_S` in any case.

        Raises:
            StorageError: as `scrub`.
        """
        until = clock() + PATIENCE_S
        activity.watch(self._database.give_way)
        try:
            while self.is_due and clock() < until:
                if activity.idle_s < QUIET_S or not self.scrub():
                    time.sleep(_LOOK_S)
        finally:
            activity.unwatch(self._database.give_way)
        self.scrub()
