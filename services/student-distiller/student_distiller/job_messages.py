"""Job messages: jobs and specs as the contract writes them, to and fro."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from student_distiller.job_records import JobFailure, StudentResult
from student_distiller.job_spec import LONGEST, Budget, JobSpec, LossWeights, Training
from student_distiller.jobs import Job, JobState
from tutelage.api.distiller.v1 import distiller_pb2 as pb
from tutelage.errors import RequestError

__all__ = ["job_message", "spec_from", "states_from", "watch_message"]

_SIZES = {pb.STUDENT_SIZE_UNSPECIFIED: None, pb.STUDENT_SIZE_TINY: "tiny", pb.STUDENT_SIZE_SMALL: "small"}
_STATES: Mapping[int, JobState] = {pb.JobState.Value(f"JOB_STATE_{state.name}"): state for state in JobState}
_RATES = ("rank1", "eer", "tar_1e2", "tar_1e3")
_COUNTS = ("persons", "captures", "genuine", "impostor")


def spec_from(message: pb.JobSpec) -> JobSpec:
    """The spec that a request asks for, defaults filled in.

    Raises:
        RequestError: It breaks a rule; the message names the field.
    """
    if message.size not in _SIZES:
        raise RequestError(f"spec.size must be a size that the contract names: {message.size}")
    return JobSpec(
        name=message.name,
        version=message.version,
        data_set=message.data_set,
        size=_SIZES[message.size],
        seed=message.seed,
        training=Training(**_given(message.training, ("steps", "batch", "learning_rate", "weight_decay"))),
        loss=LossWeights(**_given(message.loss, ("soft", "direction", "temperature", "margin", "scale"))),
        budget=_budget(message.budget),
        **_given(message, ("teacher_space", "parent", "held_out")),
    )


def states_from(numbers: Sequence[int]) -> frozenset[JobState]:
    """The states that a request names.

    Raises:
        RequestError: One of them is none that a job can be in.
    """
    if unknown := [number for number in numbers if number not in _STATES]:
        raise RequestError(f"states must be states that a job can be in: {unknown[0]}")
    return frozenset(_STATES[number] for number in numbers)


def job_message(job: Job) -> pb.Job:
    """A job as callers get it."""
    message = pb.Job(
        job_id=job.record.job_id,
        spec=_spec_message(job.record.spec),
        progress=_progress_message(job),
        result=_result_message(job.result),
        error=_error_message(job.failure),
        deliveries=job.deliveries,
        submit_time=_timestamp(job.record.submitted),
        start_time=_timestamp(job.started),
        end_time=_timestamp(job.ended),
    )
    if job.cancel_reason is not None:
        message.cancel_reason = job.cancel_reason
    return message


def watch_message(job: Job) -> pb.WatchJobResponse:
    """A job as those who watch it get it."""
    return pb.WatchJobResponse(
        progress=_progress_message(job), result=_result_message(job.result), error=_error_message(job.failure)
    )


def _given(message: Message, names: Sequence[str]) -> dict[str, Any]:
    """The optional fields of these names that are there."""
    return {name: getattr(message, name) for name in names if message.HasField(name)}


def _budget(message: pb.JobBudget) -> Budget:
    given = _given(message, ("processes", "max_memory_bytes"))
    if message.HasField("max_duration"):
        given["max_duration"] = _duration(message.max_duration)
    return Budget(**given)


def _duration(message: Duration) -> timedelta:
    """The duration; of those that none of ours can hold, the nearest that a spec refuses."""
    seconds = message.seconds + message.nanos / 1e9
    limit = 2 * LONGEST.total_seconds()
    return timedelta(seconds=min(limit, max(-limit, seconds)))


def _spec_message(spec: JobSpec) -> pb.JobSpec:
    sizes = {word: number for number, word in _SIZES.items()}
    message = pb.JobSpec(
        name=spec.name,
        version=spec.version,
        teacher_space=spec.teacher_space,
        data_set=spec.data_set,
        size=sizes[spec.size],
        held_out=spec.held_out,
        training=pb.Training(**vars(spec.training)),
        loss=pb.LossWeights(**vars(spec.loss)),
        budget=pb.JobBudget(processes=spec.budget.processes, max_memory_bytes=spec.budget.max_memory_bytes),
        seed=spec.seed,
    )
    message.budget.max_duration.FromTimedelta(spec.budget.max_duration)
    if spec.parent is not None:
        message.parent = spec.parent
    return message


def _progress_message(job: Job) -> pb.JobProgress:
    message = pb.JobProgress(
        state=pb.JobState.Value(f"JOB_STATE_{job.state.name}"),
        step=job.progress.step,
        steps=job.record.spec.training.steps,
        losses={name: value for name, value in job.progress.losses.items() if math.isfinite(value)},
        metrics=[_metrics_message(name, found) for name, found in job.progress.metrics.items()],
        update_time=_timestamp(job.progress.at),
    )
    if job.position is not None:
        message.queue_position = job.position
    if job.progress.eta is not None and not job.state.is_final:
        message.eta.FromTimedelta(job.progress.eta)
    return message


def _metrics_message(readout: str, found: Mapping[str, Any]) -> pb.ReadoutMetrics:
    counts = {name: found[name] for name in _COUNTS}
    rates = {name: found[name] for name in _RATES if found[name] is not None}
    return pb.ReadoutMetrics(readout=readout, **counts, **rates)


def _result_message(result: StudentResult | None) -> pb.JobResult | None:
    if result is None:
        return None
    return pb.JobResult(
        digest=result.digest,
        size_bytes=result.size_bytes,
        readout=result.readout,
        space=result.space,
        teacher_space=result.teacher_space,
    )


def _error_message(failure: JobFailure | None) -> pb.JobError | None:
    if failure is None:
        return None
    return pb.JobError(code=failure.code, message=failure.message, retryable=failure.retryable)


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message
