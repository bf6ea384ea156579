"""Pseudonyms: what stands for a person in every row of the store, so that a name lies in one place alone, sealed.

A pseudonym is drawn at random when a name is first met, and the table `names` is the only way back from it. When a
person is erased their row there goes, and what is left of them in decisions, samples and labels, which explain other
persons' samples too, says nothing any more to anybody, not even to who has the key. Such a person is shown by the
pseudonym itself. To find a name without opening all of them each row has a digest, keyed with a secret of the store.
"""

from __future__ import annotations

import json
import secrets
import sqlite3

from device_sim.schema import changeable_references
from device_sim.vault import Vault

PREFIX = "person-"
"""What a pseudonym begins with; sixteen hexadecimal digits follow."""

# Each column that holds names in the first layout; `answer` holds them within its JSON.
_NAMES = (("persons", "person"), ("reference_captures", "person"), ("decisions", "person"), ("samples", "label"))
_IS_ERASED = """
SELECT EXISTS (SELECT 1 FROM erasures WHERE digest = :digest)
    AND NOT EXISTS (SELECT 1 FROM names WHERE digest = :digest)
"""
_FIND = "SELECT pseudonym FROM names WHERE digest = ?"


class Pseudonyms:
    """Names and pseudonyms of one store; safe for several threads, as its database is."""

    def __init__(self, vault: Vault) -> None:
        """Work on the store of `vault`."""
        self._vault = vault
        self._opened: dict[str, str] = {}

    def found(self, name: str) -> str | None:
        """The pseudonym of `name`; None for a name that the store does not hold."""
        rows = self._vault.database.rows(_FIND, self._vault.digest(name))
        return str(rows[0][0]) if rows else None

    def given(self, connection: sqlite3.Connection, name: str) -> str:
        """The pseudonym of `name`, drawn and kept in the caller's transaction where there is none."""
        return _given(connection, self._vault, name)

    def lent(self, connection: sqlite3.Connection, name: str) -> str:
        """As `given`, but for somebody who was erased and not enrolled again: a pseudonym that leads to no name."""
        return drawn() if self.is_erased(connection, name) else _given(connection, self._vault, name)

    def is_erased(self, connection: sqlite3.Connection, name: str) -> bool:
        """Whether the store knows the person of this `name` only as one who was erased."""
        digest = self._vault.digest(name)
        return bool(connection.execute(_IS_ERASED, {"digest": digest}).fetchone()[0])

    def name(self, pseudonym: str) -> str:
        """The name behind a pseudonym; the pseudonym itself where its person was erased."""
        if pseudonym not in self._opened:
            rows = self._vault.database.rows("SELECT name FROM names WHERE pseudonym = ?", pseudonym)
            if not rows:
                return pseudonym
            self._opened[pseudonym] = self._vault.open("names", pseudonym, "name", rows[0]["name"]).decode()
        return self._opened[pseudonym]

    def forget(self, connection: sqlite3.Connection, pseudonym: str) -> None:
        """Let nothing lead from a pseudonym to its name any more, in the caller's transaction."""
        connection.execute("DELETE FROM names WHERE pseudonym = ?", (pseudonym,))
        self._opened.pop(pseudonym, None)


def drawn() -> str:
    """A new pseudonym."""
    return PREFIX + secrets.token_hex(8)


def pseudonymise(connection: sqlite3.Connection, vault: Vault) -> None:
    """Put pseudonyms where a store of the first layout holds names in plain words, in the caller's transaction."""
    connection.execute("PRAGMA defer_foreign_keys = ON")
    with changeable_references(connection):
        for table, column in _NAMES:
            # Constants of this module.
            sql = f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL"  # noqa: S608
            for (name,) in connection.execute(sql).fetchall():
                change = f"UPDATE {table} SET {column} = ? WHERE {column} = ?"  # noqa: S608
                connection.execute(change, (_given(connection, vault, name), name))
    for row in connection.execute("SELECT id, answer FROM samples WHERE answer <> '{}'").fetchall():
        answer = json.loads(row["answer"])
        answer["soft"] = {_given(connection, vault, name): share for name, share in answer.get("soft", {}).items()}
        connection.execute("UPDATE samples SET answer = ? WHERE id = ?", (json.dumps(answer), row["id"]))


def _given(connection: sqlite3.Connection, vault: Vault, name: str) -> str:
    digest = vault.digest(name)
    if row := connection.execute(_FIND, (digest,)).fetchone():
        return str(row[0])
    pseudonym = drawn()
    sealed = vault.seal("names", pseudonym, "name", name.encode())
    connection.execute("INSERT INTO names VALUES (?, ?, ?)", (pseudonym, digest, sealed))
    return pseudonym
