"""Changing the key of a device: store and jobs are sealed anew, and a power cut at any instruction loses neither.

The device must not run meanwhile; the store is held alone, and a device that is started waits in vain for it.

1. Every sealed file of a job is sealed with the new key into a second file beside it, named `.next`.
2. The store is sealed anew in one transaction (`resealing`). Its commit decides which key is the right one.
3. The `.next` files take the places of the others, which are overwritten.
4. The store's file is written anew, so that nothing sealed with the old key is left in its free pages.

Whoever opens a device's jobs with the right key first calls `settle_jobs`: a `.next` file that this key opens belongs
to a rotation that was committed, and takes its place; any other one to a rotation that was not, and goes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from device_sim.database import Database
from device_sim.job import CHECKPOINT, JOB, MAX_JOB_BYTES, RESULT
from device_sim.sampling import MAX_BYTES
from device_sim.shredder import overwrite, shred_file
from device_sim.store import Store
from tutelage.errors import Code, StorageError, UsageError
from tutelage.files import atomic_write, flush_folder, read_bytes, storage_error, sweep
from tutelage.sealing import is_sealed_with, open_sealed, seal

NEXT = ".next"


@dataclass(frozen=True)
class Rotation:
    """What a change of keys did."""

    parts: int
    """Parts of the store that were sealed anew; 0 where an earlier try had done so already."""
    files: int
    """Files of jobs that were."""


def rotate_key(store: Path, jobs: Path, *, old: bytes, new: bytes, clock: Callable[[], float]) -> Rotation:
    """Seal the store in the file `store` and the jobs in the folder `jobs` with the key `new` in the place of `old`.

    Called again after a power cut it finishes what it had begun, whichever key the store opens with.

    Raises:
        UsageError: there is no store, or the keys are the same.
        StorageError: `key-wrong`, neither key opens the store; `storage-full`, `storage-failed`, also where a device
            uses the store; `store-corrupt`. The store opens with the old key then.
    """
    if old == new:
        raise UsageError("the new key is the old one: make another")
    if not store.is_file():
        raise UsageError(f"{store} is no store: name the folder of a device")
    try:
        opened = Store(Database.open(store, MAX_BYTES, alone=True), old, clock)
    except StorageError as error:
        if error.code is not Code.KEY_WRONG:
            raise
        with Store(Database.open(store, MAX_BYTES, alone=True), new, clock):
            return Rotation(0, settle_jobs(jobs, new))
    with opened:
        settle_jobs(jobs, old)
        _prepare(jobs, old, new)
        parts = opened.reseal(new)
        files = settle_jobs(jobs, new)
        # Done but for this, which every start tries again.
        with contextlib.suppress(StorageError):
            opened.scrubbing.scrub()
    return Rotation(parts, files)


def settle_jobs(jobs: Path, key: bytes) -> int:
    """Finish or undo what a change of keys that was cut off left beside the jobs; how many files took their places.

    Raises:
        StorageError: `storage-failed`; the next call goes on.
    """
    settled = 0
    for folder in jobs.glob("*/"):
        sweep(folder)
    for following in sorted(jobs.glob(f"*/*{NEXT}")):
        if not is_sealed_with(read_bytes(following, at_most=MAX_JOB_BYTES), key):
            shred_file(following)
            continue
        replace_shredded(following, following.with_name(following.name.removesuffix(NEXT)))
        settled += 1
    return settled


def _prepare(jobs: Path, old: bytes, new: bytes) -> None:
    """Seal what is whole of the jobs with the new key beside them; what is damaged leads nowhere and goes."""
    for path in list(_sealed_files(jobs)):
        try:
            plain = open_sealed(read_bytes(path, at_most=MAX_JOB_BYTES), old, purpose=path.name)
        except StorageError as error:
            if error.code not in (Code.STORE_CORRUPT, Code.KEY_WRONG):
                raise
            shred_file(path)
        else:
            atomic_write(path.with_name(path.name + NEXT), seal(plain, new, purpose=path.name))


def _sealed_files(jobs: Path) -> Iterator[Path]:
    for name in (JOB, CHECKPOINT, RESULT):
        yield from sorted(jobs.glob(f"*/{name}"))


def replace_shredded(source: Path, target: Path) -> None:
    """Give `source` the name of `target`, whose former bytes are overwritten; at every instant one of both is there.

    Raises:
        StorageError: `storage-failed`.
    """
    try:
        with contextlib.ExitStack() as held:
            former = held.enter_context(target.open("r+b", buffering=0)) if target.exists() else None
            source.replace(target)
            flush_folder(target.parent)
            if former is not None:
                overwrite(former)
    except OSError as error:
        raise storage_error(error, target, "replaced") from error
