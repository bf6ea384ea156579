"""Ends a command alike by Ctrl-C and by SIGTERM, which is how whoever runs containers says that it is time."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["terminated_as_interrupted"]


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Within it SIGTERM raises `KeyboardInterrupt`, as Ctrl-C does; for the main thread.

    The first process of a container would not even be ended by a SIGTERM that it has no handler for.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
