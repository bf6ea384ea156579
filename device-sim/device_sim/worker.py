"""The self-distillation worker: a process of its own, at the lowest priority, that trains and then ends.

`python -m device_sim.worker FOLDER` reads the sealed job in FOLDER, trains from the checkpoint found there if any, and
leaves the sealed result beside it. The key comes on standard input, so that it shows in no process list. Progress goes
to standard output, one JSON object a line: `step`, `steps`, `bytes` and the losses; a failure ends it with one line of
`error` and `message`. It gives up when it has grown over its memory budget; its parent ends it when time is up; it ends
by itself when its parent is gone. Whenever that is, the folder holds a job that can be taken up again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import psutil
import torch

from device_sim.job import CHECKPOINT, JOB, MAX_JOB_BYTES, RESULT, TrainingJob, seal_result
from tutelage.errors import Code, TrainingError, TutelageError
from tutelage.files import atomic_write, read_bytes
from tutelage.nn.checkpoints import Codec
from tutelage.nn.self_distil import self_distil
from tutelage.nn.students import load_student, save_weights
from tutelage.nn.train_teacher import Progress
from tutelage.sealing import KEY_BYTES, open_sealed, seal

LOWEST_PRIORITY = 19
EXIT_PARENT_GONE = 141
"""128 + SIGPIPE: nobody reads the progress any more."""


def work(folder: Path, key: bytes, out: IO[str]) -> None:
    """Train the job in `folder` and leave its result there.

    Raises:
        TutelageError: the job, its checkpoint or the disk; `training-budget` if memory ran over, `training-diverged`.
        BrokenPipeError: nobody reads `out`.
    """
    job = TrainingJob.open(read_bytes(folder / JOB, at_most=MAX_JOB_BYTES), key)
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


def peak_bytes() -> int:
    """Most resident memory this process ever held, as far as the system tells; else what it holds now."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        lines = []
    # Not getrusage: its maximum is inherited from the process that started this one.
    peak = next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)
    return peak or int(psutil.Process().memory_info().rss)


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
            raise TrainingError(
                Code.TRAINING_BUDGET,
                f"training needed {used >> 20} MiB, {memory_bytes >> 20} MiB are allowed: allow more, or learn less",
            )
        _say(out, {"step": step, "steps": steps, "bytes": used, **losses})

    return progress


def _say(out: IO[str], line: Mapping[str, Any]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


def main() -> int:
    """Run the worker; a failure becomes one line and its exit status."""
    os.nice(LOWEST_PRIORITY)
    folder, key = Path(sys.argv[1]), sys.stdin.buffer.read(KEY_BYTES)
    try:
        work(folder, key, sys.stdout)
    except TutelageError as error:
        _say(sys.stdout, {"error": error.code.value, "message": error.message})
        return error.exit_code
    except BrokenPipeError:
        return EXIT_PARENT_GONE
    return 0


if __name__ == "__main__":
    # Everything is on disk and said: taking the interpreter apart would only keep the device waiting, for seconds.
    os._exit(main())
