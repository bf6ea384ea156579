"""Batches of attempts that wait in a queue until a worker answers them, in the way every other attempt is answered.

The queue `label.batches` carries ids alone; captures and answers lie sealed in the object store
(`teacher_inference.batch_store`), whose records are the truth: a batch is done once its answers are there, whatever the
queue says, and one that the queue has lost is put again when somebody asks for it. Workers may die at any instant:
their entry is delivered again, the first answers that were written count, and captures go when the answers are there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from functools import partial
from typing import Any

from teacher_inference.batch_store import BatchRecord, BatchStore, attempts_digest
from teacher_inference.labels import Labels
from teacher_inference.teacher_metrics import BatchStage, TeacherMetrics
from teacher_inference.threads import in_thread
from tutelage.errors import CATALOGUE, Code, ObjectError, RequestError, TutelageError
from tutelage.labelling import Judged, LabelAnswer
from tutelage.queue_entries import Claim, Permanent, Queue, State, Temporary

__all__ = ["QUEUE", "Batch", "BatchState", "LabelBatches"]

QUEUE = "label.batches"
"""Entries: {"batch": ID}."""

ANSWER_WITHIN_S = 600.0
"""For one batch at the backend; a claim is renewed meanwhile. 1024 captures take a minute on a slow core."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Before a batch is tried again: doubled with each delivery."""

REMOVED = "the person was removed since"
"""Why an answer that named somebody names nobody any more."""


class BatchState(StrEnum):
    """Where a batch is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Batch:
    """A batch as it stands."""

    record: BatchRecord
    state: BatchState
    answers: Sequence[LabelAnswer] = ()
    """One an attempt, in their order, once it is done."""
    error: Code | None = None
    """Why it failed."""


class LabelBatches:
    """Takes batches, tells how they stand, and answers them; for one event loop."""

    def __init__(
        self,
        store: BatchStore,
        queue: Queue,
        labels: Labels,
        metrics: TeacherMetrics,
        threads: Executor,
        *,
        lifetime: timedelta,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep batches in `store` for `lifetime`, which is asked in `threads`; `clock` gives UNIX seconds."""
        self._store, self._queue, self._labels, self._metrics = store, queue, labels, metrics
        self._threads, self._lifetime, self._clock = threads, lifetime, clock

    async def submit(self, site: str, key: str, attempts: Sequence[Sequence[bytes]]) -> Batch:
        """The batch of these `attempts` under an idempotency `key`, as it stands; in the queue now if it was not.

        Raises:
            RequestError: `request-conflict`, the key was given for other attempts.
            TutelageError: the stores do not answer; the call may be repeated.
        """
        batch_id = self._store.batch_id(site, key)
        record = await in_thread(self._threads, self._store.find, batch_id)
        if record is None:
            record = await in_thread(self._threads, self._store.submit, batch_id, site, attempts, self._lifetime)
            self._metrics.batch(BatchStage.SUBMITTED)
        if record.attempts != await in_thread(self._threads, attempts_digest, attempts):
            raise RequestError(
                "idempotency_key was given before for other attempts at this site: choose another key",
                Code.REQUEST_CONFLICT,
            )
        return await self._standing(record)

    async def get(self, site: str, batch_id: str) -> Batch:
        """A batch that was submitted to `site`, as it stands.

        Raises:
            ObjectError: `object-missing`, there is none, or it expired long ago.
            TutelageError: the stores do not answer.
        """
        record = await in_thread(self._threads, self._store.find, batch_id)
        if record is None or record.site != site:
            raise ObjectError(Code.OBJECT_MISSING, "there is no such batch at this site, or it expired long ago")
        return await self._standing(record)

    async def _standing(self, record: BatchRecord) -> Batch:
        if record.expires <= self._clock():
            return Batch(record, BatchState.EXPIRED)
        if (answers := await self._answers(record)) is not None:
            return Batch(record, BatchState.DONE, answers)
        entry = await self._put(record)
        status = await self._queue.status(entry)
        if status.state is State.RUNNING:
            return Batch(record, BatchState.RUNNING)
        if status.state in (State.QUEUED, State.DELAYED):
            return Batch(record, BatchState.QUEUED)
        if (answers := await self._answers(record)) is not None:  # answered since we looked
            return Batch(record, BatchState.DONE, answers)
        return Batch(record, BatchState.FAILED, error=_code_in(status.error))

    async def _put(self, record: BatchRecord) -> str:
        """Id of the batch's entry, which is made unless the queue has it."""
        return await self._queue.put({"batch": record.batch_id}, key=f"{record.batch_id}-{record.submitted!r}")

    async def _answers(self, record: BatchRecord) -> list[LabelAnswer] | None:
        found = await in_thread(self._threads, self._store.answers, record.batch_id)
        if found is None:
            return None
        names = (await self._labels.galleries.at(record.site)).names
        return [_read(answer, names) for answer in found]

    async def work_on(self, claim: Claim) -> None:
        """Answer the batch of a claimed entry; the handler of a queue's worker.

        Raises:
            Temporary: something does not answer now.
            Permanent: no repetition can help.
        """
        try:
            await self._work(str(claim.entry.body["batch"]), claim.deliveries)
        except TutelageError as error:
            said = f"{error.code.value}: {CATALOGUE[error.code].public_text(error.message)}"
            if CATALOGUE[error.code].retryable or error.code is Code.OBJECT_CONFLICT:
                self._metrics.batch(BatchStage.RETRIED)
                pause = min(FIRST_PAUSE_S * 2 ** (claim.deliveries - 1), LONGEST_PAUSE_S)
                raise Temporary(said, timedelta(seconds=pause)) from error
            self._metrics.batch(BatchStage.FAILED)
            raise Permanent(said) from error

    async def _work(self, batch_id: str, deliveries: int) -> None:
        record = await in_thread(self._threads, self._store.find, batch_id)
        if record is None or record.expires <= self._clock():
            self._metrics.batch(BatchStage.EXPIRED)
            return
        if deliveries == 1:
            self._metrics.waited(self._clock() - record.submitted)
        if await in_thread(self._threads, self._store.is_answered, batch_id):
            await in_thread(self._threads, self._store.delete_captures, record)
            return
        try:
            attempts = await in_thread(self._threads, self._store.attempts, record)
        except ObjectError as error:
            answered = error.code is Code.OBJECT_MISSING and await in_thread(
                self._threads, self._store.is_answered, batch_id
            )
            if answered:  # by somebody who took the batch over
                return
            raise
        judged = await self._labels.label(record.site, attempts, timeout=ANSWER_WITHIN_S)
        written = [self._written(record.site, answer) for answer in judged]
        if await in_thread(self._threads, self._store.answer, record, written):
            self._metrics.batch(BatchStage.DONE)

    def _written(self, site: str, judged: Judged) -> Mapping[str, Any]:
        """An answer as it is kept: persons by their keyed digests."""
        answer, key = judged.answer, partial(self._labels.galleries.person_key, site)
        return {
            "person": None if answer.person is None else key(answer.person),
            "confidence": answer.confidence,
            "margin": answer.margin,
            "soft": [[key(person), probability] for person, probability in answer.soft.items()],
            "reason": answer.reason,
            "space": answer.space,
        }

    async def sweep(self) -> None:
        """Forget batches that expired long ago."""
        await in_thread(self._threads, self._store.sweep)


def _read(answer: Mapping[str, Any], names: Mapping[str, str]) -> LabelAnswer:
    """An answer as it was kept; whoever was removed since is left out."""
    soft = {names[person]: probability for person, probability in answer["soft"] if person in names}
    total = sum(soft.values())
    soft = {person: probability / total for person, probability in soft.items()} if total > 0 else {}
    person = answer["person"]
    read = LabelAnswer(
        names.get(person), answer["confidence"], answer["margin"], soft, answer["reason"], answer["space"]
    )
    if person is not None and read.person is None:
        return replace(read, confidence=0.0, reason=REMOVED)
    if read.person is not None and len(soft) < len(answer["soft"]):
        return replace(read, confidence=soft[read.person])
    return read


def _code_in(error: str) -> Code:
    """The code that a worker put before its last words; `service-failed` where it died without any."""
    code = error.partition(":")[0]
    return Code(code) if code in set(Code) else Code.SERVICE_FAILED
