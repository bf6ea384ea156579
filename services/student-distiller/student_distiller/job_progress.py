"""Job progress: how far jobs are, for whoever watches. It is told often and may be lost; nothing rests on it.

Keys on Redis, where `{..}` are its braces, so that all of a job lies in one cluster slot:

    tutelage:{distill.jobs}:progress:ID   hash: step, eta_s, at (ISO 8601); losses, metrics, failure (JSON)
    tutelage:{distill.jobs}:stop:ID       somebody asked for the job to be ended

Both go by themselves after `REMEMBER`. The twin keeps them in this process, until they are dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from student_distiller.job_records import JobFailure

if TYPE_CHECKING:
    from tutelage.redis_server import Redis

__all__ = ["JobProgress", "MemoryProgress", "Progress", "RedisProgress"]

REMEMBER = timedelta(days=2)
"""Longer than any pause between two things that a worker has to tell of a job."""

_PREFIX = "tutelage:{distill.jobs}:"


@dataclass(frozen=True)
class JobProgress:
    """How far a job is."""

    step: int = 0
    """Steps done."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """Terms by name, at `step`."""
    eta: timedelta | None = None
    """Still needed at the present pace; None while there is none."""
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Fields of an error summary, by readout; empty before they are measured."""
    failure: JobFailure | None = None
    """Why the last delivery failed; None where nothing failed."""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When this was true."""

    def moved(self, **changed: Any) -> JobProgress:
        """The same but for what `changed`, as of now."""
        return replace(self, **{"at": datetime.now(UTC), **changed})


class Progress(Protocol):
    """Where progress is kept. Every method may raise `QueueError`: `queue-unavailable` or `queue-refused`."""

    async def keep(self, job_id: str, progress: JobProgress) -> None:
        """Put `progress` in the place of what was known of the job."""

    async def find(self, job_id: str) -> JobProgress | None:
        """What was told last; None where nothing was, or it is forgotten."""

    async def ask_to_stop(self, job_id: str) -> None:
        """Let whoever works on the job know that it is to be ended."""

    async def must_stop(self, job_id: str) -> bool:
        """Whether somebody asked so."""

    async def drop(self, job_id: str) -> None:
        """Forget all of a job."""


class MemoryProgress:
    """The twin of `RedisProgress` within one process."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._known: dict[str, JobProgress] = {}
        self._stops: set[str] = set()

    async def keep(self, job_id: str, progress: JobProgress) -> None:
        """See `Progress.keep`."""
        self._known[job_id] = progress

    async def find(self, job_id: str) -> JobProgress | None:
        """See `Progress.find`."""
        return self._known.get(job_id)

    async def ask_to_stop(self, job_id: str) -> None:
        """See `Progress.ask_to_stop`."""
        self._stops.add(job_id)

    async def must_stop(self, job_id: str) -> bool:
        """See `Progress.must_stop`."""
        return job_id in self._stops

    async def drop(self, job_id: str) -> None:
        """See `Progress.drop`."""
        self._known.pop(job_id, None)
        self._stops.discard(job_id)


class RedisProgress:
    """`Progress` on a Redis server."""

    def __init__(self, redis: Redis) -> None:
        """Use this connection, which its owner closes."""
        from tutelage.redis_server import answer  # noqa: PLC0415 - the twin needs no Redis

        self._redis, self._answer = redis, answer

    async def keep(self, job_id: str, progress: JobProgress) -> None:
        """See `Progress.keep`."""
        key = f"{_PREFIX}progress:{job_id}"
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(key)
            pipeline.hset(key, mapping=_texts(progress))
            pipeline.expire(key, REMEMBER)
            await self._answer(pipeline.execute())

    async def find(self, job_id: str) -> JobProgress | None:
        """See `Progress.find`."""
        texts = await self._answer(self._redis.hgetall(f"{_PREFIX}progress:{job_id}"))
        return _progress(texts) if texts else None

    async def ask_to_stop(self, job_id: str) -> None:
        """See `Progress.ask_to_stop`."""
        await self._answer(self._redis.set(f"{_PREFIX}stop:{job_id}", "1", ex=REMEMBER))

    async def must_stop(self, job_id: str) -> bool:
        """See `Progress.must_stop`."""
        return bool(await self._answer(self._redis.exists(f"{_PREFIX}stop:{job_id}")))

    async def drop(self, job_id: str) -> None:
        """See `Progress.drop`."""
        await self._answer(self._redis.delete(f"{_PREFIX}progress:{job_id}", f"{_PREFIX}stop:{job_id}"))


def _texts(progress: JobProgress) -> dict[Any, Any]:
    return {
        "step": str(progress.step),
        "losses": json.dumps(dict(progress.losses)),
        "eta_s": "" if progress.eta is None else repr(progress.eta.total_seconds()),
        "metrics": json.dumps({name: dict(found) for name, found in progress.metrics.items()}),
        "failure": json.dumps(asdict(progress.failure) if progress.failure else None),
        "at": progress.at.isoformat(),
    }


def _progress(texts: Mapping[str, str]) -> JobProgress:
    failure = json.loads(texts["failure"])
    return JobProgress(
        step=int(texts["step"]),
        losses=json.loads(texts["losses"]),
        eta=timedelta(seconds=float(texts["eta_s"])) if texts["eta_s"] else None,
        metrics=json.loads(texts["metrics"]),
        failure=JobFailure(**failure) if failure else None,
        at=datetime.fromisoformat(texts["at"]),
    )
