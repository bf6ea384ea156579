"""Data sets in the object store: the captures that students are distilled from, sealed, under one digest.

    objects/sha256/HEX     a capture: its PNG, sealed alike with the fleet's data key, purpose `capture`
    objects/sha256/HEX     the listing, canonical JSON of equal columns, a row a capture in the order of the source:
                           {"objects": [HEX, ...], "persons": [number, ...], "splits": [word, ...]}
    data-sets/HEX.json     the manifest, written once and last; HEX is the SHA-256 of its bytes, which are canonical
                           JSON: {"bytes", "captures", "format": 1, "listing": digest, "persons", "splits": {word: n}}

The digest of a data set is that of its manifest. The same captures, persons and key always give the same digest: what
was pushed before is found and not sent again, so an interrupted push is gone on with by the same words. Names of
persons stay where they are: a data set numbers persons in the order of their names, which keeps every draw of persons
as it would be with the names.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tutelage.canonical import canonical_json, parse_canonical
from tutelage.captures import decode_png, encode_png, read_capture
from tutelage.cohorts import Cohort
from tutelage.errors import CaptureError, Code, ManifestError, ObjectError
from tutelage.manifest import Row, Skipped, Split
from tutelage.objects import ObjectStore, object_key
from tutelage.sealing import open_sealed, seal_alike

__all__ = [
    "DataSet",
    "Pushed",
    "StoredCapture",
    "has_data_set",
    "pull_cohort",
    "push_data_set",
    "read_capture_png",
    "read_data_set",
]

FORMAT = 1
"""Version of the layout above."""

PURPOSE = "capture"
"""Bound to the sealed bytes of a capture."""

AT_ONCE = 16
"""Captures on their way at a time: an object store answers slowly and in parallel."""

Told = Callable[[int, int], None]
"""Called with the captures done and those in all."""


@dataclass(frozen=True)
class StoredCapture:
    """One row of a data set."""

    digest: str
    """Names the object that holds the sealed capture."""
    person: str
    """Anonymous id; ids sort as the persons' names did."""
    split: Split


@dataclass(frozen=True)
class DataSet:
    """What a data set consists of; the captures themselves are read one by one."""

    digest: str
    captures: tuple[StoredCapture, ...]
    """In the order of the source."""
    size_bytes: int
    """Of all sealed captures."""

    def select(self, split: Split) -> tuple[StoredCapture, ...]:
        """Rows of `split`, which for `distil` and `teacher` includes `cloud`."""
        wanted = {split, Split.CLOUD} if split in (Split.DISTIL, Split.TEACHER) else {split}
        return tuple(capture for capture in self.captures if capture.split in wanted)

    @property
    def persons(self) -> int:
        """Different persons."""
        return len({capture.person for capture in self.captures})


@dataclass(frozen=True)
class Pushed:
    """What a push came to."""

    data_set: DataSet
    sent: int
    """Captures that were not in the store before."""
    skipped: tuple[Skipped, ...]
    """Rows whose image could not be read."""


@dataclass(frozen=True)
class _Sent:
    digest: str
    size: int
    is_new: bool


def push_data_set(objects: ObjectStore, rows: Sequence[Row], key: bytes, told: Told = lambda *_: None) -> Pushed:
    """Keep the captures of `rows` and the manifest of them all; images that cannot be read are skipped and reported.

    Raises:
        ManifestError: `data-insufficient`, there is no row, or not one image could be read.
        ObjectError: the store does not answer, or refuses; the same call goes on where this one stopped.
        StorageError: `key-wrong`, `storage-full`.
    """
    with ThreadPoolExecutor(AT_ONCE) as threads:
        outcomes = list(_watched(threads.map(lambda row: _push_row(objects, row, key), rows), len(rows), told))
    found = [(row, sent) for row, sent in zip(rows, outcomes, strict=True) if isinstance(sent, _Sent)]
    skipped = tuple(sent for sent in outcomes if isinstance(sent, Skipped))
    if not found:
        reason = f", the first: {skipped[0].reason}" if skipped else ""
        raise ManifestError(Code.DATA_INSUFFICIENT, f"none of {len(rows)} images could be read{reason}")
    numbers = {name: number for number, name in enumerate(sorted({row.person for row, _ in found}))}
    captures = tuple(StoredCapture(sent.digest, _person(numbers[row.person]), row.split) for row, sent in found)
    size = sum({sent.digest: sent.size for _, sent in found}.values())
    digest = _keep(objects, captures, size)
    return Pushed(DataSet(digest, captures, size), sum(sent.is_new for _, sent in found), skipped)


def has_data_set(objects: ObjectStore, digest: str) -> bool:
    """Whether the store holds the data set of this `digest`.

    Raises:
        ObjectError: `object-key`, that is no digest; the store does not answer.
    """
    try:
        objects.get(_key(digest))
    except ObjectError as error:
        if error.code is Code.OBJECT_MISSING:
            return False
        raise
    return True


def read_data_set(objects: ObjectStore, digest: str) -> DataSet:
    """The data set of this `digest`, its manifest and listing checked against it.

    Raises:
        ObjectError: `object-missing`; `object-corrupt`; `object-key`, that is no digest.
    """
    data = objects.get(_key(digest)).data
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
        raise _damaged(digest)
    try:
        manifest = parse_canonical(data)
        if manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']}")
        listing = parse_canonical(b"".join(objects.read(object_key(manifest["listing"]))))
        return DataSet(digest, tuple(_rows(listing)), int(manifest["bytes"]))
    except (ValueError, TypeError, LookupError) as error:
        raise _damaged(digest) from error


def read_capture_png(objects: ObjectStore, capture: StoredCapture, key: bytes) -> bytes:
    """The PNG of a capture of a data set.

    Raises:
        ObjectError: `object-missing`, `object-corrupt`.
        StorageError: `key-wrong`, it was sealed with another key; `store-corrupt`.
    """
    return open_sealed(b"".join(objects.read(object_key(capture.digest))), key, purpose=PURPOSE)


def pull_cohort(
    objects: ObjectStore, captures: Sequence[StoredCapture], key: bytes, told: Told = lambda *_: None
) -> Cohort:
    """These captures of a data set, decoded, with the anonymous person in each.

    Raises:
        ObjectError: `object-missing`, `object-corrupt`, or the store does not answer.
        StorageError: `key-wrong`, they were sealed with another key; `store-corrupt`.
        CaptureError: one of them is no capture.
    """
    with ThreadPoolExecutor(AT_ONCE) as threads:
        pixels = threads.map(lambda capture: decode_png(read_capture_png(objects, capture, key)), captures)
        return Cohort(tuple(_watched(pixels, len(captures), told)), tuple(capture.person for capture in captures))


def _push_row(objects: ObjectStore, row: Row, key: bytes) -> _Sent | Skipped:
    """Keep one capture, unless it is kept already."""
    try:
        png = encode_png(read_capture(row.path))
    except CaptureError as error:
        return Skipped(row, error.message)
    sealed = seal_alike(png, key, purpose=PURPOSE)
    digest = f"sha256:{hashlib.sha256(sealed).hexdigest()}"
    try:
        objects.size(object_key(digest))
        return _Sent(digest, len(sealed), is_new=False)
    except ObjectError as error:
        if error.code is not Code.OBJECT_MISSING:
            raise
    objects.put([sealed], digest=digest)
    return _Sent(digest, len(sealed), is_new=True)


def _keep(objects: ObjectStore, captures: Sequence[StoredCapture], size: int) -> str:
    """Keep listing and manifest; the digest of the data set."""
    columns = {
        "objects": [capture.digest.partition(":")[2] for capture in captures],
        "persons": [int(capture.person.rpartition("-")[2]) for capture in captures],
        "splits": [capture.split.value for capture in captures],
    }
    listing = objects.put([canonical_json(columns)])
    manifest = canonical_json(
        {
            "bytes": size,
            "captures": len(captures),
            "format": FORMAT,
            "listing": listing.digest,
            "persons": len({capture.person for capture in captures}),
            "splits": dict(sorted(Counter(capture.split.value for capture in captures).items())),
        }
    )
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    try:
        objects.create(_key(digest), manifest, needs=[listing.key])
    except ObjectError as error:
        if error.code is not Code.OBJECT_CONFLICT:  # pushed before: its bytes are these, or its key would differ
            raise
    return digest


def _rows(listing: Any) -> Iterator[StoredCapture]:
    for hexadecimal, number, split in zip(listing["objects"], listing["persons"], listing["splits"], strict=True):
        yield StoredCapture(f"sha256:{hexadecimal}", _person(int(number)), Split(split))


def _person(number: int) -> str:
    return f"person-{number:09d}"  # as many digits as any data set needs, so that ids sort by number


def _watched(outcomes: Iterator[Any], total: int, told: Told) -> Iterator[Any]:
    for done, outcome in enumerate(outcomes, start=1):
        told(done, total)
        yield outcome


def _key(digest: str) -> str:
    object_key(digest)  # refuses what is no digest
    return f"data-sets/{digest.partition(':')[2]}.json"


def _damaged(digest: str) -> ObjectError:
    return ObjectError(Code.OBJECT_CORRUPT, f"the data set {digest} is damaged: push it again")
