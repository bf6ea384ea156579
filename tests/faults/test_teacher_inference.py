"""teacher-inference and its workers killed, cut off from their stores, and out of disk: nothing is lost or said twice.

Set FAULT_KILLS for more kills than the default, FAULT_AWAY_S for how long MinIO is away.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

pytest.importorskip("redis")

import grpc
from fuzzing import Request, check_typed
from grpc_health.v1 import health_pb2, health_pb2_grpc
from labelling_service import (
    KEY,
    SECONDS,
    SITE,
    ScriptedBackend,
    batches,
    ended,
    enrol,
    label,
    part,
    png,
    settings,
    submit,
)
from labelling_worker import batches_on, nursery, queue_at
from object_makers import s3
from served_part import LOOPBACK, served, servers, twins
from service_process import running, stores_environment
from small_disk import small_disk

from teacher_inference.label_batches import BatchState
from teacher_inference.servicer import NAME
from tutelage.api.teacher.v1 import teacher_pb2 as pb
from tutelage.api.teacher.v1.teacher_pb2_grpc import TeacherInferenceServiceStub
from tutelage.errors import CATALOGUE, Code, StorageError, TutelageError
from tutelage.server import MAX_MESSAGE_BYTES

KILLS = int(os.environ.get("FAULT_KILLS", "20"))
AWAY_S = float(os.environ.get("FAULT_AWAY_S", "30"))
WORKERS = 2
LEASE_S = 0.6
METHODS = pb.DESCRIPTOR.services_by_name["TeacherInferenceService"].methods_by_name
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def bucket(minio_server) -> str:
    """A bucket of its own, which is there: a service makes a missing one, but only after it takes calls."""
    name = f"b-{secrets.token_hex(6)}"
    s3(minio_server, bucket=name).ensure_bucket()
    return name


def attempts(number: int) -> list[list[bytes]]:
    return [[png(1 + (number + n) % 4, 2 + n)] for n in range(6)]


async def test_workers_killed_at_any_moment_lose_no_batch_and_answer_none_twice(
    redis_server, minio_server, bucket, seed
):
    objects, name, rng = s3(minio_server, bucket=bucket), f"labels-{bucket}", random.Random(seed)
    queue = queue_at(redis_server.port, name, LEASE_S)
    desk = batches_on(objects, queue)
    for person in range(1, 5):
        seen = await desk._labels.extract([png(person), png(person, 1)], timeout=5)
        await desk._labels.galleries.enrol(SITE, f"p{person}", seen.features)
    submitted, first_answers = [], {}
    with nursery(redis_server.port, minio_server.port, bucket, name, LEASE_S) as workers:
        for _ in range(WORKERS):
            workers.start()
        for number in range(KILLS):
            submitted.append(await desk.submit(SITE, f"k{number}", attempts(number)))
            await asyncio.sleep(rng.uniform(0.0, 0.15))
            workers.kill(rng.randrange(WORKERS))
            workers.start()
            await look(desk, submitted, first_answers)
        async with asyncio.timeout(90):
            while len(first_answers) < len(submitted):
                await asyncio.sleep(0.1)
                await look(desk, submitted, first_answers)
        await look(desk, submitted, first_answers)
    for number in range(KILLS):
        found = [answer.person for answer in first_answers[submitted[number].record.batch_id]]
        assert found == [f"p{1 + (number + n) % 4}" for n in range(6)]
    entries = [await queue.status(await desk._put(batch.record)) for batch in submitted]
    assert max(status.deliveries for status in entries) > 1, "no worker was killed at work"
    kept = set(objects.list("expiring/").keys)
    assert not kept & {batch.record.captures for batch in submitted}
    await queue.close()


async def look(desk, submitted, first_answers) -> None:
    """Every batch is as well off as when it was last seen; what was answered stays answered, and so."""
    for batch in submitted:
        now = await desk.get(SITE, batch.record.batch_id)
        assert now.state in (BatchState.QUEUED, BatchState.RUNNING, BatchState.DONE), now.error
        known = first_answers.get(batch.record.batch_id)
        if now.state is BatchState.DONE:
            assert first_answers.setdefault(batch.record.batch_id, now.answers) == now.answers
        else:
            assert known is None


async def persist(call):
    """What `call` answers once the service and its stores do; everything it says until then may pass."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await call()
            except TutelageError as error:
                if not (CATALOGUE[error.code].retryable or error.code is Code.CALL_CANCELLED):
                    raise
                await asyncio.sleep(0.1)


async def test_a_service_killed_with_batches_in_its_queue_finishes_them_when_it_is_back(
    redis_server, minio_server, bucket, tmp_path
):
    (tmp_path / "key").write_bytes(KEY.value)
    environment = {
        **stores_environment(redis_server, minio_server, bucket, tmp_path / "account"),
        "TUTELAGE_TEACHER_GALLERY_KEY_FILE": str(tmp_path / "key"),
        "TUTELAGE_TEACHER_BACKEND_THREADS": "1",
        "TUTELAGE_TEACHER_ABSTENTION_MIN_COSINE": "-1",
        "TUTELAGE_TEACHER_ABSTENTION_MIN_MARGIN": "0",
    }
    large = [[png(1 + n % 2, 2 + n % 5)] for n in range(300)]
    async with running("teacher_inference", environment, tmp_path) as service:
        async with service.channel as channel:
            stub = TeacherInferenceServiceStub(channel)
            for person in (1, 2):
                await persist(lambda p=person: stub.EnrolPerson(enrol(f"p{p}", png(p), png(p, 1)), timeout=SECONDS))
            sent = [await stub.SubmitLabelBatch(submit(f"k{n}", *large), timeout=SECONDS) for n in range(3)]
        service.kill()
        await service.start()
        async with service.channel as channel:
            stub = TeacherInferenceServiceStub(channel)
            for answer in sent:
                done = await ended(stub, answer.batch, within_s=120)
                assert (done.state, len(done.answers)) == (pb.LABEL_BATCH_STATE_DONE, len(large))
            again = await stub.SubmitLabelBatch(submit("k0", *large), timeout=SECONDS)
            assert again.batch.batch_id == sent[0].batch.batch_id
            assert again.batch.state == pb.LABEL_BATCH_STATE_DONE


@asynccontextmanager
async def on_servers(redis_server, minio_server, bucket, backend: ScriptedBackend | None = None, **changed):
    """The service on real servers, with two persons enrolled."""
    stores = servers(redis_server, minio_server, bucket)
    async with served(part(backend or ScriptedBackend()), settings(**changed), stores) as channel:
        stub = TeacherInferenceServiceStub(channel)
        for person in (1, 2):
            await persist(lambda p=person: stub.EnrolPerson(enrol(f"p{p}", png(p)), timeout=SECONDS))
        yield stub, channel


async def test_redis_killed_and_back_loses_no_batch(redis_server, minio_server, bucket):
    async with on_servers(redis_server, minio_server, bucket, batches=batches(workers=1)) as (stub, _):
        sent = [await stub.SubmitLabelBatch(submit(f"k{n}", *attempts(n)), timeout=SECONDS) for n in range(3)]
        redis_server.kill()
        begun = time.monotonic()
        with pytest.raises(TutelageError) as caught:
            await stub.SubmitLabelBatch(submit("late", *attempts(0)), timeout=2.0)
        assert CATALOGUE[caught.value.code].retryable
        assert time.monotonic() - begun < 5
        assert (await stub.Label(label([png(1, 1)]), timeout=SECONDS)).answers[0].person == "p1"  # needs no queue
        redis_server.start()
        late = await persist(lambda: stub.SubmitLabelBatch(submit("late", *attempts(0)), timeout=SECONDS))
        for answer in (*sent, late):
            done = await persist(lambda batch=answer.batch: ended(stub, batch))
            assert done.state == pb.LABEL_BATCH_STATE_DONE


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_objects_away_for_a_while_are_told_and_all_goes_on_afterwards(redis_server, minio_server, bucket, how):
    backend = ScriptedBackend()
    async with on_servers(redis_server, minio_server, bucket, backend) as (stub, channel):
        backend.delay_s = 0.5
        sent = await stub.SubmitLabelBatch(submit("k", *attempts(0)), timeout=SECONDS)
        (minio_server.kill if how == "killed" else minio_server.freeze)()
        until = time.monotonic() + (AWAY_S if how == "killed" else AWAY_S / 3)
        backend.delay_s = 0.0
        seen: set[int] = set()
        async with grpc.aio.insecure_channel(f"{LOOPBACK}:{channel._settings.address.port}") as plain:
            while time.monotonic() < until:
                await asyncio.gather(*(refused(call) for call in calls(stub)))
                await stub.GetTeacher(pb.GetTeacherRequest(), timeout=1.0)  # needs no store
                seen.add(await health(plain))
                await asyncio.sleep(0.5)
            assert seen - {SERVING}
            (minio_server.start if how == "killed" else minio_server.thaw)()
            known = await persist(lambda: stub.Label(label([png(1, 1)]), timeout=SECONDS))
            assert known.answers[0].person == "p1"
            done = await persist(lambda: ended(stub, sent.batch))
            assert done.state == pb.LABEL_BATCH_STATE_DONE
            async with asyncio.timeout(30):
                while await health(plain) != SERVING:
                    await asyncio.sleep(0.1)


def calls(stub):
    """One of each that needs objects; what a caller no longer waits for may still happen, so p1 is left alone."""
    return (
        lambda: stub.EnrolPerson(enrol("p3", png(3)), timeout=2.0),
        lambda: stub.RemovePerson(pb.RemovePersonRequest(site=SITE, person="p2"), timeout=2.0),
        lambda: stub.Label(label([png(1, 1)], site="other"), timeout=2.0),
        lambda: stub.SubmitLabelBatch(submit("away", *attempts(1)), timeout=2.0),
        lambda: stub.GetLabelBatch(pb.GetLabelBatchRequest(site=SITE, batch_id="0" * 32), timeout=2.0),
    )


async def refused(call) -> None:
    """`call` ends in time, and says that it may be made again later."""
    begun = time.monotonic()
    with pytest.raises(TutelageError) as caught:
        await call()
    assert CATALOGUE[caught.value.code].retryable, caught.value
    assert time.monotonic() - begun < 6


async def health(channel: grpc.aio.Channel) -> int:
    request = health_pb2.HealthCheckRequest(service=NAME)
    return (await health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)).status


async def test_a_full_disk_is_told_and_leaves_every_person_whole_or_absent(tmp_path):
    with small_disk(tmp_path / "disk", "600k") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(b"\0" * 300_000)
        async with served(part(ScriptedBackend()), settings(), twins(disk / "objects")) as channel:
            stub = TeacherInferenceServiceStub(channel)
            enrolled = await enrolled_until_full(stub)
            assert enrolled > 3
            with pytest.raises(StorageError) as caught:
                await stub.SubmitLabelBatch(submit("k", *[[png(1, n)] for n in range(60)]), timeout=SECONDS)
            assert caught.value.code is Code.STORAGE_FULL
            everybody = [[png(n)] for n in range(enrolled)]
            answers = (await stub.Label(label(*everybody), timeout=SECONDS)).answers
            assert [answer.person for answer in answers] == [f"p{n}" for n in range(enrolled)]
            ballast.unlink()
            await stub.EnrolPerson(enrol(f"p{enrolled}", png(enrolled)), timeout=SECONDS)
            await stub.RemovePerson(pb.RemovePersonRequest(site=SITE, person="p0"), timeout=SECONDS)
            batch = (await stub.SubmitLabelBatch(submit("k", [png(enrolled)]), timeout=SECONDS)).batch
            assert (await ended(stub, batch)).answers[0].person == f"p{enrolled}"


async def enrolled_until_full(stub) -> int:
    """How many persons fit onto the disk."""
    for person in range(1_000):
        try:
            await stub.EnrolPerson(enrol(f"p{person}", png(person)), timeout=SECONDS)
        except StorageError as error:
            if error.code is not Code.STORAGE_FULL:
                raise
            return person
    pytest.fail("the disk is not small")


async def test_an_oversized_message_is_refused_and_the_service_answers_on(tmp_path):
    async with served(part(ScriptedBackend()), settings(), twins(tmp_path)) as channel:
        address = f"{LOOPBACK}:{channel._settings.address.port}"
        async with grpc.aio.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as plain:
            request = Request(METHODS["Label"], [b"\x12\x00" * MAX_MESSAGE_BYTES])
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await plain.unary_unary(f"/{NAME}/Label")(request.messages[0], timeout=SECONDS)
            check_typed(caught.value, SimpleNamespace(method=request.method, messages=[b""]))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        stub = TeacherInferenceServiceStub(channel)
        assert (await stub.GetTeacher(pb.GetTeacherRequest(), timeout=SECONDS)).teacher.name == "spectrum"
