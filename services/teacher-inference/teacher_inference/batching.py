"""Dynamic batching: calls of several callers become one batch of a backend that would take them one by one.

A teacher extracts a batch in far less time than its captures one after the other. While the backend is busy, calls
queue up, and what has queued up becomes the next batch. An idle backend gets a call at once. Only callers who took part
in a batch are waited for, a few milliseconds at most: their next captures are likely on the way.

Callers do not feel each other: each has its own deadline, may go away, and is told of its own failure only. Where a
batch of several calls is refused, each is made again alone.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from teacher_inference.backends import Backend, BackendKind, BatchingSettings, ending
from teacher_inference.extractions import part
from tutelage.errors import CATALOGUE, Code, ServiceError, TutelageError
from tutelage.labelling import Extraction

__all__ = ["BatchingBackend"]

MAX_BATCH_BYTES = 12 * 1024 * 1024
"""Joined batches stay below the 16 MiB that a message may have."""


@dataclass(eq=False)
class _Call:
    """One caller's captures on their way."""

    captures: Sequence[bytes]
    deadline: float
    """On the loop's clock."""
    answer: asyncio.Future[Extraction]
    """Cancelled when the caller has gone."""

    @property
    def bytes(self) -> int:
        return sum(map(len, self.captures))

    def fail(self, error: Exception) -> None:
        """Each caller gets an exception of its own: tracebacks grow on them."""
        if not self.answer.done():
            self.answer.set_exception(copy.copy(error) if isinstance(error, TutelageError) else error)


class BatchingBackend:
    """A `Backend` around another one."""

    def __init__(self, backend: Backend, settings: BatchingSettings | None = None) -> None:
        """Join calls for `backend`, which is closed together with this; must be made inside the event loop."""
        self._backend = backend
        self._settings = settings or BatchingSettings()
        self._queue: deque[_Call] = deque()
        self._open: set[_Call] = set()
        self._arrived = asyncio.Event()
        self._closed = False
        self._workers = [asyncio.create_task(self._work()) for _ in range(self._settings.at_once)]
        self.name = backend.name
        self.space = backend.space

    @property
    def kind(self) -> BackendKind:
        """What runs the teacher."""
        return self._backend.kind

    async def extract(self, captures: Sequence[bytes], *, timeout: float) -> Extraction:
        """See `Backend.extract`; `service-unavailable` also where too many captures wait already."""
        call = self._admitted(captures, asyncio.get_running_loop().time() + timeout)
        self._open.add(call)
        try:
            async with asyncio.timeout_at(call.deadline):
                return await call.answer
        except TimeoutError as error:
            raise ServiceError(
                Code.DEADLINE_EXCEEDED, f"the teacher did not answer within {timeout:.3g} s: it is slow, or others wait"
            ) from error
        finally:
            self._open.discard(call)

    def _admitted(self, captures: Sequence[bytes], deadline: float) -> _Call:
        """A call in the queue.

        Raises:
            ServiceError: `service-unavailable`.
        """
        if self._closed:
            raise ending()
        waiting = sum(len(call.captures) for call in self._queue if not call.answer.done())
        if waiting and waiting + len(captures) > self._settings.queued:
            raise ServiceError(Code.SERVICE_UNAVAILABLE, f"{waiting} captures wait for the teacher already")
        call = _Call(captures, deadline, asyncio.get_running_loop().create_future())
        self._queue.append(call)
        self._arrived.set()
        return call

    async def check(self) -> None:
        """See `Backend.check`."""
        if self._closed:
            raise ending()
        await self._backend.check()

    async def close(self) -> None:
        """See `Backend.close`."""
        self._closed = True
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        for call in self._open:
            call.fail(ending())
        await self._backend.close()

    async def _work(self) -> None:
        """Answer batch after batch."""
        clock, last, ended = asyncio.get_running_loop().time, 0, 0.0
        while True:
            batch = _Batch(self._settings.captures)
            while not batch.take_from(self._queue):
                self._arrived.clear()
                await self._arrived.wait()
            wait = self._settings.wait.total_seconds()
            if clock() - ended <= wait:
                await self._fill(batch, last, clock() + wait)
            await self._answer(batch.calls)
            last, ended = len(batch.calls), clock()

    async def _fill(self, batch: _Batch, callers: int, until: float) -> None:
        """Add calls that come before `until`, up to as many as there were `callers` last time."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while len(batch.calls) < callers and not batch.full:
                    self._arrived.clear()
                    await self._arrived.wait()
                    batch.take_from(self._queue)

    async def _answer(self, calls: Sequence[_Call]) -> None:
        """Extract the captures of `calls` at once and give each its part, or its failure."""
        calls = [call for call in calls if not call.answer.done()]
        if not calls:
            return
        try:
            extraction = await self._extracted(calls)
        except Exception as error:
            await self._failed(calls, error)
            return
        start = 0
        for call in calls:
            rows = slice(start, start + len(call.captures))
            start = rows.stop
            if not call.answer.done():
                call.answer.set_result(part(extraction, rows))

    async def _extracted(self, calls: Sequence[_Call]) -> Extraction:
        """Ask the backend, until the last deadline and while anybody still wants the answer.

        Raises:
            Exception: what the backend raised.
        """
        captures = [capture for call in calls for capture in call.captures]
        left = max(call.deadline for call in calls) - asyncio.get_running_loop().time()
        asked = asyncio.ensure_future(self._backend.extract(captures, timeout=max(left, 0.0)))
        gone = asyncio.gather(*(call.answer for call in calls), return_exceptions=True)
        try:
            await asyncio.wait((asked, gone), return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                asked.cancel()
                await asyncio.wait((asked,))
        finally:
            asked.cancel()
        if asked.cancelled():
            raise ServiceError(Code.CALL_CANCELLED, "nobody waits for this batch any more")
        extraction = asked.result()
        if len(extraction.usable) != len(captures):  # or callers would get each other's
            raise ServiceError(
                Code.SERVICE_FAILED, f"the teacher answered {len(extraction.usable)} of {len(captures)} captures"
            )
        return extraction

    async def _failed(self, calls: Sequence[_Call], error: Exception) -> None:
        """Tell everybody, unless one of several may be to blame for all."""
        passes = isinstance(error, TutelageError) and CATALOGUE[error.code].retryable
        if passes or len(calls) == 1:
            for call in calls:
                call.fail(error)
            return
        for call in calls:
            await self._answer([call])


class _Batch:
    """Calls that are to be answered together."""

    def __init__(self, captures: int) -> None:
        self.calls: list[_Call] = []
        self.full = False
        self._captures_left, self._bytes_left = captures, MAX_BATCH_BYTES

    def take_from(self, queue: deque[_Call]) -> bool:
        """Whether there is anything to answer, after the first calls in `queue` that fit have moved here."""
        while queue and not self.full:
            if not queue[0].answer.done():
                captures, size = len(queue[0].captures), queue[0].bytes
                # A call that is too large for any batch goes alone.
                if self.calls and (captures > self._captures_left or size > self._bytes_left):
                    self.full = True
                    break
                self._captures_left -= captures
                self._bytes_left -= size
                self.calls.append(queue[0])
                self.full = self._captures_left <= 0 or self._bytes_left <= 0
            queue.popleft()
        return bool(self.calls)
