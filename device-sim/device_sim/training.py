"""The device's side of a training: starts the worker, follows it, and ends it when its time is up.

A job has a folder of its own that outlives both processes:

    job.sealed         what to train, written before anything starts
    checkpoint.sealed  state of the training, replaced every few seconds
    result.sealed      the trained student, written when all steps are done
    worker.log         what the worker's interpreter complained of; no biometrics

So a training can be taken up again whoever was killed when: from its checkpoint, or, where the result is there already,
without any further work.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import structlog

from device_sim.activity import Activity
from device_sim.giving_way import GivingWay
from device_sim.job import JOB, MAX_JOB_BYTES, RESULT, Descent, TrainingJob, open_result
from tutelage.errors import Code, StorageError, TrainingError, TutelageError
from tutelage.files import atomic_write, read_bytes, storage_error, sweep

LOG = "worker.log"
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="starts-workers")
"""Its thread lives as long as the device: a worker dies with the thread that started it."""
_log = structlog.get_logger()
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Budget:
    """What one training may cost."""

    seconds: float = 300.0
    """Wall time from a start to its end; the worker is killed beyond it."""
    memory_bytes: int = 512 * 2**20
    """Resident memory of the worker."""
    threads: int = 1
    """Processor threads of the worker."""
    rest_s: float = 0.2
    """Seconds without a recognition after which the worker, stopped for it, goes on; that time is not its own."""


@dataclass(frozen=True)
class Trained:
    """A finished training."""

    weights: bytes
    """Tensors of the new student; it has passed no gate yet."""
    summary: Mapping[str, Any]
    """`losses`, `steps_run`, `seconds`, `peak_bytes`, `samples`, `settings` as the worker reports them."""


@dataclass
class Training:
    """One job in `folder` and the worker process on it, if any; not safe for several threads."""

    folder: Path
    key: bytes = field(repr=False)
    budget: Budget
    descent: Descent
    last: dict[str, Any] = field(default_factory=dict)
    """The worker's latest line: `step`, `steps`, `bytes` and the losses; or `error` and `message`."""
    confinement: dict[str, Any] = field(default_factory=dict)
    """What the worker says it is confined to; empty before."""
    clock: Callable[[], float] = time.monotonic
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _reader: threading.Thread | None = field(default=None, init=False)
    _giving_way: GivingWay | None = field(default=None, init=False)
    _deadline: float = field(default=0.0, init=False)
    _overran: bool = field(default=False, init=False)

    @staticmethod
    def prepare(folder: Path, job: TrainingJob, key: bytes, budget: Budget) -> Training:
        """Write the job into `folder`, which is emptied first; nothing runs yet.

        Raises:
            StorageError: `storage-full` or `storage-failed`.
        """
        try:
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise storage_error(error, folder, "made") from error
        atomic_write(folder / JOB, job.sealed(key))
        return Training(folder, key, budget, job.descent)

    @staticmethod
    def found(folder: Path, key: bytes, budget: Budget) -> Training:
        """The training whose job an earlier process left in `folder`; nothing runs yet.

        Raises:
            StorageError: `storage-failed`, there is no job or it cannot be read; `store-corrupt`; `key-wrong`.
        """
        sweep(folder)
        job = TrainingJob.open(read_bytes(folder / JOB, at_most=MAX_JOB_BYTES), key)
        return Training(folder, key, budget, job.descent)

    def start(self, activity: Activity | None = None) -> None:
        """Start the worker, which goes on from the checkpoint; none is started where the result is there already.

        It gives way to `activity`: whenever somebody is recognised it is stopped until nobody is any more.

        Raises:
            TrainingError: `training-killed`, the system cannot start another process.
            StorageError: `storage-full` or `storage-failed`, the worker's log cannot be written.
        """
        self.kill()
        self._process, self._reader, self._overran, self.last = None, None, False, {}
        if (self.folder / RESULT).exists():
            return
        self._process = process = self._worker()
        self._deadline = self.clock() + self.budget.seconds
        self._giving_way = GivingWay(process, activity, self.budget.rest_s) if activity else None
        self._reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._reader.start()
        # A worker that is gone already is met when its result is asked for.
        with contextlib.suppress(BrokenPipeError), process.stdin or contextlib.nullcontext() as pipe:
            if pipe is not None:
                pipe.write(self.key)

    def _worker(self) -> subprocess.Popen[bytes]:
        # -P: a file in the working directory must not pass for one of our modules.
        command = [sys.executable, "-P", "-m", "device_sim.worker", str(self.folder)]
        environment = {**os.environ, **dict.fromkeys(_THREADS, str(self.budget.threads))}
        pipe = subprocess.PIPE
        try:
            log = (self.folder / LOG).open("ab")
        except OSError as error:
            raise storage_error(error, self.folder / LOG, "written") from error
        try:
            with log:
                streams: dict[str, Any] = {"stdin": pipe, "stdout": pipe, "stderr": log}

                def begun() -> subprocess.Popen[bytes]:
                    return subprocess.Popen(command, env=environment, **streams)  # noqa: S603 - our own module

                return _STARTER.submit(begun).result()
        except OSError as error:
            raise TrainingError(
                Code.TRAINING_KILLED, f"the worker could not be started ({error.strerror}): try again later"
            ) from error

    def _read(self, lines: IO[bytes]) -> None:
        for line in lines:
            # Whatever else a library may print is no progress.
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if isinstance(told, dict) and "confinement" in told:
                    self.confinement = told["confinement"]
                    _log.info("worker confined", generation=self.descent.generation, **self.confinement)
                elif isinstance(told, dict):
                    self.last = {**self.last, **told}

    @property
    def elapsed_s(self) -> float:
        """Seconds since this start; 0 where no worker was needed."""
        return 0.0 if self._process is None else self.budget.seconds - (self._deadline - self.clock())

    def running(self) -> bool:
        """Whether the worker is still at work; kills it if its time is up."""
        if self._process is None or self._process.poll() is not None:
            return False
        stopped_s = self._giving_way.stopped_s if self._giving_way else 0.0
        if self.clock() > self._deadline + stopped_s:
            self._overran = True
            self.kill()
        return self._process.poll() is None

    def wait(self, poll_seconds: float = 0.05) -> Trained:
        """Wait for the worker and give its result; whatever happened, the job stays and can be started again.

        Raises:
            TrainingError: `training-budget`, time or memory ran out; `training-killed`, the process ended otherwise;
                `training-diverged`.
            StorageError: the worker could not use the disk, the checkpoint or the key; the result is damaged.
        """
        while self.running():
            time.sleep(poll_seconds)
        return self.result()

    def result(self) -> Trained:
        """The result of a worker that has ended, see `wait`; waits for one that has not."""
        status = self._ended()
        if status != 0 or not (self.folder / RESULT).exists():
            raise self._failure(status)
        return Trained(*open_result(read_bytes(self.folder / RESULT, at_most=MAX_JOB_BYTES), self.key))

    def _ended(self) -> int:
        """Exit status of the worker, 0 where none was needed, with all it said read."""
        if self._process is None:
            return 0
        status = self._process.wait()
        if self._giving_way is not None:
            self._giving_way.end()
        if self._reader is not None:
            self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return status

    def _failure(self, status: int) -> TutelageError:
        if "error" in self.last:
            code, message = Code(self.last["error"]), str(self.last["message"])
            return TrainingError(code, message) if code.startswith("training-") else StorageError(code, message)
        if self._overran:
            return TrainingError(
                Code.TRAINING_BUDGET,
                f"training took more than {self.budget.seconds:g} s: allow more time, or train fewer steps",
            )
        step = self.last.get("step", 0)
        return TrainingError(
            Code.TRAINING_KILLED, f"the worker ended with status {status} after step {step}: start it again"
        )

    def kill(self) -> None:
        """End the worker at once; the job and its last checkpoint stay."""
        if self._process is not None:
            self._process.kill()
            self._ended()

    def discard(self) -> None:
        """End the worker and remove the job with all it holds."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
