"""Job reports: what processes of a job say that run on other machines than its worker, on its way through Redis.

    tutelage:{distill.jobs}:reports:HOLDER    list of JSON objects, one a report, the oldest first

HOLDER is the random name of a delivery. A list keeps the latest `MOST_KEPT` reports and goes by itself `REMEMBER` after
the last one. Reports are told often and may be lost: while Redis is away they are, and the training goes on. What
must not be lost, checkpoints, results and failures, does not come this way.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any

import structlog

from student_distiller.executors import Heard, Report, report_from_json, report_to_json
from tutelage.errors import MissingExtraError, QueueError
from tutelage.redis_server import Redis, answer

try:
    import redis
except ModuleNotFoundError as error:
    raise MissingExtraError("stores", "reports through Redis") from error

__all__ = ["MOST_KEPT", "ReportBox", "ReportSender"]

MOST_KEPT = 1000
"""Reports kept of one delivery while no worker takes them."""

REMEMBER = timedelta(hours=1)
"""Longer than a job is ever without a worker."""

LOOK_EVERY = timedelta(seconds=1)
"""How often a worker looks for reports: nobody is told more often of a job's progress."""

_AT_ONCE = 100
_SOCKET_SECONDS = 5.0
_FLUSH_SECONDS = 3.0


def _key(holder: str) -> str:
    return f"tutelage:{{distill.jobs}}:reports:{holder}"


@dataclass(frozen=True)
class ReportBox:
    """The worker's end, for all deliveries."""

    redis: Redis
    """Connection, which its owner closes."""

    async def relay(self, holder: str, heard: Heard) -> None:
        """Tell `heard` each report of a delivery, until cancelled."""
        while True:
            await self.drain(holder, heard)
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    async def drain(self, holder: str, heard: Heard) -> None:
        """Tell `heard` the reports that are there; none while Redis is away."""
        try:
            while texts := await answer(self.redis.lpop(_key(holder), _AT_ONCE)):
                for text in texts:
                    if (report := _report(text)) is not None:
                        await heard(report)
        except QueueError as error:
            structlog.get_logger().warning("reports cannot be read", reason=error.code.value)


def _report(text: str) -> Report | None:
    """The report that a JSON text stands for; None for one of another release."""
    try:
        return report_from_json(json.loads(text))
    except (LookupError, TypeError, ValueError):
        structlog.get_logger().warning("report not understood")
        return None


class ReportSender:
    """A process's end: it never makes a training wait. A context manager; at its end it sends what it still has."""

    def __init__(self, url: str, holder: str) -> None:
        """Send to the Redis server at `url` in the name of the delivery `holder`."""
        self._url, self._holder = url, holder
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send_all, daemon=True)

    def __enter__(self) -> ReportSender:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.put(None)
        self._thread.join(_FLUSH_SECONDS)

    def report(self, report: Report) -> None:
        """Send a report as soon as the server takes it."""
        self._waiting.put(json.dumps(report_to_json(report)))

    def _send_all(self) -> None:
        client = redis.Redis.from_url(self._url, socket_timeout=_SOCKET_SECONDS, socket_connect_timeout=_SOCKET_SECONDS)
        more = True
        while more:
            texts, more = self._next()
            if texts:
                self._send(client, texts)
        client.close()

    def _next(self) -> tuple[list[str], bool]:
        """What waits to be sent, once there is something, and whether more may come."""
        texts = [self._waiting.get()]
        while texts[-1] is not None and len(texts) < _AT_ONCE and not self._waiting.empty():
            texts.append(self._waiting.get())
        return [text for text in texts if text is not None], texts[-1] is not None

    def _send(self, client: Any, texts: Sequence[str]) -> None:
        key = _key(self._holder)
        try:
            with client.pipeline(transaction=True) as pipeline:
                pipeline.rpush(key, *texts).ltrim(key, -MOST_KEPT, -1).expire(key, REMEMBER).execute()
        except (redis.RedisError, OSError) as error:
            structlog.get_logger().warning("reports lost", count=len(texts), reason=type(error).__name__)
