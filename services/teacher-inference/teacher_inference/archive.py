"""A model archive: a teacher in the form that TorchServe serves, one `.mar` file made by torch-model-archiver.

    python -m teacher_inference.archive --teacher fingerprint --out FOLDER

Inside lie the teacher's file as it is (`teacher.safetensors`; none for a public network that is installed), our handler
(`teacher_inference.torchserve_handler`), `teacher.json` with the teacher's name and space, and `model-config.yaml` with
the workers and threads that run it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from teacher_inference import torchserve_handler
from teacher_inference.torchserve_handler import ABOUT_FILE
from tutelage.errors import Code, TutelageError
from tutelage.files import atomic_write, make_folder, read_bytes
from tutelage.nn.teacher_sources import SHIPPED, open_teacher

__all__ = ["ArchiveSettings", "make_archive"]

WEIGHTS_FILE = "teacher.safetensors"
CONFIG_FILE = "model-config.yaml"

MAX_FILE_BYTES = 4 * 1024**3
"""Of a teacher's file, and of its archive."""

WITHOUT_FILE = frozenset({"face"})
"""Teachers whose weights are installed with an extra, in the server's environment as well."""


@dataclass(frozen=True)
class ArchiveSettings:
    """How a server will run the teacher."""

    model: str = "teacher"
    """Name of the model at the server, and of the file before its ending."""
    workers: int = 1
    """Processes that each hold the teacher."""
    threads: int = 0
    """Threads that torch computes with in each worker; 0 lets torch choose."""
    timeout_s: int = 60
    """Seconds after which the server gives up an answer, and the worker that did not give it."""


def make_archive(word: str, folder: Path, settings: ArchiveSettings | None = None) -> Path:
    """Pack the teacher called `word` (`fingerprint`, `face` or the path of a file); the archive's path in `folder`.

    Raises:
        TutelageError: there is no such teacher (see `open_teacher`), torch-model-archiver is not installed, or the
            archive cannot be written.
    """
    wanted = settings or ArchiveSettings()
    if find_spec("model_archiver") is None:
        raise TutelageError(
            Code.EXTRA_MISSING, "an archive needs an optional part: pip install 'teacher-inference[torchserve]'"
        )
    with tempfile.TemporaryDirectory() as scratch:
        made = _packed(word, Path(scratch), wanted)
        make_folder(folder)
        path = folder / f"{wanted.model}.mar"
        atomic_write(path, read_bytes(made, at_most=MAX_FILE_BYTES))
    return path


def _packed(word: str, scratch: Path, settings: ArchiveSettings) -> Path:
    """The archive in `scratch`."""
    teacher = open_teacher(word)
    about = {"word": word if word in WITHOUT_FILE else "", "name": teacher.name, "space": teacher.space}
    (scratch / ABOUT_FILE).write_text(json.dumps(about), encoding="utf-8")
    (scratch / CONFIG_FILE).write_text(_config(settings), encoding="utf-8")
    words = ["--model-name", settings.model, "--version", "1.0", "--export-path", str(scratch)]
    words += ["--handler", str(torchserve_handler.__file__), "--extra-files", str(scratch / ABOUT_FILE)]
    words += ["--config-file", str(scratch / CONFIG_FILE)]
    if word not in WITHOUT_FILE:
        (scratch / WEIGHTS_FILE).write_bytes(_weights(word))
        words += ["--serialized-file", str(scratch / WEIGHTS_FILE)]
    _run_archiver(words, scratch)
    return scratch / f"{settings.model}.mar"


def _weights(word: str) -> bytes:
    """The bytes of a teacher's file."""
    with ExitStack() as stack:
        shipped = resources.files("tutelage") / "assets" / SHIPPED
        path = stack.enter_context(resources.as_file(shipped)) if word == "fingerprint" else Path(word)
        return read_bytes(path, at_most=MAX_FILE_BYTES)


def _config(settings: ArchiveSettings) -> str:
    """What TorchServe and the handler read beside the archive's manifest.

    Callers' captures are joined before they get here (`teacher_inference.batching`), without the wait that TorchServe's
    own batches would cost a caller who is alone; hence batches of one request.
    """
    fields = {
        "minWorkers": settings.workers,
        "maxWorkers": settings.workers,
        "batchSize": 1,
        "responseTimeout": settings.timeout_s,
        "torch_threads": settings.threads,
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def _run_archiver(words: list[str], scratch: Path) -> None:
    """Run torch-model-archiver; in a folder of its own, since it deletes what bears the model's name in TMPDIR."""
    with tempfile.TemporaryDirectory(dir=scratch) as own:
        command = [sys.executable, "-m", "model_archiver.model_packaging", *words]
        done = subprocess.run(  # noqa: S603 - a program that is installed with us, words of ours
            command, check=False, capture_output=True, text=True, env={**os.environ, "TMPDIR": own}
        )
    if done.returncode:
        raise TutelageError(
            Code.STORAGE_FAILED, f"torch-model-archiver did not make an archive: {done.stderr.strip()[-500:]}"
        )


def main() -> int:
    """Exit status: 0, or that of the error which was told."""
    parser = argparse.ArgumentParser(prog="python -m teacher_inference.archive", description=__doc__)
    parser.add_argument("--teacher", default="fingerprint", help="fingerprint, face or a teacher file")
    parser.add_argument("--out", type=Path, required=True, help="folder that the archive is written to")
    parser.add_argument("--model", default="teacher", help="name of the model at the server")
    parser.add_argument("--workers", type=int, default=1, help="processes that each hold the teacher")
    parser.add_argument("--threads", type=int, default=0, help="torch's threads in each worker; 0 lets torch choose")
    told = parser.parse_args()
    try:
        path = make_archive(told.teacher, told.out, ArchiveSettings(told.model, told.workers, told.threads))
    except TutelageError as error:
        sys.stderr.write(f"error [{error.code}]: {error.message}\n")
        return error.exit_code
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
