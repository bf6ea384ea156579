"""The distiller killed, flushed, cut off, full and lied to: every job ends once, every package is whole."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

pytest.importorskip("redis")

from distiller import IDEMPOTENT, STATE, Distiller, Keys, cloud, distilling, spec
from prometheus_client import CollectorRegistry
from redis import Redis
from served_part import servers, twins
from service_process import ServiceProcess, running, stores_environment
from small_disk import small_disk
from torch_teacher import serving_teacher, write_teacher

from student_distiller.job_process import CHECKPOINT_LIFETIME
from student_distiller.job_records import EndState, JobRecords
from tutelage.api.distiller.v1.distiller_pb2_grpc import StudentDistillerServiceStub
from tutelage.channel import Channel, ChannelSettings
from tutelage.nn.teachers import ResidualTeacher
from tutelage.package import StudentPackage, read_package
from tutelage.settings import Address
from tutelage.signing import read_public_key
from tutelage.stored_packages import find_package
from tutelage.stores import open_stores

KILLS = int(os.environ.get("KILLS", "10"))
"""Random points at which something is killed."""

QUICK = {
    "TUTELAGE_DISTILLER_DEVICE": "cpu",
    "TUTELAGE_DISTILLER_LEASE": "2",
    "TUTELAGE_DISTILLER_RECOVER_EVERY": "0.5",
    "TUTELAGE_DISTILLER_RETRY_AFTER": "0.2",
    "TUTELAGE_DISTILLER_RETELL_FOR": "0",
    "TUTELAGE_DISTILLER_CHECKPOINT_EVERY": "1",
    "TUTELAGE_DISTILLER_MAX_DELIVERIES": "100",
    "OMP_NUM_THREADS": "1",
}


class Killed(Distiller):
    """A distiller in a process of its own, on real stores, whose parts a test kills."""

    process: ServiceProcess

    def connect(self) -> None:
        """Call it where it listens now."""
        channel = Channel(ChannelSettings(Address("127.0.0.1", self.process.port)), idempotent=IDEMPOTENT)
        self.stub = StudentDistillerServiceStub(channel)

    @property
    def records(self) -> JobRecords:
        return JobRecords(self.stores.objects)

    def children(self) -> list[psutil.Process]:
        """The processes of jobs."""
        try:
            return psutil.Process(self.process.process.pid).children(recursive=True)
        except psutil.Error:
            return []

    def kill_child(self) -> bool:
        """Whether there was one."""
        found = self.children()
        for child in found:
            child.kill()
        return bool(found)

    async def kill_service(self) -> None:
        """SIGKILL, and a new one; children that are orphans end by themselves."""
        orphans = self.children()
        self.process.kill()
        await self.process.start()
        self.connect()
        async with asyncio.timeout(20):
            while any(orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE for orphan in orphans):
                await asyncio.sleep(0.05)

    def package(self, job) -> StudentPackage:
        data = b"".join(self.stores.objects.read(find_package(self.stores.objects, job.result.digest).key))
        return read_package(data, trusted=[read_public_key(self.keys.public)])


@asynccontextmanager
async def killable(folder: Path, redis_server, minio_server, **environment: str):
    """A distiller as a process, with a teacher in this one."""
    Redis(port=redis_server.port).flushall()
    keys, bucket = Keys(folder), f"b-{secrets.token_hex(6)}"
    teacher = ResidualTeacher.load(write_teacher(folder / "teacher.safetensors"))
    async with AsyncExitStack() as stack:
        servicer, address = await stack.enter_async_context(serving_teacher(teacher))
        stores = await stack.enter_async_context(open_stores(servers(redis_server, minio_server, bucket)))
        await asyncio.to_thread(stores.objects.ensure_bucket)
        own = {
            "TUTELAGE_DISTILLER_TEACHER_ADDRESS": str(address),
            "TUTELAGE_DISTILLER_SIGNER_FILE": str(keys.signer),
            "TUTELAGE_DISTILLER_SEAL_KEY_FILE": str(keys.seal),
            "TUTELAGE_DISTILLER_DATA_KEY_FILE": str(keys.data),
        }
        places = stores_environment(redis_server, minio_server, bucket, folder / "accounts")
        process = await stack.enter_async_context(
            running("student_distiller", {**places, **own, **QUICK, **environment}, folder)
        )
        channel = await stack.enter_async_context(Channel(ChannelSettings(Address("127.0.0.1", process.port))))
        distiller = Killed(stores, servicer, keys, None, CollectorRegistry(), channel)
        distiller.process = process
        distiller.connect()
        yield distiller


async def a_random_point(distiller: Killed, job_id: str, chance: random.Random) -> int:
    """Return at some point of a job's life, every other time after a checkpoint; the steps of the last one."""
    known = await asyncio.to_thread(distiller.records.run, job_id)
    if chance.random() < 0.5:
        async with asyncio.timeout(120):
            while await asyncio.to_thread(distiller.records.end, job_id) is None:
                run = await asyncio.to_thread(distiller.records.run, job_id)
                if run and run.checkpoint and (not known or run.checkpoint != known.checkpoint):
                    break
                await asyncio.sleep(0.1)
        await asyncio.sleep(chance.uniform(0, 1))
    else:
        await asyncio.sleep(chance.uniform(0, 7))
    run = await asyncio.to_thread(distiller.records.run, job_id)
    return run.checkpoint.step if run and run.checkpoint else 0


@pytest.mark.timeout(400 + 45 * KILLS)
async def test_kills_at_random_points_of_a_job(tmp_path: Path, redis_server, minio_server):
    chance = random.Random(20_240_607)
    async with killable(tmp_path, redis_server, minio_server) as distiller:
        data_set = distiller.push(cloud(tmp_path / "cloud"))
        calm = distiller.package(await distiller.ended((await distiller.submit(spec(data_set, steps=60))).job_id))
        jobs, killed, steps = [], 0, []
        while killed < KILLS:
            job_id = (await distiller.submit(spec(data_set, steps=60), f"key{len(jobs)}")).job_id
            jobs.append(job_id)
            ended = False
            while killed < KILLS and not ended:
                steps.append(await a_random_point(distiller, job_id, chance))
                if chance.random() < 0.5:
                    await distiller.kill_service()
                    killed += 1
                else:
                    killed += distiller.kill_child()
                ended = await asyncio.to_thread(distiller.records.end, job_id) is not None
        for job_id in jobs:
            job = await distiller.ended(job_id, 300)
            assert job.progress.state == STATE.JOB_STATE_SUCCEEDED, job
            assert distiller.records.end(job_id).state is EndState.SUCCEEDED
            # Whatever was killed, and wherever it went on from: the very student of a job that nothing happened to.
            assert distiller.package(job).weights == calm.weights
            await distiller.closed(job_id)
        assert any(steps), "no kill found a checkpoint to go on from"
        assert distiller.teacher.captures == 60
        # A kill between the writing of a checkpoint and the record of it leaves a sealed object that nobody knows.
        left = distiller.stores.objects.list("expiring/").keys
        assert len(left) <= KILLS // 10
        latest = datetime.now(UTC) + CHECKPOINT_LIFETIME
        assert all(int(key.split("/")[1]) <= latest.timestamp() for key in left), "it would stay"
        events = [await distiller.stores.queue("model.events").status(await distiller.event_of(j)) for j in jobs]
        assert [status.entry.body["job_id"] for status in events] == jobs


async def test_a_killed_worker_s_job_goes_on_from_its_checkpoint(tmp_path: Path, redis_server, minio_server):
    async with killable(tmp_path, redis_server, minio_server) as distiller:
        job_id = (await distiller.submit(spec(distiller.push(cloud(tmp_path / "cloud")), steps=5000))).job_id
        before = await distiller.until(job_id, lambda job: job.progress.step > 60)
        stored = await asyncio.to_thread(distiller.records.run, job_id)
        await distiller.kill_service()
        first = await distiller.until(
            job_id, lambda job: job.deliveries == 2 and job.progress.state == STATE.JOB_STATE_RUNNING
        )
        # What is told may still be of the killed one for a moment: only a later step is of its successor.
        going = await distiller.until(job_id, lambda job: job.progress.step > first.progress.step + 5)
        assert stored.checkpoint is not None
        assert first.progress.step >= stored.checkpoint.step > 0
        assert going.progress.step > stored.checkpoint.step
        assert before.deliveries == 1
        # Told to end, it leaves a last checkpoint and gives the job back at once, uncounted.
        distiller.process.kill(signal.SIGTERM)
        left = await asyncio.to_thread(distiller.records.run, job_id)
        assert left.checkpoint.step >= going.progress.step
        await distiller.process.start()
        distiller.connect()
        again = await distiller.until(job_id, lambda job: job.progress.state == STATE.JOB_STATE_RUNNING)
        assert again.deliveries == 2
        await distiller.cancel(job_id)
        assert (await distiller.ended(job_id, 30)).progress.state == STATE.JOB_STATE_CANCELLED


async def test_redis_restarted_and_flushed_and_objects_away_while_a_job_runs(
    tmp_path: Path, redis_server, minio_server
):
    async with killable(tmp_path, redis_server, minio_server) as distiller:
        data_set = distiller.push(cloud(tmp_path / "cloud"))
        running_job = (await distiller.submit(spec(data_set, steps=250))).job_id
        waiting = (await distiller.submit(spec(data_set), "second")).job_id
        await distiller.until(running_job, lambda job: job.progress.step > 20)
        redis_server.kill()
        await asyncio.sleep(1.5)
        redis_server.start()
        await distiller.until(running_job, lambda job: job.progress.step > 40)
        minio_server.kill()
        await asyncio.sleep(4)
        minio_server.start()
        await distiller.until(running_job, lambda job: job.progress.step > 60)
        Redis(port=redis_server.port).flushall()
        for job_id in (running_job, waiting):
            job = await distiller.ended(job_id, 120)
            assert job.progress.state == STATE.JOB_STATE_SUCCEEDED, job
            assert distiller.package(job).digest == job.result.digest
        assert len(distiller.stores.objects.list("job-ends/").keys) == 2
        assert len(distiller.stores.objects.list("student-packages/").keys) == 2


async def test_a_job_whose_processes_die_is_dead_after_its_deliveries(tmp_path: Path, redis_server, minio_server):
    number = {"TUTELAGE_DISTILLER_MAX_DELIVERIES": "2"}
    async with killable(tmp_path, redis_server, minio_server, **number) as distiller:
        job_id = (await distiller.submit(spec(distiller.push(cloud(tmp_path / "cloud")), steps=100_000))).job_id
        for _ in range(2):
            async with asyncio.timeout(60):
                while not distiller.kill_child():
                    await asyncio.sleep(0.1)
            await asyncio.sleep(1.0)
        job = await distiller.ended(job_id, 30)
        assert (job.progress.state, job.deliveries) == (STATE.JOB_STATE_DEAD, 2)
        assert (job.error.code, job.error.retryable) == ("training-killed", True)
        (dead,) = await distiller.stores.queue("distill.jobs").dead()
        assert (dead.entry.id, "training-killed" in dead.error) == (job_id, True)


async def test_a_job_that_kills_its_workers_is_dead_after_its_deliveries(tmp_path: Path, redis_server, minio_server):
    number = {"TUTELAGE_DISTILLER_MAX_DELIVERIES": "2", "TUTELAGE_DISTILLER_LEASE": "1"}
    async with killable(tmp_path, redis_server, minio_server, **number) as distiller:
        job_id = (await distiller.submit(spec(distiller.push(cloud(tmp_path / "cloud")), steps=100_000))).job_id
        for delivery in (1, 2):
            await distiller.until(
                job_id, lambda job, n=delivery: job.deliveries == n and job.progress.state == STATE.JOB_STATE_RUNNING
            )
            await distiller.kill_service()
        job = await distiller.ended(job_id, 30)
        assert (job.progress.state, job.deliveries) == (STATE.JOB_STATE_DEAD, 2)
        assert job.error.code == "training-killed"
        assert job.end_time.ToDatetime() > job.start_time.ToDatetime()
        (dead,) = await distiller.stores.queue("distill.jobs").dead()
        assert dead.entry.id == job_id


async def test_a_full_disk_at_a_checkpoint_is_typed_and_the_job_goes_on_once_there_is_room(tmp_path: Path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        places = twins(tmp_path / "objects")
        async with distilling(
            tmp_path, places, scratch=disk, max_deliveries=2, retry_after=timedelta(seconds=0.2)
        ) as distiller:
            data_set = distiller.push(cloud(tmp_path / "cloud"))
            job = await distiller.ended((await distiller.submit(spec(data_set))).job_id)
            assert (job.progress.state, job.error.code) == (STATE.JOB_STATE_DEAD, "storage-full")
            assert str(tmp_path) not in job.error.message
            assert not list(disk.iterdir())
    async with distilling(tmp_path, places) as distiller:
        job = await distiller.ended((await distiller.submit(spec(data_set), "second")).job_id)
        assert job.progress.state == STATE.JOB_STATE_SUCCEEDED, job
