"""The C library's allocator, told to keep what a program frees: fresh memory is dear where megabytes come and go.

A server that moves messages of a megabyte takes and frees each of them. By default glibc gives the freed memory back to
the system at once, and takes it anew for the next message, page by page: a transfer then runs at half its rate
(`benchmarks/registry.py` measures it).
"""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

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
