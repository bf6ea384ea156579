"""Model events: how the registry learns of a student, through the queue `model.events`.

One entry a job, under the idempotency key that is the job's id:

    {"event": "student-distilled", "package": key of the file, "digest", "file_digest", "size_bytes", "data_set",
     "job_id"}
"""

from __future__ import annotations

from dataclasses import dataclass

from student_distiller.job_records import JobRecord, StudentResult, job_id_for
from tutelage.objects import object_key
from tutelage.queue_entries import Queue, State

__all__ = ["QUEUE", "ModelEvents"]

QUEUE = "model.events"
"""Name of the queue."""


@dataclass(frozen=True)
class ModelEvents:
    """Tells of students that were distilled."""

    queue: Queue

    async def tell(self, record: JobRecord, result: StudentResult) -> None:
        """Put the event of this job, once however often it is told.

        Raises:
            QueueError: `queue-unavailable`, `queue-refused`.
        """
        body = {
            "event": "student-distilled",
            "package": object_key(result.file_digest),
            "digest": result.digest,
            "file_digest": result.file_digest,
            "size_bytes": result.size_bytes,
            "data_set": record.spec.data_set,
            "job_id": record.job_id,
        }
        await self.queue.put(body, key=record.job_id)

    async def is_heard(self, record: JobRecord) -> bool:
        """Whether the event of this job, which was told, is settled: taken, or given up as a dead letter.

        Raises:
            QueueError: `queue-unavailable`, `queue-refused`.
        """
        status = await self.queue.status(job_id_for(record.job_id))
        return status.state in (State.DONE, State.DEAD, State.CANCELLED)
