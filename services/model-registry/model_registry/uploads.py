"""Uploads: what arrived of a package whose stream broke, kept so that the next call can go on from there.

    uploads/HEX.json                 pointer, HEX from the digests and the size that name the upload; canonical JSON:
                                     {"parts": [{"key": ..., "size": ...}], "end": ISO 8601 time}
    expiring/SECONDS/sha256/HEX      the parts, gone after `LIFETIME`

A stream that arrives whole never gets here. Parts are read back in order; the package's digest checks them together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tutelage.canonical import canonical_json, parse_canonical
from tutelage.errors import Code, ObjectError
from tutelage.objects import ObjectStore

__all__ = ["LIFETIME", "Upload", "Uploads"]

UPLOADS_PREFIX = "uploads/"

LIFETIME = timedelta(days=1)
"""How long a broken upload can be gone on with."""


@dataclass(frozen=True)
class Upload:
    """What names an upload: the package, the file and its length."""

    digest: str
    file_digest: str
    size_bytes: int

    @property
    def key(self) -> str:
        """Where its pointer lies."""
        name = f"{self.digest} {self.file_digest} {self.size_bytes}"
        return f"{UPLOADS_PREFIX}{hashlib.sha256(name.encode()).hexdigest()}.json"


@dataclass(frozen=True)
class _Pointer:
    """Which parts are kept, and until when."""

    parts: Sequence[Mapping[str, Any]]
    end: datetime
    tag: str | None
    """For the next write; None where there is no pointer yet."""

    @property
    def size(self) -> int:
        return sum(part["size"] for part in self.parts)


class Uploads:
    """Parts of broken uploads in an object store; synchronous, as the store is."""

    def __init__(self, objects: ObjectStore) -> None:
        """Read and write in `objects`."""
        self._objects = objects

    def stored_bytes(self, upload: Upload, now: datetime) -> int:
        """How many bytes are kept from the file's beginning."""
        return self._pointer(upload, now).size

    def read(self, upload: Upload, now: datetime) -> Iterator[bytes]:
        """The bytes that are kept, in pieces.

        Raises:
            ObjectError: `object-missing`, their time ran out meanwhile.
        """
        for part in self._pointer(upload, now).parts:
            yield from self._objects.read(part["key"])

    def keep(self, upload: Upload, data: bytes, *, offset: int, now: datetime) -> int:
        """Keep `data` as what follows the first `offset` bytes; how many are kept then.

        Raises:
            ObjectError: `object-conflict`, another call keeps bytes of this upload at the same time.
        """
        pointer = self._pointer(upload, now)
        if not offset:
            pointer = _Pointer((), now + LIFETIME, pointer.tag)
        if pointer.size != offset:
            raise ObjectError(Code.OBJECT_CONFLICT, "the upload was gone on with elsewhere: ask where it stands")
        if not data:
            return offset
        part = self._objects.put([data], lifetime=LIFETIME)
        self._point(upload, [*pointer.parts, {"key": part.key, "size": part.size}], pointer)
        return offset + part.size

    def drop(self, upload: Upload) -> None:
        """Forget the upload; its parts expire."""
        self._objects.delete(upload.key)

    def sweep(self, now: datetime) -> int:
        """Forget uploads whose time ran out; how many that were."""
        gone = [key for key in self._objects.list(UPLOADS_PREFIX).keys if self._read(key).end <= now]
        for key in gone:
            self._objects.delete(key)
        return len(gone)

    def _pointer(self, upload: Upload, now: datetime) -> _Pointer:
        """Of what can still be read of `upload`."""
        try:
            found = self._read(upload.key)
        except ObjectError as error:
            if error.code is not Code.OBJECT_MISSING:
                raise
            return _Pointer((), now + LIFETIME, None)
        return found if found.end > now else _Pointer((), now + LIFETIME, found.tag)

    def _read(self, key: str) -> _Pointer:
        named = self._objects.get(key)
        fields = parse_canonical(named.data)
        return _Pointer(fields["parts"], datetime.fromisoformat(fields["end"]), named.tag)

    def _point(self, upload: Upload, parts: Sequence[Mapping[str, Any]], before: _Pointer) -> None:
        # The end stays that of the first part: when it goes, the upload is gone.
        data = canonical_json({"parts": list(parts), "end": before.end.isoformat()})
        if before.tag is None:
            self._objects.create(upload.key, data)
        else:
            self._objects.replace(upload.key, data, tag=before.tag)
