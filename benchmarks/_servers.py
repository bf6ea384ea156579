"""Real servers for benchmarks: a redis-server and a MinIO on free ports of this machine, gone with the benchmark."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ACCOUNT, SECRET = "bench", "bench-secret"
BUCKET = "bench"
_WAIT_S = 60


@dataclass(frozen=True)
class Servers:
    """Where they answer."""

    redis_port: int
    minio_port: int
    folder: Path
    """For whatever the benchmark needs, gone afterwards."""
    minio_pid: int

    def environment(self) -> dict[str, str]:
        """Variables that lead a service here."""
        keys = {"access": ACCOUNT, "secret": SECRET}
        for name, text in keys.items():
            (self.folder / name).write_text(text)
        return {
            "TUTELAGE_STORES_REDIS_ADDRESS": f"127.0.0.1:{self.redis_port}",
            "TUTELAGE_STORES_REDIS_TLS": "false",
            "TUTELAGE_STORES_OBJECTS_ADDRESS": f"127.0.0.1:{self.minio_port}",
            "TUTELAGE_STORES_OBJECTS_BUCKET": BUCKET,
            "TUTELAGE_STORES_OBJECTS_TLS": "false",
            "TUTELAGE_STORES_OBJECTS_ACCESS_KEY_FILE": str(self.folder / "access"),
            "TUTELAGE_STORES_OBJECTS_SECRET_KEY_FILE": str(self.folder / "secret"),
        }


@contextmanager
def servers() -> Iterator[Servers]:
    """Both servers, with empty disks; Redis writes its append-only file once a second, as in production."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, redis, minio = Path(name), free_port(), free_port()
        command = [program("redis-server"), "--port", str(redis), "--bind", "127.0.0.1", "--dir", name, "--save", ""]
        stack.enter_context(started([*command, "--appendonly", "yes"], redis, {}, folder / "redis.log"))
        command = [program("minio"), "server", str(folder / "data"), "--address", f"127.0.0.1:{minio}", "--quiet"]
        account = {"MINIO_ROOT_USER": ACCOUNT, "MINIO_ROOT_PASSWORD": SECRET, "MINIO_BROWSER": "off"}
        account |= {"MINIO_UPDATE": "off", "HOME": name}
        store = stack.enter_context(started(command, minio, account, folder / "minio.log"))
        yield Servers(redis, minio, folder, store)


@contextmanager
def started(command: Sequence[str], port: int, environment: Mapping[str, str], log: Path) -> Iterator[int]:
    """The process of a program, from when it listens on `port` until the block ends."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **environment})
    try:
        until = time.monotonic() + _WAIT_S
        while not listens(port):
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"{command[0]} does not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def program(name: str) -> str:
    """Path of a server."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:{Path.home() / '.cache/test-cluster/bin'}")
    return found or sys.exit(f"{name} is not installed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
