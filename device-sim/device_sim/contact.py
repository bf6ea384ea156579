"""Whether a service that a device calls answers: what its owner sees of the cloud from the device's side.

A call that was refused for what it asked was answered all the same; one that broke, or came too late, was not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tutelage.errors import InputError, ObjectError, TutelageError

__all__ = ["Contact"]


class Contact:
    """The contact with one service since the device started; any number of threads may call."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """No call was made yet; `clock` tells seconds since the epoch."""
        self._clock = clock
        self.reached = False
        """Whether the last call was answered."""
        self.answered_s: float | None = None
        """When a call was last answered, seconds since the epoch; None where none was."""

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Within it one call is made; how that ends is remembered."""
        try:
            yield
        except TutelageError as error:
            if isinstance(error, InputError | ObjectError):
                self._answered()
            else:
                self.reached = False
            raise
        self._answered()

    def _answered(self) -> None:
        self.reached, self.answered_s = True, self._clock()
