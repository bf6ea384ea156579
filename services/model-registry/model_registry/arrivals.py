"""Arrivals: the bytes of a package while they come in, written to the object store as they do.

Two things need all bytes, the store and the verification of the package; so they stay in memory, within a budget that
all uploads share, and are sent on to the store meanwhile. What turns out damaged was never visible: an object without a
version's manifest is no version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue

from model_registry.uploads import Upload
from tutelage.allocator import fresh_memory
from tutelage.errors import Code, ObjectError, RequestError, ServiceError
from tutelage.objects import ObjectStore, Stored

__all__ = ["MAX_CHUNK_BYTES", "Arrival", "Budget"]

MAX_CHUNK_BYTES = 1 << 20
"""Of one message of a stream."""

_END, _CUT = b"", None


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
    """One package on its way in. Either `finish` or `cut` ends it, or the thread that stores it waits for ever."""

    def __init__(self, objects: ObjectStore, upload: Upload) -> None:
        """Begin to store the file of `upload`."""
        self._upload = upload
        self._pieces: SimpleQueue[bytes | None] = SimpleQueue()
        self._objects = objects
        # Its own: it waits for a sender who may be slow, and the threads that all calls share must not wait so long.
        self._thread = ThreadPoolExecutor(1, "arrival")
        self._storing = self._put(self._read())
        self._kept = fresh_memory(upload.size_bytes)  # taken when it is written to
        self.size = 0
        """Bytes that have arrived."""

    def add(self, piece: bytes) -> None:
        """The next bytes of the file.

        Raises:
            RequestError: They are more than the upload was said to have.
        """
        if self.size + len(piece) > self._upload.size_bytes:
            raise RequestError(f"more than the {self._upload.size_bytes} bytes of size_bytes came: send the whole file")
        start, self.size = self.size, self.size + len(piece)
        self._kept[start : self.size] = piece
        self._pieces.put(piece)

    def data(self, start: int = 0) -> memoryview:
        """All that has arrived, from `start` on; not a copy."""
        return self._kept[start : self.size].toreadonly()

    @property
    def is_whole(self) -> bool:
        """Whether all bytes have come."""
        return self.size == self._upload.size_bytes

    async def finish(self) -> Stored:
        """The stored file; a store that lost what was sent on is given it once more, from memory.

        Raises:
            ObjectError: `object-corrupt`, the bytes do not have the digest that the upload was said to have;
                `objects-unavailable`, the store does not answer.
        """
        self._pieces.put(_END)
        try:
            return await asyncio.shield(self._storing)
        except ObjectError as error:
            if error.code is not Code.OBJECTS_UNAVAILABLE:
                raise
            return await self._put(iter([bytes(self._kept)]))
        finally:
            self._thread.shutdown(wait=False)

    def _put(self, pieces: Iterator[bytes]) -> asyncio.Future[Stored]:
        put = partial(self._objects.put, digest=self._upload.file_digest, size=self._upload.size_bytes)
        return asyncio.get_running_loop().run_in_executor(self._thread, put, pieces)

    async def cut(self) -> None:
        """End without a file; what arrived stays in `data`."""
        self._pieces.put(_CUT)
        await asyncio.gather(self._storing, return_exceptions=True)
        self._thread.shutdown(wait=False)

    def _read(self) -> Iterator[bytes]:
        while (piece := self._pieces.get()) != _END:
            if piece is _CUT:
                raise ObjectError(Code.OBJECT_CORRUPT, "the stream ended before the file: send the rest")
            yield piece
