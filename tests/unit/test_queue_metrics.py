"""What is told of queues is what lies in them, and nothing while their server is away."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry

from tutelage.errors import Code, QueueError
from tutelage.memory_queue import MemoryQueue
from tutelage.queue_entries import Backlog
from tutelage.queue_metrics import queues_watched

QUEUED = {"queue": "label.batches", "state": "queued"}
NAME = {"queue": "label.batches"}


class Leaving(MemoryQueue):
    """A queue whose server goes away."""

    away = False

    async def backlog(self) -> Backlog:
        if self.away:
            raise QueueError(Code.QUEUE_UNAVAILABLE, "it is away: start it")
        return await super().backlog()


async def told(registry: CollectorRegistry, name: str, labels: dict[str, str], value: float | None) -> None:
    async with asyncio.timeout(10):
        while registry.get_sample_value(name, labels) != value:
            await asyncio.sleep(0.005)


def test_queues_are_told_of_as_they_stand_and_not_while_their_server_is_away():
    registry, now = CollectorRegistry(), [100.0]

    async def scenario() -> None:
        queue = Leaving("label.batches", clock=lambda: now[0])
        async with queues_watched(lambda: [queue], registry, every=timedelta(seconds=0.01)):
            await told(registry, "tutelage_queue_entries", QUEUED, 0)
            await queue.put({}, key="a")
            await told(registry, "tutelage_queue_entries", QUEUED, 1)
            now[0] = 142.0
            await told(registry, "tutelage_queue_waited_seconds", NAME, 42)
            queue.away = True
            await told(registry, "tutelage_queue_waited_seconds", NAME, None)
            assert registry.get_sample_value("tutelage_queue_entries", QUEUED) is None
            queue.away = False
            await told(registry, "tutelage_queue_entries", QUEUED, 1)
            assert registry.get_sample_value("tutelage_queue_entries", {**QUEUED, "state": "dead"}) == 0

    asyncio.run(scenario())


def test_a_queue_that_comes_later_is_told_of_too():
    registry, queues = CollectorRegistry(), []

    async def scenario() -> None:
        async with queues_watched(lambda: queues, registry, every=timedelta(seconds=0.01)):
            queues.append(MemoryQueue("label.batches"))
            await told(registry, "tutelage_queue_entries", QUEUED, 0)

    asyncio.run(scenario())
