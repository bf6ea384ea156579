"""Job workers: what becomes of one delivery of a job, from the claimed entry to the record of its end.

A delivery that was interrupted, in whatever way, leaves a job that the next one goes on with; a job ends when its end
is recorded, which happens once. What fails is judged by the catalogue: a failure that may pass costs one delivery, any
other one ends the job. The budget is the exception: a job that was too slow or too large will be so again.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import structlog

from student_distiller.distiller_metrics import DistillerMetrics
from student_distiller.executors import Assignment, CheckpointReport, Executor, MetricsReport, Report, StepReport
from student_distiller.job_progress import JobProgress, Progress
from student_distiller.job_records import EndState, JobEnd, JobFailure, JobRecord, JobRecords, JobRun
from student_distiller.model_events import ModelEvents
from student_distiller.soft_labels import SoftLabels
from tutelage.errors import CATALOGUE, Code, QueueError, TrainingError, TutelageError
from tutelage.queue_entries import Claim, Permanent, Temporary

__all__ = ["JobWorker", "failure_of"]

LOOK_EVERY = timedelta(seconds=1)
"""How often a worker looks whether its job is to be ended."""

LONGEST_PAUSE = timedelta(minutes=2)
"""Between two deliveries of a job that failed."""

T = TypeVar("T")


class _StopAsked(Exception):  # noqa: N818 - not an error: somebody cancelled the job
    """The job is to be ended."""


@dataclass(frozen=True)
class JobWorker:
    """The handler of the queue `distill.jobs`."""

    records: JobRecords
    progress: Progress
    labels: SoftLabels
    executor: Executor
    events: ModelEvents
    metrics: DistillerMetrics
    max_deliveries: int
    """After so many a job that failed is dead."""
    retry_after: timedelta
    """Before the second delivery; doubled for each further one, so that all of them outlast what was away."""

    async def handle(self, claim: Claim) -> None:
        """Work on a job until it has ended or must be tried again.

        Raises:
            Temporary: It may go better another time.
            Permanent: It cannot; the end is recorded.
        """
        job_id = claim.entry.id
        with structlog.contextvars.bound_contextvars(job=job_id):
            try:
                await self._deliver(job_id, claim.deliveries)
            except TutelageError as error:
                if error.code is Code.ENTRY_UNKNOWN:  # no job of this store: nothing of it may be recorded here
                    raise Permanent(f"{error.code}: {error.message}") from error
                await self._failed(job_id, claim.deliveries, error)
            except Exception as error:
                structlog.get_logger().error("job failed unforeseen", exc_info=error)
                await self._failed(job_id, claim.deliveries, _defect(error))

    async def _deliver(self, job_id: str, deliveries: int) -> None:
        if await _away(self.records.end, job_id) is not None:
            return
        record = await _away(self.records.find, job_id)
        reason = await _away(self.records.cancel_reason, job_id)
        if reason is not None:
            await self._end(job_id, EndState.CANCELLED, deliveries, cancel_reason=reason)
            return
        holder = await self.executor.holder(job_id) or uuid.uuid4().hex
        run = await _away(self.records.begin, job_id, holder, datetime.now(UTC))
        begun = time.monotonic()
        try:
            with self.metrics.running():
                await self._work(record, run)
        except _StopAsked:
            reason = await _away(self.records.cancel_reason, job_id) or ""
            await self._end(job_id, EndState.CANCELLED, deliveries, cancel_reason=reason)
        else:
            await self._succeed(record, deliveries)
        finally:
            await self._note_time(run, job_id, timedelta(seconds=time.monotonic() - begun))

    async def _work(self, record: JobRecord, run: JobRun) -> None:
        """Until the result is there, within what is left of the budget, and unless somebody wants the job to end."""
        left = record.spec.budget.max_duration - run.spent
        doing = asyncio.ensure_future(self._distil(record, run, left))
        stopping = asyncio.ensure_future(self._stop_asked(record.job_id))
        try:
            await asyncio.wait(
                {doing, stopping}, timeout=max(0.0, left.total_seconds()), return_when=asyncio.FIRST_COMPLETED
            )
            if doing.done():
                await doing
            elif stopping.done():
                await stopping
                raise _StopAsked
            else:
                raise TrainingError(
                    Code.TRAINING_BUDGET,
                    f"the job used up its {record.spec.budget.max_duration.total_seconds():g} seconds: "
                    "allow more time, or ask for fewer steps",
                )
        finally:
            for task in (doing, stopping):
                task.cancel()
            await asyncio.gather(doing, stopping, return_exceptions=True)

    async def _distil(self, record: JobRecord, run: JobRun, left: timedelta) -> None:
        if await _away(self.records.result, record.job_id) is not None:
            return
        await self.labels.fetch(record.spec)
        budget = record.spec.budget
        assignment = Assignment(
            job_id=record.job_id,
            holder=run.holder,
            spent=run.spent,
            processes=budget.processes,
            max_memory_bytes=budget.max_memory_bytes,
            time_left=left,
        )
        step = run.checkpoint.step if run.checkpoint else 0
        listener = _Listener(record.job_id, self.progress, self.metrics, JobProgress(step=step))
        await listener.tell()
        await self.executor.run(assignment, listener.heard)

    async def _stop_asked(self, job_id: str) -> None:
        """Return when somebody wants the job to end."""
        while True:
            try:
                if await self.progress.must_stop(job_id):
                    return
            except QueueError as error:  # the claim will tell whether the job is still ours
                structlog.get_logger().warning("stop cannot be asked for", reason=error.code.value)
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    async def _succeed(self, record: JobRecord, deliveries: int) -> None:
        result = await _away(self.records.result, record.job_id)
        if result is None:
            raise TrainingError(Code.TRAINING_KILLED, "the job's processes ended without a result: see what they said")
        await self.events.tell(record, result)
        await self._end(record.job_id, EndState.SUCCEEDED, deliveries, result=result, step=record.spec.training.steps)

    async def _failed(self, job_id: str, deliveries: int, error: TutelageError) -> None:
        """Record the end where there is nothing more to try; raise what the queue has to know."""
        failure = failure_of(error)
        structlog.get_logger().warning("job delivery failed", reason=error.message, code=error.code.value)
        if error.code is Code.CLAIM_LOST:
            # Another worker has it, and this outcome does not count; or one that was long given up took it once more,
            # and then it is for the next delivery to go on.
            raise Temporary(f"{error.code}: {failure.message}", self._pause(deliveries)) from error
        if failure.retryable and deliveries < self.max_deliveries:
            await self._tell_failure(job_id, failure)
            raise Temporary(f"{error.code}: {failure.message}", self._pause(deliveries)) from error
        state = EndState.DEAD if failure.retryable else EndState.FAILED
        try:
            await self._end(job_id, state, deliveries, failure=failure)
        except TutelageError as second:  # not recorded: the queue's word, or the next delivery, will do it
            raise Temporary(f"{error.code}: {failure.message}", self._pause(deliveries)) from second
        raise Permanent(f"{error.code}: {failure.message}") from error

    def _pause(self, deliveries: int) -> timedelta:
        return min(LONGEST_PAUSE, self.retry_after * (1 << min(deliveries - 1, 10)))

    async def _tell_failure(self, job_id: str, failure: JobFailure) -> None:
        try:
            known = await self.progress.find(job_id) or JobProgress()
            await self.progress.keep(job_id, known.moved(failure=failure, eta=None))
        except QueueError as error:
            structlog.get_logger().warning("progress cannot be told", reason=error.code.value)

    async def _end(self, job_id: str, state: EndState, deliveries: int, **known: Any) -> None:
        run = await _away(self.records.run, job_id)
        step = known.pop("step", run.checkpoint.step if run and run.checkpoint else 0)
        end = JobEnd(
            state, datetime.now(UTC), deliveries=deliveries, started=run.started if run else None, step=step, **known
        )
        kept = await _away(self.records.finish, job_id, end)
        if kept == end:
            self.metrics.ended(end.state)
            structlog.get_logger().info("job ended", state=end.state.value, deliveries=deliveries)

    async def _note_time(self, run: JobRun, job_id: str, worked: timedelta) -> None:
        """Keep what this delivery cost; where that cannot be kept, the budget only becomes a little larger."""
        try:
            await _away(self.records.move, job_id, run.holder, run.spent + worked)
        except TutelageError as error:
            structlog.get_logger().warning("time at work not kept", reason=error.code.value)


class _Listener:
    """Turns what processes report into progress and metrics."""

    def __init__(self, job_id: str, progress: Progress, metrics: DistillerMetrics, known: JobProgress) -> None:
        self._job_id, self._progress, self._metrics, self._known = job_id, progress, metrics, known
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None

    async def heard(self, report: Report) -> None:
        """Take one report."""
        if isinstance(report, StepReport):
            eta = timedelta(seconds=self._pace(report) * (report.steps - report.step)) if self._first else None
            self._known = self._known.moved(step=report.step, losses=report.losses, eta=eta)
            self._note(report)
        elif isinstance(report, MetricsReport):
            self._known = self._known.moved(metrics=report.metrics, eta=None)
        elif isinstance(report, CheckpointReport):
            self._metrics.checkpoint(report.size_bytes, report.seconds)
            return
        await self.tell()

    async def tell(self) -> None:
        """Let everybody who watches know; a server that is away costs them an update and the job nothing."""
        try:
            await self._progress.keep(self._job_id, self._known)
        except QueueError as error:
            structlog.get_logger().warning("progress cannot be told", reason=error.code.value)

    def _pace(self, report: StepReport) -> float:
        """Seconds a step since the first report of this delivery."""
        assert self._first is not None  # noqa: S101 - the caller looked
        step, at = self._first
        return (time.monotonic() - at) / max(1, report.step - step)

    def _note(self, report: StepReport) -> None:
        now = time.monotonic()
        if self._last and report.step > self._last[0]:
            self._metrics.steps((now - self._last[1]) / (report.step - self._last[0]))
        self._last = report.step, now
        self._first = self._first or self._last


def failure_of(error: TutelageError) -> JobFailure:
    """What callers may read of an error; whether it may pass is the catalogue's word, but for a budget's."""
    entry = CATALOGUE[error.code]
    retryable = entry.retryable and error.code is not Code.TRAINING_BUDGET
    text = error.message if error.code is Code.TRAINING_BUDGET else entry.public_text(error.message)
    return JobFailure(error.code.value, text, retryable)


def _defect(error: Exception) -> TutelageError:
    return TutelageError(Code.SERVICE_FAILED, f"{type(error).__name__}")


async def _away(call: Callable[..., T], *words: Any) -> T:
    """What `call`, which waits for the object store, returns."""
    return await asyncio.to_thread(call, *words)
