"""Looks for bytes everywhere a device and its teacher keep any: files, mapped memory, queue, bucket, opened or not.

What is sealed is opened with its key and looked into as well: that nobody else can read it is no excuse for keeping it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
from labelling_service import KEY as TEACHER_KEY
from object_makers import whole
from redis import Redis

from device_sim.vault import check_purpose, purpose_of
from teacher_inference.batch_store import BatchStore
from teacher_inference.vault import Vault
from tutelage.captures import Pixels, encode_png, to_input
from tutelage.errors import ObjectError, StorageError
from tutelage.s3_objects import S3Objects
from tutelage.sealing import key_in, open_sealed

PIECE = 24
"""Bytes of a piece that is looked for: long enough to be nowhere by chance."""

ROWS = {
    "names": ("pseudonym", "name"),
    "reference_captures": ("id", "capture"),
    "samples": ("id", "capture"),
    "erasures": ("id", "name"),
}


def pieces(data: bytes) -> list[bytes]:
    """Some pieces of `data`, one from the middle among them."""
    starts = sorted({0, len(data) // 2, max(len(data) - 2 * PIECE, 0)})
    return [data[start : start + PIECE] for start in starts]


def needles(name: str, captures: Mapping[str, Pixels], features: np.ndarray, side: int) -> dict[str, list[bytes]]:
    """What there can be of a person, by what it is: `features` are those of references, one a row."""
    pixels = list(captures.values())
    return {
        "name": [name.encode(), name.encode("utf-16-le")],
        "png": [encode_png(capture)[60:][:PIECE] for capture in pixels],
        "pixels": [piece for capture in pixels for piece in pieces(capture.tobytes())],
        "inputs": [piece for row in to_input(pixels, side) for piece in pieces(row.astype("<f4").tobytes())],
        "features": [piece for row in features for piece in pieces(row.astype("<f4").tobytes())],
    }


def found(sought: Mapping[str, list[bytes]], places: Iterator[tuple[str, bytes]]) -> set[tuple[str, str]]:
    """What was found where."""
    return {(what, place) for place, data in places for what, some in sought.items() if any(s in data for s in some)}


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a device as it lies."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def mapped(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every region of this process's memory that is a file of the device's folder, a deleted one included."""
    with Path("/proc/self/maps").open() as maps, Path("/proc/self/mem").open("rb") as memory:
        for line in maps:
            region, rights, _, _, _, *path = line.split(maxsplit=5)
            if path and path[0].startswith(str(folder)) and rights.startswith("r"):
                start, end = (int(address, 16) for address in region.split("-"))
                memory.seek(start)
                yield "mapped " + Path(path[0].strip()).name, memory.read(end - start)


def opened_store(store: Path, key: bytes) -> Iterator[tuple[str, bytes]]:
    """Every sealed part of a device's store, opened."""
    with closing(sqlite3.connect(store)) as raw:
        store_id, check = raw.execute("SELECT store_id, check_value FROM meta").fetchone()
        yield "check", open_sealed(check, key, purpose=check_purpose(store_id))
        for table, (row_name, column) in ROWS.items():
            for row_id, sealed in raw.execute(f"SELECT {row_name}, {column} FROM {table} WHERE {column} IS NOT NULL"):
                yield table, open_sealed(sealed, key, purpose=purpose_of(store_id, table, row_id, column))


def opened_jobs(jobs: Path, key: bytes) -> Iterator[tuple[str, bytes]]:
    """Every sealed file of a device's jobs, opened."""
    for path in jobs.rglob("*.sealed"):
        yield path.name, open_sealed(path.read_bytes(), key, purpose=path.name)


def queued(redis: Redis) -> Iterator[tuple[str, bytes]]:
    """All that the queue's server holds, as it writes it to its disk, and its log of every command."""
    redis.config_set("rdbcompression", "no")
    redis.save()
    for file in Path(redis.config_get("dir")["dir"]).rglob("*"):
        if file.is_file():
            yield "queue", file.read_bytes()


def in_bucket(objects: S3Objects) -> Iterator[tuple[str, bytes]]:
    """Every object of the bucket, its key included, as it lies and opened where the teacher's key opens it."""
    vault, after = Vault(key_in(TEACHER_KEY.value, "a test")), ""
    while True:
        page = objects.list("", after=after)
        for key in page.keys:
            data = whole(objects, key) if "sha256/" in key else objects.get(key).data
            kind = key.split("/")[0]
            yield f"object of {kind}", key.encode() + data
            with suppress(StorageError):  # captures are sealed for their batch, whose record says which
                yield f"opened {kind}", vault.open(data, key)
        if page.after is None:
            return
        after = page.after


def opened_batch(objects: S3Objects, batch_id: str) -> Iterator[tuple[str, bytes]]:
    """The captures of a submitted batch, opened; nothing where they are gone."""
    store = BatchStore(objects, Vault(key_in(TEACHER_KEY.value, "a test")))
    if (record := store.find(batch_id)) is not None:
        with suppress(ObjectError):
            for attempt in store.attempts(record):
                yield "captures of a batch", b"".join(attempt)
