"""Real servers that run a teacher, for the suites that need them: TorchServe and MLServer, each on a free port.

Skipped and failed like those of `real_servers`; `make test MODEL_SERVERS=1` installs them.
"""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from real_servers import Server, free_port, program
from source_tree import ROOT

CONFIG = ROOT / "services/teacher-inference/torchserve/config.properties"


def answers(port: int, path: str) -> bool:
    """Whether a GET of `path` succeeds."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=1) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def torchserve_started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The shipped teacher behind the configuration of `make torchserve`, but for its ports."""
    command = [program("torchserve"), "--start", "--foreground", "--no-config-snapshots"]
    program("java")
    from teacher_inference.archive import ArchiveSettings, make_archive  # noqa: PLC0415 - needs torch

    folder, lines = tmp_path_factory.mktemp("torchserve"), CONFIG.read_text()
    ports = {port: free_port() for port in ("7070", "7071", "8080", "8081", "8082")}
    for written, free in ports.items():
        lines = lines.replace(written, str(free))
    folder.joinpath("config.properties").write_text(lines)
    make_archive("fingerprint", folder, ArchiveSettings(threads=1))
    command += ["--ts-config", "config.properties", "--model-store", ".", "--models", "teacher=teacher.mar"]
    # Its process id, the sockets of its workers and unpacked archives lie there: each server its own.
    environment = {"TMPDIR": str(folder), "TEMP": str(folder)}
    # It takes HTTP first, gRPC a moment later.
    is_up = lambda: answers(ports["8080"], "ping") and connects(ports["7070"])  # noqa: E731 - as for the others
    server = Server(command, ports["7070"], folder, is_up, environment)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def mlserver_started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The shipped teacher behind MLServer, as docs/teachers/open-inference.md describes it."""
    command, folder = [program("mlserver"), "start", "."], tmp_path_factory.mktemp("mlserver")
    ports = {name: free_port() for name in ("http_port", "grpc_port", "metrics_port")}
    settings = {"host": "127.0.0.1", **ports, "parallel_workers": 0, "grpc_max_message_length": 16 * 1024 * 1024}
    folder.joinpath("settings.json").write_text(json.dumps(settings))
    model = {
        "name": "teacher",
        "implementation": "teacher_inference.mlserver_runtime.TeacherRuntime",
        "parameters": {"extra": {"teacher": "fingerprint", "threads": 1}},
        "inputs": [{"name": "captures", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "features", "datatype": "FP32", "shape": [-1, -1]}],
    }
    folder.joinpath("teacher").mkdir()
    folder.joinpath("teacher/model-settings.json").write_text(json.dumps(model))
    ready = "v2/models/teacher/ready"
    server = Server(command, ports["grpc_port"], folder, lambda: answers(ports["http_port"], ready), {})
    server.start()
    yield server
    server.kill()


@pytest.fixture
def torchserve_server(torchserve_started: Server) -> Server:
    """Running when a test begins, whatever the one before did to it."""
    if not torchserve_started.is_up():
        torchserve_started.start()
    return torchserve_started


@pytest.fixture
def mlserver_server(mlserver_started: Server) -> Server:
    """As `torchserve_server`."""
    if not mlserver_started.is_up():
        mlserver_started.start()
    return mlserver_started
