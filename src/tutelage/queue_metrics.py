"""What Prometheus learns of queues: how much lies in each, and how long the first entry has waited for a worker.

A queue is shared, so every program that uses one tells the same of it: take the greatest, never the sum. While the
queue's server is away nothing is told; health tells that it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from prometheus_client import CollectorRegistry, Gauge

from tutelage.errors import QueueError
from tutelage.queue_entries import Backlog, Queue

__all__ = ["QueueMetrics", "queues_watched"]

LOOK_EVERY = timedelta(seconds=10)
"""Prometheus seldom collects more often."""


class QueueMetrics:
    """Gauges of all queues that a program uses."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register them in `registry`, which must not have them yet."""
        self._entries = Gauge(
            "tutelage_queue_entries", "Entries that lie in a queue.", ("queue", "state"), registry=registry
        )
        self._waited = Gauge(
            "tutelage_queue_waited_seconds",
            "For how long the entry that waits longest could have been claimed.",
            ("queue",),
            registry=registry,
        )

    async def look(self, queues: Sequence[Queue]) -> None:
        """Tell how `queues` stand now."""
        found = await asyncio.gather(*(queue.backlog() for queue in queues), return_exceptions=True)
        for queue, backlog in zip(queues, found, strict=True):
            if isinstance(backlog, Backlog):
                self._tell(queue.name, backlog)
            elif isinstance(backlog, QueueError):
                self._entries.clear()
                self._waited.clear()
            else:
                raise backlog

    def _tell(self, queue: str, backlog: Backlog) -> None:
        for state, count in backlog.entries.items():
            self._entries.labels(queue, state.value).set(count)
        self._waited.labels(queue).set(backlog.waited.total_seconds())


@asynccontextmanager
async def queues_watched(
    queues: Callable[[], Sequence[Queue]], registry: CollectorRegistry, every: timedelta = LOOK_EVERY
) -> AsyncIterator[None]:
    """While the block runs, `registry` tells how the `queues` stand, which are asked for anew each time."""
    metrics = QueueMetrics(registry)

    async def watch() -> None:
        while True:
            await metrics.look(queues())
            await asyncio.sleep(every.total_seconds())

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
