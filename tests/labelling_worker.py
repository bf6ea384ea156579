"""Workers of label batches in processes of their own, to be killed: a nursery forks one for each line it reads.

Arguments: ports of Redis and MinIO, bucket, name of the queue, lease in seconds. What it needs is imported once, so a
worker is there in milliseconds; its id is written as a line.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace

from labelling_service import OPEN, ScriptedBackend
from object_makers import s3
from prometheus_client import CollectorRegistry

from teacher_inference.abstention import policy_for
from teacher_inference.batch_store import BatchStore
from teacher_inference.galleries import Galleries
from teacher_inference.gallery_store import GalleryStore
from teacher_inference.label_batches import LabelBatches
from teacher_inference.labels import Labels
from teacher_inference.teacher_metrics import TeacherMetrics
from teacher_inference.vault import Vault
from tutelage.queue_entries import Queue, work
from tutelage.queues import RedisQueue

KEY = bytes(range(32))
MOST_DELIVERIES = 1_000
"""A batch whose workers are killed for a test's sake is no poison."""


def batches_on(objects, queue: Queue, delay_s: float = 0.0) -> LabelBatches:
    """Label batches over these stores, with a teacher that takes `delay_s`."""
    threads, backend = ThreadPoolExecutor(4), ScriptedBackend(delay_s=delay_s)
    galleries = Galleries(GalleryStore(objects, Vault(KEY)), backend.space, threads, fresh_for=timedelta(0))
    metrics = TeacherMetrics(CollectorRegistry())
    labels = Labels(backend, galleries, policy_for(OPEN, backend.name, backend.space), metrics, threads)
    store = BatchStore(objects, Vault(KEY))
    return LabelBatches(store, queue, labels, metrics, threads, lifetime=timedelta(hours=1))


def queue_at(port: int, name: str, lease_s: float) -> RedisQueue:
    return RedisQueue(
        f"redis://127.0.0.1:{port}",
        name,
        lease=timedelta(seconds=lease_s),
        poll=timedelta(seconds=0.1),
        max_deliveries=MOST_DELIVERIES,
    )


async def _work(redis: str, minio: str, bucket: str, name: str, lease_s: str) -> None:
    queue = queue_at(int(redis), name, float(lease_s))
    batches = batches_on(s3(SimpleNamespace(port=int(minio)), bucket=bucket), queue, delay_s=0.1)
    await work(queue, batches.work_on, worker=f"w{os.getpid()}", stop=asyncio.Event())


def main(*arguments: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            asyncio.run(_work(*arguments))
            os._exit(1)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


class Nursery:
    """Starts and kills workers."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process
        self.workers: list[int] = []

    def start(self) -> None:
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        self.workers.append(int(self._process.stdout.readline()))

    def kill(self, number: int) -> None:
        os.kill(self.workers.pop(number), signal.SIGKILL)


@contextmanager
def nursery(*arguments: object) -> Iterator[Nursery]:
    """No worker outlives the block."""
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}  # noqa: PTH120
    command = [sys.executable, __file__, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    made = Nursery(process)
    try:
        yield made
    finally:
        while made.workers:
            made.kill(0)
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
