"""The Redis server that queues and indexes lie on: one way to connect, and one translation of its failures.

A call is repeated with growing, partly random pauses while the server is away, and ends within `ANSWER_WITHIN`, well or
with a `QueueError`; the driver's own exceptions go no further than this module.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from tutelage.errors import Code, MissingExtraError, QueueError

try:
    from redis import exceptions
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import EqualJitterBackoff
except ModuleNotFoundError as error:
    raise MissingExtraError("stores", "a queue on Redis") from error

__all__ = ["ANSWER_WITHIN", "Redis", "answer", "connect"]

_Answer = TypeVar("_Answer")

ANSWER_WITHIN = timedelta(seconds=15)
"""Every call ends by then, well or with `queue-unavailable`: half a lease, so a failed renewal can be repeated."""

_SOCKET_SECONDS = 5.0  # one attempt; longer than the longest blocking read of a queue
# The pauses add up to 4.6 to 9.1 s, the time Redis takes to load an append-only file of some 100 MB. Half of each is
# random: clients that lost one server do not come back in step. At most 2 s, so its return is soon seen.
_BACKOFF = EqualJitterBackoff(cap=2.0, base=0.05)
_RETRIES = 8
_LOGIN = exceptions.AuthenticationError, exceptions.AuthorizationError


class _Retry(Retry):
    """Tries again, but where the login was refused: it will be until somebody changes it, and that has to be said."""

    async def call_with_retry(
        self,
        do: Callable[[], Awaitable[_Answer]],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> _Answer:
        def may_pass(error: Exception) -> bool:
            return not isinstance(error, _LOGIN) and (is_retryable is None or is_retryable(error))

        return await super().call_with_retry(do, fail, may_pass, with_failure_count)


def connect(url: str) -> Redis:
    """A client of the server at a `redis://` or `rediss://` address; it connects with its first call."""
    return Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=_SOCKET_SECONDS,
        socket_connect_timeout=_SOCKET_SECONDS,
        retry=_Retry(_BACKOFF, _RETRIES),
    )


async def answer(call: Awaitable[Any]) -> Any:
    """What the server says to `call`.

    Raises:
        QueueError: `queue-unavailable`, no answer in time; `queue-refused`, rights, memory or foreign data.
    """
    try:
        async with asyncio.timeout(ANSWER_WITHIN.total_seconds()):
            return await _cancellable(call)
    except (exceptions.ConnectionError, exceptions.TimeoutError, TimeoutError, OSError) as error:
        if isinstance(error, _LOGIN):
            raise QueueError(Code.QUEUE_REFUSED, f"the queue's server refused the login ({error})") from error
        raise QueueError(Code.QUEUE_UNAVAILABLE, f"the queue's server did not answer ({error}): try again") from error
    except exceptions.RedisError as error:
        raise QueueError(
            Code.QUEUE_REFUSED, f"the queue's server refused ({error}): check rights and memory"
        ) from error


async def _cancellable(call: Awaitable[Any]) -> Any:
    """What `call` gives, unless it was cancelled: redis-py 8 may go on as if it had not been.

    Raises:
        CancelledError: It was.
    """
    task = asyncio.current_task()
    asked = task.cancelling() if task else 0
    found = await call
    if task and task.cancelling() > asked:
        raise asyncio.CancelledError
    return found
