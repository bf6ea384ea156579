"""The executor of jobs of a cluster on a real control plane, with just the rights that its module asks for."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from control_plane import DISTILLER, USER, ControlPlane, Node

pytest.importorskip("kubernetes")

import yaml

from student_distiller import kubernetes_jobs
from student_distiller.executors import Assignment, Report
from student_distiller.job_reports import ReportBox
from student_distiller.kubernetes_jobs import KubernetesJobs
from student_distiller.kubernetes_manifest import KubernetesSettings, selector
from tutelage.errors import TutelageError
from tutelage.redis_server import connect

NAMESPACE = "jobs"
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


CONFIG_MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path_factory.mktemp("plane"))
    try:
        plane.start()
        plane.make("/api/v1/namespaces", {"metadata": {"name": NAMESPACE, "labels": RESTRICTED}})
        role = yaml.safe_load(kubernetes_jobs.__doc__.split("no others:\n")[1])
        plane.grant(NAMESPACE, USER, role["rules"])
        plane.make(CONFIG_MAPS, {"metadata": {"name": "student-distiller"}, "data": {}})
        yield plane
    finally:
        plane.stop()


@pytest.fixture
def node(plane: ControlPlane) -> Node:
    return Node(plane, NAMESPACE)


@pytest.fixture
def assignment() -> Assignment:
    return Assignment(secrets.token_hex(16), secrets.token_hex(16), timedelta(), 3, 1 << 30, timedelta(hours=1))


class Executor:
    """The executor as the service makes it; its connection is closed when the test has ended."""

    def __init__(self, plane: ControlPlane, redis: Any) -> None:
        self.url = f"redis://127.0.0.1:{redis.port}"
        self.connection, self.told = connect(self.url), []
        settings = KubernetesSettings(NAMESPACE, "distiller:1", plane.kubeconfig(DISTILLER))
        self.jobs = KubernetesJobs(settings, ReportBox(self.connection), 1 << 30, "cpu")

    async def heard(self, report: Report) -> None:
        self.told.append(report)

    async def run(self, assignment: Assignment) -> None:
        await self.jobs.run(assignment, self.heard)

    @asynccontextmanager
    async def running(self, assignment: Assignment) -> AsyncIterator[asyncio.Task[None]]:
        """While a job is being worked on; what is left of it is cancelled."""
        task = asyncio.create_task(self.run(assignment))
        try:
            yield task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, TutelageError):
                await task

    async def close(self) -> None:
        await self.connection.aclose()


@pytest.fixture
def make(plane: ControlPlane, redis_server) -> Executor:
    return Executor(plane, redis_server)


async def started(node: Node, assignment: Assignment) -> list[str]:
    """The Pods of a job, all of them running."""
    labels = selector(assignment.job_id, assignment.holder)
    pods = await asyncio.to_thread(node.pods, assignment.processes, labels)
    for pod in pods:
        await asyncio.to_thread(node.runs, pod)
    return pods


def owner_of(plane: ControlPlane) -> str:
    return plane.call("GET", f"{CONFIG_MAPS}/student-distiller")[1]["metadata"]["uid"]


def jobs_of(plane: ControlPlane, assignment: Assignment) -> list[dict[str, Any]]:
    return plane.call("GET", f"{JOBS}?labelSelector={selector(assignment.job_id)}")[1]["items"]


async def failure(task: asyncio.Task[None]) -> TutelageError:
    async with asyncio.timeout(60):
        with pytest.raises(TutelageError) as caught:
            await task
    return caught.value
