"""With what a figure was made: commit, machine, versions, seeds. Every committed result carries it."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

from device_sim.results import Made


def made(seeds: Sequence[int], date: str) -> Made:
    """With what a result is made on this machine."""
    return Made(
        commit=_commit(),
        machine=f"{_processor()}, {torch.get_num_threads()} threads",
        python=platform.python_version(),
        torch=torch.__version__,
        seeds=tuple(seeds),
        date=date,
    )


def _commit() -> str:
    """The commit this code is of, where it lies in a checkout."""
    words = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)  # noqa: S603
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    """Model of the processor, as far as the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()
