"""Ends a command alike by Ctrl-C and by SIGTERM, which is how whoever runs containers says that it is time."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interruption", "terminated_as_interrupted"]


class Interruption:
    """Whether a command was told to end."""

    def __init__(self) -> None:
        """It was not yet."""
        self._asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handler of the signals that end a command: remembers, and raises `KeyboardInterrupt`."""
        self._asked = True
        signal.default_int_handler(number, frame)

    def heed(self) -> None:
        """Raise `KeyboardInterrupt` where it was asked for, but was raised in a place that swallowed it.

        Python ignores what is raised in finalisers and in some calls from C; a loop would then go on for ever.
        """
        if self._asked:
            raise KeyboardInterrupt


@contextmanager
def terminated_as_interrupted() -> Iterator[Interruption]:
    """Within it SIGTERM raises `KeyboardInterrupt`, as Ctrl-C does; for the main thread. Loops `heed` what it gives.

    Without handlers of its own the first process of a container is not ended by SIGTERM, nor by SIGINT what a shell
    started in the background.
    """
    interruption = Interruption()
    before = {number: signal.signal(number, interruption.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
