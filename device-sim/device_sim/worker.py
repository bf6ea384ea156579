"""The self-distillation worker: a process of its own, at the lowest priority, that trains and then ends.

`python -m device_sim.worker FOLDER` reads the sealed job in FOLDER, trains from the checkpoint found there if any, and
leaves the sealed result beside it. The key comes on standard input, so that it shows in no process list. It tells on
standard output, one JSON object a line, first `confinement`, what it is confined to (`confinement`), then `step`,
`steps`, `bytes` and the losses; a failure ends it with one line of `error` and `message`. It gives up when it needs
more than its memory budget; its parent ends it when time is up; it ends when its parent is gone, and at once where
another worker is at the same job. Whenever that is, the folder holds a job that can be taken up again.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import torch

from device_sim.confinement import confine, die_with_parent, lower_priority, peak_bytes
from device_sim.job import CHECKPOINT, JOB, MAX_JOB_BYTES, RESULT, TrainingJob, seal_result
from tutelage.errors import Code, TrainingError, TutelageError
from tutelage.files import atomic_write, read_bytes, storage_error
from tutelage.nn.checkpoints import Codec
from tutelage.nn.self_distil import self_distil
from tutelage.nn.students import load_student, save_weights
from tutelage.nn.train_teacher import Progress
from tutelage.sealing import KEY_BYTES, open_sealed, seal

EXIT_PARENT_GONE = 141
"""128 + SIGPIPE: nobody reads the progress any more."""


def work(folder: Path, key: bytes, out: IO[str]) -> None:
    """Train the job in `folder` and leave its result there.

    Raises:
        TutelageError: the job, its checkpoint or the disk; `training-budget` if memory ran over, `training-diverged`.
        BrokenPipeError: nobody reads `out`.
    """
    train(folder, TrainingJob.open(read_bytes(folder / JOB, at_most=MAX_JOB_BYTES), key), key, out)


def train(folder: Path, job: TrainingJob, key: bytes, out: IO[str]) -> None:
    """Train a `job` that was opened; see `work`."""
    torch.set_num_threads(job.threads)
    torch.use_deterministic_algorithms(True)
    done = self_distil(
        load_student(job.spec, job.weights),
        job.training_set,
        job.settings,
        checkpoint=folder / CHECKPOINT,
        codec=_sealing(key),
        progress=_telling(out, job.memory_bytes),
    )
    summary = {
        "settings": asdict(job.settings),
        "losses": done.losses,
        "steps_run": done.steps_run,
        "seconds": done.seconds,
        "peak_bytes": peak_bytes(),
        "samples": len(job.training_set.inputs),
    }
    atomic_write(folder / RESULT, seal_result(save_weights(done.student), summary, key))


def _sealing(key: bytes) -> Codec:
    """Checkpoints hold class heads, which are persons' features: they are sealed."""
    return Codec(
        lambda data: seal(data, key, purpose=CHECKPOINT), lambda data: open_sealed(data, key, purpose=CHECKPOINT)
    )


def _telling(out: IO[str], memory_bytes: int) -> Progress:
    """Tells each step, and gives up beyond the memory budget."""

    def progress(step: int, steps: int, losses: dict[str, float]) -> None:
        used = peak_bytes()
        if used > memory_bytes:
            raise _over_budget(memory_bytes)
        _say(out, {"step": step, "steps": steps, "bytes": used, **losses})

    return progress


def _say(out: IO[str], line: Mapping[str, Any]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


def work_confined(folder: Path, key: bytes, out: IO[str]) -> None:
    """`work` as the only worker at the job, within what the job may take of the machine.

    Raises:
        TutelageError: as `work`; `training-killed`, another worker is at the same job.
    """
    with _alone(folder):
        job = TrainingJob.open(read_bytes(folder / JOB, at_most=MAX_JOB_BYTES), key)
        _say(out, {"confinement": confine(job.threads, job.memory_bytes).as_json()})
        try:
            train(folder, job, key, out)
        except (MemoryError, RuntimeError) as error:
            if not _says_no_memory(error):
                raise
            raise _over_budget(job.memory_bytes) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the job in `folder`, which the system lets go of when this process ends."""
    try:
        held = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise storage_error(error, folder, "read") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise TrainingError(Code.TRAINING_KILLED, "another worker is at this training: wait until it ends") from error
    finally:
        os.close(held)


def _says_no_memory(error: Exception) -> bool:
    """Whether an allocation failed; torch says so with an error of its own."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error) or "not enough memory" in str(error)


def _over_budget(memory_bytes: int) -> TrainingError:
    allowed, used = memory_bytes >> 20, peak_bytes() >> 20
    return TrainingError(
        Code.TRAINING_BUDGET,
        f"training needed more than {used} MiB, {allowed} MiB are allowed: allow more, or learn less",
    )


def main() -> int:
    """Run the worker; a failure becomes one line and its exit status."""
    die_with_parent()
    lower_priority()
    folder, key = Path(sys.argv[1]), sys.stdin.buffer.read(KEY_BYTES)
    try:
        work_confined(folder, key, sys.stdout)
    except TutelageError as error:
        _say(sys.stdout, {"error": error.code.value, "message": error.message})
        return error.exit_code
    except BrokenPipeError:
        return EXIT_PARENT_GONE
    return 0


if __name__ == "__main__":
    # Everything is on disk and said: taking the interpreter apart would only keep the device waiting, for seconds.
    os._exit(main())
