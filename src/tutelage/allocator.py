"""Memory for what is large, without the price of fresh pages: they are dear where megabytes come and go.

A server that moves messages of a megabyte takes and frees each of them. By default glibc gives the freed memory back to
the system at once, and takes it anew for the next message, page by page: a transfer then runs at half its rate
(`benchmarks/registry.py` measures it). So the C library's allocator is told to keep what a program frees. A whole file
is too large to be kept for the next one; memory for it comes in huge pages, each in place of 512 others, where the
system has them.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap

__all__ = ["fresh_memory", "keep_freed_memory"]

KEPT_BYTES = 64 << 20
"""Freed memory at the end of a heap that is kept for the next messages."""

MAPPED_FROM_BYTES = 8 << 20
"""Larger pieces are still mapped for themselves, and given back when freed."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)


def keep_freed_memory() -> bool:
    """Tell this process's allocator so; False where it is not glibc's and was left as it is.

    For programs, at their start; a library leaves the allocator to the program that it is part of.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, KEPT_BYTES) and mallopt(_MMAP_THRESHOLD, MAPPED_FROM_BYTES))


def fresh_memory(size_bytes: int) -> memoryview:
    """Zeros to be written over, at least one, given back when the last view of them goes.

    Memory is taken when it is first written to. The advice is no more than that: a system without huge pages gives its
    usual ones.
    """
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel that was built without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)
