"""What a device does by itself, beside answering: chores, each done again and again by a thread of its own.

A chore is one method that does what is due and says after how many seconds it should be looked at again. What goes
wrong is no reason to stop: it is logged once, and the chore is tried again after a pause that grows and is drawn by
chance, so that a fleet that lost its teacher does not come back in step.
"""

from __future__ import annotations

import random
import threading
import traceback
from collections.abc import Callable
from contextvars import copy_context
from typing import Protocol

import structlog

from tutelage.errors import TutelageError

__all__ = ["Backoff", "Chore", "ChoreThread"]

_log = structlog.get_logger()


class Chore(Protocol):
    """One thing that a device does by itself."""

    @property
    def name(self) -> str:
        """For logs and metrics; one word."""

    def do(self) -> float:
        """Do what is due; returns the seconds until it should be looked at again.

        Raises:
            TutelageError: it did not go well this time.
        """


class Backoff:
    """Pauses between tries that failed: full jitter under a bound that doubles."""

    def __init__(self, first_s: float, most_s: float, draw: Callable[[float, float], float] = random.uniform) -> None:
        """Draw the first pause from 0 to `first_s`, later ones from 0 to twice as much each, at most `most_s`."""
        self._first_s, self._most_s, self._draw = first_s, most_s, draw
        self.failures = 0
        """In a row."""

    def failed(self) -> float:
        """Seconds until the next try."""
        bound = min(self._most_s, self._first_s * 2.0 ** min(self.failures, 60))
        self.failures += 1
        return self._draw(0.0, bound)

    def succeeded(self) -> None:
        """Begin anew."""
        self.failures = 0


class ChoreThread:
    """Does one chore until it is stopped."""

    def __init__(self, chore: Chore, backoff: Backoff, count: Callable[[str, bool], None] = lambda _, __: None) -> None:
        """Do `chore`; `count` is told its name and whether it went well each time."""
        self._chore, self._backoff, self._count = chore, backoff, count
        self._wake, self._stopping = threading.Event(), False
        # With the words that are bound to the log where it is made, the device's id among them.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name=f"chore-{chore.name}", daemon=True
        )

    @property
    def alive(self) -> bool:
        """Whether it is being done."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Look at once whether something is due."""
        self._wake.set()

    def stop(self) -> None:
        """Do it no more; what is being done is finished, see `join`."""
        self._stopping = True
        self._wake.set()

    def join(self) -> None:
        """Wait until it is done no more."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            pause_s = self.once()
            self._wake.wait(pause_s)
            self._wake.clear()

    def once(self) -> float:
        """Do the chore; returns the seconds until the next time, whatever happened."""
        try:
            pause_s = self._chore.do()
        except TutelageError as error:
            self._tell_failure(code=error.code.value, reason=error.message)
        except Exception as error:  # a defect in one chore must not end the others, nor itself for good
            self._tell_failure(code="unforeseen", reason=type(error).__name__, frames=_frames(error))
        else:
            if self._backoff.failures:
                _log.info("chore goes on", chore=self._chore.name, failures=self._backoff.failures)
            self._backoff.succeeded()
            self._count(self._chore.name, True)
            return pause_s
        self._count(self._chore.name, False)
        return self._backoff.failed()

    def _tell_failure(self, **why: str) -> None:
        if not self._backoff.failures and not self._stopping:
            _log.warning("chore fails, it is tried again", chore=self._chore.name, **why)


def _frames(error: Exception) -> str:
    """Where `error` was raised, without its message, which may quote anything."""
    return "".join(traceback.format_tb(error.__traceback__))
