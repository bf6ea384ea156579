"""The container images as a cluster runs them: no root, nothing to write but /tmp, no right that could be dropped.

`make images` makes them. Without a container engine or without an image its tests are skipped; TUTELAGE_IMAGES=1 says
that they must be there, and TUTELAGE_IMAGE_TAG which ones (dev).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from source_tree import ROOT

pytest.importorskip("grpc")

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tutelage.errors import CATALOGUE, Code
from tutelage.sealing import make_key
from tutelage.signing import make_signer, public_pem

BASE = "python:3.11-slim-bookworm"
SHUT_IN = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
REGISTRY_BYTES = 80_000_000
"""What the registry may add to its base image."""
STARTS_WITHIN_S = 120
SERVING = health_pb2.HealthCheckResponse.SERVING
PROBED = {
    "model-registry": {"TUTELAGE_REGISTRY_TRUSTED_FILES": "/keys/signer.pub"},
    "teacher-inference": {"TUTELAGE_TEACHER_GALLERY_KEY_FILE": "/keys/seal.key"},
    "student-distiller": {
        "TUTELAGE_DISTILLER_TEACHER_ADDRESS": "127.0.0.1:50051",
        "TUTELAGE_DISTILLER_SIGNER_FILE": "/keys/signer.pem",
        "TUTELAGE_DISTILLER_SEAL_KEY_FILE": "/keys/seal.key",
        "TUTELAGE_DISTILLER_DATA_KEY_FILE": "/keys/seal.key",
    },
    "device-sim": {"TUTELAGE_DEVICE_FOLDER": "/tmp/device"},
}
"""What each has to be told to start."""
PROBE = {"TUTELAGE_SERVER_PROBE_ADDRESS": "0.0.0.0:50052"}
IMAGES = [*PROBED, "torchserve"]
UNSET = {
    "model-registry": "TUTELAGE_REGISTRY_TRUSTED_FILES is missing",
    "teacher-inference": "TUTELAGE_TEACHER_GALLERY_KEY_FILE is missing",
    "student-distiller": "TUTELAGE_DISTILLER_SIGNER_FILE is missing",
}

# Everything that a compiler, an installer or a build left behind would be found by, one line a find.
LEFT_BEHIND = r"""
for name in gcc cc g++ make git curl; do command -v $name; done
ls -d /opt/venv/bin/pip* /opt/venv/lib/python3.*/site-packages/pip /build /opt/own /wheels 2>/dev/null
ls -d ~root/.cache /tmp/* /var/cache/apt/archives/*.deb 2>/dev/null
find / -xdev -name '*.whl' 2>/dev/null
true
"""
WRITABLE = "find / -xdev -writable ! -type l ! -path '/proc/*' ! -path '/dev/*' 2>/dev/null; true"


def missing(reason: str) -> None:
    (pytest.fail if os.environ.get("TUTELAGE_IMAGES") == "1" else pytest.skip)(reason)


def docker(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["docker", *words], check=False, capture_output=True, text=True, timeout=300)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def image() -> Callable[[str], str]:
    """The full name of an image that is there."""
    if shutil.which("docker") is None or docker("info", check=False).returncode:
        missing("there is no container engine")
    tag = os.environ.get("TUTELAGE_IMAGE_TAG", "dev")

    def there(name: str) -> str:
        full = f"tutelage/{name}:{tag}"
        if docker("image", "inspect", full, check=False).returncode:
            missing(f"there is no image {full}: make images")
        return full

    return there


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys that the user of the images can read, as a cluster hands them out by group."""
    folder = tmp_path_factory.mktemp("keys")
    folder.joinpath("signer.pub").write_bytes(public_pem(make_signer(folder / "signer.pem").public_key()))
    make_key(folder / "seal.key")
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    return folder


@contextlib.contextmanager
def running(image: str, environment: dict[str, str], *more: str) -> Iterator[str]:
    """The id of a container that was started shut in; it is removed afterwards."""
    told = [word for item in environment.items() for word in ("--env", "=".join(item))]
    container = docker("run", "--detach", *SHUT_IN, *told, *more, image).stdout.strip()
    try:
        yield container
    finally:
        docker("rm", "--force", container)


def logs(container: str) -> str:
    done = docker("logs", container)
    return done.stdout + done.stderr


def serves(container: str) -> bool:
    """Whether health is SERVING within the time, asked from outside as a kubelet does."""
    address = docker("port", container, "50052/tcp").stdout.split()[0]
    until = time.monotonic() + STARTS_WITHIN_S
    with grpc.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < until:
            with contextlib.suppress(grpc.RpcError):
                if health.Check(health_pb2.HealthCheckRequest(), timeout=2).status == SERVING:
                    return True
            if docker("inspect", "--format", "{{.State.Running}}", container).stdout.strip() != "true":
                break
            time.sleep(0.5)
    return False


def exit_code(container: str) -> int:
    return int(docker("wait", container).stdout)


def inside(image: str, script: str) -> str:
    return docker("run", "--rm", "--entrypoint", "sh", *SHUT_IN, image, "-c", script).stdout


def left_behind(image: str) -> set[str]:
    """Looked for by root, from whom nothing is hidden."""
    return set(docker("run", "--rm", "--user", "0", "--entrypoint", "sh", image, "-c", LEFT_BEHIND).stdout.split())


@pytest.mark.parametrize("name", PROBED)
def test_it_serves_shut_in_and_ends_when_it_is_told(image, keys: Path, name: str):
    probed = ["--publish", "127.0.0.1::50052", "--volume", f"{keys}:/keys:ro"]
    with running(image(name), {**PROBED[name], **PROBE}, *probed) as container:
        assert serves(container), logs(container)
        docker("stop", "--time", "60", container)
        assert exit_code(container) == 0, logs(container)


@pytest.mark.parametrize("name", UNSET)
def test_what_it_was_not_told_ends_it_with_the_documented_code(image, name: str):
    with running(image(name), {}) as container:
        assert exit_code(container) == CATALOGUE[Code.SETTING_INVALID].exit_code
        assert "error [setting-invalid]" in logs(container)
        assert UNSET[name] in logs(container)


def test_the_teacher_is_served_by_torchserve_beside_it(image, keys: Path):
    beside = {"TUTELAGE_TEACHER_BACKEND_KIND": "torchserve", "TUTELAGE_TEACHER_BACKEND_ADDRESS": "127.0.0.1:7070"}
    pod = ["--publish", "127.0.0.1::50052"]
    with running(image("torchserve"), {"OMP_NUM_THREADS": "1"}, *pod) as server:
        told = {**PROBED["teacher-inference"], **PROBE, **beside}
        network = ["--network", f"container:{server}", "--volume", f"{keys}:/keys:ro"]
        with running(image("teacher-inference"), told, *network) as service:
            assert serves(server), logs(service) + logs(server)
            docker("stop", "--time", "30", service)
        docker("stop", "--time", "30", server)
        assert exit_code(server) != 137, "it had to be killed"


def test_another_teacher_is_archived_by_the_image_itself(image, tmp_path: Path):
    archive = ["-m", "teacher_inference.archive", "--teacher", "/teacher/mine.safetensors", "--out", "/tmp/models"]
    teacher = tmp_path / "mine.safetensors"
    shutil.copy(next((ROOT / "src/tutelage/assets").glob("*teacher*.safetensors")), teacher)
    teacher.chmod(0o644)
    mounted = ["--volume", f"{teacher}:/teacher/mine.safetensors:ro", "--entrypoint", "python"]
    done = docker("run", "--rm", *SHUT_IN, *mounted, image("torchserve"), *archive)
    assert done.stdout.strip() == "/tmp/models/teacher.mar"


@pytest.mark.parametrize("name", IMAGES)
def test_nothing_is_left_of_its_making_and_nothing_of_it_can_be_written(image, name: str):
    assert inside(image(name), "id -u; id -g").split() == ["10001", "10001"]
    # The base image brings a pip of its own, which our Python does not see.
    assert left_behind(image(name)) - left_behind(BASE) == set()
    # Not by the read-only mount, which find looks past: by owner and mode.
    writable = docker("run", "--rm", "--entrypoint", "sh", image(name), "-c", WRITABLE).stdout.split()
    assert [path for path in writable if path.startswith(("/opt", "/usr", "/etc", "/models", "/app"))] == []


@pytest.mark.parametrize("name", IMAGES)
def test_its_python_is_the_one_with_our_code_compiled_beforehand(image, name: str):
    module = {"torchserve": "teacher_inference"}.get(name, name.replace("-", "_"))
    script = (
        f'python -c \'import importlib.util as u, os, sys; s = u.find_spec("{module}.service"); '
        "print(sys.executable, os.path.exists(s.cached))'"
    )
    assert inside(image(name), script).split() == ["/opt/venv/bin/python", "True"]


@pytest.mark.parametrize("name", IMAGES)
def test_it_says_what_it_is(image, name: str):
    (found,) = json.loads(docker("image", "inspect", image(name)).stdout)
    labels = found["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == name
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert found["Config"]["User"] == "10001:10001"
    assert "Healthcheck" not in found["Config"]


def test_the_commands_of_the_device_are_in_its_image(image):
    assert "simulate" in inside(image("device-sim"), "tutelage --help")
    assert "status" in inside(image("device-sim"), "tutelage device --help")


def test_the_distiller_starts_the_processes_of_a_job_by_python_and_torchrun(image):
    script = "python -m torch.distributed.run --help >/dev/null && python -c 'import student_distiller.kubernetes_api'"
    inside(image("student-distiller"), script)
    work_on = ["--entrypoint", "python", image("student-distiller"), "-m", "student_distiller", "work-on"]
    done = docker("run", "--rm", *SHUT_IN, *work_on, check=False)
    assert done.returncode == CATALOGUE[Code.SETTING_INVALID].exit_code


def test_the_registry_is_small(image):
    sizes = [
        int(docker("image", "inspect", "--format", "{{.Size}}", name).stdout)
        for name in (image("model-registry"), BASE)
    ]
    assert sizes[0] - sizes[1] < REGISTRY_BYTES
    assert "torch" not in inside(image("model-registry"), "ls /opt/venv/lib/python3.*/site-packages").split()


def test_what_is_inside_is_listed_as_it_is(image, tmp_path: Path):
    image("model-registry")
    tag = os.environ.get("TUTELAGE_IMAGE_TAG", "dev")
    words = ["make", "sbom", "IMAGES=model-registry", f"IMAGE_TAG={tag}", f"SBOM_FOLDER={tmp_path}"]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True, timeout=600)
    document = json.loads(tmp_path.joinpath("model-registry.cdx.json").read_text())
    assert (document["bomFormat"], document["metadata"]["component"]["name"]) == (
        "CycloneDX",
        "tutelage/model-registry",
    )
    listed = {component["name"] for component in document["components"]}
    assert {"tutelage", "model-registry", "grpcio", "libc6", "openssl"} <= listed
    assert not {"numpy", "torch", "pip"} & listed


def test_for_development_a_changed_source_starts_the_service_anew(image, keys: Path):
    image("model-registry")
    words = ["make", "images", "IMAGES=model-registry", "IMAGE_TARGET=dev", "IMAGE_TAG=develop"]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True, timeout=600)
    told = [word for item in PROBED["model-registry"].items() for word in ("--env", "=".join(item))]
    words = ["--detach", "--cap-drop", "ALL", "--volume", f"{keys}:/keys:ro", *told, "tutelage/model-registry:develop"]
    container = docker("run", *words).stdout.strip()
    try:
        assert started(container, times=1), logs(container)
        docker("exec", container, "sh", "-c", "echo >> /app/src/tutelage/server.py")
        assert started(container, times=2), logs(container)
        docker("stop", "--time", "60", container)
        assert exit_code(container) == 0
        assert logs(container).count("server stopped") == 2, "it was not drained each time"
    finally:
        docker("rm", "--force", container)


def started(container: str, times: int) -> bool:
    """Whether the service in the container has started as often within the time."""
    until = time.monotonic() + STARTS_WITHIN_S
    while logs(container).count('"server started"') < times:
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True
