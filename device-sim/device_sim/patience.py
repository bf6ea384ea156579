"""Patience with what is away for a while: a device that starts anew, a service that is not ready yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tutelage.errors import CATALOGUE, TutelageError

__all__ = ["Patience"]

PAUSE_S = 0.5
"""Between two tries: whoever waits for a restart sees its end soon."""

_Result = TypeVar("_Result")


class Patience:
    """Tries again what may pass, so long as it has not failed for longer than a limit."""

    def __init__(
        self,
        limit_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Wait up to `limit_s` seconds from the first failure of a piece of work on."""
        self._limit_s, self._clock, self._sleep = limit_s, clock, sleep

    def with_(self, work: Callable[[], _Result]) -> _Result:
        """What `work` returns in the end.

        Raises:
            TutelageError: What it raised last, once the time is up, or where trying again is no use.
        """
        until: float | None = None
        while True:
            try:
                return work()
            except TutelageError as error:
                until = self._clock() + self._limit_s if until is None else until
                if not CATALOGUE[error.code].retryable or self._clock() + PAUSE_S > until:
                    raise
            self._sleep(PAUSE_S)
