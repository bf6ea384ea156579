"""What every queue promises, on the twin in memory and on a real Redis."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

pytest.importorskip("redis")

from queue_makers import LEASE, NOW, SOON, Memory, Redis, claimed, code, until, working

from tutelage.errors import Code, QueueError
from tutelage.memory_queue import MemoryQueue
from tutelage.queue_entries import MAX_BODY_BYTES, Claim, Permanent, Priority, State, Temporary, handle, work


@pytest.fixture(params=["memory", "redis"])
def kind(request):
    return request.param


@pytest.fixture
def make(kind, request):
    return Memory() if kind == "memory" else Redis(request.getfixturevalue("redis_server"))


async def test_an_entry_comes_to_its_worker_as_it_was_put_and_once(make):
    queue = make()
    body = {"student": "sha256:ab", "steps": 3, "größe": [1.5, None, True]}
    entry = await queue.put(body, key="a", context={"traceparent": "00-1-2-01"})
    claim = await claimed(queue)
    assert (claim.entry.id, claim.entry.body, claim.deliveries) == (entry, body, 1)
    assert claim.entry.context == {"traceparent": "00-1-2-01"}
    assert await queue.claim("other", wait=NOW) is None
    assert (await queue.status(entry)).state is State.RUNNING
    await queue.settle_done(claim)
    await queue.settle_done(claim)
    assert (await queue.status(entry)).state is State.DONE
    assert await queue.claim("other", wait=NOW) is None


async def test_the_same_key_is_the_same_entry_while_it_waits_runs_and_is_done(make):
    queue = make()
    first = await queue.put({"n": 1}, key="a")
    assert await queue.put({"n": 2}, key="a") == first
    claim = await claimed(queue)
    assert await queue.put({"n": 3}, key="a") == first
    await queue.settle_done(claim)
    assert await queue.put({"n": 4}, key="a") == first
    assert claim.entry.body == {"n": 1}
    assert await queue.claim("w", wait=NOW) is None


async def test_a_hundred_puts_of_one_key_at_once_are_one_entry(make):
    queue = make()
    ids = await asyncio.gather(*(queue.put({"n": n}, key="a") for n in range(100)))
    assert len(set(ids)) == 1
    await claimed(queue)
    assert await queue.claim("w", wait=NOW) is None


async def test_a_finished_entry_is_forgotten_after_its_time(make):
    queue = make(remember=timedelta(seconds=0.2))
    entry = await queue.put({}, key="a")
    await queue.settle_done(await claimed(queue))
    await asyncio.sleep(0.4)
    with pytest.raises(QueueError) as raised:
        await queue.status(entry)
    assert code(raised) is Code.ENTRY_UNKNOWN


async def test_entries_come_by_priority_and_then_by_age(make):
    queue = make()
    for key, priority in [("l", "low"), ("n1", "normal"), ("h1", "high"), ("n2", "normal"), ("h2", "high")]:
        await queue.put({"key": key}, key=key, priority=Priority(priority))
    assert [(await claimed(queue)).entry.body["key"] for _ in range(5)] == ["h1", "h2", "n1", "n2", "l"]


async def test_how_many_are_ahead_counts_what_waits_and_not_what_runs(make):
    queue = make()
    keys = [("l", "low"), ("n1", "normal"), ("n2", "normal"), ("h", "high")]
    ids = {key: await queue.put({}, key=key, priority=Priority(priority)) for key, priority in keys}
    assert {key: await queue.ahead(entry) for key, entry in ids.items()} == {"h": 0, "n1": 1, "n2": 2, "l": 3}
    await claimed(queue)
    await claimed(queue)
    assert {key: await queue.ahead(entry) for key, entry in ids.items()} == {"h": 0, "n1": 0, "n2": 0, "l": 1}


async def test_the_backlog_counts_entries_by_state_and_how_long_the_first_could_have_been_claimed(make):
    queue = make(lease=LEASE)
    assert (await queue.backlog()).waited == NOW
    for key in ("running", "delayed", "dead", "queued"):
        await queue.put({"key": key}, key=key, priority=Priority.LOW if key == "queued" else Priority.NORMAL)
    await claimed(queue)
    await queue.settle_failed(await claimed(queue), "later", retry_after=timedelta(minutes=1))
    await queue.settle_failed(await claimed(queue), "never", retry_after=None)
    backlog = await queue.backlog()
    assert backlog.entries == {State.QUEUED: 1, State.DELAYED: 1, State.RUNNING: 1, State.DEAD: 1}
    await asyncio.sleep(0.2)
    assert (await queue.backlog()).waited >= backlog.waited + timedelta(seconds=0.1)
    assert (await claimed(queue)).entry.body["key"] == "queued"
    assert (await queue.backlog()).waited == NOW, "what runs or is not due waits for nobody"


async def test_entries_that_are_due_again_or_abandoned_wait_too(make):
    queue = make(lease=LEASE)
    await queue.put({}, key="due")
    await queue.settle_failed(await claimed(queue), "later", retry_after=timedelta(seconds=0.1))
    await asyncio.sleep(0.4)
    assert timedelta(seconds=0.2) <= (await queue.backlog()).waited < timedelta(seconds=5)
    await claimed(queue)
    assert (await queue.backlog()).waited == NOW
    await asyncio.sleep(LEASE.total_seconds() + 0.3)
    assert timedelta(seconds=0.2) <= (await queue.backlog()).waited < timedelta(seconds=5)


async def test_many_workers_share_many_entries_without_doing_one_twice(make):
    queue = make()
    seen = []

    async def handler(claim: Claim) -> None:
        await asyncio.sleep(0)
        seen.append(claim.entry.body["n"])

    ids = [await queue.put({"n": n}, key=str(n)) for n in range(60)]
    async with working(queue, handler, workers=8):
        for entry in ids:
            await until(queue, entry, State.DONE)
    assert sorted(seen) == list(range(60))


async def test_a_waiting_claim_wakes_at_once_and_does_not_spin(make, monkeypatch):
    queue = make(poll=timedelta(seconds=1.5))
    looks = []
    look = "_next" if isinstance(queue, MemoryQueue) else "_run"
    original = getattr(queue, look)
    monkeypatch.setattr(queue, look, lambda *words: (looks.append(words), original(*words))[1])
    waiting = asyncio.create_task(queue.claim("w", wait=SOON))
    await asyncio.sleep(0.5)
    assert len(looks) == 1
    start = time.monotonic()
    await queue.put({}, key="a")
    assert await waiting is not None
    assert time.monotonic() - start < 0.8  # well before the next poll


async def test_a_waiting_claim_that_is_cancelled_takes_nothing(make):
    queue = make()
    waiting = asyncio.create_task(queue.claim("gone", wait=SOON))
    await asyncio.sleep(0.3)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await queue.put({}, key="a")
    assert (await claimed(queue, wait=NOW)).deliveries == 1


async def test_a_dead_workers_entry_goes_to_another_and_counts_two_deliveries(make):
    queue = make(lease=LEASE)
    entry = await queue.put({"n": 1}, key="a")
    assert await make.die_with_a_claim(queue) == 1
    claim = await claimed(queue)
    assert (claim.entry.id, claim.entry.body, claim.deliveries) == (entry, {"n": 1}, 2)
    await queue.settle_done(claim)
    assert (await queue.status(entry)).deliveries == 2


async def test_an_entry_that_kills_its_workers_ends_dead_after_n_deliveries_with_the_last_error(make):
    queue = make(lease=LEASE, max_deliveries=3)
    entry = await queue.put({"n": 1}, key="poison")
    assert [await make.die_with_a_claim(queue) for _ in range(3)] == [1, 2, 3]
    await asyncio.sleep(LEASE.total_seconds() * 1.2)
    assert await queue.claim("w", wait=NOW) is None
    (dead,) = await queue.dead()
    assert (dead.entry.id, dead.state, dead.deliveries) == (entry, State.DEAD, 3)
    assert dead.error == "worker doomed died or was cut off during delivery 3 of 3"


async def test_a_dead_entry_revived_has_all_its_deliveries_again(make):
    queue = make(max_deliveries=1)
    entry = await queue.put({}, key="a")
    await queue.settle_failed(await claimed(queue), "no", retry_after=NOW)
    assert (await queue.status(entry)).state is State.DEAD
    assert await queue.revive(entry)
    assert not await queue.revive(entry)
    assert list(await queue.dead()) == []
    assert (await claimed(queue)).deliveries == 1


async def test_a_slow_living_worker_is_never_robbed(make):
    queue = make(lease=LEASE)
    running = []

    async def slow(claim: Claim) -> None:
        running.append(claim.deliveries)
        await asyncio.sleep(LEASE.total_seconds() * 2.5)

    entry = await queue.put({}, key="a")
    async with working(queue, slow, workers=3):
        await until(queue, entry, State.DONE)
    assert running == [1]


async def test_who_was_taken_over_can_neither_renew_nor_settle(make):
    queue = make(lease=LEASE)
    entry = await queue.put({}, key="a")
    old = await claimed(queue)
    await asyncio.sleep(LEASE.total_seconds() * 1.2)
    new = await claimed(queue)
    for late in (queue.renew(old), queue.settle_done(old), queue.give_back(old), queue.settle_cancelled(old)):
        with pytest.raises(QueueError) as raised:
            await late
        assert code(raised) is Code.CLAIM_LOST
    assert (await queue.status(entry)).state is State.RUNNING
    await queue.settle_done(new)
    assert (await queue.status(entry)).state is State.DONE


async def test_a_handler_whose_claim_was_lost_is_stopped_and_its_outcome_dropped(make):
    queue = make(lease=LEASE)
    entry = await queue.put({}, key="a")
    old = await claimed(queue)
    await asyncio.sleep(LEASE.total_seconds() * 1.2)
    new = await claimed(queue)
    ended = []

    async def handler(claim: Claim) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(claim.token)

    await asyncio.wait_for(handle(queue, old, handler), 10)
    assert ended == [old.token]
    assert (await queue.status(entry)).state is State.RUNNING
    await queue.settle_done(new)


@pytest.mark.parametrize(
    ("raised", "error"),
    [(Permanent("no such teacher"), "no such teacher"), (ValueError("defect"), "ValueError: defect")],
)
async def test_permanent_failures_and_defects_are_dead_at_once(make, raised, error):
    queue = make()

    async def handler(claim: Claim) -> None:
        raise raised

    entry = await queue.put({}, key="a")
    async with working(queue, handler):
        await until(queue, entry, State.DEAD)
    assert ((await queue.status(entry)).deliveries, (await queue.status(entry)).error) == (1, error)


async def test_a_temporary_failure_is_tried_again_after_its_delay_and_no_earlier(make):
    queue = make()
    times = []

    async def handler(claim: Claim) -> None:
        times.append(time.monotonic())
        if claim.deliveries == 1:
            raise Temporary("teacher away", timedelta(seconds=0.5))

    entry = await queue.put({}, key="a")
    async with working(queue, handler):
        await until(queue, entry, State.DELAYED)
        assert (await queue.status(entry)).error == "teacher away"
        await until(queue, entry, State.DONE)
    assert 0.45 <= times[1] - times[0] < 5


async def test_temporary_failures_end_dead_when_deliveries_are_used_up(make):
    queue = make(max_deliveries=3)

    async def handler(claim: Claim) -> None:
        raise Temporary(f"try {claim.deliveries}", NOW)

    entry = await queue.put({}, key="a")
    async with working(queue, handler):
        await until(queue, entry, State.DEAD)
    status = await queue.status(entry)
    assert (status.deliveries, status.error) == (3, "try 3")


async def test_a_queued_and_a_delayed_entry_are_cancelled_at_once(make):
    queue = make()
    queued = await queue.put({}, key="queued")
    assert await queue.cancel(queued) is State.CANCELLED
    delayed = await queue.put({}, key="delayed")
    await queue.settle_failed(await claimed(queue), "later", retry_after=timedelta(seconds=0.1))
    assert await queue.cancel(delayed) is State.CANCELLED
    assert await queue.cancel(delayed) is State.CANCELLED
    assert await queue.claim("w", wait=timedelta(seconds=0.4)) is None


async def test_cancelling_a_running_entry_stops_its_handler(make):
    queue = make(lease=LEASE)
    stopped = []

    async def handler(claim: Claim) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            stopped.append(claim.entry.id)

    entry = await queue.put({}, key="a")
    async with working(queue, handler):
        await until(queue, entry, State.RUNNING)
        assert await queue.cancel(entry) is State.RUNNING
        await until(queue, entry, State.CANCELLED)
    assert stopped == [entry]


async def test_a_cancelled_entry_of_a_dead_worker_is_not_tried_again(make):
    queue = make(lease=LEASE)
    entry = await queue.put({}, key="a")
    await make.die_with_a_claim(queue)
    await queue.cancel(entry)
    await asyncio.sleep(LEASE.total_seconds() * 1.2)
    assert await queue.claim("w", wait=NOW) is None
    assert (await queue.status(entry)).state is State.CANCELLED


async def test_a_worker_that_is_stopped_gives_its_entry_back_uncounted(make):
    queue = make()
    entry = await queue.put({}, key="a")
    started = asyncio.Event()

    async def handler(claim: Claim) -> None:
        started.set()
        await asyncio.sleep(30)

    loop = asyncio.create_task(work(queue, handler, worker="w", stop=asyncio.Event()))
    await started.wait()
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop
    claim = await claimed(queue)
    assert (claim.entry.id, claim.deliveries) == (entry, 1)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"body": {"x": "y" * MAX_BODY_BYTES}}, Code.ENTRY_TOO_LARGE),
        ({"body": {}, "context": {"x": "y" * MAX_BODY_BYTES}}, Code.ENTRY_TOO_LARGE),
        ({"body": {"x": float("nan")}}, Code.ENTRY_INVALID),
        ({"body": {"x": b"bytes"}}, Code.ENTRY_INVALID),
        ({"body": ["list"]}, Code.ENTRY_INVALID),
        ({"body": {}, "context": {"x": 1}}, Code.ENTRY_INVALID),
        ({"body": {}, "key": ""}, Code.ENTRY_INVALID),
    ],
)
async def test_what_a_queue_does_not_carry_is_refused(make, words, expected):
    with pytest.raises(QueueError) as raised:
        await make().put(**{"key": "a"} | words)
    assert code(raised) is expected


@pytest.mark.parametrize("call", ["status", "cancel", "ahead"])
async def test_an_unknown_entry_is_a_typed_error(make, call):
    with pytest.raises(QueueError) as raised:
        await getattr(make(), call)("0" * 32)
    assert code(raised) is Code.ENTRY_UNKNOWN
