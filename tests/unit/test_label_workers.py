"""Workers of label batches outlive a queue whose server refuses them for a while."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from teacher_inference import service
from tutelage.errors import Code, QueueError
from tutelage.memory_queue import MemoryQueue


class Refusing(MemoryQueue):
    """Refuses the first claims, as a server without memory does."""

    refusals = 2

    async def claim(self, worker: str, *, wait: timedelta):
        if self.refusals:
            self.refusals -= 1
            raise QueueError(Code.QUEUE_REFUSED, "out of memory: give it more")
        return await super().claim(worker, wait=wait)


class Answering:
    """Counts the entries it is handed."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()

    async def work_on(self, _claim) -> None:
        self.answered.set()


def test_a_worker_that_was_refused_comes_back(monkeypatch):
    monkeypatch.setattr(service, "REFUSED_PAUSE", timedelta(milliseconds=10))

    async def scenario():
        queue, batches = Refusing(poll=timedelta(milliseconds=10)), Answering()
        await queue.put({"batch": "0"}, key="0")
        async with service._working(queue, batches, 1):
            await asyncio.wait_for(batches.answered.wait(), 5)

    asyncio.run(scenario())
