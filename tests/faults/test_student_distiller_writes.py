"""A power cut at every single write of a job: whatever was written by then, the job ends once and its package is whole.

The store of a program is cut off after so many writes, as if the machine had stopped there; the queue, which lives in
the program, is lost with it. The next program finds what was written and must end the job. Real trainings of two steps.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("redis")

from distiller import Keys, cloud
from prometheus_client import CollectorRegistry
from torch_teacher import serving_teacher, write_teacher

from student_distiller.distiller_metrics import DistillerMetrics
from student_distiller.job_orders import JobOrder, KeyFiles
from student_distiller.job_process import JobSurroundings, run_job
from student_distiller.job_progress import MemoryProgress
from student_distiller.job_records import EndState, JobRecords, job_id_for
from student_distiller.job_recovery import JobRecovery
from student_distiller.job_spec import JobSpec, Training
from student_distiller.job_worker import JobWorker
from student_distiller.jobs import Choices, Jobs, JobState
from student_distiller.model_events import ModelEvents
from student_distiller.soft_labels import SoftLabels
from student_distiller.teacher_client import TeacherClient
from tutelage.channel import ChannelSettings
from tutelage.data_sets import push_data_set
from tutelage.folder_objects import FolderObjects
from tutelage.manifest import read_manifest
from tutelage.memory_queue import MemoryQueue
from tutelage.nn.teachers import ResidualTeacher
from tutelage.package import read_package
from tutelage.queue_entries import work
from tutelage.sealing import read_key
from tutelage.signing import read_public_key
from tutelage.stored_packages import find_package
from tutelage.stores import ObjectsSettings

KEY = "one"
JOB = job_id_for(KEY)


class PowerCut(BaseException):
    """The machine has stopped: nothing that would handle an error may run on."""


class CutOff(FolderObjects):
    """A store that takes so many writes; then, and ever after, the machine has stopped."""

    def __init__(self, folder: Path, writes: int) -> None:
        super().__init__(folder)
        self.left, self.is_cut = writes, False

    def _write(self) -> None:
        if self.left == 0:
            self.is_cut = True
        if self.is_cut:
            raise PowerCut
        self.left -= 1

    def put(self, chunks, **named):
        self._write()
        return super().put(chunks, **named)

    def create(self, key, data, **named):
        self._write()
        return super().create(key, data, **named)

    def replace(self, key, data, **named):
        self._write()
        return super().replace(key, data, **named)

    def delete(self, key):
        self._write()
        super().delete(key)


@dataclass
class InThread:
    """An executor in this process, on the cut-off store: a process of a job without the seconds it takes to start."""

    keys: Keys
    folder: Path

    async def holder(self, job_id):
        return None

    async def run(self, assignment, heard):
        loop = asyncio.get_running_loop()
        files = KeyFiles(self.keys.signer, self.keys.seal, self.keys.data)
        scratch = self.folder / assignment.holder
        scratch.mkdir()
        order = JobOrder(
            *(assignment.job_id, assignment.holder, assignment.spent, ObjectsSettings(folder=self.folder), files),
            *(scratch, timedelta(minutes=1), "cpu"),
        )
        around = JobSurroundings({}, lambda told: asyncio.run_coroutine_threadsafe(heard(told), loop).result())
        doing = asyncio.ensure_future(asyncio.to_thread(run_job, order, around))
        try:
            await asyncio.shield(doing)
        except asyncio.CancelledError:
            await asyncio.wait({doing})  # nothing of the job may run on
            raise


@asynccontextmanager
async def program(store: FolderObjects, keys: Keys, scratch: Path, address):
    """What a distiller consists of, over a queue that lives as long as it does."""
    records, queue, progress, registry = JobRecords(store), MemoryQueue(), MemoryProgress(), CollectorRegistry()
    metrics, events = DistillerMetrics(registry), ModelEvents(MemoryQueue())
    client = TeacherClient(ChannelSettings(address), timedelta(seconds=20))
    jobs = Jobs(store, records, queue, progress, Choices(lambda: client.identity(timedelta(seconds=5)), None))
    labels, executor = SoftLabels(store, client, read_key(keys.data)), InThread(keys, scratch)
    worker = JobWorker(records, progress, labels, executor, events, metrics, 5, timedelta(seconds=0.1))
    recovery = JobRecovery(jobs, records, queue, progress, events, metrics, timedelta())
    tasks = [
        asyncio.create_task(recovery.run(timedelta(seconds=0.1))),
        asyncio.create_task(work(queue, worker.handle, worker="w", stop=asyncio.Event())),
    ]
    try:
        yield jobs, records, events
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()


async def submitted(jobs: Jobs, spec: JobSpec) -> bool:
    """Whether the caller got an answer."""
    try:
        await jobs.submit(KEY, spec)
    except PowerCut:
        return False
    return True


async def until_closed(records: JobRecords, store: CutOff | FolderObjects) -> None:
    async with asyncio.timeout(60):
        while not getattr(store, "is_cut", False) and dict(records.open_jobs()):
            await asyncio.sleep(0.02)


async def test_a_power_cut_at_every_write_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    keys = Keys(tmp_path)
    manifest = cloud(tmp_path / "cloud")
    teacher = ResidualTeacher.load(write_teacher(tmp_path / "teacher.safetensors"))
    cuts, weights, reruns = 0, set(), 0
    async with serving_teacher(teacher) as (servicer, address):
        while True:
            folder = tmp_path / f"cut-{cuts}"
            whole = FolderObjects(folder)
            digest = push_data_set(whole, read_manifest(manifest).rows, read_key(keys.data)).data_set.digest
            spec = JobSpec("thumbs", "v1", digest, "tiny", training=Training(steps=2, batch=8))
            scratch = tmp_path / f"scratch-{cuts}"
            scratch.mkdir()
            cut = CutOff(folder, cuts)
            monkeypatch.setattr("student_distiller.job_process.open_objects", lambda _, store=cut: store)
            async with program(cut, keys, scratch, address) as (jobs, records, _):
                answered = await submitted(jobs, spec)
                await until_closed(records, cut)
            monkeypatch.setattr("student_distiller.job_process.open_objects", lambda _, store=whole: store)
            asked = servicer.captures
            async with program(whole, keys, scratch, address) as (jobs, records, events):
                if not answered:
                    await submitted(jobs, spec)
                await until_closed(records, whole)
                job = await jobs.get(JOB)
                assert (job.state, records.end(JOB).state) == (JobState.SUCCEEDED, EndState.SUCCEEDED), (cuts, job)
                assert [
                    listed.record.job_id for listed in (await jobs.page("", 9, lambda _: True, frozenset()))[0]
                ] == [JOB]
                told = await events.queue.status(await events.queue.put({}, key=JOB)) if cut.is_cut else None
            reruns += servicer.captures > asked
            package = read_package(
                b"".join(whole.read(find_package(whole, job.result.digest).key)),
                trusted=[read_public_key(keys.public)],
            )
            weights.add(package.weights)
            assert told is None or told.entry.body.get("digest", package.digest) == package.digest
            assert not whole.list("expiring/").keys or cut.is_cut
            if not cut.is_cut:
                break
            cuts += 1
    assert cuts >= 14
    assert len(weights) == 1
    assert 0 < reruns < cuts
