"""An empty job for four queues, and a worker of each: one job at a time, told of by one push to a list of Redis.

Every queue gets the settings under which a job survives its worker: an entry goes only after the work is done.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

from redis import Redis

DONE = "bench:done"
"""List that grows by one with every job that was done."""

_connections: dict[str, Redis] = {}


def finish(url: str) -> None:
    """All that a job does."""
    if url not in _connections:
        _connections[url] = Redis.from_url(url)
    _connections[url].rpush(DONE, "1")


class Ours:
    """`tutelage.queues.RedisQueue`: leases of 30 s, deliveries counted by the server, idempotency keys."""

    def __init__(self, url: str) -> None:
        self.url, self.loop, self.number = url, asyncio.new_event_loop(), 0
        self.queue = self._queue()

    def _queue(self) -> Any:
        from tutelage.queues import RedisQueue  # noqa: PLC0415

        return RedisQueue(self.url, "bench")

    def put(self) -> None:
        self.number += 1
        self.loop.run_until_complete(self.queue.put({"job": self.number}, key=f"job-{self.number}"))

    def work(self) -> None:
        from redis.asyncio import Redis as AsyncRedis  # noqa: PLC0415

        from tutelage.queue_entries import work  # noqa: PLC0415

        async def run() -> None:
            redis = AsyncRedis.from_url(self.url)

            async def handle(_: object) -> None:
                await redis.rpush(DONE, "1")  # type: ignore[misc]

            await work(self._queue(), handle, worker="bench", stop=asyncio.Event())

        asyncio.run(run())


class Dramatiq:
    """dramatiq: acknowledged after the work, taken over from workers whose heartbeat stopped for a minute."""

    def __init__(self, url: str) -> None:
        import dramatiq  # noqa: PLC0415
        from dramatiq.brokers.redis import RedisBroker  # noqa: PLC0415

        self.broker = RedisBroker(url=url)
        self.actor = dramatiq.actor(broker=self.broker, actor_name="empty")(finish)
        self.url, self.dramatiq = url, dramatiq

    def put(self) -> None:
        self.actor.send(self.url)

    def work(self) -> None:
        worker = self.dramatiq.Worker(self.broker, worker_threads=1)
        worker.start()
        threading.Event().wait()


class Rq:
    """RQ in its worker without a fork a job, its fastest; jobs of killed workers are found and fail after a timeout."""

    def __init__(self, url: str) -> None:
        import rq  # noqa: PLC0415

        self.rq, self.url, self.connection = rq, url, Redis.from_url(url)
        self.queue = rq.Queue("bench", connection=self.connection)

    def put(self) -> None:
        self.queue.enqueue(finish, self.url)

    def work(self) -> None:
        self.rq.SimpleWorker([self.queue], connection=self.connection).work(logging_level="ERROR")


class Celery:
    """Celery with late acknowledgement and no prefetching, in its pool without processes, its fastest."""

    def __init__(self, url: str) -> None:
        import celery  # noqa: PLC0415

        self.url, self.app = url, celery.Celery("bench", broker=url)
        self.app.conf.update(
            task_acks_late=True,
            task_reject_on_worker_lost=True,
            worker_prefetch_multiplier=1,
            task_ignore_result=True,
            broker_connection_retry_on_startup=True,
        )
        self.task = self.app.task(name="empty")(finish)

    def put(self) -> None:
        self.task.delay(self.url)

    def work(self) -> None:
        words = ["worker", "--pool=solo", "--concurrency=1", "--loglevel=ERROR", "--without-gossip", "--without-mingle"]
        self.app.worker_main(words)


KINDS: dict[str, Callable[[str], Any]] = {"tutelage": Ours, "dramatiq": Dramatiq, "rq": Rq, "celery": Celery}


if __name__ == "__main__":
    kind, address = sys.argv[1:]
    KINDS[kind](address).work()
