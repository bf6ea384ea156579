"""Deadlines: every call ends by its own, with a typed error, whatever it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tutelage.errors import Code, ServiceError

__all__ = ["within"]


@asynccontextmanager
async def within(timeout: float) -> AsyncIterator[None]:
    """The block ends within `timeout` seconds.

    Raises:
        ServiceError: `deadline-exceeded`, it did not end by itself.
    """
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError as error:
        raise ServiceError(
            Code.DEADLINE_EXCEEDED, f"the answer was not there within {timeout:.3g} s: allow more time or send less"
        ) from error
