"""Files that are whole or absent: nothing this library writes can be met half-written.

Bytes go to a temporary file in the target's folder, reach the disk, and only then take the target's name (POSIX
`rename` is atomic); the folder is flushed too, so that the name survives a power cut. Failures of the operating system
end here: callers meet a `StorageError` that names the path.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from tutelage.errors import Code, StorageError

PUBLIC_MODE = 0o644
"""For what anybody on the machine may read; the process's umask narrows it."""

PRIVATE_MODE = 0o600
"""For keys: the owner alone."""

_TEMPORARY_PREFIX = ".tutelage-"
_TEMPORARY_SUFFIX = ".tmp"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def atomic_write(path: Path, data: bytes, *, mode: int = PUBLIC_MODE) -> None:
    """Make `path` hold exactly `data`, on disk, or leave everything as it was.

    A symbolic link at `path` is replaced, not followed. The folder must exist.

    Raises:
        StorageError: `storage-full`, the disk or quota is full; `storage-failed`, anything else.
    """
    _write_then(path, data, mode, os.replace)


def create_file(path: Path, data: bytes, *, mode: int = PUBLIC_MODE) -> None:
    """Like `atomic_write`, for what must never be overwritten: an existing `path` is an error.

    Raises:
        StorageError: `storage-full`; `storage-failed`, also where `path` exists.
    """
    _write_then(path, data, mode, _link)


def read_bytes(path: Path, *, at_most: int) -> bytes:
    """The first `at_most` bytes of a regular file, or all of them: a caller that sees one too many can refuse it.

    Raises:
        StorageError: `storage-failed`, it cannot be read or is no regular file.
    """
    try:
        # Not blocking: opening a pipe that nobody writes to would wait for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise StorageError(Code.STORAGE_FAILED, f"{path} is not a regular file: name one")
            return file.read(at_most)
    except OSError as error:
        raise storage_error(error, path, "read") from error


def sweep(folder: Path) -> int:
    """Remove what a power cut in the middle of a write left in `folder`; returns how many files that were.

    Only for a folder in which nobody is writing.

    Raises:
        StorageError: `storage-failed`.
    """
    try:
        leftovers = list(folder.glob(f"{_TEMPORARY_PREFIX}*{_TEMPORARY_SUFFIX}"))
        for leftover in leftovers:
            leftover.unlink()
    except OSError as error:
        raise storage_error(error, folder, "cleaned") from error
    return len(leftovers)


def storage_error(error: OSError, path: Path, action: str) -> StorageError:
    """The catalogue's word for `error`, met when `path` was `action` ("read", "written"): full or failed."""
    reason = error.strerror or type(error).__name__
    if error.errno in _FULL:
        return StorageError(Code.STORAGE_FULL, f"{path} could not be {action} ({reason}): free some space")
    return StorageError(Code.STORAGE_FAILED, f"{path} could not be {action} ({reason}): check path and permissions")


def make_folder(folder: Path) -> None:
    """Make `folder` and those above it, unless they are there.

    Raises:
        StorageError: `storage-full`, `storage-failed`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder, "made") from error


def _write_then(path: Path, data: bytes, mode: int, publish: Callable[[Path, Path], None]) -> None:
    """Write `data` beside `path`, flush it, `publish` it under that name; the temporary file goes in any case."""
    # Short, so that a long name cannot push it over the limit; random, so that writers in one folder never meet.
    temporary = path.parent / f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}"
    try:
        try:
            _write_flushed(temporary, data, mode)
            publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        flush_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path, "written") from error


def _write_flushed(path: Path, data: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _link(source: Path, target: Path) -> None:
    """Give `source` the name `target` unless that is taken, which `rename` cannot refuse."""
    os.link(source, target, follow_symlinks=False)


def flush_folder(folder: Path) -> None:
    """Let the names in `folder` reach the disk.

    Raises:
        OSError: they could not.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
