"""Objects: immutable bytes named by their digest, write-once manifests, and small pointers that are swapped.

Three kinds of keys, the same in every store:

    objects/sha256/HEX              immutable and content-addressed
    expiring/SECONDS/sha256/HEX     the same with an end: readers refuse it from that UNIX time on (12 digits, so that
                                    keys sort by it), and `sweep` deletes it
    anything/else.json              named: written once (`create`), or swapped against its tag (`replace`)

A write is complete only when its manifest exists: put the objects, then `create` the manifest that names them.
`create` refuses while one of them is missing, so whoever sees a manifest can read everything it names.

The interface is synchronous, because both the minio client and a file system are: coroutines that hide threads would
only hide who waits. Callers in an event loop use `await asyncio.to_thread(store.put, ...)`; a store is safe to use from
many threads. Every call ends, well or with a typed error, within the store's own limits of time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Protocol, TypeVar

from tutelage.errors import Code, ObjectError

Piece = bytes | memoryview
"""What an object is put together from."""

CHUNK_BYTES = 1 << 20
"""Size of the pieces that `read` yields, at most."""

MAX_NAMED_BYTES = 4 << 20
"""Manifests and pointers are read whole; larger data is an object."""

MAX_KEY_CHARACTERS = 512
MAX_SEGMENT_CHARACTERS = 200

PAGE_KEYS = 1000
"""Keys in one page of a listing, at most; what S3 gives in one answer."""

_AnyPiece = TypeVar("_AnyPiece", bound=Piece)

_OBJECTS = "objects/"
_EXPIRING = "expiring/"
_SEGMENT = re.compile(rf"[A-Za-z0-9_=+@-][A-Za-z0-9._=+@-]{{0,{MAX_SEGMENT_CHARACTERS - 1}}}")
_HEX = re.compile(r"[0-9a-f]{64}")
_IMMUTABLE = re.compile(r"(?:objects|expiring/(?P<end>[0-9]{12}))/sha256/(?P<hex>[0-9a-f]{64})")


@dataclass(frozen=True)
class Stored:
    """An object that is in the store, whole."""

    key: str
    """What reads it."""
    digest: str
    """`sha256:` and 64 hexadecimal digits."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Named:
    """A manifest or pointer as it was read."""

    data: bytes
    tag: str
    """Stands for this content; `replace` takes it as proof that nobody changed it."""


@dataclass(frozen=True)
class Page:
    """Part of a listing."""

    keys: Sequence[str]
    """In the order of their characters."""
    after: str | None
    """Where the next page begins; None with the last one."""


class ObjectStore(Protocol):
    """Every method may raise `ObjectError`: `objects-unavailable` (retryable), `objects-refused`, and `object-key`."""

    def put(
        self,
        chunks: Iterable[Piece],
        *,
        digest: str | None = None,
        size: int | None = None,
        lifetime: timedelta | None = None,
    ) -> Stored:
        """Keep what `chunks` yield, without holding it all in memory; visible when it is whole, or never.

        With a `digest` the bytes are checked against it first; with their `size` beside it, they can be stored faster.
        With a `lifetime` (over zero, rounded up to seconds) the object expires. The same bytes again are the same
        object.

        Raises:
            ObjectError: `object-corrupt`, the bytes do not have that digest or size.
            StorageError: `storage-full`.
        """

    def size(self, key: str) -> int:
        """Bytes of an object.

        Raises:
            ObjectError: `object-missing`, it is not there or has expired.
        """

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The object's bytes from `offset`, `length` of them or all the rest; a broken download resumes with these.

        Read whole, it is checked against its digest, and the iteration ends with an error if it does not match. A part
        cannot be checked: who resumes checks the whole.

        Raises:
            ObjectError: `object-missing`; `object-corrupt`; `object-range`, `offset` is beyond the end.
        """

    def create(self, key: str, data: bytes, *, needs: Sequence[str] = ()) -> str:
        """Write the named `key` once, if all objects that it `needs` (keys) are there; its tag.

        Of many who create one key at a time, exactly one succeeds.

        Raises:
            ObjectError: `object-conflict`, it exists; `object-missing`, something it needs is not there.
            StorageError: `storage-full`.
        """

    def get(self, key: str) -> Named:
        """A named key's content and tag.

        Raises:
            ObjectError: `object-missing`.
        """

    def replace(self, key: str, data: bytes, *, tag: str) -> str:
        """Put `data` in the place of the content with this `tag`; the new tag. Equal content has an equal tag.

        Raises:
            ObjectError: `object-conflict`, it has changed since or is gone.
            StorageError: `storage-full`.
        """

    def list(self, prefix: str = "", *, after: str = "", limit: int = PAGE_KEYS) -> Page:
        """Keys that begin with `prefix`, from the first one `after`; expired ones too until they are swept."""

    def delete(self, key: str) -> None:
        """Remove a key; one that is not there is no error."""

    def sweep(self) -> int:
        """Delete what has expired, and what broken writes left; how many expired objects that were."""


def object_key(digest: str) -> str:
    """Key of the lasting object with this `digest`.

    Raises:
        ObjectError: `object-key`, it is not `sha256:` and 64 hexadecimal digits.
    """
    name, _, hexadecimal = digest.partition(":")
    if name != "sha256" or not _HEX.fullmatch(hexadecimal):
        raise ObjectError(Code.OBJECT_KEY, f"{digest[:80]!r} is not a digest: give sha256: and 64 hexadecimal digits")
    return f"{_OBJECTS}sha256/{hexadecimal}"


def stored_key(digest: str, lifetime: timedelta | None, now: datetime) -> str:
    """Key under which an object put `now` is kept."""
    key = object_key(digest)
    if lifetime is None:
        return key
    end = ceil((now + lifetime).timestamp())
    return f"{_EXPIRING}{end:012d}/{key.removeprefix(_OBJECTS)}"


def digest_in(key: str, now: datetime) -> str:
    """Digest of the object under `key`.

    Raises:
        ObjectError: `object-key`, it is no key of an object; `object-missing`, it has expired.
    """
    match = _IMMUTABLE.fullmatch(check_key(key))
    if match is None:
        raise ObjectError(Code.OBJECT_KEY, f"{key!r} is not the key of an object: use what `put` returned")
    if match["end"] is not None and int(match["end"]) <= now.timestamp():
        raise missing(key)
    return f"sha256:{match['hex']}"


def expired(keys: Iterable[str], now: datetime) -> Iterator[str]:
    """Those of `keys`, a listing of `EXPIRING_PREFIX`, whose time has run out; they come first."""
    for key in keys:
        match = _IMMUTABLE.fullmatch(key)
        if match is None or match["end"] is None or int(match["end"]) > now.timestamp():
            return
        yield key


EXPIRING_PREFIX = _EXPIRING
"""Where objects with an end are listed, in the order of their ends."""


def check_key(key: str) -> str:
    """`key` itself, if it can name something in every store.

    Segments between slashes have letters, digits and `._=+@-`, and do not begin with a dot: neither `..` nor absolute
    paths, empty names, control characters or temporary files can be named.

    Raises:
        ObjectError: `object-key`.
    """
    if len(key) > MAX_KEY_CHARACTERS or not all(_SEGMENT.fullmatch(segment) for segment in key.split("/")):
        raise ObjectError(
            Code.OBJECT_KEY, f"{key[:80]!r} is not a key: use segments of letters, digits and ._=+@- between slashes"
        )
    return key


def check_named(key: str, data: bytes = b"") -> str:
    """`key` itself, if it can name a manifest or pointer that holds `data`.

    Raises:
        ObjectError: `object-key`, it cannot, is reserved for objects, or has too much to hold.
    """
    if check_key(key).startswith((_OBJECTS, _EXPIRING)):
        raise ObjectError(Code.OBJECT_KEY, f"{key!r} is kept for objects: put them")
    if len(data) > MAX_NAMED_BYTES:
        raise ObjectError(Code.OBJECT_KEY, f"{key!r} holds at most {MAX_NAMED_BYTES} bytes: put an object and name it")
    return key


def check_prefix(prefix: str) -> str:
    """`prefix` itself, if keys can begin so: nothing, or a key that may end in the middle of a segment or a slash.

    Raises:
        ObjectError: `object-key`.
    """
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


def missing(key: str) -> ObjectError:
    """The error for a `key` that is not there."""
    return ObjectError(Code.OBJECT_MISSING, f"{key!r} is not there or has expired: check the key")


def conflict(key: str) -> ObjectError:
    """The error for a `key` that another writer got first."""
    return ObjectError(Code.OBJECT_CONFLICT, f"{key!r} was written by somebody else: read it again and decide anew")


def hashed(chunks: Iterable[_AnyPiece], expected: str | None, found: Callable[[str, int], None]) -> Iterator[_AnyPiece]:
    """`chunks` as they are, telling `found` their digest and size before it ends.

    Raises:
        ObjectError: `object-corrupt`, at the end, if the digest is not the `expected` one.
    """
    state, size = hashlib.sha256(), 0
    for chunk in chunks:
        state.update(chunk)
        size += len(chunk)
        yield chunk
    digest = f"sha256:{state.hexdigest()}"
    if expected is not None and digest != expected:
        raise ObjectError(Code.OBJECT_CORRUPT, f"the bytes have digest {digest}, not {expected}: send them again")
    found(digest, size)


def sized(chunks: Iterable[_AnyPiece], size: int | None) -> Iterator[_AnyPiece]:
    """`chunks` as they are, none of them empty.

    Raises:
        ObjectError: `object-corrupt`, at the end or before, if they do not add up to a given `size`.
    """
    found = 0
    for chunk in filter(None, chunks):
        found += len(chunk)
        if size is not None and found > size:
            break
        yield chunk
    if size is not None and found != size:
        raise ObjectError(Code.OBJECT_CORRUPT, f"the bytes are not {size} in number: send them again")


def ignore(digest: str, size: int) -> None:
    """For `hashed`, where the check alone matters."""


def check_range(key: str, offset: int, length: int | None, size: int) -> int:
    """How many bytes to read.

    Raises:
        ObjectError: `object-range`.
    """
    if offset < 0 or offset > size or (length is not None and length < 0):
        raise ObjectError(Code.OBJECT_RANGE, f"{key!r} has {size} bytes: none can be read from {offset}")
    return size - offset if length is None else min(length, size - offset)


def utc_now() -> datetime:
    """The clock of stores that are given no other."""
    return datetime.now(UTC)
