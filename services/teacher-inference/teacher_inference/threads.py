"""Threads for what waits or computes, so that the event loop stays free for calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

__all__ = ["in_thread"]

_Answer = TypeVar("_Answer")


async def in_thread(threads: Executor, work: Callable[..., _Answer], *words: Any) -> _Answer:
    """What `work` returns for these `words`, in one of the `threads`."""
    return await asyncio.get_running_loop().run_in_executor(threads, partial(work, *words))
