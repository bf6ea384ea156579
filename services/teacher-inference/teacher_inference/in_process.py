"""A teacher in this process: a torch network in one thread of its own, so that the event loop stays free.

Batches are extracted one after the other; more threads would only share the same processors, and torch uses several for
one batch by itself. A batch that has begun cannot be stopped: its caller's deadline still holds, but the next batch
begins when it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from teacher_inference.backends import BackendKind, BackendSettings, ended_by_close, ending
from teacher_inference.encoded_teacher import EncodedTeacher
from tutelage.errors import Code, ServiceError
from tutelage.labelling import Extraction
from tutelage.nn.teacher_sources import open_teacher, processor

__all__ = ["InProcessBackend"]


class InProcessBackend:
    """A `Backend`; made by `open`."""

    kind = BackendKind.IN_PROCESS

    def __init__(self, teacher: EncodedTeacher, thread: ThreadPoolExecutor) -> None:
        """Extract in `thread`, of which there must be one."""
        self._teacher = teacher
        self._thread = thread
        self._closed = False
        self.name = teacher.name
        self.space = teacher.space

    @classmethod
    async def open(cls, settings: BackendSettings) -> InProcessBackend:
        """Load the teacher.

        Raises:
            TutelageError: as `open_teacher` and `processor`.
        """
        thread = ThreadPoolExecutor(1, "teacher", partial(_use_threads, settings.threads))
        try:
            return cls(await asyncio.get_running_loop().run_in_executor(thread, _load, settings), thread)
        except BaseException:
            thread.shutdown(wait=False)
            raise

    async def extract(self, captures: Sequence[bytes], *, timeout: float) -> Extraction:
        """See `Backend.extract`."""
        await self.check()
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._teacher.extract, captures)
        try:
            async with asyncio.timeout(timeout):
                with ended_by_close():
                    return await work
        except TimeoutError as error:
            raise ServiceError(
                Code.DEADLINE_EXCEEDED, f"the teacher took longer than {timeout:.3g} s: send fewer captures at once"
            ) from error

    async def check(self) -> None:
        """See `Backend.check`."""
        if self._closed:
            raise ending()

    async def close(self) -> None:
        """See `Backend.close`; returns when the batch that runs has ended."""
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)


def _load(settings: BackendSettings) -> EncodedTeacher:
    return EncodedTeacher(open_teacher(settings.teacher, processor(settings.device)))


def _use_threads(number: int) -> None:
    """Torch keeps this number for each thread that calls it."""
    if number:
        torch.set_num_threads(number)
