"""The twin of an object store on S3 in a folder of this machine: the same contract on plain files.

A key is a path below the folder. `.incoming/` holds what is being written, on the same file system, so that a rename
publishes it; `.locks/` holds one empty file for each named key that was ever replaced, for `flock`, which the kernel
releases with the process. Nothing in either can be a key. A lost power cut costs at most what was being written.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from tutelage.errors import Code, ObjectError, StorageError
from tutelage.files import atomic_write, create_file, read_bytes, storage_error
from tutelage.objects import (
    CHUNK_BYTES,
    EXPIRING_PREFIX,
    MAX_NAMED_BYTES,
    PAGE_KEYS,
    Named,
    Page,
    Piece,
    Stored,
    check_key,
    check_named,
    check_prefix,
    check_range,
    conflict,
    digest_in,
    expired,
    hashed,
    ignore,
    missing,
    sized,
    stored_key,
    utc_now,
)

ABANDONED = timedelta(days=1)
"""An unfinished write that old is nobody's: `sweep` removes it."""

_INCOMING = ".incoming"
_LOCKS = ".locks"


class FolderObjects:
    """An `ObjectStore` below `folder`, which is made if need be; `clock` tells what has expired."""

    def __init__(self, folder: Path, *, clock: Callable[[], datetime] = utc_now) -> None:
        """Raises `StorageError` if the folder cannot be made."""
        self._folder, self._clock = folder, clock
        for name in (_INCOMING, _LOCKS):
            self._make_folder(folder / name)

    def put(
        self,
        chunks: Iterable[Piece],
        *,
        digest: str | None = None,
        size: int | None = None,
        lifetime: timedelta | None = None,
    ) -> Stored:
        """See `ObjectStore.put`."""
        now = self._clock()
        if digest is not None:
            stored_key(digest, lifetime, now)
        results: list[tuple[str, int]] = []
        temporary = self._folder / _INCOMING / secrets.token_hex(16)
        try:
            _write(temporary, hashed(sized(chunks, size), digest, lambda *result: results.append(result)))
            found, count = results[0]
            key = stored_key(found, lifetime, now)
            path = self._path(key)
            self._make_folder(path.parent)
            temporary.replace(path)
            _flush_folder(path.parent)
        except OSError as error:
            raise storage_error(error, temporary, "written") from error
        finally:
            temporary.unlink(missing_ok=True)
        return Stored(key, found, count)

    def size(self, key: str) -> int:
        """See `ObjectStore.size`."""
        digest_in(key, self._clock())
        try:
            return self._path(key).stat().st_size
        except OSError as error:
            raise _failure(error, key, self._path(key)) from error

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See `ObjectStore.read`."""
        digest = digest_in(key, self._clock())
        size = self.size(key)
        count = check_range(key, offset, length, size)
        chunks = self._chunks(key, offset, count)
        return hashed(chunks, digest, ignore) if count == size else chunks

    def create(self, key: str, data: bytes, *, needs: Sequence[str] = ()) -> str:
        """See `ObjectStore.create`."""
        path = self._path(check_named(key, data))
        for needed in needs:
            self.size(needed)
        self._make_folder(path.parent)
        try:
            create_file(path, data)
        except StorageError as error:
            if isinstance(error.__cause__, FileExistsError):
                raise conflict(key) from error
            raise
        return _tag(data)

    def get(self, key: str) -> Named:
        """See `ObjectStore.get`."""
        path = self._path(check_named(key))
        try:
            data = read_bytes(path, at_most=MAX_NAMED_BYTES)
        except StorageError as error:
            if isinstance(error.__cause__, OSError):
                raise _failure(error.__cause__, key, path) from error
            raise
        return Named(data, _tag(data))

    def replace(self, key: str, data: bytes, *, tag: str) -> str:
        """See `ObjectStore.replace`."""
        check_named(key, data)
        with self._locked(key):
            try:
                found = self.get(key)
            except ObjectError as error:
                raise conflict(key) from error
            if found.tag != tag:
                raise conflict(key)
            atomic_write(self._path(key), data)
        return _tag(data)

    def list(self, prefix: str = "", *, after: str = "", limit: int = PAGE_KEYS) -> Page:
        """See `ObjectStore.list`. Looks at every file below the prefix's folder, whatever the page."""
        start = check_prefix(prefix).rpartition("/")[0]
        keys = sorted(key for key in self._keys(self._folder / start) if key.startswith(prefix) and key > after)
        more = len(keys) > limit
        return Page(tuple(keys[:limit]), keys[limit - 1] if more else None)

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        path = self._path(check_key(key))
        with self._locked(key):
            try:
                path.unlink(missing_ok=True)
            except NotADirectoryError:
                return
            except OSError as error:
                raise storage_error(error, path, "deleted") from error

    def sweep(self) -> int:
        """See `ObjectStore.sweep`."""
        self._sweep_incoming()
        keys = sorted(self._keys(self._folder / EXPIRING_PREFIX))
        gone = list(expired(keys, self._clock()))
        for key in gone:
            self._path(key).unlink(missing_ok=True)
        return len(gone)

    def _sweep_incoming(self) -> None:
        limit = (self._clock() - ABANDONED).timestamp()
        for path in (self._folder / _INCOMING).iterdir():
            if path.stat().st_mtime < limit:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder.joinpath(*key.split("/"))

    def _keys(self, folder: Path) -> Iterator[str]:
        """Every key below `folder`, in no order."""
        for path, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            base = Path(path).relative_to(self._folder)
            yield from ((base / name).as_posix() for name in names if not name.startswith("."))

    def _chunks(self, key: str, offset: int, count: int) -> Iterator[bytes]:
        path = self._path(key)
        try:
            with path.open("rb") as file:
                file.seek(offset)
                while count > 0 and (chunk := file.read(min(CHUNK_BYTES, count))):
                    count -= len(chunk)
                    yield chunk
        except OSError as error:
            raise _failure(error, key, path) from error

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Alone with `key` among all threads and processes of this machine."""
        path = self._folder / _LOCKS / hashlib.sha256(key.encode()).hexdigest()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise storage_error(error, path, "locked") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            message = f"{folder} cannot be a folder, a key has that name: choose keys that do not lie in each other"
            raise ObjectError(Code.OBJECT_KEY, message) from error
        except OSError as error:
            raise storage_error(error, folder, "made") from error


def _write(path: Path, chunks: Iterable[Piece]) -> None:
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _failure(error: OSError, key: str, path: Path) -> ObjectError | StorageError:
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return missing(key)
    return storage_error(error, path, "read")
