"""What a worker may take of the machine, enforced from within before it takes anything.

    memory    a limit of the kernel on private memory (RLIMIT_DATA) where there is one: an allocation beyond the budget
              fails at once. Elsewhere the worker looks at every step and gives up when it has grown over its budget.
    threads   as many compute threads as allowed; torch starts no other pool
    priority  the lowest for the processor, and idle for the disk where the system knows that
    death     the worker is killed when the thread that started it ends (Linux), also while it is stopped

A cgroup would limit resident memory itself, but a process may make one only where a service manager or container hands
one down, and what is handed down mostly holds the device too.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import torch

LOWEST_PRIORITY = 19
_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class Confinement:
    """How a worker is confined; told before it trains."""

    memory: str
    """`rlimit`, or `looked at`, at every step."""
    memory_bytes: int
    """What it may hold."""
    threads: int
    """Compute threads."""
    niceness: int
    """19 is the lowest priority."""

    def as_json(self) -> dict[str, int | str]:
        """For the line in which a worker tells it."""
        return asdict(self)


def lower_priority() -> None:
    """Let everything else on the machine go first."""
    os.nice(LOWEST_PRIORITY)
    if sys.platform == "linux":
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)


def die_with_parent() -> None:
    """Be killed when the thread that started this process ends; does nothing where the system cannot."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def confine(threads: int, memory_bytes: int) -> Confinement:
    """Keep this process within `threads` and `memory_bytes`, what it holds already included; how that is done."""
    torch.set_num_threads(threads)
    limited = _limit_data(memory_bytes)
    return Confinement("rlimit" if limited else "looked at", memory_bytes, threads, os.nice(0))


def _limit_data(memory_bytes: int) -> bool:
    """Whether the kernel now refuses memory beyond the budget.

    RLIMIT_DATA counts mapped private memory, some of which was never touched: what may still be mapped is what the
    budget leaves beside the memory that is resident now.
    """
    mapped, resident = _status_bytes("VmData"), _status_bytes("VmRSS")
    if not mapped or not resident:
        return False
    limit = mapped + max(0, memory_bytes - resident)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    return True


def _status_bytes(name: str) -> int:
    """A figure that the kernel tells of this process; 0 where it tells none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:")), 0)


def peak_bytes() -> int:
    """Most resident memory this process ever held, as far as the system tells; else what it holds now."""
    # Not getrusage: its maximum is inherited from the process that started this one.
    return _status_bytes("VmHWM") or int(psutil.Process().memory_info().rss)
