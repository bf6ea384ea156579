"""Executors: where the processes of a job run, and what a worker hears of them meanwhile.

A job's processes read the job, its data and its last checkpoint from the object store, and leave there what lasts:
checkpoints, the student package and the job's result (`student_distiller.job_records`). An executor starts them, hands
on what they report, and ends them; it decides nothing about the job.

A report is one of three frozen records. Between processes it travels as one JSON object with its kind in `kind`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Protocol, TypeAlias

__all__ = [
    "STOP_GRACE",
    "Assignment",
    "CheckpointReport",
    "Executor",
    "Heard",
    "MetricsReport",
    "Report",
    "StepReport",
    "report_from_json",
    "report_to_json",
]

STOP_GRACE = timedelta(seconds=8)
"""What processes get to make a last checkpoint when they are asked to stop. Nobody renews the claim meanwhile: it must
stay well below its lease."""


@dataclass(frozen=True)
class Assignment:
    """One delivery of a job, as far as an executor has to know it."""

    job_id: str
    holder: str
    """Random name of this delivery; who holds another one must not move the job's checkpoint any more."""
    spent: timedelta
    """Time at work in earlier deliveries."""
    processes: int
    """Processes that share each batch, 1 to 64."""
    max_memory_bytes: int | None
    """Resident memory of each process; None: the executor's own limit."""
    time_left: timedelta
    """What is left of the job's budget, above 0."""


@dataclass(frozen=True)
class StepReport:
    """Steps were done."""

    step: int
    """Steps done, 1 to `steps`."""
    steps: int
    losses: Mapping[str, float] = field(default_factory=dict)
    """Terms by name; finite."""


@dataclass(frozen=True)
class CheckpointReport:
    """A checkpoint is in the object store, and the job's run points to it."""

    step: int
    """Steps done."""
    size_bytes: int
    seconds: float
    """That storing it took."""


@dataclass(frozen=True)
class MetricsReport:
    """The student was measured."""

    metrics: Mapping[str, Mapping[str, Any]]
    """Fields of an error summary, by readout."""


Report: TypeAlias = StepReport | CheckpointReport | MetricsReport

Heard: TypeAlias = Callable[[Report], Awaitable[None]]
"""Told each report, in order."""

_KINDS: Mapping[str, type[StepReport] | type[CheckpointReport] | type[MetricsReport]] = {
    "step": StepReport,
    "checkpoint": CheckpointReport,
    "metrics": MetricsReport,
}


class Executor(Protocol):
    """Runs the processes of one job at a time or of many; each `run` stands for itself."""

    async def holder(self, job_id: str) -> str | None:
        """Name of an earlier delivery whose processes still work on the job; None where there is none.

        Under that name `run` goes on with them instead of starting anew: nobody else holds the job any more.

        Raises:
            TutelageError: It cannot be told now.
        """

    async def run(self, assignment: Assignment, heard: Heard) -> None:
        """Return once the job's processes have ended well: its result is in the store by then.

        They go on from the job's checkpoint where there is one. Cancelled, it asks them to make a last checkpoint,
        gives them `STOP_GRACE`, and ends what is left; when it returns or raises, nothing of the job runs any more.

        Raises:
            TutelageError: What a process of the job ended with, as it said itself; `training-killed`, one ended
                without a word; `training-budget`, one took more memory than it may.
        """


def report_to_json(report: Report) -> dict[str, Any]:
    """The JSON object that stands for a `report`."""
    kind = next(name for name, known in _KINDS.items() if isinstance(report, known))
    return {"kind": kind, **asdict(report)}


def report_from_json(value: Mapping[str, Any]) -> Report:
    """The report that a JSON object stands for.

    Raises:
        LookupError, TypeError: It stands for none.
    """
    fields = dict(value)
    return _KINDS[fields.pop("kind")](**fields)
