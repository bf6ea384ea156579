"""Calls for callers that wait: a channel whose calls block their thread, while an event loop of its own runs them.

    with WaitingChannel(settings, stub, idempotent=...) as channel:
        answer = channel.ask(channel.stub.GetTeacher, GetTeacherRequest(), timeout=timedelta(seconds=2))

Any number of threads may call at the same time. For programs that are one event loop there is `tutelage.channel`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from datetime import timedelta
from typing import Any, TypeVar, cast

from tutelage.channel import Channel, ChannelSettings
from tutelage.errors import Code, ServiceError

__all__ = ["WaitingChannel"]

_Answer = TypeVar("_Answer")
_END = object()


class WaitingChannel:
    """A `Channel` with an event loop in a thread of its own; a context manager."""

    def __init__(
        self, settings: ChannelSettings, stub: Callable[[Any], Any], *, idempotent: Collection[str] = ()
    ) -> None:
        """Call the service that `settings` lead to through the generated class `stub`; see `Channel`.

        Raises:
            SettingsError: the certificates cannot be used.
        """
        self._loop, self._closing, self._closed = asyncio.new_event_loop(), threading.Lock(), False
        self._thread = threading.Thread(target=self._loop.run_forever, name="waiting-channel", daemon=True)
        self._thread.start()

        async def opened() -> Channel:  # a channel belongs to the loop in which it is made
            return Channel(settings, idempotent=idempotent)

        try:
            self._channel = self._wait(opened())
        except BaseException:
            self._end_loop()
            raise
        self.stub: Any = stub(cast(Any, self._channel))

    def ask(self, method: Callable[..., Awaitable[_Answer]], request: Any, *, timeout: timedelta) -> _Answer:
        """The one answer of a `method` of `stub`; `request` is a message, or an async iterator of some."""
        return self._wait(method(request, timeout=timeout.total_seconds()))

    def listen(
        self, method: Callable[..., AsyncIterator[_Answer]], request: Any, *, timeout: timedelta
    ) -> Iterator[Any]:
        """The answers of a `method` of `stub` that sends many, as they come."""
        answers = method(request, timeout=timeout.total_seconds())
        while (answer := self._wait(anext(answers, cast(Any, _END)))) is not _END:
            yield answer

    def close(self) -> None:
        """End the connection; calls that still run fail as `call-cancelled`."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._end_calls(), self._loop).result()
        self._end_loop()

    async def _end_calls(self) -> None:
        """End the connection, and the calls that wait between two tries of it."""
        await self._channel.close()
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Awaitable[_Answer]) -> _Answer:
        """What `work` gives in the loop's thread."""

        async def run() -> _Answer:
            return await work

        with self._closing:
            if self._closed:
                cast(Any, work).close()
                raise _cancelled()
            future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError as error:
            raise _cancelled() from error

    def __enter__(self) -> WaitingChannel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cancelled() -> ServiceError:
    return ServiceError(Code.CALL_CANCELLED, "the connection was closed while the call ran: open another one")
