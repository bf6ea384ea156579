"""Bytes sealed with a key: nobody without it can read them, and no change to them goes unnoticed.

Everything biometric at rest is sealed. AES-256-GCM (NIST SP 800-38D) with a fresh random nonce each time; the purpose
of the bytes is bound to them as associated data, so that something sealed for one use cannot be passed off for another.
A key may seal 2**32 times (SP 800-38D §8.3 for random nonces); a device sealing one capture a second gets there in 136
years. `seal_alike` gives the same bytes for the same data, for stores that name things by their content: its nonce is a
keyed hash of purpose and data, so that a nonce is used again for equal data only, whose equality is then no secret.

A sealed part, in order of bytes:

    4   b"TSEA"
    1   version of this layout, 1
    8   id of the key: lets a wrong key be told from damage
    12  nonce
    n   cipher text, as long as the plain text
    16  authentication tag over all of the above and the purpose

A key file holds the 32 bytes as one line of 64 hexadecimal digits.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tutelage.errors import Code, StorageError
from tutelage.files import PRIVATE_MODE, create_file, read_bytes

KEY_BYTES = 32
"""AES-256."""

_MAGIC = b"TSEA\x01"
_ID_BYTES = 8
_NONCE_BYTES = 12
_TAG_BYTES = 16
_HEADER_BYTES = len(_MAGIC) + _ID_BYTES
OVERHEAD_BYTES = _HEADER_BYTES + _NONCE_BYTES + _TAG_BYTES
"""By how much a sealed part is longer than what it holds."""

_KEY_FILE_BYTES = 4096  # more than a key file has, so that a longer file is seen to be none


def seal(data: bytes, key: bytes, *, purpose: str) -> bytes:
    """`data` sealed with `key` (32 bytes) for one `purpose`; never twice the same bytes.

    Raises:
        StorageError: `key-wrong`, the key has not 32 bytes.
    """
    # From the operating system and not a parameter: a nonce used twice would give the plain texts away.
    return _sealed(data, key, os.urandom(_NONCE_BYTES), purpose)


def seal_alike(data: bytes, key: bytes, *, purpose: str) -> bytes:
    """`data` sealed as by `seal`, but always into the same bytes: who sees them can tell equal data, nothing more.

    Raises:
        StorageError: `key-wrong`, the key has not 32 bytes.
    """
    # Derived, so that no key serves two algorithms; the purpose's length keeps it apart from the data.
    nonce_key = hmac.digest(key, b"tutelage nonce key", "sha256")
    words = purpose.encode()
    told = len(words).to_bytes(4, "big") + words + data
    return _sealed(data, key, hmac.digest(nonce_key, told, "sha256")[:_NONCE_BYTES], purpose)


def _sealed(data: bytes, key: bytes, nonce: bytes, purpose: str) -> bytes:
    header = _MAGIC + _key_id(key)
    return header + nonce + AESGCM(key).encrypt(nonce, data, header + purpose.encode())


def open_sealed(data: bytes, key: bytes, *, purpose: str) -> bytes:
    """What was sealed with this `key` for this `purpose`, unchanged to the last bit.

    Raises:
        StorageError: `key-wrong`, it was sealed with another key; `store-corrupt`, it is damaged, cut short, of an
            unknown version or sealed for another purpose.
    """
    if len(data) < OVERHEAD_BYTES or not data.startswith(_MAGIC):
        raise StorageError(Code.STORE_CORRUPT, f"this is no sealed part ({purpose}): restore it from its source")
    header, nonce = data[:_HEADER_BYTES], data[_HEADER_BYTES : _HEADER_BYTES + _NONCE_BYTES]
    key_id, needed = _key_id(key), header[len(_MAGIC) :]
    if key_id != needed:
        raise StorageError(
            Code.KEY_WRONG, f"sealed ({purpose}) with key {needed.hex()}, not with {key_id.hex()}: use that key"
        )
    try:
        return AESGCM(key).decrypt(nonce, data[_HEADER_BYTES + _NONCE_BYTES :], header + purpose.encode())
    except InvalidTag as error:
        raise StorageError(
            Code.STORE_CORRUPT, f"a sealed part is damaged or was not sealed for {purpose}: restore it from its source"
        ) from error


def is_sealed_with(data: bytes, key: bytes) -> bool:
    """Whether `data` says that it was sealed with this `key`; it may be damaged all the same.

    Raises:
        StorageError: `key-wrong`, the key has not 32 bytes.
    """
    return data[:_HEADER_BYTES] == _MAGIC + _key_id(key)


def make_key(path: Path) -> bytes:
    """A fresh random key, kept in a new file that only its owner may read; an existing file is never overwritten.

    Raises:
        StorageError: `storage-full`; `storage-failed`, also where `path` exists.
    """
    key = os.urandom(KEY_BYTES)
    create_file(path, key.hex().encode() + b"\n", mode=PRIVATE_MODE)
    return key


def read_key(path: Path) -> bytes:
    """The 32 bytes of a key file.

    Raises:
        StorageError: `storage-failed`, there is no such file; `key-wrong`, it is not a key file.
    """
    return key_in(read_bytes(path, at_most=_KEY_FILE_BYTES), str(path))


def key_in(content: bytes, name: str) -> bytes:
    """The 32 bytes that the `content` of a key file writes; `name` says in errors where it came from.

    Raises:
        StorageError: `key-wrong`, it is no content of a key file.
    """
    try:
        key = bytes.fromhex(content.strip().decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise StorageError(Code.KEY_WRONG, f"{name} is not a key file: it should hold 64 hexadecimal digits")
    return key


def key_id(key: bytes) -> str:
    """16 hexadecimal digits that name a key without giving it away, as messages about a wrong key do.

    Raises:
        StorageError: `key-wrong`, the key has not 32 bytes.
    """
    return _key_id(key).hex()


def _key_id(key: bytes) -> bytes:
    """Names a key without giving it away: a hash of 256 random bits cannot be searched backwards.

    Raises:
        StorageError: `key-wrong`, the key has not 32 bytes.
    """
    if len(key) != KEY_BYTES:
        raise StorageError(Code.KEY_WRONG, f"a key has {KEY_BYTES} bytes, not {len(key)}: use a key file")
    return hashlib.sha256(b"tutelage key id\x00" + key).digest()[:_ID_BYTES]
