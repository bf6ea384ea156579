"""The part `teacher-inference`: its settings, and how store, galleries, backend, workers and calls are put together."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Annotated
from uuid import uuid4

import structlog

from teacher_inference.abstention import AbstentionSettings, policy_for
from teacher_inference.backends import Backend, BackendSettings
from teacher_inference.batch_store import BatchStore
from teacher_inference.feature_callers import FeatureCallers
from teacher_inference.galleries import Galleries
from teacher_inference.gallery_store import GalleryStore
from teacher_inference.label_batches import QUEUE, LabelBatches
from teacher_inference.labels import Labels
from teacher_inference.opening import open_backend
from teacher_inference.servicer import NAME, TeacherInferenceServicer
from teacher_inference.teacher_metrics import TeacherMetrics
from teacher_inference.vault import Vault
from tutelage.api.teacher.v1.teacher_pb2_grpc import add_TeacherInferenceServiceServicer_to_server
from tutelage.errors import QueueError, TutelageError
from tutelage.folder_objects import FolderObjects
from tutelage.health import Check
from tutelage.queue_entries import Queue, work
from tutelage.server import Service
from tutelage.serving import Context, KeyKind, Part
from tutelage.settings import Range, Secret

__all__ = ["PART", "BatchSettings", "TeacherInferenceSettings", "open_service"]

STORE_THREADS = 16
"""Threads that wait for the object store: more calls than that wait for each other only while it does not answer."""

COMPUTE_THREADS = 2
"""Threads that decode and compare; the backend has its own."""

TEND_EVERY = timedelta(minutes=1)
"""How often expired batches are forgotten and idle galleries let go of."""

WORKERS_END_WITHIN = timedelta(seconds=5)
"""What workers get to finish their batch when the service ends; then it is given back to the queue. With the time that
calls get to end it stays below the 30 seconds of Kubernetes."""

REFUSED_PAUSE = timedelta(seconds=5)
"""How long a worker waits where the queue's server refuses: it may be out of memory, or about to be given rights."""


@dataclass(frozen=True)
class BatchSettings:
    """How submitted batches are answered."""

    workers: Annotated[int, Range(0, 64)] = 2
    """Batches that this process answers at a time; 0 leaves them to others."""
    lifetime: Annotated[timedelta, Range(1, 30 * 86_400)] = timedelta(days=1)
    """Seconds after which captures and answers of a batch are deleted, whatever its state."""
    deliveries: Annotated[int, Range(1, 1_000)] = 10
    """How often a batch is handed to a worker before it has failed. With the pauses between tries, 10 outlast a teacher
    that is away for four minutes."""


@dataclass(frozen=True)
class TeacherInferenceSettings:
    """What the service needs to know beside where it serves and stores."""

    gallery_key: Secret
    """File with the key that seals galleries, captures and answers, as `tutelage.sealing` makes it. All services on
    one store share it; with another one galleries cannot be read."""
    backend: BackendSettings = field(default_factory=BackendSettings)
    """Which teacher runs, and what runs it."""
    abstention: AbstentionSettings = field(default_factory=AbstentionSettings)
    """When it abstains."""
    batches: BatchSettings = field(default_factory=BatchSettings)
    """How submitted batches are answered."""
    feature_callers: tuple[str, ...] = ()
    """Names in the certificates of callers that ExtractFeatures answers, with commas between them. `anonymous` admits
    callers without a certificate: only where the network lets nobody else come near."""
    gallery_fresh: Annotated[timedelta, Range(0, 60)] = timedelta(seconds=1)
    """Seconds for which this process may not notice what another one enrolled or removed. On a folder it always
    notices at once."""
    call_timeout: Annotated[timedelta, Range(0.1, 600)] = timedelta(seconds=60)
    """Seconds for a call that comes without a deadline, and the most for one that has one."""


@asynccontextmanager
async def open_service(settings: TeacherInferenceSettings, context: Context) -> AsyncIterator[Service]:
    """The service with its workers.

    Raises:
        SettingsError: it is not known when the teacher must abstain.
        StorageError: `key-wrong`, the key is none.
        TutelageError: as `open_backend`.
    """
    vault = Vault.of(settings.gallery_key, "gallery_key")
    async with AsyncExitStack() as stack:
        backend = await open_backend(settings.backend)
        stack.push_async_callback(backend.close)
        async with serving_backend(backend, vault, settings, context) as service:
            yield service


@asynccontextmanager
async def serving_backend(
    backend: Backend, vault: Vault, settings: TeacherInferenceSettings, context: Context
) -> AsyncIterator[Service]:
    """The same for a `backend` that is open already, and that somebody else closes."""
    metrics, objects = TeacherMetrics(context.metrics), context.stores.objects
    policy = policy_for(settings.abstention, backend.name, backend.space)
    fresh_for = timedelta(0) if isinstance(objects, FolderObjects) else settings.gallery_fresh
    with ThreadPoolExecutor(STORE_THREADS, "objects") as waiting, ThreadPoolExecutor(COMPUTE_THREADS) as computing:
        store = GalleryStore(objects, vault)
        galleries = Galleries(store, backend.space, waiting, fresh_for=fresh_for)
        metrics.persons.set_function(lambda: galleries.persons)
        labels = Labels(backend, galleries, policy, metrics, computing)
        queue = context.stores.queue(QUEUE, max_deliveries=settings.batches.deliveries)
        batches = LabelBatches(
            BatchStore(objects, vault), queue, labels, metrics, waiting, lifetime=settings.batches.lifetime
        )
        servicer = TeacherInferenceServicer(
            labels,
            batches,
            FeatureCallers(settings.feature_callers),
            computing,
            settings.call_timeout.total_seconds(),
        )
        checks: dict[str, Check] = {
            "teacher": backend.check,
            "gallery key": partial(asyncio.to_thread, store.check_key),
        }
        async with _working(queue, batches, settings.batches.workers), _tending(batches, galleries):
            yield Service(
                NAME,
                partial(add_TeacherInferenceServiceServicer_to_server, servicer),
                {**context.stores.checks, **checks},
            )


@asynccontextmanager
async def _working(queue: Queue, batches: LabelBatches, workers: int) -> AsyncIterator[None]:
    """`workers` answer batches; those they are at when the block ends are finished, or given back."""
    stop, place = asyncio.Event(), f"{socket.gethostname()}-{uuid4().hex[:8]}"
    loops = [asyncio.create_task(_work(queue, batches, f"{place}-{number}", stop)) for number in range(workers)]
    try:
        yield
    finally:
        stop.set()
        if loops:
            _, late = await asyncio.wait(loops, timeout=WORKERS_END_WITHIN.total_seconds())
            for loop in late:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)


async def _work(queue: Queue, batches: LabelBatches, worker: str, stop: asyncio.Event) -> None:
    """Answer batches until `stop` is set, whatever the queue's server says meanwhile."""
    while not stop.is_set():
        try:
            await work(queue, batches.work_on, worker=worker, stop=stop)
        except QueueError as error:
            structlog.get_logger().error("queue refuses its worker", code=error.code, reason=error.message)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), REFUSED_PAUSE.total_seconds())


@asynccontextmanager
async def _tending(batches: LabelBatches, galleries: Galleries) -> AsyncIterator[None]:
    """What has to be done now and then is done while the block runs."""

    async def tend() -> None:
        while True:
            galleries.forget_idle()
            try:
                await batches.sweep()
            except TutelageError as error:
                structlog.get_logger().warning("expired batches cannot be swept", code=error.code)
            await asyncio.sleep(TEND_EVERY.total_seconds())

    tending = asyncio.create_task(tend())
    try:
        yield
    finally:
        tending.cancel()
        await asyncio.gather(tending, return_exceptions=True)


PART = Part(
    name="teacher-inference",
    prefix="TEACHER_",
    settings=TeacherInferenceSettings,
    open=open_service,
    keys={"GALLERY_KEY_FILE": KeyKind.SEALING},
    together={"FEATURE_CALLERS": "anonymous"},
)
"""What `python -m teacher_inference` and `tutelage up` serve."""
