"""Conflicts: of several services that write one key at a time one wins, and for the others that is no failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tutelage.errors import Code, ObjectError

__all__ = ["conflict_ignored"]


@contextmanager
def conflict_ignored() -> Iterator[None]:
    """Leave the block where another writer was faster; whoever gets to its end has written."""
    try:
        yield
    except ObjectError as error:
        if error.code is not Code.OBJECT_CONFLICT:
            raise
