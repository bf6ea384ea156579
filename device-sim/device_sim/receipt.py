"""Receipts of erasures: what a device says it has removed of a person, signed, in one file.

A receipt is canonical JSON with two fields, `receipt` and `signature`, the latter in hexadecimal digits: Ed25519 over
`tutelage erasure receipt`, a line end, and the canonical JSON of `receipt`. That holds:

    format       1
    person       `hmac-sha256:` and 64 digits: a digest of the name, keyed with a secret of the device's store. The
                 device finds the receipt by it when it is asked again; nobody else can try names on it
    device       id of the device's key, as `tutelage.signing.signer_id` gives it
    asked, done  ISO 8601 times by the device's clock
    references   SHA-256 of each reference as it lay sealed in the store
    samples      the same of each sample's capture
    decisions    how many decisions lost the name
    students     name and digest of each student that was deleted because it had learnt from the person
    jobs         names of the students in the making that were given up for the same reason
    student      name and digest of the student that recognised when the device held nothing more
    teacher      `removed`, or `absent` where the teacher knew nobody of that name when it was told
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from device_sim.pointer import Entry
from device_sim.typed_json import plain, typed
from tutelage.canonical import canonical_json, parse_canonical
from tutelage.errors import UsageError
from tutelage.signing import is_signed_by

MAX_RECEIPT_BYTES = 16 << 20
"""Many times what the digests of a full store take."""

_SIGNED_AS = b"tutelage erasure receipt\n"


@dataclass(frozen=True)
class Receipt:
    """What a receipt says; its fields are described at the top of this module."""

    person: str
    device: str
    asked: str
    done: str
    references: tuple[str, ...]
    samples: tuple[str, ...]
    decisions: int
    students: tuple[Entry, ...]
    jobs: tuple[str, ...]
    student: Entry
    teacher: Literal["removed", "absent"]
    format: Literal[1] = 1

    def signed(self, signer: Ed25519PrivateKey) -> bytes:
        """The file of a receipt."""
        said = plain(self)
        return canonical_json({"receipt": said, "signature": signer.sign(_SIGNED_AS + canonical_json(said)).hex()})


def read_receipt(data: bytes, *, trusted: Sequence[Ed25519PublicKey]) -> Receipt:
    """What the file of a receipt says, after one of the `trusted` keys vouched for every byte of it.

    Raises:
        UsageError: it is no receipt, was changed, or is another device's.
    """
    said, signature = _parts(data)
    if not is_signed_by(trusted, signature, _SIGNED_AS + canonical_json(said)):
        raise UsageError("no trusted key signed this receipt: it was changed, or name the key of the device it is of")
    receipt: Receipt = typed(Receipt, said, "the receipt")
    return receipt


def _parts(data: bytes) -> tuple[Any, bytes]:
    try:
        value = parse_canonical(data)
        return value["receipt"], bytes.fromhex(value["signature"])
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError("this is no receipt of an erasure: name the file that the device gave") from error
