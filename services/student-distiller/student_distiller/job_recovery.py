"""Job recovery: what makes up for everything that can be lost between two writes.

Again and again it goes through the jobs that are open. One that the queue does not know is put there again: Redis was
flushed, or the queue lived in a process that is gone. One for which the queue has said its last word gets its end
recorded. One that has ended is closed, once the registry has been told of it. All of this may happen twice, and by
several services at a time, without harm.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from student_distiller.distiller_metrics import DistillerMetrics
from student_distiller.job_progress import Progress
from student_distiller.job_records import JobEnd, JobRecord, JobRecords
from student_distiller.jobs import Jobs
from student_distiller.model_events import ModelEvents
from tutelage.errors import Code, QueueError, TutelageError
from tutelage.queue_entries import Queue, State

__all__ = ["JobRecovery"]

ABANDONED = timedelta(hours=1)
"""A job of which only the intention was written is that of a caller who got no answer: so old, it is forgotten."""


@dataclass(frozen=True)
class JobRecovery:
    """Goes through the open jobs of one store."""

    jobs: Jobs
    records: JobRecords
    queue: Queue
    progress: Progress
    events: ModelEvents
    metrics: DistillerMetrics
    retell_for: timedelta
    """How long after its end a job stays open for the registry to hear of it."""

    async def run(self, every: timedelta) -> None:
        """Do it now and then for ever; what fails is tried again the next time."""
        while True:
            try:
                await self.round()
            except TutelageError as error:
                structlog.get_logger().warning("jobs cannot be recovered", reason=error.code.value)
            await asyncio.sleep(every.total_seconds())

    async def round(self) -> None:
        """Go through all open jobs once."""
        waiting = 0
        for job_id, since in await asyncio.to_thread(lambda: list(self.records.open_jobs())):
            waiting += await self._recover(job_id, since)
        self.metrics.waiting(waiting)

    async def _recover(self, job_id: str, since: datetime) -> bool:
        """See to one job; whether it waits in the queue."""
        try:
            record = await asyncio.to_thread(self.records.find, job_id)
        except QueueError as error:
            if error.code is not Code.ENTRY_UNKNOWN:
                raise
            if datetime.now(UTC) - since > ABANDONED:
                await asyncio.to_thread(self.records.close, job_id)
            return False
        end = await asyncio.to_thread(self.records.end, job_id)
        if end is None:
            await asyncio.to_thread(self.records.list_anew, record)
            await self.queue.put({"job": job_id}, key=record.key)
            status = await self.jobs.status(job_id)
            end = await self.jobs.settle(job_id, status)
            if end is None:
                return status is not None and status.state in (State.QUEUED, State.DELAYED)
        await self._close(record, end)
        return False

    async def _close(self, record: JobRecord, end: JobEnd) -> None:
        """Nothing is left to do, unless the registry might still lose the news: a flushed queue would take it along."""
        if end.result is not None:
            await self.events.tell(record, end.result)
            is_late = datetime.now(UTC) - end.ended >= self.retell_for
            if not is_late and not await self.events.is_heard(record):
                return
        await self.progress.drop(record.job_id)
        await asyncio.to_thread(self.records.close, record.job_id)
