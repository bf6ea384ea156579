"""The sealed part of the store: captures and names go in under the device's key, and come out unchanged or not at all.

What is sealed is bound to its store, table, row and column, so a capture cannot be passed off as another person's by
moving it. A check value sealed when the store is made tells a wrong key at the start rather than at the first capture.
Names are found by digests with a key of their own, which lies sealed beside the check value: so digests stay the same
when the device's key changes.
"""

from __future__ import annotations

import hmac
import secrets
import sqlite3

from device_sim.database import Database
from tutelage.captures import Pixels, decode_png
from tutelage.errors import UsageError
from tutelage.sealing import KEY_BYTES, open_sealed, seal

_CHECK = b"a device's store"
_LAST_ID = "SELECT seq FROM sqlite_sequence WHERE name = ?"


class Vault:
    """Seals and opens what one store holds of persons, with one key."""

    def __init__(self, database: Database, key: bytes, *, store_id: str, name_key: bytes) -> None:
        """Work on an open `database`; `unlock` makes one that has tried the key."""
        self.database, self._key = database, key
        self._store_id, self._name_key = store_id, name_key

    @classmethod
    def unlock(cls, connection: sqlite3.Connection, database: Database, key: bytes) -> Vault:
        """The vault of a store of the present layout, in the caller's transaction; a new store is locked with `key`.

        Raises:
            StorageError: `key-wrong`; `store-corrupt`.
        """
        if not connection.execute("SELECT count(*) FROM meta").fetchone()[0]:
            store_id = secrets.token_hex(8)
            check = seal(_CHECK, key, purpose=check_purpose(store_id))
            connection.execute("INSERT INTO meta (only_row, store_id, check_value) VALUES (1, ?, ?)", (store_id, check))
        row = connection.execute("SELECT store_id, check_value, name_key FROM meta").fetchone()
        store_id, sealed = row["store_id"], row["name_key"]
        open_sealed(row["check_value"], key, purpose=check_purpose(store_id))
        purpose = purpose_of(store_id, "meta", 1, "name_key")
        if sealed is None:
            sealed = seal(secrets.token_bytes(KEY_BYTES), key, purpose=purpose)
            connection.execute("UPDATE meta SET name_key = ?", (sealed,))
        return cls(database, key, store_id=store_id, name_key=open_sealed(sealed, key, purpose=purpose))

    def under(self, connection: sqlite3.Connection, key: bytes) -> Vault:
        """The vault of the same store once all else is sealed with another `key`, in the caller's transaction.

        Raises:
            StorageError: `key-wrong`, the key has not 32 bytes.
        """
        check = seal(_CHECK, key, purpose=check_purpose(self._store_id))
        connection.execute("UPDATE meta SET check_value = ?", (check,))
        return Vault(self.database, key, store_id=self._store_id, name_key=self._name_key)

    def digest(self, name: str) -> str:
        """64 hexadecimal digits that stand for a name; nobody without the store's secret can try names on them."""
        return hmac.digest(self._name_key, name.encode(), "sha256").hex()

    def put(self, connection: sqlite3.Connection, table: str, image: bytes) -> tuple[int, bytes]:
        """Id of the next row of `table`, and the PNG `image` sealed for that row; in the caller's transaction."""
        row_id = following_id(connection, table)
        return row_id, self.seal(table, row_id, "capture", image)

    def next_id(self, table: str) -> int:
        """Id that the next row of `table` will have; never that of an earlier row, deleted ones included."""
        return _following(self.database.rows(_LAST_ID, table))

    def capture(self, table: str, row_id: int) -> Pixels:
        """The capture of a row.

        Raises:
            UsageError: there is no such row, or its capture was dropped.
            StorageError: `store-corrupt`, it is damaged.
        """
        sql = f"SELECT capture FROM {table} WHERE id = ? AND capture IS NOT NULL"  # noqa: S608 - a name of ours
        rows = self.database.rows(sql, row_id)
        if not rows:
            raise UsageError(f"there is no capture {row_id} in {table}: it never was, or was dropped")
        return decode_png(self.open(table, row_id, "capture", rows[0]["capture"]))

    def seal(self, table: str, row_id: int | str, column: str, data: bytes) -> bytes:
        """`data` sealed for one column of one row."""
        return seal(data, self._key, purpose=purpose_of(self._store_id, table, row_id, column))

    def open(self, table: str, row_id: int | str, column: str, sealed: bytes) -> bytes:
        """What was sealed for that column of that row.

        Raises:
            StorageError: `store-corrupt`, it is damaged or another's; `key-wrong`.
        """
        return open_sealed(sealed, self._key, purpose=purpose_of(self._store_id, table, row_id, column))


def following_id(connection: sqlite3.Connection, table: str) -> int:
    """Id of the next row of `table`, in the caller's transaction."""
    return _following(connection.execute(_LAST_ID, (table,)).fetchall())


def purpose_of(store_id: str, table: str, row_id: int | str, column: str) -> str:
    """What the content of one column of one row is sealed for."""
    return f"{store_id}/{table}/{row_id}/{column}"


def check_purpose(store_id: str) -> str:
    """What the check value of a store is sealed for."""
    return f"{store_id}/check"


def _following(last: list[sqlite3.Row]) -> int:
    """The id after the last one given, 1 where none was."""
    return int(last[0]["seq"]) + 1 if last else 1
