"""What only a queue's server can suffer: kills, restarts, flushes, silence and foreign data."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from datetime import timedelta

import pytest

pytest.importorskip("redis")

from queue_makers import LEASE, NOW, SOON, WORKER, Redis, claimed, code, until, working

from tutelage.errors import Code, QueueError
from tutelage.queue_entries import Claim, Priority, State
from tutelage.redis_server import answer, connect


@pytest.fixture
def real(redis_server):
    return Redis(redis_server)


async def test_a_living_worker_in_another_process_keeps_its_claim_and_loses_it_when_killed(real):
    queue = real(lease=LEASE)
    await queue.put({}, key="a")
    command = [sys.executable, str(WORKER), real.url, real.name, str(LEASE.total_seconds()), "renew"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert await asyncio.to_thread(process.stdout.readline) == b"1\n"
        assert await queue.claim("w", wait=LEASE * 4) is None
        process.kill()
    assert (await claimed(queue, wait=LEASE * 4)).deliveries == 2


async def test_a_restarted_server_has_lost_nothing_and_workers_come_back(real):
    queue = real(lease=timedelta(seconds=5))
    done = []

    async def handler(claim: Claim) -> None:
        await asyncio.sleep(0.02)
        done.append(claim.entry.body["n"])

    ids = [await queue.put({"n": n}, key=str(n), priority=list(Priority)[n % 3]) for n in range(60)]
    async with working(queue, handler, workers=2):
        for _ in range(2):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(real.server.kill)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(real.server.start)
        late = await queue.put({"n": 60}, key="late")
        for entry in [*ids, late]:
            await until(queue, entry, State.DONE)
    assert set(done) == set(range(61))
    assert list(await queue.dead()) == []


async def test_a_flushed_server_takes_new_entries_without_a_restart_of_anybody(real):
    queue = real()
    await queue.put({}, key="a")
    waiting = asyncio.create_task(queue.claim("w", wait=SOON))
    await waiting
    await queue._redis.flushall()
    assert await queue.claim("w", wait=NOW) is None
    await queue.put({}, key="a")
    assert (await claimed(queue)).deliveries == 1


async def test_a_server_that_is_away_or_frozen_is_a_typed_error_within_the_deadline(real, monkeypatch):
    monkeypatch.setattr("tutelage.redis_server.ANSWER_WITHIN", timedelta(seconds=1))
    queue = real()
    await queue.put({}, key="a")
    real.server.freeze()
    try:
        start = time.monotonic()
        with pytest.raises(QueueError) as raised:
            await queue.claim("w", wait=SOON)
        assert time.monotonic() - start < 5
    finally:
        real.server.thaw()
    assert code(raised) is Code.QUEUE_UNAVAILABLE
    await asyncio.to_thread(real.server.kill)
    with pytest.raises(QueueError) as raised:
        await queue.put({}, key="b")
    assert code(raised) is Code.QUEUE_UNAVAILABLE


async def test_streams_hold_only_what_waits_or_runs(real):
    queue = real()
    for n in range(20):
        await queue.put({}, key=str(n))
    for _ in range(15):
        await queue.settle_done(await claimed(queue))
    assert await queue._redis.xlen(f"tutelage:{{{real.name}}}:normal") == 5


async def test_foreign_data_under_the_queues_keys_is_a_typed_error(real):
    queue = real()
    await queue._redis.set(f"tutelage:{{{real.name}}}:normal", "text")
    with pytest.raises(QueueError) as raised:
        await queue.put({}, key="a")
    assert code(raised) is Code.QUEUE_REFUSED


async def test_a_refused_login_is_said_at_once_and_not_tried_again(real):
    """A check of health, which waits two seconds for an answer, can tell what is wrong."""
    client = connect(real.url.replace("redis://", "redis://nobody:wrong@"))
    try:
        async with asyncio.timeout(2):
            with pytest.raises(QueueError) as raised:
                await answer(client.ping())
        assert code(raised) is Code.QUEUE_REFUSED
    finally:
        await client.aclose()
