"""Jobs as callers see them: submitted, looked at, listed, watched and cancelled.

How a job stands is put together from three places: its records say that it exists and how it ended, the queue where it
is meanwhile, and its progress how far. Only the first must be believed; without the others a job that has not ended
counts as queued, which it soon is again (`student_distiller.job_recovery`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from student_distiller.job_progress import JobProgress, Progress
from student_distiller.job_records import (
    EndState,
    JobEnd,
    JobFailure,
    JobRecord,
    JobRecords,
    StudentResult,
    job_id_for,
)
from student_distiller.job_spec import JobSpec, check_key
from student_distiller.teacher_client import TeacherIdentity
from tutelage.data_sets import has_data_set
from tutelage.errors import CATALOGUE, Code, ObjectError, QueueError, RequestError, SpaceMismatchError
from tutelage.objects import ObjectStore
from tutelage.package import StudentPackage
from tutelage.queue_entries import Queue, State, Status

__all__ = ["QUEUE", "Job", "JobState", "Jobs"]

QUEUE = "distill.jobs"
"""Name of the queue."""

LOOK_EVERY = timedelta(seconds=1)
"""How often a job that is watched is looked at; also the least pause between two answers."""

MOST_LOOKED_THROUGH = 1000
"""Jobs that one page of a filtered listing looks through, at most: then it ends, with a token to go on by."""

READ_AT_ONCE = 16
"""Jobs of a page that are put together at a time."""

MOST_REASON_CHARACTERS = 500


class JobState(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"

    @property
    def is_final(self) -> bool:
        """Whether a job stays there."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True)
class Job:
    """How a job stands."""

    record: JobRecord
    state: JobState
    progress: JobProgress = field(default_factory=JobProgress)
    position: int | None = None
    """Jobs ahead of it; None unless it is queued."""
    deliveries: int = 0
    result: StudentResult | None = None
    failure: JobFailure | None = None
    started: datetime | None = None
    ended: datetime | None = None
    cancel_reason: str | None = None


@dataclass(frozen=True)
class Choices:
    """What a job rests on beside its spec, asked when it is submitted."""

    teacher: Callable[[], Awaitable[TeacherIdentity]]
    """Who answers now."""
    package: Callable[[str], StudentPackage]
    """The verified student package of a digest; raises as `tutelage.stored_packages.read_stored_package`."""


class Jobs:
    """All jobs of one object store, queue and progress."""

    def __init__(
        self, objects: ObjectStore, records: JobRecords, queue: Queue, progress: Progress, choices: Choices
    ) -> None:
        """Put jobs into `queue`; workers take them from there."""
        self._objects, self._records, self._queue = objects, records, queue
        self._progress, self._choices = progress, choices

    async def submit(self, key: str, spec: JobSpec) -> Job:
        """The job under this idempotency key, queued unless it was before.

        Raises:
            RequestError: The key is none; `request-conflict`, it was given for another spec; the size is not the
                parent's.
            ObjectError: `object-missing`, the data set or the parent does not exist.
            SpaceMismatchError: Another teacher answers now.
            PackageError: The parent cannot be trusted.
        """
        job_id = job_id_for(check_key(key))
        known = await self._known(job_id)
        if known is None:
            record = await self._chosen(job_id, key, spec)
        else:
            record = replace(known, asked=spec)  # compared with what was asked first
        record = await asyncio.to_thread(self._records.submit, record)
        if known is None or await asyncio.to_thread(self._records.end, job_id) is None:
            await self._queue.put({"job": job_id}, key=key)
        return await self._job(record)

    async def get(self, job_id: str) -> Job:
        """How a job stands.

        Raises:
            QueueError: `entry-unknown`, there is none.
        """
        return await self._job(await asyncio.to_thread(self._records.find, job_id))

    async def page(
        self, after: str, limit: int, wanted: Callable[[JobRecord], bool], states: frozenset[JobState]
    ) -> tuple[Sequence[Job], str]:
        """Jobs that are `wanted` and in one of `states`, and the place to go on from, empty where there are no more.

        At most `limit` of them, after the place `after`, the latest first. No `states` are all of them.

        Raises:
            RequestError: `after` is no place.
        """
        found: list[Job] = []
        looked, more = 0, True
        while more and len(found) < limit and looked < MOST_LOOKED_THROUGH:
            records, more = await asyncio.to_thread(self._records.page, after, limit)
            looked += len(records)
            fitting = [(place, record) for place, record in records if wanted(record)]
            jobs = await _several(self._job, [record for _, record in fitting])
            for (place, _), job in zip(fitting, jobs, strict=True):
                if len(found) == limit:
                    return found, after
                if not states or job.state in states:
                    found.append(job)
                after = place
            after = records[-1][0] if records else after
        return found, after if more else ""

    async def watch(self, job_id: str) -> AsyncIterator[Job]:
        """How a job stands: now, at every change, at most once in `LOOK_EVERY`, and last when it has ended.

        Raises:
            QueueError: `entry-unknown`, there is none.
        """
        record = await asyncio.to_thread(self._records.find, job_id)
        told: Job | None = None
        while True:
            job = await self._moving(record) or await self._job(record)
            if job != told:
                told = job
                yield job
            if job.state.is_final:
                return
            await asyncio.sleep(LOOK_EVERY.total_seconds())

    async def cancel(self, job_id: str, reason: str) -> Job:
        """Ask for a job to be ended, and how it stands then; one that has ended stays as it is.

        Raises:
            RequestError: The reason is empty or too long.
            QueueError: `entry-unknown`, there is none.
        """
        if not reason.strip() or len(reason) > MOST_REASON_CHARACTERS:
            raise RequestError(f"reason must say why, in 1 to {MOST_REASON_CHARACTERS} characters")
        record = await asyncio.to_thread(self._records.find, job_id)
        if await asyncio.to_thread(self._records.end, job_id) is None:
            await asyncio.to_thread(self._records.cancel, job_id, reason)
            await self._progress.ask_to_stop(job_id)
            await self._cancel_entry(job_id)
        return await self._job(record)

    async def settle(self, job_id: str, status: Status | None) -> JobEnd | None:
        """Record the end of a job for which the queue has said its last word, unless that is done; its end, if any.

        A worker records the end of what it worked on. One that was killed too often, or cancelled before anybody took
        it, has nobody else to do it; nor has one that is done for a queue which belongs to another store.
        """
        end = await asyncio.to_thread(self._records.end, job_id)
        if end is not None or status is None or status.state not in _LAST_WORDS:
            return end
        now, state = datetime.now(UTC), _LAST_WORDS[status.state]
        failure = {EndState.DEAD: _died(status), EndState.FAILED: _lost()}.get(state)
        reason = await asyncio.to_thread(self._records.cancel_reason, job_id)
        run = await asyncio.to_thread(self._records.run, job_id)
        return await asyncio.to_thread(
            self._records.finish,
            job_id,
            JobEnd(
                state,
                now,
                deliveries=status.deliveries,
                started=run.started if run else None,
                failure=failure,
                cancel_reason=reason,
                step=run.checkpoint.step if run and run.checkpoint else 0,
            ),
        )

    async def status(self, job_id: str) -> Status | None:
        """What the queue knows of a job; None where nothing, because it is new, long ended, or the queue was lost."""
        try:
            return await self._queue.status(job_id)
        except QueueError as error:
            if error.code is Code.ENTRY_UNKNOWN:
                return None
            raise

    async def _known(self, job_id: str) -> JobRecord | None:
        try:
            return await asyncio.to_thread(self._records.find, job_id)
        except QueueError as error:
            if error.code is Code.ENTRY_UNKNOWN:
                return None
            raise

    async def _chosen(self, job_id: str, key: str, spec: JobSpec) -> JobRecord:
        """The record of a new job, with everything chosen that its spec leaves open, once all of it is there."""
        if not await asyncio.to_thread(has_data_set, self._objects, spec.data_set):
            raise ObjectError(
                Code.OBJECT_MISSING, f"there is no data set {spec.data_set}: push it, or check the digest"
            )
        chosen = spec
        if spec.parent is not None:
            size = (await asyncio.to_thread(self._choices.package, spec.parent)).info.student.get("name")
            if spec.size not in (None, size):
                raise RequestError(f"spec.size must be that of spec.parent, {size}, or be left out: {spec.size!r}")
            chosen = replace(chosen, size=str(size))
        teacher = await self._choices.teacher()
        if spec.teacher_space not in (None, teacher.space):
            raise SpaceMismatchError(spec.teacher_space or "", teacher.space)
        chosen = replace(chosen, teacher_space=teacher.space)
        return JobRecord(job_id, key, spec, chosen, teacher.name, datetime.now(UTC))

    async def _cancel_entry(self, job_id: str) -> None:
        try:
            await self._queue.cancel(job_id)
        except QueueError as error:
            if error.code is not Code.ENTRY_UNKNOWN:  # whoever puts it anew finds the record of this wish
                raise

    async def _job(self, record: JobRecord) -> Job:
        """How a job stands, from all three places."""
        end = await asyncio.to_thread(self._records.end, record.job_id)
        if end is None:
            end = await self.settle(record.job_id, await self.status(record.job_id))
        if end is not None:
            return _ended(record, end)
        reason = await asyncio.to_thread(self._records.cancel_reason, record.job_id)
        run = await asyncio.to_thread(self._records.run, record.job_id)
        job = await self._moving(record) or Job(record, JobState.QUEUED, progress=_told_by(record, None))
        return replace(job, cancel_reason=reason, started=run.started if run else None)

    async def _moving(self, record: JobRecord) -> Job | None:
        """How a job stands that waits or is at work, without a look into the store; None where it is neither."""
        status = await self.status(record.job_id)
        if status is None or status.state not in (State.QUEUED, State.DELAYED, State.RUNNING):
            return None
        state = JobState.RUNNING if status.state is State.RUNNING else JobState.QUEUED
        position = await self._position(record.job_id) if state is JobState.QUEUED else None
        progress = _told_by(record, await self._progress.find(record.job_id))
        failure = progress.failure or (_died(status) if status.error else None)
        return Job(record, state, progress, position, status.deliveries, failure=failure)

    async def _position(self, job_id: str) -> int | None:
        try:
            return await self._queue.ahead(job_id)
        except QueueError as error:
            if error.code is Code.ENTRY_UNKNOWN:
                return None
            raise


_LAST_WORDS = {State.DEAD: EndState.DEAD, State.CANCELLED: EndState.CANCELLED, State.DONE: EndState.FAILED}
"""How a job ended of which the queue says so and its records say nothing."""


def _ended(record: JobRecord, end: JobEnd) -> Job:
    metrics = end.result.metrics if end.result else {}
    return Job(
        record,
        JobState(end.state.value),
        progress=JobProgress(step=end.step, metrics=metrics, at=end.ended),
        deliveries=end.deliveries,
        result=end.result,
        failure=end.failure,
        started=end.started,
        ended=end.ended,
        cancel_reason=end.cancel_reason,
    )


def _told_by(record: JobRecord, progress: JobProgress | None) -> JobProgress:
    """What was told last, or what is true of a job of which nothing was told."""
    return progress or JobProgress(at=record.submitted)


def _died(status: Status) -> JobFailure:
    """What is known of a delivery whose worker said nothing; the queue's own words name workers and stay here."""
    entry = CATALOGUE[Code.TRAINING_KILLED]
    return JobFailure(Code.TRAINING_KILLED.value, entry.public_text(status.error), entry.retryable)


def _lost() -> JobFailure:
    """Of a job that somebody worked on whose work is nowhere to be found."""
    entry = CATALOGUE[Code.SERVICE_FAILED]
    return JobFailure(Code.SERVICE_FAILED.value, entry.public_text(""), entry.retryable)


async def _several(call: Callable[[JobRecord], Awaitable[Job]], records: Sequence[JobRecord]) -> list[Job]:
    """What `call` makes of all `records`, in their order, some at a time."""
    turns = asyncio.Semaphore(READ_AT_ONCE)

    async def one(record: JobRecord) -> Job:
        async with turns:
            return await call(record)

    return list(await asyncio.gather(*map(one, records)))
