"""How busy recognition is: whoever works beside it asks here whether somebody stands at the door."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Activity:
    """When a device last recognised; safe for several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing was recognised yet; `clock` tells seconds and never goes back."""
        self._clock, self._lock = clock, threading.Lock()
        self._running, self._last_s = 0, -math.inf
        self._watchers: tuple[Callable[[], None], ...] = ()

    def watch(self, begun: Callable[[], None]) -> None:
        """Call `begun` when a recognition begins, before anything else is done for it."""
        with self._lock:
            self._watchers = (*self._watchers, begun)

    def unwatch(self, begun: Callable[[], None]) -> None:
        """End what `watch` began."""
        with self._lock:
            self._watchers = tuple(watcher for watcher in self._watchers if watcher != begun)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Around one recognition."""
        with self._lock:
            self._running += 1
            watchers = self._watchers
        for begun in watchers:
            begun()
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                self._last_s = self._clock()

    @property
    def idle_s(self) -> float:
        """Seconds since the last recognition ended; 0 while one runs, infinite before the first."""
        with self._lock:
            return 0.0 if self._running else self._clock() - self._last_s
