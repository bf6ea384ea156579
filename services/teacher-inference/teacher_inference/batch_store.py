"""Where submitted batches lie: captures and answers as expiring objects, and small sealed records that name them.

    expiring/SECONDS/sha256/HEX          captures of a batch, and its answers, sealed; `tutelage.objects`
    label-batches/ID/batch.sealed        written once: site, digest of the attempts, key of the captures, times
    label-batches/ID/answers.sealed      written once, when the batch is answered: key of the answers
    label-batch-ends/SECONDS-ID          written before the record: when, in UNIX seconds, a sweep forgets the batch

ID is a keyed digest of site and idempotency key, so that a repeated call finds the first one's record. The record of an
answered batch is never written again: however many workers answer it, the first answers count. Answers name persons by
their keyed digests, so that nothing is left of a person who is removed meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from teacher_inference.conflicts import conflict_ignored
from teacher_inference.vault import Vault
from tutelage.canonical import canonical_json
from tutelage.errors import Code, ObjectError
from tutelage.objects import ObjectStore

__all__ = ["BatchRecord", "BatchStore"]

REMEMBERED = timedelta(days=1)
"""How long an expired batch is known as such; then its id and its idempotency key are forgotten."""

ENDS = "label-batch-ends/"

_LENGTH = struct.Struct(">I")
_SECONDS_DIGITS = 12


@dataclass(frozen=True)
class BatchRecord:
    """What is written about a batch when it is submitted."""

    batch_id: str
    site: str
    attempts: str
    """Digest of the attempts; the same for the same captures in the same order."""
    captures: str
    """Key of the sealed captures."""
    submitted: float
    """UNIX seconds."""
    expires: float
    """UNIX seconds."""

    @property
    def forgotten(self) -> float:
        """When nothing is known of the batch any more, in UNIX seconds."""
        return self.expires + REMEMBERED.total_seconds()


class BatchStore:
    """Keeps batches in an object store; blocking, for many threads."""

    def __init__(self, objects: ObjectStore, vault: Vault, *, clock: Callable[[], float] = time.time) -> None:
        """Keep batches in `objects`; `clock` gives UNIX seconds."""
        self._objects, self._vault, self._clock = objects, vault, clock

    def batch_id(self, site: str, key: str) -> str:
        """ID of the batch under an idempotency `key` at a site."""
        return self._vault.name("batch", site, key)

    def find(self, batch_id: str) -> BatchRecord | None:
        """The record of a batch; None where there is none, or no longer."""
        about = self._record(_record_key(batch_id))
        record = BatchRecord(**about) if about is not None else None
        return None if record is None or record.forgotten <= self._clock() else record

    def submit(self, batch_id: str, site: str, attempts: Sequence[Sequence[bytes]], lifetime: timedelta) -> BatchRecord:
        """The record of a new batch, whose captures expire after `lifetime`; of the one that is there, if there is."""
        now, seconds = self._clock(), lifetime.total_seconds()
        kept = self._objects.put([self._vault.seal(_packed(attempts), _captures_purpose(batch_id))], lifetime=lifetime)
        record = BatchRecord(batch_id, site, attempts_digest(attempts), kept.key, now, now + seconds)
        with conflict_ignored():
            self._objects.create(f"{ENDS}{int(record.forgotten) + 1:0{_SECONDS_DIGITS}d}-{batch_id}", b"-")
        while True:
            with conflict_ignored():
                self._create(_record_key(batch_id), vars(record), needs=[kept.key])
                return record
            if (found := self.find(batch_id)) is not None:
                self._objects.delete(kept.key)
                return found
            self._forget(batch_id)  # its time is over and no sweep came by

    def attempts(self, record: BatchRecord) -> list[list[bytes]]:
        """The attempts that were submitted.

        Raises:
            ObjectError: `object-missing`, they have expired or the batch is done.
        """
        sealed = b"".join(self._objects.read(record.captures))
        return _unpacked(self._vault.open(sealed, _captures_purpose(record.batch_id)))

    def answer(self, record: BatchRecord, answers: Sequence[Mapping[str, Any]]) -> bool:
        """Write the `answers` of a batch, unless it has some; whether it had none. Its captures are deleted."""
        left = timedelta(seconds=max(record.expires - self._clock(), 1.0))
        sealed = self._vault.seal(canonical_json(list(answers)), _answers_key(record.batch_id))
        kept = self._objects.put([sealed], lifetime=left)
        first = False
        with conflict_ignored():
            self._create(_answers_key(record.batch_id), {"answers": kept.key}, needs=[kept.key])
            first = True
        if not first:
            self._objects.delete(kept.key)
        self.delete_captures(record)
        return first

    def is_answered(self, batch_id: str) -> bool:
        """Whether a batch has its answers."""
        return self._record(_answers_key(batch_id)) is not None

    def answers(self, batch_id: str) -> list[Mapping[str, Any]] | None:
        """The answers of a batch; None while there are none.

        Raises:
            ObjectError: `object-missing`, they have expired.
        """
        about = self._record(_answers_key(batch_id))
        if about is None:
            return None
        sealed = b"".join(self._objects.read(about["answers"]))
        found: list[Mapping[str, Any]] = json.loads(self._vault.open(sealed, _answers_key(batch_id)))
        return found

    def delete_captures(self, record: BatchRecord) -> None:
        """Delete the captures of a batch; they may be gone already."""
        self._objects.delete(record.captures)

    def sweep(self) -> int:
        """Forget batches that expired long ago; how many."""
        forgotten, after = 0, ""
        while True:
            page = self._objects.list(ENDS, after=after)
            for key in page.keys:
                seconds, _, batch_id = key.removeprefix(ENDS).partition("-")
                if int(seconds) > self._clock():
                    return forgotten
                # A later call under the same key may have made another batch since this end was written.
                if self.find(batch_id) is None:
                    self._forget(batch_id)
                    forgotten += 1
                self._objects.delete(key)
            if page.after is None:
                return forgotten
            after = page.after

    def _forget(self, batch_id: str) -> None:
        self._objects.delete(_answers_key(batch_id))
        self._objects.delete(_record_key(batch_id))

    def _create(self, key: str, about: Mapping[str, Any], needs: Sequence[str]) -> None:
        self._objects.create(key, self._vault.seal(canonical_json(dict(about)), key), needs=needs)

    def _record(self, key: str) -> dict[str, Any] | None:
        try:
            sealed = self._objects.get(key).data
        except ObjectError as error:
            if error.code is Code.OBJECT_MISSING:
                return None
            raise
        about: dict[str, Any] = json.loads(self._vault.open(sealed, key))
        return about


def attempts_digest(attempts: Sequence[Sequence[bytes]]) -> str:
    """Stands for these captures in this order."""
    return hashlib.sha256(_packed(attempts)).hexdigest()


def _packed(attempts: Sequence[Sequence[bytes]]) -> bytes:
    sizes = canonical_json([[len(capture) for capture in attempt] for attempt in attempts])
    return b"".join([_LENGTH.pack(len(sizes)), sizes, *(capture for attempt in attempts for capture in attempt)])


def _unpacked(data: bytes) -> list[list[bytes]]:
    (length,) = _LENGTH.unpack_from(data)
    start = _LENGTH.size + length
    attempts: list[list[bytes]] = []
    for sizes in json.loads(data[_LENGTH.size : start]):
        attempts.append([])
        for size in sizes:
            attempts[-1].append(data[start : start + size])
            start += size
    return attempts


def _record_key(batch_id: str) -> str:
    return f"label-batches/{batch_id}/batch.sealed"


def _answers_key(batch_id: str) -> str:
    return f"label-batches/{batch_id}/answers.sealed"


def _captures_purpose(batch_id: str) -> str:
    return f"captures of batch {batch_id}"
