"""A device for tests that recognises with the shipped fingerprint student, and the command line beside it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from device_node import QUICK

from device_sim.node_settings import NodeSettings

PATIENT = 100


def shipped_device(folder: Path, **other: Any) -> NodeSettings:
    """A device as it is where nothing is set, except that it never trains and looks all the time."""
    rules = folder.parent / f"{folder.name}-rules.yaml"
    rules.write_text("training: {min_fresh: 100000}\n")
    return NodeSettings(folder=folder, rules_file=rules, pace=QUICK, **other)


async def tutelage(*words: object) -> tuple[int, str, str]:
    """Status, output and errors of a command, while this process serves."""
    return await ended(await started(*words))


async def ended(process: asyncio.subprocess.Process, seconds: float = PATIENT) -> tuple[int, str, str]:
    """Status, output and errors of a command that is to end; one that does not is ended, and shows where it stands."""
    talk = asyncio.create_task(process.communicate())
    done, _ = await asyncio.wait({talk}, timeout=seconds)
    if not done:
        process.send_signal(signal.SIGABRT)
    out, err = await talk
    assert done, f"the command did not end within {seconds} s; it stood at\n{err.decode()}"
    return process.returncode or 0, out.decode(), err.decode()


async def started(*words: object) -> asyncio.subprocess.Process:
    """A command that runs."""
    command = [sys.executable, "-X", "faulthandler", "-m", "tutelage", *map(str, words)]
    pipe = subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
