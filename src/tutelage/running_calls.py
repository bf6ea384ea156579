"""Calls that a server is answering: how many there are, and how it cuts off those that would outlast it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from tutelage.calls import Call

__all__ = ["RunningCalls"]


class RunningCalls:
    """A layer that knows the calls that run, and can cut them off; health and reflection hold nobody up."""

    def __init__(self, endless: Collection[tuple[str, str]] = ()) -> None:
        """Nothing runs yet; calls of `endless` (service, method) hold nobody up either."""
        self._endless = frozenset(endless)
        self._own: dict[asyncio.Task[Any], bool] = {}
        """By the task that answers a call: whether that is one of our own services, and ends by itself."""
        self._cut: set[asyncio.Task[Any]] = set()

    @contextmanager
    def __call__(self, call: Call) -> Iterator[None]:
        """Know of `call` while the current task answers it."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - handlers are coroutines
        self._own[task] = not call.service.startswith("grpc.") and (call.service, call.method) not in self._endless
        try:
            yield
        finally:
            del self._own[task]
            self._cut.discard(task)

    @property
    def count(self) -> int:
        """Calls of our own services that end by themselves."""
        return sum(self._own.values())

    def cut(self, *, own: bool) -> None:
        """End the calls of others, and with `own` all of them."""
        for task, is_own in list(self._own.items()):
            if task not in self._cut and (own or not is_own):
                self._cut.add(task)
                task.cancel()

    def is_cut(self) -> bool:
        """Whether the call that is answered here was cut off by us, not cancelled by its caller."""
        return asyncio.current_task() in self._cut
