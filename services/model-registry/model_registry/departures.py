"""Departures: the files of versions on their way out, read ahead of the caller or out of memory.

A fleet asks for one version at a time, mostly the one that came last: what was uploaded here, or read once, stays in
memory, within a budget, until others come. Files never change, so what is in memory is never stale. The next pieces are
read while one is sent.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from functools import partial
from itertools import islice

from model_registry.versions import Version
from tutelage.objects import ObjectStore

__all__ = ["Departures"]

PIECE_BYTES = 1 << 20
"""Of one message. Smaller ones cost more work a byte; larger ones wait for the whole to be read and copied."""

READ_AT_ONCE = 8
"""Chunks of the store that one look of a thread brings: each look may wait for the event loop."""

AHEAD = 2
"""Looks that are read before they can be sent: with `READ_AT_ONCE`, 24 megabytes of memory a call at most."""


class Departures:
    """Reads files of versions, and remembers those asked for last."""

    def __init__(self, objects: ObjectStore, memory_bytes: int) -> None:
        """Remember files of at most `memory_bytes` together."""
        self._objects, self._most = objects, memory_bytes
        self._known: OrderedDict[str, memoryview] = OrderedDict()

    async def read(self, version: Version, offset: int) -> AsyncIterator[bytes]:
        """The file of `version` from `offset` on, in pieces; read whole, it is checked against its digest.

        Raises:
            ObjectError: `object-range`, the offset is beyond the end; `object-missing`; `object-corrupt`.
        """
        known = self._known.get(version.file_digest)
        if known is not None and offset <= len(known):
            self._known.move_to_end(version.file_digest)
            for start in range(offset, len(known), PIECE_BYTES):
                yield bytes(known[start : start + PIECE_BYTES])
            return
        remembered = bytearray() if offset == 0 and version.size_bytes <= self._most else None
        async for chunk in self._ahead(version, offset):
            for start in range(0, len(chunk), PIECE_BYTES):
                yield chunk[start : start + PIECE_BYTES]
            if remembered is not None:
                remembered += chunk
        if remembered is not None:
            self.remember(version.file_digest, memoryview(remembered))

    async def _ahead(self, version: Version, offset: int) -> AsyncIterator[bytes]:
        """Chunks from the store; some are read before they are asked for."""
        chunks = await asyncio.to_thread(partial(self._objects.read, version.object_key, offset=offset))
        waiting: asyncio.Queue[list[bytes] | Exception] = asyncio.Queue(AHEAD)
        reading = asyncio.create_task(_fill(waiting, chunks))
        try:
            while found := await waiting.get():
                if isinstance(found, Exception):
                    raise found
                for chunk in found:
                    yield chunk
        finally:
            reading.cancel()

    def remember(self, file_digest: str, data: memoryview) -> None:
        """Keep the file of this digest, which never changes, for those who ask for it next; others may have to go."""
        self._known[file_digest] = data
        self._known.move_to_end(file_digest)
        while sum(map(len, self._known.values())) > self._most:
            self._known.popitem(last=False)


async def _fill(waiting: asyncio.Queue[list[bytes] | Exception], chunks: Iterator[bytes]) -> None:
    """Put `chunks` there, some at a time, and in the end an empty list or what went wrong."""
    found: list[bytes] | Exception = [b""]
    while found and not isinstance(found, Exception):
        try:
            found = await asyncio.to_thread(lambda: list(islice(chunks, READ_AT_ONCE)))
        except Exception as error:
            found = error
        await waiting.put(found)
