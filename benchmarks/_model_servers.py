"""A TorchServe with the shipped teacher for benchmarks, on free ports of this machine, gone with the benchmark."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _servers import free_port, listens

from teacher_inference.archive import ArchiveSettings, make_archive

CONFIG = Path(__file__).parents[1] / "services/teacher-inference/torchserve/config.properties"
PORTS = ("7070", "7071", "8080", "8081", "8082")
_WAIT_S = 120


@contextmanager
def torchserve(threads: int) -> Iterator[int]:
    """The gRPC port of a server configured as by `make torchserve`, whose worker computes with so many threads."""
    launcher = shutil.which("torchserve", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if launcher is None or shutil.which("java") is None:
        sys.exit("TorchServe or Java is not installed: make bench BENCH=labels MODEL_SERVERS=1")
    with tempfile.TemporaryDirectory() as name:
        folder, ports, lines = Path(name), {port: free_port() for port in PORTS}, CONFIG.read_text()
        for written, free in ports.items():
            lines = lines.replace(written, str(free))
        (folder / "config.properties").write_text(lines)
        make_archive("fingerprint", folder, ArchiveSettings(threads=threads))
        command = [launcher, "--start", "--foreground", "--no-config-snapshots", "--ts-config", "config.properties"]
        command += ["--model-store", ".", "--models", "teacher=teacher.mar"]
        environment = {**os.environ, "TMPDIR": name, "TEMP": name}
        with (folder / "log").open("wb") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=out, env=environment, cwd=folder, start_new_session=True
            )
        try:
            _wait(process, ports["7070"], folder / "log")
            yield ports["7070"]
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + _WAIT_S
    while not listens(port):
        if process.poll() is not None or time.monotonic() > until:
            sys.exit(f"TorchServe does not start: {log.read_text()[-2000:]}")
        time.sleep(0.2)
