"""Job records: the truth about jobs, in the object store. Redis may be lost at any time; nothing here is.

    open-jobs/ID.json         there from before a job exists until it has ended: what must still be worked on
    job-specs/ID.json         written once: the job itself. Of many who submit one key exactly one succeeds
    jobs/TIME-ID.json         written once: the same, listed; TIME is inverted, so that a listing begins with the latest
    job-cancels/ID.json       written once: somebody asked for the job to be ended, and why
    job-runs/ID.json          swapped: who works on it, since when, at what cost so far, and the last checkpoint
    job-results/ID.json       written once: the student package, by the process that made it
    job-ends/ID.json          written once: how the job ended. Of many who end a job exactly one succeeds
    expiring/...              checkpoints, sealed with the data key, purpose `checkpoint ID`; the last one of each job

ID is the queue's id of the entry under the job's idempotency key. All values are canonical JSON. Everything here is
synchronous, as the store is; callers in an event loop use threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from student_distiller.job_spec import JobSpec
from tutelage.canonical import canonical_json, parse_canonical
from tutelage.errors import Code, ObjectError, QueueError, RequestError
from tutelage.objects import ObjectStore
from tutelage.queue_entries import Priority, entry_of

__all__ = [
    "Checkpoint",
    "EndState",
    "JobEnd",
    "JobFailure",
    "JobRecord",
    "JobRecords",
    "JobRun",
    "StudentResult",
    "job_id_for",
]

_OPEN, _SPECS, _LISTED, _CANCELS = "open-jobs/", "job-specs/", "jobs/", "job-cancels/"
_RUNS, _RESULTS, _ENDS = "job-runs/", "job-results/", "job-ends/"
_ID = re.compile(r"[0-9a-f]{32}")
_PLACE = re.compile(r"jobs/[0-9]{17}-[0-9a-f]{32}\.json")
_LATEST_US = 10**17 - 1
"""Microseconds since 1970 are subtracted from this; it lasts until the year 5138."""


class EndState(StrEnum):
    """How a job can end."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"


@dataclass(frozen=True)
class JobFailure:
    """What went wrong with a job, as callers may read it."""

    code: str
    """Of the catalogue."""
    message: str
    retryable: bool


@dataclass(frozen=True)
class JobRecord:
    """A job as it was submitted."""

    job_id: str
    key: str
    """Idempotency key."""
    asked: JobSpec
    """As the caller wrote it: what a repeated call is compared with."""
    spec: JobSpec
    """With the service's choices where the caller left them open."""
    teacher_name: str
    """What people call the teacher."""
    submitted: datetime


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training, to go on from."""

    key: str
    """Of the sealed object."""
    step: int
    """Steps done."""
    size_bytes: int


@dataclass(frozen=True)
class JobRun:
    """The work on a job, over all deliveries."""

    holder: str
    """Random name of the delivery that works on it, or last did."""
    started: datetime
    """When a worker first took it."""
    spent: timedelta = timedelta()
    """Time at work so far; a killed worker loses what it did since its last checkpoint."""
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True)
class StudentResult:
    """What a finished job made."""

    digest: str
    """Names the package."""
    file_digest: str
    size_bytes: int
    readout: str
    space: str
    teacher_space: str
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Fields of an error summary, by readout."""


@dataclass(frozen=True)
class JobEnd:
    """How a job ended."""

    state: EndState
    ended: datetime
    deliveries: int = 0
    started: datetime | None = None
    failure: JobFailure | None = None
    result: StudentResult | None = None
    cancel_reason: str | None = None
    step: int = 0
    """Steps done."""


def job_id_for(key: str) -> str:
    """Id of the job under this idempotency key, the same that its queue entry has."""
    return entry_of({}, key, Priority.NORMAL, None).id


class JobRecords:
    """The records of all jobs in one object store."""

    def __init__(self, objects: ObjectStore) -> None:
        """Read and write in `objects`."""
        self._objects = objects

    def submit(self, record: JobRecord) -> JobRecord:
        """The job under the record's key, whoever submitted it: `record` itself unless there was one before.

        Raises:
            RequestError: `request-conflict`, the key was given before for another spec.
        """
        self._create(f"{_OPEN}{record.job_id}.json", {"since": record.submitted.isoformat()})
        self._create(f"{_SPECS}{record.job_id}.json", _record_json(record))
        kept = self.find(record.job_id)
        if kept.asked.canonical != record.asked.canonical:
            raise RequestError(
                f"idempotency_key {record.key!r} was given before for another spec: choose another key",
                Code.REQUEST_CONFLICT,
            )
        self.list_anew(kept)
        return kept

    def list_anew(self, record: JobRecord) -> None:
        """See that a job is listed, whatever interrupted its submission."""
        self._create(_place(record), _record_json(record))

    def find(self, job_id: str) -> JobRecord:
        """The job of this id.

        Raises:
            QueueError: `entry-unknown`, there is none.
        """
        found = self._get(f"{_SPECS}{job_id}.json") if _ID.fullmatch(job_id) else None
        if found is None:
            raise QueueError(Code.ENTRY_UNKNOWN, f"there is no job {job_id[:80]!r}: submit it, or check the id")
        return _record(found)

    def page(self, after: str, limit: int) -> tuple[list[tuple[str, JobRecord]], bool]:
        """At most `limit` jobs after the place `after`, latest first, each with its place; and whether there are more.

        Raises:
            RequestError: `after` is no place.
        """
        if after and not _PLACE.fullmatch(after):
            raise RequestError("page_token is not one that this service gave: begin with an empty one")
        page = self._objects.list(_LISTED, after=after, limit=limit)
        found = [(key, _record(parse_canonical(self._objects.get(key).data))) for key in page.keys]
        return found, page.after is not None

    def open_jobs(self) -> Iterator[tuple[str, datetime]]:
        """Ids of jobs that have not ended, as far as was written down, and since when they are open."""
        after: str | None = ""
        while after is not None:
            page = self._objects.list(_OPEN, after=after)
            for key in page.keys:
                if (found := self._get(key)) is not None:
                    yield key.removeprefix(_OPEN).removesuffix(".json"), datetime.fromisoformat(found["since"])
            after = page.after

    def close(self, job_id: str) -> None:
        """Nothing is left to be done about a job."""
        self._objects.delete(f"{_OPEN}{job_id}.json")

    def cancel(self, job_id: str, reason: str) -> None:
        """Keep that somebody wants the job to be ended; the first reason stays."""
        self._create(f"{_CANCELS}{job_id}.json", {"reason": reason, "time": datetime.now(UTC).isoformat()})

    def cancel_reason(self, job_id: str) -> str | None:
        """Why the job was asked to be ended; None where nobody asked."""
        found = self._get(f"{_CANCELS}{job_id}.json")
        return None if found is None else str(found["reason"])

    def begin(self, job_id: str, holder: str, now: datetime) -> JobRun:
        """The job's run, from now on that of `holder`."""
        while True:
            found, tag = self._run(job_id)
            run = found or JobRun(holder, now)
            taken = JobRun(holder, run.started, run.spent, run.checkpoint)
            if self._swap(job_id, taken, tag):
                return taken

    def run(self, job_id: str) -> JobRun | None:
        """The job's run; None where no worker has taken it."""
        return self._run(job_id)[0]

    def move(self, job_id: str, holder: str, spent: timedelta, checkpoint: Checkpoint | None = None) -> None:
        """Note the time spent so far and, if given, the new checkpoint, whose predecessor is deleted.

        Raises:
            QueueError: `claim-lost`, another delivery than `holder` works on the job.
        """
        while True:
            found, tag = self._run(job_id)
            if found is None or found.holder != holder:
                raise QueueError(Code.CLAIM_LOST, f"another worker has job {job_id}: drop this delivery's outcome")
            kept = checkpoint or found.checkpoint
            if self._swap(job_id, JobRun(holder, found.started, max(spent, found.spent), kept), tag):
                break
        if checkpoint and found.checkpoint and found.checkpoint.key != checkpoint.key:
            self._objects.delete(found.checkpoint.key)

    def forget_checkpoint(self, job_id: str, holder: str) -> None:
        """Let the next delivery begin anew, if the job is still that of `holder`."""
        found, tag = self._run(job_id)
        if found is not None and found.holder == holder and found.checkpoint is not None:
            self._swap(job_id, JobRun(holder, found.started, found.spent), tag)
            self._objects.delete(found.checkpoint.key)

    def keep_result(self, job_id: str, result: StudentResult, needs: Sequence[str]) -> StudentResult:
        """The job's result: this one, unless another process was first. `needs` are keys of its objects."""
        self._create(f"{_RESULTS}{job_id}.json", asdict(result), needs)
        kept = self.result(job_id)
        assert kept is not None  # noqa: S101 - results are never deleted
        return kept

    def result(self, job_id: str) -> StudentResult | None:
        """What the job made; None where it has not."""
        found = self._get(f"{_RESULTS}{job_id}.json")
        return None if found is None else StudentResult(**found)

    def finish(self, job_id: str, end: JobEnd) -> JobEnd:
        """How the job ended: so, unless somebody was first. Its checkpoint goes."""
        self._create(f"{_ENDS}{job_id}.json", _end_json(end))
        kept = self.end(job_id)
        assert kept is not None  # noqa: S101 - ends are never deleted
        if (run := self.run(job_id)) and run.checkpoint:
            self._objects.delete(run.checkpoint.key)
        return kept

    def end(self, job_id: str) -> JobEnd | None:
        """How the job ended; None where it has not."""
        found = self._get(f"{_ENDS}{job_id}.json")
        return None if found is None else _end(found)

    def _create(self, key: str, value: Any, needs: Sequence[str] = ()) -> None:
        try:
            self._objects.create(key, canonical_json(value), needs=needs)
        except ObjectError as error:
            if error.code is not Code.OBJECT_CONFLICT:
                raise

    def _get(self, key: str) -> Any:
        """The value under `key`; None where there is none."""
        try:
            return parse_canonical(self._objects.get(key).data)
        except ObjectError as error:
            if error.code is Code.OBJECT_MISSING:
                return None
            raise
        except ValueError as error:
            raise _damaged(key) from error

    def _run(self, job_id: str) -> tuple[JobRun | None, str | None]:
        """The run and the tag of its pointer."""
        try:
            named = self._objects.get(f"{_RUNS}{job_id}.json")
        except ObjectError as error:
            if error.code is Code.OBJECT_MISSING:
                return None, None
            raise
        value = parse_canonical(named.data)
        checkpoint = Checkpoint(**value["checkpoint"]) if value["checkpoint"] else None
        started, spent = datetime.fromisoformat(value["started"]), timedelta(seconds=value["spent_s"])
        return JobRun(value["holder"], started, spent, checkpoint), named.tag

    def _swap(self, job_id: str, run: JobRun, tag: str | None) -> bool:
        """Whether `run` took the place of what had this `tag`."""
        value = {
            "holder": run.holder,
            "started": run.started.isoformat(),
            "spent_s": run.spent.total_seconds(),
            "checkpoint": asdict(run.checkpoint) if run.checkpoint else None,
        }
        key = f"{_RUNS}{job_id}.json"
        try:
            if tag is None:
                self._objects.create(key, canonical_json(value))
            else:
                self._objects.replace(key, canonical_json(value), tag=tag)
        except ObjectError as error:
            if error.code is Code.OBJECT_CONFLICT:
                return False
            raise
        return True


def _place(record: JobRecord) -> str:
    since = int(record.submitted.timestamp() * 1_000_000)
    return f"{_LISTED}{_LATEST_US - since:017d}-{record.job_id}.json"


def _record_json(record: JobRecord) -> dict[str, Any]:
    return {
        "job_id": record.job_id,
        "key": record.key,
        "asked": record.asked.as_json(),
        "spec": record.spec.as_json(),
        "teacher_name": record.teacher_name,
        "submitted": record.submitted.isoformat(),
    }


def _record(value: Mapping[str, Any]) -> JobRecord:
    specs = {name: JobSpec.from_json(value[name]) for name in ("asked", "spec")}
    submitted = datetime.fromisoformat(value["submitted"])
    return JobRecord(value["job_id"], value["key"], **specs, teacher_name=value["teacher_name"], submitted=submitted)


def _end_json(end: JobEnd) -> dict[str, Any]:
    started = end.started.isoformat() if end.started else None
    return {**asdict(end), "state": end.state.value, "ended": end.ended.isoformat(), "started": started}


def _end(value: Mapping[str, Any]) -> JobEnd:
    fields = dict(value)
    fields["state"] = EndState(fields["state"])
    for name in ("ended", "started"):
        fields[name] = datetime.fromisoformat(fields[name]) if fields[name] else None
    for name, kind in (("failure", JobFailure), ("result", StudentResult)):
        fields[name] = kind(**fields[name]) if fields[name] else None
    return JobEnd(**fields)


def _damaged(key: str) -> ObjectError:
    return ObjectError(Code.OBJECT_CORRUPT, f"{key!r} is damaged: restore it from a backup")
