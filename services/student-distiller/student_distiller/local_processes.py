"""The executor `local`: the processes of a job as children of the worker, on the same machine, limited and watched.

One process runs as `python -m student_distiller job SOCKET`; several are started by torchrun, which ends all when one
fails. They run at a lower priority than the service, are ended when one takes more resident memory than it may, and end
by themselves when the worker is gone. Whatever becomes of them is a typed error here and never harms the service.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil
import structlog

from student_distiller.executors import STOP_GRACE, Assignment, Heard
from student_distiller.job_lines import WorkerLine
from student_distiller.job_orders import JobOrder, KeyFiles
from tutelage.errors import Code, TrainingError
from tutelage.stores import ObjectsSettings

__all__ = ["LocalProcesses"]

WATCH_EVERY_S = 0.5
"""Seconds between two looks at the memory of a job's processes."""

NICENESS = 5
"""A training has time; the service's calls and heartbeats have not."""

_ENTRY = ("-m", "student_distiller", "job")


@dataclass(frozen=True)
class LocalProcesses:
    """An `Executor` on this machine."""

    place: ObjectsSettings
    """Where the objects lie."""
    keys: KeyFiles
    checkpoint_every: timedelta
    device: str
    """`cpu`, `cuda`, or `auto` for CUDA where there is one."""
    max_memory_bytes: int
    """Resident memory of each process where a job asks for no other limit."""
    scratch: Path | None = None
    """Folder for checkpoints that are being made; None: the system's own for temporary files."""

    async def holder(self, job_id: str) -> str | None:  # noqa: ARG002
        """See `Executor.holder`: none, processes end with their worker."""
        return None

    async def run(self, assignment: Assignment, heard: Heard) -> None:
        """See `Executor.run`."""
        with (
            tempfile.TemporaryDirectory(
                prefix="tutelage-job-", dir=self.scratch, ignore_cleanup_errors=True
            ) as scratch,
            # In the system's own folder: the path of a socket may not be long.
            tempfile.TemporaryDirectory(prefix="tutelage-line-") as folder,
        ):
            order = self._order(assignment, Path(scratch)).as_json()
            path = Path(folder) / "line"
            async with WorkerLine(path, order, heard) as line:
                process = await self._started(assignment, path)
                try:
                    await self._watched(process, assignment, line)
                except asyncio.CancelledError:
                    await _stopped(process, line)
                    raise
                finally:
                    await _ended(process)

    def _order(self, assignment: Assignment, scratch: Path) -> JobOrder:
        return JobOrder(
            job_id=assignment.job_id,
            holder=assignment.holder,
            spent=assignment.spent,
            place=self.place,
            keys=self.keys,
            scratch=scratch,
            checkpoint_every=self.checkpoint_every,
            device=self.device,
        )

    async def _started(self, assignment: Assignment, path: Path) -> asyncio.subprocess.Process:
        several = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(assignment.processes))
        words = (*several, *_ENTRY) if assignment.processes > 1 else _ENTRY
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *words,
            str(path),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # a terminal's interruption is for the service, which then stops its jobs
        )
        with suppress(OSError):  # ended already
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        return process

    async def _watched(self, process: asyncio.subprocess.Process, assignment: Assignment, line: WorkerLine) -> None:
        """Return when the process has ended well; raise what it failed with, or what it broke."""
        limit = assignment.max_memory_bytes or self.max_memory_bytes
        waiting = asyncio.ensure_future(process.wait())
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=WATCH_EVERY_S)
                _check_memory(process.pid, limit)
        finally:
            waiting.cancel()
        await line.drained()
        if process.returncode:
            structlog.get_logger().warning("job process failed", job=assignment.job_id, status=process.returncode)
            raise line.failure or _killed(process.returncode)


def _check_memory(pid: int, limit: int) -> None:
    """Raises `TrainingError` (`training-budget`) if the process or one below it takes more than `limit`."""
    for process in _family(pid):
        with suppress(psutil.Error):
            taken = process.memory_info().rss
            if taken > limit:
                raise TrainingError(
                    Code.TRAINING_BUDGET,
                    f"a process of the job took {taken:,} bytes of memory, {limit:,} are allowed: "
                    "ask for a smaller batch, more processes or more memory",
                )


async def _stopped(process: asyncio.subprocess.Process, line: WorkerLine) -> None:
    """Give the processes time for a last checkpoint."""
    line.ask_to_stop()
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), STOP_GRACE.total_seconds())


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End the process and all below it, whatever they do."""
    for member in _family(process.pid) if process.returncode is None else ():
        with suppress(psutil.Error):
            member.kill()
    await process.wait()


def _family(pid: int) -> list[psutil.Process]:
    """The process and all below it, as far as they still run."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []


def _killed(status: int) -> TrainingError:
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    return TrainingError(
        Code.TRAINING_KILLED, f"a process of the job was ended {how}: look for what ended it, or for lack of memory"
    )
