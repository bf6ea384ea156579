"""Where the progress of jobs is kept: on Redis and in its twin."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

import pytest

from student_distiller.job_progress import REMEMBER, JobProgress, MemoryProgress, RedisProgress
from student_distiller.job_records import JobFailure
from tutelage.errors import Code, QueueError
from tutelage.redis_server import connect

AT = datetime(2030, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
FULL = JobProgress(
    step=7,
    losses={"loss": 1.25, "soft": 1e-9},
    eta=timedelta(seconds=12.5),
    metrics={"fused": {"persons": 3, "eer": 0.125, "tar_1e3": None}},
    failure=JobFailure("storage-full", "free some space", retryable=True),
    at=AT,
)


class Redis:
    """Makes progress on the real server; closed when the test has ended."""

    def __init__(self, server):
        self.url, self.connections = f"redis://127.0.0.1:{server.port}", []

    def __call__(self) -> RedisProgress:
        self.connections.append(connect(self.url))
        return RedisProgress(self.connections[-1])

    async def close(self) -> None:
        for connection in self.connections:
            await connection.aclose()


class Memory:
    """Makes the twin."""

    def __call__(self) -> MemoryProgress:
        return MemoryProgress()

    async def close(self) -> None:
        pass


@pytest.fixture(params=["memory", "redis"])
def make(request: pytest.FixtureRequest):
    return Memory() if request.param == "memory" else Redis(request.getfixturevalue("redis_server"))


@pytest.fixture
def real(redis_server):
    return Redis(redis_server)


@pytest.fixture
def job() -> str:
    return secrets.token_hex(16)


async def test_what_was_told_last_is_found_whole(make, job: str):
    progress = make()
    assert await progress.find(job) is None
    await progress.keep(job, FULL)
    assert await progress.find(job) == FULL
    plain = JobProgress(step=8, at=AT)
    await progress.keep(job, plain)
    assert await progress.find(job) == plain
    assert await progress.find(secrets.token_hex(16)) is None


async def test_a_wish_to_stop_is_seen_and_dropped_with_the_job(make, job: str):
    progress = make()
    assert not await progress.must_stop(job)
    await progress.ask_to_stop(job)
    await progress.ask_to_stop(job)
    assert await progress.must_stop(job)
    await progress.keep(job, FULL)
    await progress.drop(job)
    assert not await progress.must_stop(job)
    assert await progress.find(job) is None
    await progress.drop(job)


async def test_on_redis_nothing_stays_for_ever(real, job: str):
    progress = real()
    await progress.keep(job, FULL)
    await progress.ask_to_stop(job)
    for kind in ("progress", "stop"):
        left = await real.connections[0].ttl(f"tutelage:{{distill.jobs}}:{kind}:{job}")
        assert 0 < left <= REMEMBER.total_seconds()


async def test_a_server_that_is_away_is_told(real, job: str, redis_server):
    progress = real()
    redis_server.kill()
    try:
        for call in (progress.find(job), progress.keep(job, FULL), progress.must_stop(job)):
            with pytest.raises(QueueError) as raised:
                await call
            assert raised.value.code is Code.QUEUE_UNAVAILABLE
    finally:
        redis_server.start()
