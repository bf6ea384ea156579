"""The sealed part of the store: captures go in as PNG under the device's key, and come out unchanged or not at all.

What is sealed is bound to its store, table and row, so a capture cannot be passed off as another person's by moving it.
A check value sealed when the store is made tells a wrong key at the start rather than at the first capture.
"""

from __future__ import annotations

import secrets
import sqlite3

from device_sim.database import Database
from device_sim.schema import migrate
from tutelage.captures import Pixels, decode_png
from tutelage.errors import UsageError
from tutelage.sealing import open_sealed, seal

_CHECK = b"a device's store"
_LAST_ID = "SELECT seq FROM sqlite_sequence WHERE name = ?"


class Vault:
    """Seals and opens the captures of one store with one key."""

    def __init__(self, database: Database, key: bytes) -> None:
        """Bring the layout up to date and try the 32-byte `key`; a new store is locked with it for good.

        Raises:
            StorageError: `key-wrong`; `store-corrupt`; `storage-full`; `storage-failed`.
        """
        self._database, self._key = database, key
        with database.transaction() as connection:
            if migrate(connection) == 0:
                self._lock_new(connection)
            row = connection.execute("SELECT store_id, check_value FROM meta").fetchone()
        self._store_id: str = row["store_id"]
        open_sealed(row["check_value"], key, purpose=f"{self._store_id}/check")

    def put(self, connection: sqlite3.Connection, table: str, image: bytes) -> tuple[int, bytes]:
        """Id of the next row of `table`, and the PNG `image` sealed for that row; in the caller's transaction."""
        row_id = _following(connection.execute(_LAST_ID, (table,)).fetchall())
        return row_id, seal(image, self._key, purpose=self._purpose(table, row_id))

    def next_id(self, table: str) -> int:
        """Id that the next row of `table` will have; never that of an earlier row, deleted ones included."""
        return _following(self._database.rows(_LAST_ID, table))

    def capture(self, table: str, row_id: int) -> Pixels:
        """The capture of a row.

        Raises:
            UsageError: there is no such row, or its capture was dropped.
            StorageError: `store-corrupt`, it is damaged.
        """
        sql = f"SELECT capture FROM {table} WHERE id = ? AND capture IS NOT NULL"  # noqa: S608 - a name of ours
        rows = self._database.rows(sql, row_id)
        if not rows:
            raise UsageError(f"there is no capture {row_id} in {table}: it never was, or was dropped")
        return decode_png(open_sealed(rows[0]["capture"], self._key, purpose=self._purpose(table, row_id)))

    def _lock_new(self, connection: sqlite3.Connection) -> None:
        store_id = secrets.token_hex(8)
        check = seal(_CHECK, self._key, purpose=f"{store_id}/check")
        connection.execute("INSERT INTO meta VALUES (1, ?, ?)", (store_id, check))

    def _purpose(self, table: str, row_id: int) -> str:
        return f"{self._store_id}/{table}/{row_id}/capture"


def _following(last: list[sqlite3.Row]) -> int:
    """The id after the last one given, 1 where none was."""
    return int(last[0]["seq"]) + 1 if last else 1
