"""Batches are answered once and keep their promises, on twins and on real Redis and MinIO."""

from __future__ import annotations

import asyncio
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

pytest.importorskip("minio")

from labelling_service import OPEN, SITE, ScriptedBackend, png
from object_makers import s3
from prometheus_client import CollectorRegistry
from queue_makers import LEASE, NOW, SOON, Memory, Redis, claimed, working

from teacher_inference.abstention import policy_for
from teacher_inference.batch_store import REMEMBERED, BatchStore
from teacher_inference.galleries import Galleries
from teacher_inference.gallery_store import GalleryStore
from teacher_inference.label_batches import REMOVED, Batch, BatchState, LabelBatches
from teacher_inference.labels import Labels
from teacher_inference.teacher_metrics import TeacherMetrics
from teacher_inference.vault import Vault
from tutelage.errors import Code, ObjectError, RequestError
from tutelage.folder_objects import FolderObjects
from tutelage.queue_entries import Permanent, Temporary

KEY = bytes(range(32))
ATTEMPTS = [[png(1, 2)], [png(2, 2), png(2, 3)]]
LIFETIME = timedelta(hours=1)


class Clock:
    """UNIX seconds of the service, which tests move ahead of those of the store."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Desk:
    """Label batches over one pair of stores; any number of services may share those."""

    def __init__(self, objects, queue) -> None:
        self.objects, self.queue, self.clock = objects, queue, Clock()
        self.backend, self.metrics = ScriptedBackend(), CollectorRegistry()
        self.threads = ThreadPoolExecutor(4)
        self.galleries = Galleries(GalleryStore(objects, Vault(KEY)), "spectrum-1", self.threads, fresh_for=NOW)
        self.store = BatchStore(objects, Vault(KEY), clock=self.clock)
        self.batches = self.service()

    def service(self) -> LabelBatches:
        metrics = TeacherMetrics(CollectorRegistry())
        policy = policy_for(OPEN, "spectrum", "spectrum-1")
        labels = Labels(self.backend, self.galleries, policy, metrics, self.threads)
        return LabelBatches(self.store, self.queue, labels, metrics, self.threads, lifetime=LIFETIME, clock=self.clock)

    async def enrol(self, *persons: int) -> None:
        for person in persons:
            seen = await self.backend.extract([png(person), png(person, 1)], timeout=5)
            await self.galleries.enrol(SITE, f"p{person}", seen.features)

    def stored(self, prefix: str) -> list[str]:
        return list(self.objects.list(prefix).keys)

    async def ended(self, batch: Batch) -> Batch:
        async with asyncio.timeout(30):
            while batch.state in (BatchState.QUEUED, BatchState.RUNNING):
                await asyncio.sleep(0.02)
                batch = await self.batches.get(SITE, batch.record.batch_id)
        return batch


@pytest.fixture(params=["twins", "servers"])
def make(request):
    return Memory() if request.param == "twins" else Redis(request.getfixturevalue("redis_server"))


@pytest.fixture
def objects(make, request, tmp_path):
    if isinstance(make, Memory):
        return FolderObjects(tmp_path)
    store = s3(request.getfixturevalue("minio_server"), bucket=f"b-{secrets.token_hex(6)}")
    store.ensure_bucket()
    return store


@asynccontextmanager
async def opened(make, objects, **numbers):
    desk = Desk(objects, make(**{"lease": LEASE, **numbers}))
    await desk.enrol(1, 2)
    yield desk
    desk.threads.shutdown()


async def test_a_batch_is_answered_and_its_captures_go(make, objects):
    async with opened(make, objects) as desk:
        batch = await desk.batches.submit(SITE, "k", ATTEMPTS)
        assert batch.state is BatchState.QUEUED
        assert len(desk.stored("expiring/")) == 1
        async with working(desk.queue, desk.batches.work_on):
            done = await desk.ended(batch)
        assert [answer.person for answer in done.answers] == ["p1", "p2"]
        assert done.state is BatchState.DONE
        assert desk.stored("expiring/") != [batch.record.captures]
        assert len(desk.stored("expiring/")) == 1  # the answers


async def test_what_is_stored_and_queued_tells_nothing(make, objects):
    async with opened(make, objects) as desk:
        batch = await desk.batches.submit(SITE, "secret-key", ATTEMPTS)
        status = await desk.queue.status(await desk.batches._put(batch.record))
        assert status.entry.body == {"batch": batch.record.batch_id}
        async with working(desk.queue, desk.batches.work_on):
            await desk.ended(batch)
        keys = desk.stored("")
        assert not [key for key in keys for word in (SITE, "secret-key", "p1") if word in key]
        named = [key for key in keys if not key.startswith("expiring/")]
        content = b"".join(desk.objects.get(key).data for key in named)
        content += b"".join(b"".join(desk.objects.read(key)) for key in desk.stored("expiring/"))
        assert not [word for word in (b"PNG", b"IHDR", SITE.encode(), b"secret-key", b"person") if word in content]


async def test_the_same_key_and_attempts_are_one_batch_and_others_are_refused(make, objects):
    async with opened(make, objects) as desk:
        at_once = await asyncio.gather(*(desk.service().submit(SITE, "k", ATTEMPTS) for _ in range(4)))
        assert len({batch.record for batch in at_once}) == 1
        assert len(desk.stored("expiring/")) == 1
        for other in (ATTEMPTS[:1], ATTEMPTS[::-1], [[png(1, 2), png(2, 2)], [png(2, 3)]]):
            with pytest.raises(RequestError) as caught:
                await desk.batches.submit(SITE, "k", other)
            assert caught.value.code is Code.REQUEST_CONFLICT
        elsewhere = await desk.batches.submit("elsewhere", "k", ATTEMPTS[:1])
        assert elsewhere.record.batch_id != at_once[0].record.batch_id
        async with working(desk.queue, desk.batches.work_on):
            done = await desk.ended(at_once[0])
        assert (await desk.batches.submit(SITE, "k", ATTEMPTS)).answers == done.answers


async def test_a_batch_is_known_at_its_site_only(make, objects):
    async with opened(make, objects) as desk:
        batch = await desk.batches.submit(SITE, "k", ATTEMPTS)
        for site, batch_id in (("elsewhere", batch.record.batch_id), (SITE, "0" * 32)):
            with pytest.raises(ObjectError) as caught:
                await desk.batches.get(site, batch_id)
            assert caught.value.code is Code.OBJECT_MISSING


async def test_a_batch_whose_worker_died_is_answered_by_another(make, objects):
    async with opened(make, objects) as desk:
        batch = await desk.batches.submit(SITE, "k", ATTEMPTS)
        await make.die_with_a_claim(desk.queue)
        assert (await desk.batches.get(SITE, batch.record.batch_id)).state is BatchState.RUNNING
        async with working(desk.queue, desk.batches.work_on):
            assert (await desk.ended(batch)).state is BatchState.DONE


async def test_two_workers_at_one_batch_give_the_first_ones_answers(make, objects):
    """One lost its claim without noticing; who is enrolled has changed between the two."""
    async with opened(make, objects) as desk:
        batch = await desk.batches.submit(SITE, "k", ATTEMPTS)
        claim = await claimed(desk.queue)
        desk.backend.delay_s = 0.5
        late = asyncio.create_task(desk.batches.work_on(claim))
        await asyncio.sleep(0.2)
        desk.backend.delay_s = 0.0
        await desk.batches.work_on(claim)
        first = await desk.ended(batch)
        await desk.galleries.remove(SITE, "p2")
        await desk.enrol(3)
        await late
        assert [answer.person for answer in first.answers] == ["p1", "p2"]
        again = await desk.batches.get(SITE, batch.record.batch_id)
        assert [answer.person for answer in again.answers] == ["p1", None]
        assert len(desk.stored("expiring/")) == 1


async def test_of_who_was_removed_nothing_is_left_in_answers(make, objects):
    async with opened(make, objects) as desk:
        await desk.enrol(3)
        batch = await desk.batches.submit(SITE, "k", ATTEMPTS)
        async with working(desk.queue, desk.batches.work_on):
            await desk.ended(batch)
        await desk.galleries.remove(SITE, "p2")
        one, two = (await desk.batches.get(SITE, batch.record.batch_id)).answers
        assert (two.person, two.confidence, two.reason) == (None, 0.0, REMOVED)
        assert one.person == "p1"
        assert one.confidence == one.soft["p1"]
        for answer in (one, two):
            assert "p2" not in answer.soft
            assert sum(answer.soft.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("error", "verdict"), [(Code.SERVICE_UNAVAILABLE, Temporary), (Code.SERVICE_FAILED, Permanent)]
)
async def test_what_may_pass_is_tried_again_and_what_will_not_is_given_up(make, objects, error, verdict):
    async with opened(make, objects) as desk:
        await desk.batches.submit(SITE, "k", ATTEMPTS)
        desk.backend.error = error
        with pytest.raises(verdict, match=f"^{error.value}: "):
            await desk.batches.work_on(await claimed(desk.queue))


async def test_a_batch_fails_with_the_last_error_when_its_deliveries_are_used_up(make, objects):
    async with opened(make, objects, max_deliveries=2) as desk:
        batch = await desk.batches.submit(SITE, "k", ATTEMPTS)
        desk.backend.error = Code.SERVICE_UNAVAILABLE
        async with working(desk.queue, desk.batches.work_on):
            failed = await desk.ended(batch)
        assert (failed.state, failed.error) == (BatchState.FAILED, Code.SERVICE_UNAVAILABLE)
        desk.backend.error = None
        assert await desk.queue.revive(await desk.batches._put(batch.record))
        async with working(desk.queue, desk.batches.work_on):
            assert (await desk.ended(await desk.batches.get(SITE, batch.record.batch_id))).state is BatchState.DONE


async def test_a_batch_that_the_queue_lost_is_put_again(make, objects):
    async with opened(make, objects) as desk:
        batch = await desk.batches.submit(SITE, "k", ATTEMPTS)
        flushed = Desk(objects, Memory()(lease=LEASE))
        async with working(flushed.queue, flushed.batches.work_on):
            assert (await flushed.ended(batch)).state is BatchState.DONE
        assert (await desk.batches.get(SITE, batch.record.batch_id)).state is BatchState.DONE


async def test_a_batch_expires_and_is_forgotten_later(make, objects):
    async with opened(make, objects) as desk:
        batch = await desk.batches.submit(SITE, "k", ATTEMPTS)
        desk.clock.ahead = LIFETIME.total_seconds() + 1
        assert (await desk.batches.submit(SITE, "k", ATTEMPTS)).state is BatchState.EXPIRED
        await desk.batches.work_on(await claimed(desk.queue, wait=SOON))  # neither answered nor failed
        assert not desk.store.is_answered(batch.record.batch_id)
        await desk.batches.sweep()
        assert (await desk.batches.get(SITE, batch.record.batch_id)).state is BatchState.EXPIRED
        desk.clock.ahead += REMEMBERED.total_seconds() + 1
        with pytest.raises(ObjectError):
            await desk.batches.get(SITE, batch.record.batch_id)
        again = await desk.batches.submit(SITE, "k", ATTEMPTS[:1])  # the key is free, swept or not
        assert (again.state, again.record.batch_id) == (BatchState.QUEUED, batch.record.batch_id)
        await desk.batches.sweep()
        assert (await desk.batches.get(SITE, again.record.batch_id)).state is BatchState.QUEUED
        desk.clock.ahead += LIFETIME.total_seconds() + REMEMBERED.total_seconds() + 2
        await desk.batches.sweep()
        assert desk.stored("label-batch") == []
