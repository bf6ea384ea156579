"""One SQLite connection that a pulled plug cannot hurt.

Writes go to a write-ahead log that reaches the disk at every commit (`synchronous=FULL`), so a transaction is whole or
absent whatever happens at whichever instruction. What is deleted is overwritten with zeros. Everything SQLite can
complain of ends here as a `StorageError`; nothing of what was being written gets into a message.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tutelage.errors import Code, StorageError
from tutelage.files import PRIVATE_MODE, storage_error

PAGE_BYTES = 4096
_LOG_PAGES = 1000
"""The write-ahead log is folded back into the file after about this many pages: SQLite's own default."""
_LOG_SHARE = 16
"""In a small store that happens after one part in this many."""
_BUSY_TIMEOUT_S = 5.0
"""How long a write waits for another process's; ours hold the lock for milliseconds."""

_CODES = {
    sqlite3.SQLITE_FULL: (Code.STORAGE_FULL, "the disk is full: free some space"),
    sqlite3.SQLITE_CORRUPT: (Code.STORE_CORRUPT, "the store is damaged: restore it from a copy, or enrol anew"),
    sqlite3.SQLITE_NOTADB: (Code.STORE_CORRUPT, "the file is no device's store: name another, or restore it"),
    sqlite3.SQLITE_BUSY: (Code.STORAGE_FAILED, "another process keeps the store locked: try again"),
    sqlite3.SQLITE_CONSTRAINT: (Code.STORE_CORRUPT, "a row was refused because it contradicts what is stored"),
}
_OTHERWISE = (Code.STORAGE_FAILED, "the store could not be read or written: check disk and permissions")


class Database:
    """A connection with transactions; safe for several threads, which take turns."""

    def __init__(self, connection: sqlite3.Connection, name: str, max_bytes: int, *, alone: bool = False) -> None:
        """Own an open `connection`; `name` is how messages call it."""
        self._connection = connection
        self._name = name
        self._lock = threading.RLock()
        self._giving_way, self._may_give_way = threading.Lock(), False
        log_pages = min(_LOG_PAGES, max_bytes // _LOG_SHARE // PAGE_BYTES)
        # Twice, because the log is folded back only after the write that takes it beyond its limit.
        self._max_used_bytes = max_bytes - 2 * log_pages * PAGE_BYTES
        try:
            with _mapped(name):
                self._configure(log_pages, alone)
                self._check()
        except StorageError:
            connection.close()
            raise

    @classmethod
    def open(cls, path: Path, max_bytes: int, *, alone: bool = False) -> Database:
        """The database at `path`, made if absent and then readable by its owner alone; its pages are checked.

        Opened `alone`, no other process has it open until it is closed, nor can open it.

        Raises:
            StorageError: `storage-full`, `storage-failed`, `store-corrupt`.
        """
        try:
            # SQLite gives the log the mode of the file, so this decides for both.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_MODE))
        except OSError as error:
            raise storage_error(error, path, "opened") from error
        return cls(_connect(str(path)), str(path), max_bytes, alone=alone)

    @classmethod
    def in_memory(cls, max_bytes: int) -> Database:
        """A database that is gone when closed."""
        return cls(_connect(":memory:"), "the store in memory", max_bytes)

    @property
    def max_used_bytes(self) -> int:
        """What the pages in use may take: the bound without the log's part."""
        return self._max_used_bytes

    def used_bytes(self) -> int:
        """Bytes of the pages in use, those changed by an open transaction included."""
        return (self._number("page_count") - self._number("freelist_count")) * PAGE_BYTES

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """All rows of a query.

        Raises:
            StorageError: `storage-failed`, `store-corrupt`.
        """
        with self._lock, _mapped(self._name):
            return self._connection.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything done within is on disk when this ends, or nothing of it is.

        Raises:
            StorageError: `storage-full`, `storage-failed`, `store-corrupt`.
        """
        with self._lock, _mapped(self._name):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite itself rolls back after some failures; what matters is the error that led here.
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    def scrub(self) -> bool:
        """Leave nothing of deleted rows in the file or its log: every page is written anew and the log is emptied.

        False where `give_way` ended it before it was done; nothing has changed then.

        Raises:
            StorageError: `storage-full`, writing the pages anew takes as much room as they do; `storage-failed`,
                another process reads the store.
        """
        with self._lock, _mapped(self._name):
            # Deleting writes zeros over rows, yet what a row's neighbours left when a page was filled anew may remain.
            if not self._rewritten():
                return False
            self.empty_log()
        return True

    def _rewritten(self) -> bool:
        with self._giving_way:
            self._may_give_way = True
        try:
            self._connection.execute("VACUUM")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            return False
        finally:
            with self._giving_way:
                self._may_give_way = False
        return True

    def give_way(self) -> None:
        """End a scrubbing that another thread is in the middle of; whatever else is done with the store goes on."""
        with self._giving_way:
            if self._may_give_way:
                self._connection.interrupt()

    def empty_log(self) -> None:
        """Fold the log into the file, and leave nothing in it.

        Raises:
            StorageError: `storage-full`; `storage-failed`, another process reads the store.
        """
        with self._lock, _mapped(self._name):
            (busy, *_) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StorageError(*_message(_CODES[sqlite3.SQLITE_BUSY], self._name))

    def close(self) -> None:
        """Fold the log into the file and let go; a second call does nothing."""
        with self._lock, _mapped(self._name):
            self._connection.close()

    def _configure(self, log_pages: int, alone: bool) -> None:
        for setting in (
            f"locking_mode = {'EXCLUSIVE' if alone else 'NORMAL'}",
            f"page_size = {PAGE_BYTES}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "secure_delete = ON",
            "temp_store = MEMORY",
            f"wal_autocheckpoint = {log_pages}",
            f"journal_size_limit = {log_pages * PAGE_BYTES}",
        ):
            self._connection.execute(f"PRAGMA {setting}")

    def _check(self) -> None:
        """Look at every page once: damage is met at the start, not in front of a waiting person."""
        (verdict,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StorageError(*_message(_CODES[sqlite3.SQLITE_CORRUPT], self._name))

    def _number(self, pragma: str) -> int:
        value: int = self.rows(f"PRAGMA {pragma}")[0][0]
        return value


def _connect(database: str) -> sqlite3.Connection:
    with _mapped(database):
        # No implicit transactions: each one is begun and ended by name.
        connection = sqlite3.connect(database, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection


@contextlib.contextmanager
def _mapped(name: str) -> Iterator[None]:
    """Turn whatever SQLite raises into the catalogue's word for it."""
    try:
        yield
    except sqlite3.Error as error:
        # The lowest byte is the family of an extended code.
        family = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        raise StorageError(*_message(_CODES.get(family, _OTHERWISE), name)) from error


def _message(entry: tuple[Code, str], name: str) -> tuple[Code, str]:
    return entry[0], f"{name}: {entry[1]}"
