"""Callers share batches and nothing else: no waiting when idle, own deadlines, own failures, bounded queues."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pytest

pytest.importorskip("grpc")

from teacher_inference.backends import BackendKind, BatchingSettings
from teacher_inference.batching import MAX_BATCH_BYTES, BatchingBackend
from tutelage.biometrics.features import Features
from tutelage.errors import Code, ServiceError
from tutelage.labelling import Extraction

SPACE = "aaaaaaaaaaaaaaaaaaaaaaaa/teacher"


class Steps:
    """A backend whose every batch waits until a test lets it end; a capture's feature is its own first byte's axis."""

    kind, name, space = BackendKind.IN_PROCESS, "steps", SPACE

    def __init__(self, *, free: bool = False):
        self.batches: list[list[bytes]] = []
        self.timeouts: list[float] = []
        self.cancelled, self.closed, self.running, self.most = 0, False, 0, 0
        self.refuse: ServiceError | None = None
        self.forgets = 0
        self.gate = asyncio.Semaphore(10_000 if free else 0)

    async def extract(self, captures: Sequence[bytes], *, timeout: float) -> Extraction:
        self.batches.append(list(captures))
        self.timeouts.append(timeout)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            async with asyncio.timeout(timeout):
                await self.gate.acquire()
        except TimeoutError as error:
            raise ServiceError(Code.DEADLINE_EXCEEDED, "too slow") from error
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if self.refuse is not None and b"!" in captures:
            raise self.refuse
        captures = captures[: len(captures) - self.forgets]
        vectors = np.eye(256, dtype=np.float32)[[capture[0] for capture in captures]]
        usable = np.array([capture != b"?" for capture in captures], dtype=bool)
        reasons = tuple("" if fine else "no face found" for fine in usable)
        return Extraction(Features(vectors.reshape(-1, 256), SPACE), usable, reasons, ("",) * len(captures))

    async def check(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True

    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]

    async def let(self, batches: int = 1) -> None:
        for _ in range(batches):
            self.gate.release()
            await settled()


async def settled() -> None:
    """Whatever can go on has gone on; not by the clock, which a busy machine stretches."""
    for _ in range(50):
        await asyncio.sleep(0)


def play(work, *, free: bool = False, **settings) -> None:
    """Run `work` with such a backend and the batching around it."""

    async def whole() -> None:
        steps = Steps(free=free)
        joined = BatchingBackend(steps, BatchingSettings(**settings))
        try:
            await work(steps, joined)
        finally:
            await joined.close()
        assert steps.closed

    asyncio.run(whole())


def ask(joined: BatchingBackend, *captures: bytes, timeout: float = 5.0) -> asyncio.Task[Extraction]:
    return asyncio.create_task(joined.extract(captures, timeout=timeout))


async def code_of(task: asyncio.Task[Extraction]) -> Code:
    with pytest.raises(ServiceError) as raised:
        await task
    return raised.value.code


def axes(extraction: Extraction) -> bytes:
    return bytes(extraction.features.vectors.argmax(axis=1).tolist())


def test_an_idle_backend_gets_a_call_at_once_and_what_comes_meanwhile_is_the_next_batch():
    async def work(steps, joined):
        first = ask(joined, b"a")
        await settled()
        assert steps.sizes() == [1]
        others = [ask(joined, bytes([number])) for number in range(10)]
        pair = ask(joined, b"x", b"y")
        await steps.let(2)
        assert axes(await first) == b"a"
        assert [axes(await task) for task in others] == [bytes([number]) for number in range(10)]
        assert axes(await pair) == b"xy"
        assert steps.sizes() == [1, 12]

    play(work, wait=timedelta(0))


def test_a_lone_caller_never_waits_for_others():
    async def work(steps, joined):
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(20):
            await joined.extract([b"a"], timeout=5)
        assert loop.time() - begun < 0.5  # twenty waits would be ten seconds
        assert steps.sizes() == [1] * 20

    play(work, free=True, wait=timedelta(seconds=0.5))


def test_callers_of_the_last_batch_are_waited_for_until_they_are_back():
    async def client(joined, number):
        for _ in range(5):
            await joined.extract([bytes([number])], timeout=5)
            await asyncio.sleep(0.001 * number)

    async def work(steps, joined):
        first = ask(joined, b"a")
        await asyncio.sleep(0)
        clients = [asyncio.create_task(client(joined, number)) for number in range(4)]
        await settled()
        for _ in range(10_000):
            steps.gate.release()
        begun = asyncio.get_running_loop().time()
        await asyncio.gather(first, *clients)
        assert steps.sizes()[:6] == [1, 4, 4, 4, 4, 4]
        assert asyncio.get_running_loop().time() - begun < 0.9  # they were back before the second was over

    play(work, wait=timedelta(seconds=1))


def test_batches_are_full_at_the_number_that_is_set_and_a_larger_call_goes_alone():
    async def work(steps, joined):
        running = ask(joined, b"a")
        await settled()
        tasks = [ask(joined, b"b", b"c", b"d") for _ in range(5)]
        large = ask(joined, *[b"e"] * 20)
        last = ask(joined, b"f")
        await steps.let(6)
        assert [axes(await task) for task in (running, *tasks, large, last)] == [b"a"] + [b"bcd"] * 5 + [
            b"e" * 20,
            b"f",
        ]
        assert steps.sizes() == [1, 6, 6, 3, 20, 1]

    play(work, captures=8, wait=timedelta(0))


def test_batches_stay_below_what_a_message_may_hold():
    async def work(steps, joined):
        running = ask(joined, b"a")
        await settled()
        tasks = [ask(joined, b"b" * (MAX_BATCH_BYTES // 3)) for _ in range(5)]
        await steps.let(3)
        await asyncio.gather(running, *tasks)
        assert steps.sizes() == [1, 3, 2]

    play(work, wait=timedelta(0))


def test_as_many_batches_run_at_once_as_the_server_has_workers():
    async def work(steps, joined):
        tasks = []
        for number in range(3):
            tasks.append(ask(joined, bytes([number])))
            await settled()
        waiting = [ask(joined, bytes([number])) for number in range(3, 6)]
        await settled()
        assert steps.sizes() == [1, 1, 1]
        await steps.let(4)
        assert [axes(await task) for task in tasks + waiting] == [bytes([number]) for number in range(6)]
        assert steps.sizes() == [1, 1, 1, 3]
        assert steps.most == 3

    play(work, at_once=3, wait=timedelta(0))


def test_each_caller_has_its_own_deadline_and_the_batch_the_latest():
    async def work(steps, joined):
        running = ask(joined, b"a")
        await settled()
        hurried, patient = ask(joined, b"b", timeout=0.4), ask(joined, b"c", timeout=5)
        late = ask(joined, b"d", timeout=0.02)
        assert await code_of(late) is Code.DEADLINE_EXCEEDED
        await steps.let()
        assert await code_of(hurried) is Code.DEADLINE_EXCEEDED
        await steps.let()
        assert axes(await patient) == b"c"
        await running
        assert steps.batches[1] == [b"b", b"c"]  # the one that was late before its batch began is not in it
        assert 4 < steps.timeouts[1] <= 5

    play(work, wait=timedelta(0))


def test_a_caller_that_goes_away_cancels_nobody_and_the_last_one_the_batch():
    async def work(steps, joined):
        running = ask(joined, b"a")
        await settled()
        gone, stays, never = ask(joined, b"b"), ask(joined, b"c"), ask(joined, b"d")
        await settled()
        never.cancel()
        await steps.let()
        gone.cancel()
        await steps.let()
        assert axes(await stays) == b"c"
        assert steps.batches == [[b"a"], [b"b", b"c"]]
        assert steps.cancelled == 0
        alone = ask(joined, b"e")
        await settled()
        alone.cancel()
        await settled()
        assert steps.cancelled == 1
        after = ask(joined, b"f")
        await steps.let()
        assert axes(await after) == b"f"
        assert axes(await running) == b"a"

    play(work, wait=timedelta(0))


def test_a_bad_capture_is_reported_to_its_caller_alone():
    async def work(steps, joined):
        running = ask(joined, b"a")
        await settled()
        bad, good = ask(joined, b"x", b"?"), ask(joined, b"b")
        await steps.let(2)
        assert ((await bad).usable.tolist(), (await bad).reasons) == ([True, False], ("", "no face found"))
        assert ((await good).usable.tolist(), (await good).reasons) == ([True], ("",))
        assert steps.sizes() == [1, 3]
        await running

    play(work, wait=timedelta(0))


def test_a_refused_batch_is_made_again_call_by_call_so_that_only_one_fails():
    async def work(steps, joined):
        steps.refuse = ServiceError(Code.SERVICE_FAILED, "what is that")
        running = ask(joined, b"a")
        await settled()
        tasks = [ask(joined, capture) for capture in (b"b", b"!", b"c")]
        await steps.let(5)
        assert await code_of(tasks[1]) is Code.SERVICE_FAILED
        assert (axes(await tasks[0]), axes(await tasks[2])) == (b"b", b"c")
        assert steps.sizes() == [1, 3, 1, 1, 1]
        await running

    play(work, wait=timedelta(0))


def test_callers_never_get_each_others_when_a_backend_answers_too_few():
    async def work(steps, joined):
        steps.forgets = 1
        running = ask(joined, b"a")
        await settled()
        tasks = [ask(joined, b"b"), ask(joined, b"c", b"d")]
        await steps.let(4)
        assert [await code_of(task) for task in (running, *tasks)] == [Code.SERVICE_FAILED] * 3
        steps.forgets = 0
        after = ask(joined, b"e")
        await steps.let()
        assert axes(await after) == b"e"

    play(work, wait=timedelta(0))


def test_what_may_pass_is_told_to_all_at_once_and_not_made_again():
    async def work(steps, joined):
        steps.refuse = ServiceError(Code.SERVICE_UNAVAILABLE, "nobody there")
        running = ask(joined, b"a")
        await settled()
        tasks = [ask(joined, capture) for capture in (b"b", b"!", b"c")]
        await steps.let(2)
        assert [await code_of(task) for task in tasks] == [Code.SERVICE_UNAVAILABLE] * 3
        errors = {id(task.exception()) for task in tasks}
        assert len(errors) == 3
        assert steps.sizes() == [1, 3]
        await running

    play(work, wait=timedelta(0))


def test_more_than_may_wait_is_turned_away_and_those_who_left_do_not_count():
    async def work(steps, joined):
        running = ask(joined, b"a")
        await settled()
        waiting = [ask(joined, b"b"), ask(joined, b"c", b"d")]
        await settled()
        assert await code_of(ask(joined, b"e", b"f")) is Code.SERVICE_UNAVAILABLE
        waiting[0].cancel()
        await settled()
        room = ask(joined, b"e", b"f")
        await settled()
        assert await code_of(ask(joined, b"g")) is Code.SERVICE_UNAVAILABLE
        await steps.let(2)
        assert (axes(await waiting[1]), axes(await room)) == (b"cd", b"ef")
        whole = ask(joined, *[b"h"] * 9)  # larger than the queue, which is empty
        await steps.let()
        assert len((await whole).usable) == 9
        await running

    play(work, queued=4, wait=timedelta(0))


def test_closing_tells_everybody_who_waits():
    async def work(steps, joined):
        tasks = [ask(joined, b"a")]
        await settled()
        tasks += [ask(joined, b"b"), ask(joined, b"c")]
        await settled()
        await joined.close()
        assert [await code_of(task) for task in tasks] == [Code.SERVICE_UNAVAILABLE] * 3
        assert await code_of(ask(joined, b"d")) is Code.SERVICE_UNAVAILABLE
        with pytest.raises(ServiceError):
            await joined.check()

    play(work)


def test_many_callers_with_chance_in_everything_get_each_their_own():
    async def client(joined, seed, ended):
        chance = np.random.default_rng(seed)
        for _ in range(30):
            captures = [bytes([value]) for value in chance.integers(64, 255, chance.integers(0, 6))]
            task = ask(joined, *captures, timeout=float(chance.choice([0.002, 5.0])))
            if chance.random() < 0.1:
                await asyncio.sleep(0)
                task.cancel()
            (found,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(found, Extraction):
                assert axes(found) == b"".join(captures)
            else:
                assert isinstance(found, asyncio.CancelledError) or found.code is Code.DEADLINE_EXCEEDED
            ended.append(type(found))
            await asyncio.sleep(float(chance.exponential(0.001)))

    async def pace(steps):
        while True:
            await asyncio.sleep(0.0015)
            steps.gate.release()

    async def work(steps, joined):
        ended = []
        pacing = asyncio.create_task(pace(steps))
        await asyncio.gather(*(client(joined, seed, ended) for seed in range(12)))
        pacing.cancel()
        assert len(ended) == 360
        assert ended.count(Extraction) > 100
        assert len(set(ended)) == 3
        assert not joined._queue
        assert not joined._open

    play(work, captures=16)
