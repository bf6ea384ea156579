"""Arrivals: the bytes of a package while they come in, verified and written to the object store as they do.

They stay in memory, within a budget that all uploads share, for the verification and for whoever downloads the package
next, and are sent on to the store meanwhile. The store gets its last piece only once the package was verified: what
turns out to be damaged, or signed by a stranger, is never in the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Condition

from model_registry.uploads import Upload
from tutelage.allocator import fresh_memory
from tutelage.errors import Code, ObjectError, RequestError, ServiceError
from tutelage.objects import ObjectStore, Stored
from tutelage.package import PackageManifest

__all__ = ["MAX_CHUNK_BYTES", "Arrival", "Budget", "Verify"]

MAX_CHUNK_BYTES = 1 << 20
"""Of one message of a stream."""

Verify = Callable[[memoryview, Callable[[int], None]], PackageManifest]
"""What a package says of itself, from memory where it still arrives, and what waits until so many bytes are there."""


class Budget:
    """How many bytes of packages may be in memory at once."""

    def __init__(self, size_bytes: int) -> None:
        """Give away at most `size_bytes`; one package alone may always have what it needs."""
        self._most, self._taken = size_bytes, 0

    def take(self, size_bytes: int) -> None:
        """Reserve memory for one package.

        Raises:
            ServiceError: `service-unavailable`, there is none at present.
        """
        if self._taken and self._taken + size_bytes > self._most:
            raise ServiceError(Code.SERVICE_UNAVAILABLE, "too many packages are uploaded at once: try again later")
        self._taken += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """End what `take` began."""
        self._taken -= size_bytes


class Arrival:
    """One package on its way in. Either `finish` or `cut` ends it, or its threads wait for ever."""

    def __init__(self, objects: ObjectStore, upload: Upload, verify: Verify) -> None:
        """Begin to `verify` and store the file of `upload`."""
        self._upload = upload
        self._objects = objects
        self._kept = fresh_memory(upload.size_bytes)  # taken when it is written to
        self.size = 0
        """Bytes that have arrived."""
        self._moved, self._is_cut, self._is_finished = Condition(), False, False
        # Their own: they wait for a sender who may be slow, and the threads that all calls share must not wait so long.
        self._threads = ThreadPoolExecutor(2, "arrival")
        self._verifying = self._threads.submit(verify, self._kept.toreadonly(), self._wait)
        self._storing = self._put(self._read())

    def add(self, piece: bytes) -> None:
        """The next bytes of the file.

        Raises:
            RequestError: They are more than the upload was said to have.
        """
        if self.size + len(piece) > self._upload.size_bytes:
            raise RequestError(f"more than the {self._upload.size_bytes} bytes of size_bytes came: send the whole file")
        end = self.size + len(piece)
        self._kept[self.size : end] = piece
        with self._moved:
            self.size = end
            self._moved.notify_all()

    def data(self, start: int = 0) -> memoryview:
        """All that has arrived, from `start` on; not a copy."""
        return self._kept[start : self.size].toreadonly()

    @property
    def is_whole(self) -> bool:
        """Whether all bytes have come."""
        return self.size == self._upload.size_bytes

    async def finish(self) -> PackageManifest:
        """What the package says of itself, once it was verified and stored.

        A store that lost what was sent on is given it once more, from memory.

        Raises:
            PackageError: as `verify`; the file is not in the store then.
            ObjectError: `object-corrupt`, the bytes do not have the digest that the upload was said to have;
                `objects-unavailable`, the store does not answer.
        """
        with self._moved:
            self._is_finished = True
            self._moved.notify_all()
        try:
            await asyncio.shield(self._storing)
        except ObjectError as error:
            if error.code is not Code.OBJECTS_UNAVAILABLE:
                raise
            await self._put(self._read())
        finally:
            self._threads.shutdown(wait=False)
        return self._verifying.result()  # at once: nothing is stored before

    def _put(self, pieces: Iterator[memoryview]) -> asyncio.Future[Stored]:
        put = partial(self._objects.put, digest=self._upload.file_digest, size=self._upload.size_bytes)
        return asyncio.get_running_loop().run_in_executor(self._threads, put, pieces)

    async def cut(self) -> None:
        """End without a file; what arrived stays in `data`."""
        with self._moved:
            self._is_cut = True
            self._moved.notify_all()
        await asyncio.gather(self._storing, return_exceptions=True)
        self._threads.shutdown(wait=False)

    def _read(self) -> Iterator[memoryview]:
        """What has arrived, as it does; the end of it once the package was verified and no more bytes can come."""
        start = 0
        while start < self._upload.size_bytes:
            self._wait(start + 1)
            piece = self._kept[start : min(self.size, start + MAX_CHUNK_BYTES)]
            yield piece
            start += len(piece)
        self._wait_until(lambda: self._is_finished)
        self._verifying.result()

    def _wait(self, size_bytes: int) -> None:
        self._wait_until(lambda: self.size >= size_bytes)

    def _wait_until(self, is_so: Callable[[], bool]) -> None:
        """Return once it is; the threads of this arrival do.

        Raises:
            ObjectError: The stream was cut off.
        """
        with self._moved:
            self._moved.wait_for(lambda: self._is_cut or is_so())
            if self._is_cut:
                raise ObjectError(Code.OBJECT_CORRUPT, "the stream ended before the file: send the rest")
