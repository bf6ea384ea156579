"""Sealing everything in a store anew with another key, in one transaction.

Before its commit the old key opens all of the store, after it the new one, and at no instant both or neither.
"""

from __future__ import annotations

import sqlite3

from device_sim.schema import changeable_references
from device_sim.vault import Vault
from tutelage.errors import Code, StorageError

DAMAGED = "its capture is damaged"
"""Note of a sample whose capture could not be opened."""

# Every sealed column with the one that names its row; the check value of `meta` is the vault's own.
_SEALED = (
    ("meta", "only_row", "name_key"),
    ("names", "pseudonym", "name"),
    ("reference_captures", "id", "capture"),
    ("samples", "id", "capture"),
    ("erasures", "id", "name"),
)
_DROP = "UPDATE samples SET state = 'dropped', capture = NULL, note = ? WHERE id = ?"


def reseal(connection: sqlite3.Connection, vault: Vault, key: bytes) -> tuple[Vault, int]:
    """The vault of the same store under another `key`, and how many parts were sealed; in the caller's transaction.

    A sample whose capture is damaged is dropped.

    Raises:
        StorageError: `store-corrupt`, something else is damaged; `key-wrong`, the new key has not 32 bytes.
    """
    other, count = vault.under(connection, key), 1
    with changeable_references(connection):
        for table, row_name, column in _SEALED:
            # Constants of this module; one row at a time, for all captures may be more than fits into memory.
            listed = connection.execute(f"SELECT {row_name} FROM {table} WHERE {column} IS NOT NULL")  # noqa: S608
            for (row_id,) in listed.fetchall():
                count += _reseal_row(connection, (vault, other), (table, row_name, column), row_id)
    return other, count


def _reseal_row(
    connection: sqlite3.Connection, vaults: tuple[Vault, Vault], where: tuple[str, str, str], row_id: int | str
) -> int:
    """Seal one column of one row anew; 0 where it was damaged and dropped, else 1."""
    (before, after), (table, row_name, column) = vaults, where
    found = connection.execute(f"SELECT {column} FROM {table} WHERE {row_name} = ?", (row_id,))  # noqa: S608
    try:
        plain = before.open(table, row_id, column, found.fetchone()[0])
    except StorageError as error:
        if table != "samples" or error.code is not Code.STORE_CORRUPT:
            raise
        connection.execute(_DROP, (DAMAGED, row_id))
        return 0
    sealed = after.seal(table, row_id, column, plain)
    connection.execute(f"UPDATE {table} SET {column} = ? WHERE {row_name} = ?", (sealed, row_id))  # noqa: S608
    return 1
