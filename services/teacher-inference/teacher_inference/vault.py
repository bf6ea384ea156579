"""The vault: one key that seals what is kept of persons, and names it without giving names away.

Names of persons and sites never become keys of objects: a key shows a keyed digest (HMAC-SHA-256) instead, which nobody
without the key can search for a name. Contents are sealed for the very key under which they lie, so that one cannot be
passed off for another.
"""

from __future__ import annotations

import hmac

from tutelage.sealing import key_in, open_sealed, seal
from tutelage.settings import Secret

__all__ = ["Vault"]

_DIGITS = 32  # 128 bits: two names never meet, and keys stay short


class Vault:
    """Seals, opens and names with one key; as many threads as like may use it."""

    def __init__(self, key: bytes) -> None:
        """Use `key`, 32 bytes."""
        self._key = key
        self._naming_key = hmac.digest(key, b"tutelage teacher-inference names", "sha256")

    @classmethod
    def of(cls, secret: Secret, name: str) -> Vault:
        """The vault of a key file's content; `name` says in errors where it came from.

        Raises:
            StorageError: `key-wrong`, it is no key.
        """
        return cls(key_in(secret.value, name))

    def name(self, kind: str, *words: str) -> str:
        """32 hexadecimal digits that stand for these `words`; another `kind` gives others."""
        told = b"".join(len(word).to_bytes(4, "big") + word for word in (text.encode() for text in (kind, *words)))
        return hmac.digest(self._naming_key, told, "sha256").hex()[:_DIGITS]

    def seal(self, data: bytes, purpose: str) -> bytes:
        """`data` sealed for one `purpose`."""
        return seal(data, self._key, purpose=f"teacher-inference {purpose}")

    def open(self, data: bytes, purpose: str) -> bytes:
        """What was sealed for this `purpose`.

        Raises:
            StorageError: `key-wrong`, `store-corrupt`.
        """
        return open_sealed(data, self._key, purpose=f"teacher-inference {purpose}")
