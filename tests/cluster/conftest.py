"""Tests on a real cluster: the one that the kubeconfig leads to. They know nothing of it but how images get there.

    make images && python -m pytest tests/cluster --image-loader 'kind load docker-image'

Skipped without a cluster, and failing where TUTELAGE_CLUSTER is set.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helm_release import BRISK, STORE_IMAGES, Release
from kube import Namespace, namespace, reachable
from real_servers import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]

HERE = Path(__file__).parent
PROGRAMS = ("helm", "kubectl")
OURS = ("model-registry", "teacher-inference", "torchserve", "student-distiller", "device-sim")


TEST_SECONDS = 600
"""A whole release may have to start."""
ORDER = ("install", "safety", "faults", "jobs", "loop", "executor", "lifecycle", "certificates", "docs_grpcurl")
"""What is told first where time is short; the others follow. Jobs give devices another student: faults come before."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    own = [item for item in items if item.path.parent == HERE]
    for item in own:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))
    places = {f"test_{name}": place for place, name in enumerate(ORDER)}
    own.sort(key=lambda item: places.get(item.path.stem, len(places)))
    items[:] = [*(item for item in items if item.path.parent != HERE), *own]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.path.parent == HERE and time.time() > float(os.environ.get("TUTELAGE_CLUSTER_UNTIL") or "inf"):
        pytest.skip("the time that was given to tests on a cluster is over")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cluster")
    group.addoption(
        "--image-loader",
        default="kind load docker-image",
        help="Brings the images that it is given into the cluster; empty where they are there.",
    )
    group.addoption("--image-tag", default="dev", help="Tag of our images.")


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> str:
    """A cluster that has the images; their tag."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or not reachable():
        why = f"not installed: {', '.join(missing)}" if missing else "no kubeconfig leads to a cluster that answers"
        (pytest.fail if os.environ.get("TUTELAGE_CLUSTER") else pytest.skip)(why)
    tag, loader = request.config.getoption("--image-tag"), request.config.getoption("--image-loader")
    if loader:
        images = [*STORE_IMAGES, *(f"tutelage/{name}:{tag}" for name in OURS)]
        subprocess.run([*shlex.split(loader), *images], check=True, stdout=subprocess.DEVNULL)
    return str(tag)


@pytest.fixture(scope="session")
def place(cluster: str) -> Iterator[Namespace]:
    """The namespace of the release that tests share."""
    with namespace("tutelage-shared") as made:
        yield made


@pytest.fixture(scope="session")
def release(cluster: str, place: Namespace) -> Release:
    """The release that tests share: a small one, with two devices."""
    release = Release(place, cluster)
    release.install(BRISK)
    return release
