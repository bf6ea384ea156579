"""Killed with no grace, one part after the other, while it is at work: nothing is lost and nothing is done twice."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cluster_jobs import STATE, drawn_fingers, pushed, spec, versions, working
from device_node import events, status, until
from device_visits import PORT, visited
from helm_release import NAME, Release
from kube import Namespace
from kube import until as soon
from registry_calls import create, download, header, parts, stream
from student_packages import student_package

from device_sim.public import Public
from device_sim.sensor import Condition
from tutelage.api.device.v1 import device_pb2
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceStub
from tutelage.api.registry.v1 import registry_pb2
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.api.teacher.v1 import teacher_pb2
from tutelage.api.teacher.v1.teacher_pb2_grpc import TeacherInferenceServiceStub
from tutelage.captures import encode_png
from tutelage.errors import TutelageError
from tutelage.signing import read_signer

SECONDS = 60
TRAINED = [
    *(device_pb2.EVENT_KIND_TRAINING_STARTED, device_pb2.EVENT_KIND_TRAINING_RESUMED),
    *(device_pb2.EVENT_KIND_TRAINING_FINISHED, device_pb2.EVENT_KIND_GATE_PASSED),
    device_pb2.EVENT_KIND_GENERATION_SWAPPED,
]
"""What happens on the way to a new student that was interrupted once, in this order."""
REGISTRY, TEACHER = (f"service/{NAME}-{name}" for name in ("model-registry", "teacher-inference"))
DEVICE = f"{NAME}-device-1"


class STATES:
    """Of a label batch."""

    QUEUED, RUNNING, DONE = (
        getattr(teacher_pb2, f"LABEL_BATCH_STATE_{name}") for name in ("QUEUED", "RUNNING", "DONE")
    )


def new(name: str) -> str:
    """A name that nothing had before."""
    return f"{name}-{secrets.token_hex(4)}"


@contextmanager
def away(place: Namespace, component: str) -> Iterator[None]:
    """A StatefulSet is killed, and comes back after the block."""
    name = f"{NAME}-{component}"
    place.apps.patch_namespaced_stateful_set_scale(name, place.name, {"spec": {"replicas": 0}})
    try:
        for pod in place.pods(component):
            place.kill(pod.metadata.name)
        yield
    finally:
        place.apps.patch_namespaced_stateful_set_scale(name, place.name, {"spec": {"replicas": 1}})


@pytest.fixture(scope="module")
def data_set(release: Release, tmp_path_factory: pytest.TempPathFactory) -> str:
    return pushed(release, drawn_fingers(tmp_path_factory.mktemp("captures")))


async def test_a_killed_distiller_worker_costs_a_delivery_and_no_step_before_the_checkpoint(
    release: Release, place: Namespace, data_set: str
):
    async with working(release) as work:
        job = await work.submitted(spec(data_set, name=new("worker"), version="v1", steps=80), new("job"))
        await work.stepping(job.job_id, beyond=20)
        place.killed("distiller-worker")
        assert min(await work.steps_until_the_end(job.job_id)) > 0, "it went on from a checkpoint"
        job = await work.job(job.job_id)
    assert job.progress.state == STATE.JOB_STATE_SUCCEEDED, job
    assert job.deliveries <= 2, "a kubelet leaves two seconds, in which a worker may give its job back uncounted"
    assert [made.digest for made in await versions(release, job.spec.name)] == [job.result.digest]


def package(release: Release, folder: Path, version: str) -> bytes:
    """A package that the release trusts, of some megabytes."""
    (folder / "signer.pem").write_bytes(release.namespace.secret(f"{NAME}-keys")["signer.pem"])
    (folder / "signer.pem").chmod(0o600)
    return student_package(version, signer=read_signer(folder / "signer.pem"), ballast=4_000_000)


async def stands(release: Release, data: bytes) -> registry_pb2.CreateVersionResponse:
    """How far an upload is, as the registry says it."""
    async with release.calling(REGISTRY) as channel:
        asked = [registry_pb2.CreateVersionRequest(header=header(data))]
        return await ModelRegistryServiceStub(channel).CreateVersion(stream(asked), timeout=SECONDS)


async def slowly(
    messages: Iterator[registry_pb2.CreateVersionRequest],
) -> AsyncIterator[registry_pb2.CreateVersionRequest]:
    for message in messages:
        yield message
        await asyncio.sleep(0.2)


@asynccontextmanager
async def uploading(release: Release, data: bytes, offset: int) -> AsyncIterator[None]:
    """While an upload goes on from `offset`, too slowly to end; however it is cut off."""
    async with release.calling(REGISTRY) as channel:
        call = ModelRegistryServiceStub(channel).CreateVersion(slowly(parts(data, offset)), timeout=SECONDS)
        task = asyncio.ensure_future(call)
        await asyncio.sleep(1)
        assert not task.done()
        yield
        task.cancel()
        with suppress(TutelageError, asyncio.CancelledError):
            await task


async def test_an_upload_goes_on_where_it_stood_when_the_registry_was_killed(
    release: Release, place: Namespace, tmp_path: Path
):
    data = package(release, tmp_path, "v101")
    half = len(data) // 2
    async with release.calling(REGISTRY) as channel:
        part = ModelRegistryServiceStub(channel).CreateVersion(stream(parts(data, 0, half)), timeout=SECONDS)
        assert (await part).stored_bytes == half
    async with uploading(release, data, half):
        place.killed("model-registry")
    assert (await stands(release, data)).stored_bytes >= half
    async with release.calling(REGISTRY) as channel:
        registry = ModelRegistryServiceStub(channel)
        made = await create(registry, data, offset=(await stands(release, data)).stored_bytes)
        assert await download(registry, made.digest) == data
    assert [found.version for found in await versions(release, "tiny")].count("v101") == 1


async def taught(teacher: TeacherInferenceServiceStub, site: str, public: Public) -> None:
    """The `public` is known to the teacher at a site."""
    for who, name in enumerate(public.names):
        captures = [encode_png(capture) for capture in public.references(who, 3)]
        request = teacher_pb2.EnrolPersonRequest(site=site, person=name, captures=captures)
        await teacher.EnrolPerson(request, timeout=SECONDS)


async def answered(teacher: TeacherInferenceServiceStub, site: str, batch_id: str, *waiting: int) -> Any:
    """A batch once its state is none of `waiting`."""
    asked = teacher_pb2.GetLabelBatchRequest(site=site, batch_id=batch_id)

    async def look() -> Any:
        return (await teacher.GetLabelBatch(asked, timeout=SECONDS)).batch

    return await until(lambda now: now.state not in waiting, look, 180)


async def test_a_label_batch_is_answered_once_and_whole_although_teacher_and_worker_were_killed(
    release: Release, place: Namespace
):
    public, site = Public(seed=11, persons=6), new("site")
    who = [n % public.persons for n in range(240)]
    images = [encode_png(public.capture(number, 10 + n, Condition())) for n, number in enumerate(who)]
    attempts = [teacher_pb2.Attempt(captures=[image]) for image in images]
    request = teacher_pb2.SubmitLabelBatchRequest(site=site, idempotency_key="all", attempts=attempts)
    async with release.calling(TEACHER) as channel:
        teacher = TeacherInferenceServiceStub(channel)
        await taught(teacher, site, public)
        batch = (await teacher.SubmitLabelBatch(request, timeout=SECONDS)).batch
        batch = await answered(teacher, site, batch.batch_id, STATES.QUEUED)
        assert batch.state == STATES.RUNNING
        both = [pod.metadata.name for part in ("label-worker", "teacher-inference") for pod in place.pods(part)]
        gone = place.uids("label-worker") | place.uids("teacher-inference")
        for pod in both:
            place.kill(pod)
    for component in ("label-worker", "teacher-inference"):
        place.wait_ready(component, but=gone)
    async with release.calling(TEACHER) as channel:
        teacher = TeacherInferenceServiceStub(channel)
        assert (await teacher.SubmitLabelBatch(request, timeout=SECONDS)).batch.batch_id == batch.batch_id
        done = await answered(teacher, site, batch.batch_id, STATES.QUEUED, STATES.RUNNING)
    assert done.state == STATES.DONE
    assert len(done.answers) == len(who)
    pairs = zip(done.answers, who, strict=True)
    assert sum(answer.person == public.names[number] for answer, number in pairs) >= 0.8 * len(who)


async def test_what_was_queued_is_there_after_redis_was_killed(release: Release, place: Namespace, data_set: str):
    async with working(release) as work:
        first, second = [
            await work.submitted(spec(data_set, name=new("redis"), version="v1", steps=steps), new("job"))
            for steps in (30, 8)
        ]
        await work.stepping(first.job_id)
        assert (await work.job(second.job_id)).progress.queue_position >= 0
        place.killed("redis")
        place.wait_ready("student-distiller")
    async with working(release) as work:
        jobs = [await work.ended(job.job_id) for job in (first, second)]
    assert {job.progress.state for job in jobs} == {STATE.JOB_STATE_SUCCEEDED}
    assert jobs[1].deliveries == 1
    for job in jobs:
        assert [found.digest for found in await versions(release, job.spec.name)] == [job.result.digest]


async def test_without_minio_services_are_not_ready_but_alive_and_an_upload_is_completed_after(
    release: Release, place: Namespace, tmp_path: Path
):
    data, before = package(release, tmp_path, "v102"), place.restarts()
    half = len(data) // 2
    async with release.calling(REGISTRY) as channel:
        part = ModelRegistryServiceStub(channel).CreateVersion(stream(parts(data, 0, half)), timeout=SECONDS)
        assert (await part).stored_bytes == half
    async with uploading(release, data, half):
        with away(place, "minio"):
            for component in ("model-registry", "student-distiller", "teacher-inference"):
                soon(lambda component=component: not place.ready(component), 120, f"{component} is NOT_SERVING")
    for component in ("minio", "model-registry", "student-distiller", "teacher-inference"):
        place.wait_ready(component)
    async with release.calling(REGISTRY) as channel:
        made = await create(ModelRegistryServiceStub(channel), data, offset=(await stands(release, data)).stored_bytes)
        assert await download(ModelRegistryServiceStub(channel), made.digest) == data
    assert place.restarts() == before


async def test_a_device_killed_while_it_trains_goes_on_from_its_checkpoint(release: Release, place: Namespace):
    public = {"seed": 3, "persons": 8}
    visited(release, DEVICE, visits=30, first_visit=0, **public)
    visited(release, DEVICE, visits=100, first_visit=1_000, wear=0.6, strangers=0.15, **public)
    async with release.calling(DEVICE, PORT) as channel:
        device = DeviceServiceStub(channel)
        before = await until(lambda now: now.training.step >= 15, lambda: status(device), 240)
    killed = next(pod for pod in place.pods("device-sim") if pod.metadata.name == DEVICE)
    place.kill(DEVICE)
    place.wait_ready("device-sim", count=2, but=frozenset({killed.metadata.uid}))
    async with release.calling(DEVICE, PORT) as channel:
        device = DeviceServiceStub(channel)
        now = await status(device)
        assert (now.student, now.persons) == (before.student, before.persons)
        now = await until(lambda now: now.student != before.student, lambda: status(device), 240)
        happened = [event.kind for event in await events(device) if event.kind in TRAINED]
    assert (now.student.generation, now.persons) == (f"{before.student.generation}+1", before.persons)
    assert happened == TRAINED
