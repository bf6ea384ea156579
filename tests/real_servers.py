"""Real servers for the suites that need them: a redis-server with AOF and a MinIO, each on a free port of this machine.

Where a server is not installed its tests are skipped, and fail where the environment variable CI is set.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

START_SECONDS = 60
FOLDERS = (Path.home() / ".cache/test-cluster/bin", Path(sys.prefix) / "bin", Path(sys.prefix) / "mlserver/bin")
"""Where servers are looked for, after the path."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test in an event loop of its own; makers of queues are closed in that loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.function):
        return None
    wanted = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def run() -> None:
        try:
            await pyfuncitem.function(**wanted)
        finally:
            for maker in (wanted[name] for name in ("make", "real") if name in wanted):
                await maker.close()

    asyncio.run(run())
    return True


def program(name: str) -> str:
    """Path of a server; without it the test is skipped, or fails in continuous integration."""
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, FOLDERS)]))
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A program that listens on one port and can be killed, frozen and started again with what it kept on disk."""

    def __init__(self, command: list[str], port: int, folder: Path, is_up: Callable[[], bool], environment: dict):
        self.port, self.folder = port, folder
        self._command, self.is_up, self._environment = command, is_up, {**os.environ, **environment}
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environment, cwd=self.folder, start_new_session=True
            )
        until = time.monotonic() + START_SECONDS
        while not self.is_up():
            if time.monotonic() > until or self._process.poll() is not None:
                self.kill()
                pytest.fail((self.folder / "server.log").read_text()[-2000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """End it without warning, with the processes that it started."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    @property
    def pid(self) -> int:
        """Id of the process that was started."""
        return self._process.pid

    def freeze(self) -> None:
        """It keeps its connections and answers nothing; returns once all its threads stand still."""
        self._signal(signal.SIGSTOP)
        until = time.monotonic() + START_SECONDS
        while any(_state(task) != "T" for task in Path(f"/proc/{self._process.pid}/task").iterdir()):
            assert time.monotonic() < until, "it does not stop"
            time.sleep(0.01)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _state(task: Path) -> str:
    """Letter of a thread's state; that of a stopped one where it has ended."""
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "T"


def _answers_ping(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _is_healthy(port: int, *, tls: bool = False) -> bool:
    url, anybody = f"http{'s' * tls}://127.0.0.1:{port}/minio/health/live", ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(url, timeout=1, context=anybody if tls else None) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


@pytest.fixture(scope="session")
def redis_started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always"]
    server = Server(command, port, folder, lambda: _answers_ping(port), {})
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def minio_started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with minio(tmp_path_factory.mktemp("minio")) as server:
        yield server


@contextlib.contextmanager
def minio(folder: Path, pair: tuple[Path, Path] | None = None) -> Iterator[Server]:
    """MinIO in `folder`; it speaks TLS where it is given the `pair` of a certificate and its key."""
    port, certificates = free_port(), folder / "certificates"
    certificates.mkdir()
    for path, name in zip(pair or (), ("public.crt", "private.key"), strict=False):
        (certificates / name).write_bytes(path.read_bytes())
    command = [program("minio"), "server", str(folder / "data"), "--address", f"127.0.0.1:{port}", "--quiet"]
    environment = {"MINIO_ROOT_USER": "tester", "MINIO_ROOT_PASSWORD": "tester-secret", "MINIO_BROWSER": "off"}
    environment |= {"MINIO_UPDATE": "off", "HOME": str(folder)}
    ready = partial(_is_healthy, port, tls=pair is not None)
    server = Server([*command, "--certs-dir", str(certificates)], port, folder, ready, environment)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def redis_server(redis_started: Server) -> Server:
    """Running when a test begins, whatever the one before did to it."""
    if not _answers_ping(redis_started.port):
        redis_started.start()
    return redis_started


@pytest.fixture
def minio_server(minio_started: Server) -> Server:
    """As `redis_server`."""
    if not _is_healthy(minio_started.port):
        minio_started.start()
    return minio_started
