"""The part `student-distiller`: its settings, and how its workers, its recovery and its calls are put together."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from student_distiller.distiller_metrics import DistillerMetrics
from student_distiller.executors import Executor
from student_distiller.job_orders import KeyFiles
from student_distiller.job_progress import MemoryProgress, Progress, RedisProgress
from student_distiller.job_records import JobRecords
from student_distiller.job_recovery import JobRecovery
from student_distiller.job_worker import JobWorker
from student_distiller.jobs import QUEUE, Choices, Jobs
from student_distiller.kubernetes_manifest import KubernetesSettings
from student_distiller.local_processes import LocalProcesses
from student_distiller.model_events import QUEUE as EVENTS
from student_distiller.model_events import ModelEvents
from student_distiller.servicer import distiller_service
from student_distiller.soft_labels import SoftLabels
from student_distiller.teacher_client import TeacherClient
from tutelage.channel import ChannelSettings
from tutelage.errors import SettingsError, TutelageError
from tutelage.package import StudentPackage
from tutelage.queue_entries import MAX_DELIVERIES, Queue, work
from tutelage.sealing import read_key
from tutelage.server import Service
from tutelage.serving import Context, KeyKind, Part
from tutelage.settings import Range
from tutelage.signing import read_public_key, read_signer
from tutelage.stored_packages import read_stored_package
from tutelage.stores import Stores

__all__ = ["PART", "DeviceKind", "DistillerSettings", "ExecutorKind"]

MEMORY_BYTES = 4 << 30
"""What a small student on a large batch, and all that torch loads, take with room to spare."""

IDENTITY_WITHIN = timedelta(seconds=5)
"""How long a caller who submits a job waits for the teacher's name."""


class ExecutorKind(StrEnum):
    """Where the processes of jobs run."""

    LOCAL = "local"
    """As children of the service, on its machine."""
    KUBERNETES = "kubernetes"
    """As an Indexed Job of a cluster; needs the extra `kubernetes`."""


class DeviceKind(StrEnum):
    """What they train on."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class DistillerSettings:
    """What the distiller has to be told."""

    teacher: ChannelSettings
    """Where teacher-inference answers."""
    signer_file: Path
    """PEM file of the Ed25519 key that signs student packages."""
    seal_key_file: Path
    """Key file that seals the strangers of a student package; devices of the fleet have it too."""
    data_key_file: Path
    """Key file that seals data sets, teacher's features and checkpoints."""
    trusted_files: tuple[Path, ...] = ()
    """PEM files of public keys whose word counts, beside our own, for packages that a job goes on from; separated by
    commas."""
    workers: Annotated[int, Range(0, 64)] = 1
    """Jobs that this service works on at a time; 0 leaves the work to other services on the same queue."""
    executor: ExecutorKind = ExecutorKind.LOCAL
    """Where the processes of jobs run: local, as children of the service, or kubernetes, as Jobs of a cluster."""
    kubernetes: KubernetesSettings = field(default_factory=KubernetesSettings)
    """Jobs of a cluster."""
    device: DeviceKind = DeviceKind.AUTO
    """What they train on; auto takes CUDA where there is one."""
    memory_bytes: Annotated[int, Range(256 << 20)] = MEMORY_BYTES
    """Resident memory of each process of a job that asks for no other limit."""
    scratch: Path | None = None
    """Folder for checkpoints on their way to the object store, sealed. Absent: the system's own for temporary files."""
    checkpoint_every: Annotated[timedelta, Range(1, 3_600)] = timedelta(minutes=1)
    """Seconds between two checkpoints: what a killed worker's job loses at most."""
    max_deliveries: Annotated[int, Range(1, 100)] = MAX_DELIVERIES
    """How often a job is tried before it is dead."""
    retry_after: Annotated[timedelta, Range(0.1, 120)] = timedelta(seconds=5)
    """Seconds before a job that failed is tried again; doubled each time, to two minutes at most."""
    lease: Annotated[timedelta, Range(1, 60)] = timedelta(seconds=30)
    """Seconds after which a silent worker's job is given to another; equal in all services on one queue."""
    teacher_timeout: Annotated[timedelta, Range(1, 3_600)] = timedelta(minutes=2)
    """Seconds that the teacher gets for one batch of captures, tries included."""
    recover_every: Annotated[timedelta, Range(0.1, 3_600)] = timedelta(seconds=15)
    """Seconds between two looks for jobs that the queue has lost."""
    retell_for: Annotated[timedelta, Range(0, 604_800)] = timedelta(hours=1)
    """Seconds for which the registry is told again of a finished job, should Redis be flushed before it has heard."""

    @property
    def keys(self) -> KeyFiles:
        """The key files, as jobs need them."""
        return KeyFiles(self.signer_file, self.seal_key_file, self.data_key_file, self.trusted_files)


@asynccontextmanager
async def _opened(settings: DistillerSettings, context: Context) -> AsyncIterator[Service]:
    """The service, while its workers and its recovery run."""
    stores, metrics = context.stores, DistillerMetrics(context.metrics)
    data_key = _checked_keys(settings)
    records = JobRecords(stores.objects)
    queue = stores.queue(QUEUE, lease=settings.lease, max_deliveries=settings.max_deliveries)
    progress: Progress = MemoryProgress() if stores.redis is None else RedisProgress(stores.redis)
    events = ModelEvents(stores.queue(EVENTS))
    teacher = TeacherClient(settings.teacher, settings.teacher_timeout)
    jobs = Jobs(stores.objects, records, queue, progress, _choices(settings, stores, teacher))
    labels = SoftLabels(stores.objects, teacher, data_key)
    executor = _executor(settings, stores)
    worker = JobWorker(
        records, progress, labels, executor, events, metrics, settings.max_deliveries, settings.retry_after
    )
    recovery = JobRecovery(jobs, records, queue, progress, events, metrics, settings.retell_for)
    tasks = [asyncio.create_task(recovery.run(settings.recover_every)), *_working(settings.workers, queue, worker)]
    try:
        yield distiller_service(jobs, dict(stores.checks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await teacher.close()


def _working(workers: int, queue: Queue, worker: JobWorker) -> list[asyncio.Task[None]]:
    """So many loops on the queue; they end by being cancelled, which gives their jobs back."""
    host = socket.gethostname()
    never = asyncio.Event()
    return [
        asyncio.create_task(work(queue, worker.handle, worker=f"{host}-{number}", stop=never))
        for number in range(workers)
    ]


def _choices(settings: DistillerSettings, stores: Stores, teacher: TeacherClient) -> Choices:
    trusted = [
        read_signer(settings.signer_file).public_key(),
        *(read_public_key(path) for path in settings.trusted_files),
    ]

    def package(digest: str) -> StudentPackage:
        return read_stored_package(stores.objects, digest, trusted=trusted)

    return Choices(lambda: teacher.identity(IDENTITY_WITHIN), package)


def _executor(settings: DistillerSettings, stores: Stores) -> Executor:
    if settings.executor is ExecutorKind.KUBERNETES:
        return _kubernetes_jobs(settings, stores)
    return LocalProcesses(
        place=stores.place,
        keys=settings.keys,
        checkpoint_every=settings.checkpoint_every,
        device=settings.device.value,
        max_memory_bytes=settings.memory_bytes,
        scratch=settings.scratch,
    )


def _kubernetes_jobs(settings: DistillerSettings, stores: Stores) -> Executor:
    from student_distiller.job_reports import ReportBox  # noqa: PLC0415
    from student_distiller.kubernetes_jobs import KubernetesJobs  # noqa: PLC0415 - needs the extra `kubernetes`

    if stores.redis is None or stores.place.address is None:
        raise SettingsError("jobs of a cluster need Redis and S3, which their Pods can reach: give their addresses")
    return KubernetesJobs(
        settings.kubernetes.checked(), ReportBox(stores.redis), settings.memory_bytes, settings.device.value
    )


def _checked_keys(settings: DistillerSettings) -> bytes:
    """The data key, once every key file can be used.

    Raises:
        SettingsError: One cannot.
    """
    try:
        read_signer(settings.signer_file)
        read_key(settings.seal_key_file)
        for path in settings.trusted_files:
            read_public_key(path)
        return read_key(settings.data_key_file)
    except TutelageError as error:
        raise SettingsError(f"a key of the distiller cannot be used: {error.message}") from error


PART = Part(
    name="student-distiller",
    prefix="DISTILLER_",
    settings=DistillerSettings,
    open=_opened,
    keys={
        "SIGNER_FILE": KeyKind.SIGNING,
        "SEAL_KEY_FILE": KeyKind.SEALING,
        "DATA_KEY_FILE": KeyKind.SEALING,
    },
    together={"TEACHER_ADDRESS": "{address}"},
)
"""What this distribution offers to programs that serve."""
