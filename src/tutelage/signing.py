"""Ed25519 keys that vouch for student packages (RFC 8032).

A release is signed by the key of those who trained it; a local generation by the key of the device that trained it.
The private half (a signer) stays in a file only its owner may read, PKCS #8 in PEM; the public half travels as PEM
(SubjectPublicKeyInfo), the form every other tool understands, or in a certificate, which some tools make more easily:
of that nothing but the key counts, neither its names nor its end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509 import load_pem_x509_certificate

from tutelage.errors import Code, StorageError
from tutelage.files import PRIVATE_MODE, create_file, read_bytes

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_FILE_BYTES = 16_384  # many times what an Ed25519 key takes


def make_signer(path: Path) -> Ed25519PrivateKey:
    """A fresh signer, kept in a new file that only its owner may read; an existing file is never overwritten.

    Raises:
        StorageError: `storage-full`; `storage-failed`, also where `path` exists.
    """
    signer = Ed25519PrivateKey.generate()
    pem = signer.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    create_file(path, pem, mode=PRIVATE_MODE)
    return signer


def read_signer(path: Path) -> Ed25519PrivateKey:
    """The signer kept in a file.

    Raises:
        StorageError: `storage-failed`, there is no such file; `key-wrong`, it holds no unencrypted Ed25519 signer.
    """
    pem = read_bytes(path, at_most=_FILE_BYTES)
    try:
        signer = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # TypeError is how the library says that a password is needed.
        raise _wrong_key(path, "private") from error
    if not isinstance(signer, Ed25519PrivateKey):
        raise _wrong_key(path, "private")
    return signer


def read_public_key(path: Path) -> Ed25519PublicKey:
    """The public half of a signer, from a PEM file of it or of a certificate for it.

    Raises:
        StorageError: `storage-failed`, there is no such file; `key-wrong`, it holds no Ed25519 public key.
    """
    pem = read_bytes(path, at_most=_FILE_BYTES)
    try:
        key = load_pem_x509_certificate(pem).public_key() if _CERTIFICATE in pem else load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _wrong_key(path, "public") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _wrong_key(path, "public")
    return key


def public_pem(key: Ed25519PublicKey) -> bytes:
    """The public key as PEM text, as `read_public_key` takes it from a file."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def public_raw(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of the public key (RFC 8032 §5.1.5)."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def signer_id(key: Ed25519PublicKey) -> str:
    """A short name for people to compare: `ed25519:` and 16 hexadecimal digits of the key's SHA-256."""
    return "ed25519:" + hashlib.sha256(public_raw(key)).hexdigest()[:16]


def is_signed_by(trusted: Sequence[Ed25519PublicKey], signature: bytes, data: bytes) -> bool:
    """Whether one of the `trusted` keys made this `signature` of `data`; never, where nobody is trusted."""
    return any(_verifies(key, signature, data) for key in trusted)


def _verifies(key: Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _wrong_key(path: Path, half: str) -> StorageError:
    return StorageError(Code.KEY_WRONG, f"{path} holds no Ed25519 {half} key in PEM: name the file of one")
