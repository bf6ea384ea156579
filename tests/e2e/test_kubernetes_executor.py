"""Jobs of a cluster against a real API server and its controllers, with just the rights that the module asks for.

Skipped where the programs of `control_plane` are not installed.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from control_plane import ADMIN, DISTILLER, NOBODY, USER, ControlPlane, Node, missing_programs

pytest.importorskip("kubernetes")

import yaml

from student_distiller import kubernetes_jobs
from student_distiller.executors import Assignment, Report, StepReport
from student_distiller.job_reports import ReportBox, ReportSender
from student_distiller.kubernetes_api import open_cluster
from student_distiller.kubernetes_jobs import KubernetesJobs
from student_distiller.kubernetes_manifest import KubernetesSettings, job_manifest, job_name, selector
from student_distiller.kubernetes_verdict import last_words
from tutelage.errors import Code, SettingsError, TrainingError, TutelageError
from tutelage.redis_server import connect

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {', '.join(missing_programs())}")

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


async def test_a_job_becomes_pods_that_a_restricted_namespace_admits_and_ends_well(
    make: Executor, plane: ControlPlane, node: Node, assignment: Assignment
):
    async with make.running(assignment) as task:
        pods = await started(node, assignment)
        assert pods == sorted(pods)
        with ReportSender(make.url, assignment.holder) as sender:
            sender.report(StepReport(3, 10, {"loss": 1.5}))
        async with asyncio.timeout(10):
            while not make.told:
                await asyncio.sleep(0.05)
        for pod in pods:
            await asyncio.to_thread(node.ended, pod)
        async with asyncio.timeout(60):
            await task
    assert make.told == [StepReport(3, 10, {"loss": 1.5})]
    (kept,) = jobs_of(plane, assignment)
    assert kept["status"]["succeeded"] == 3
    assert kept["spec"]["template"]["spec"]["containers"][0]["env"][0]["name"] == "OMP_NUM_THREADS"


async def test_a_restricted_namespace_would_not_admit_lesser_pods_and_that_is_told(
    make: Executor, plane: ControlPlane, assignment: Assignment
):
    manifest = job_manifest(
        assignment, make.jobs.settings, owner_uid=owner_of(plane), memory_bytes=1 << 30, device="cpu"
    )
    del manifest["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    await asyncio.to_thread(plane.make, JOBS, manifest)
    await asyncio.sleep(2)
    hasty = replace(make.jobs, settings=replace(make.jobs.settings, start_within=timedelta(seconds=1)))
    error = await failure(asyncio.create_task(hasty.run(assignment, make.heard)))
    assert (error.code, "made 0 of 3 Pods" in error.message) == (Code.SERVICE_UNAVAILABLE, True)
    assert jobs_of(plane, assignment) == []


async def test_the_server_judges_the_manifest_without_making_it(plane: ControlPlane, make: Executor, assignment):
    manifest = job_manifest(
        assignment, make.jobs.settings, owner_uid=owner_of(plane), memory_bytes=1 << 30, device="cuda"
    )
    async with open_cluster(NAMESPACE, plane.kubeconfig(DISTILLER)) as cluster:
        assert await cluster.create_job(manifest, dry_run=True)
        assert jobs_of(plane, assignment) == []
        manifest["spec"]["completionMode"] = "Sideways"
        with pytest.raises(SettingsError, match="Sideways"):
            await cluster.create_job(manifest, dry_run=True)


async def test_made_twice_it_is_made_once(plane: ControlPlane, make: Executor, node: Node, assignment: Assignment):
    async with make.running(assignment) as first:
        pods = await started(node, assignment)
        async with make.running(assignment) as second:
            await asyncio.sleep(1)
            assert len(jobs_of(plane, assignment)) == 1
            for pod in pods:
                await asyncio.to_thread(node.ended, pod)
            async with asyncio.timeout(60):
                await asyncio.gather(first, second)
    assert len(jobs_of(plane, assignment)) == 1


async def test_whoever_gets_the_job_of_a_killed_worker_goes_on_with_its_processes(
    plane: ControlPlane, make: Executor, node: Node, assignment: Assignment
):
    assert await make.jobs.holder(assignment.job_id) is None
    manifest = job_manifest(
        assignment, make.jobs.settings, owner_uid=owner_of(plane), memory_bytes=1 << 30, device="cpu"
    )
    async with open_cluster(NAMESPACE, plane.kubeconfig(DISTILLER)) as cluster:
        await cluster.create_job(manifest)  # and then its worker is killed
    pods = await started(node, assignment)
    assert await make.jobs.holder(assignment.job_id) == assignment.holder
    uid = jobs_of(plane, assignment)[0]["metadata"]["uid"]
    async with make.running(assignment) as task:
        await asyncio.sleep(1)
        for pod in pods:
            await asyncio.to_thread(node.ended, pod)
        async with asyncio.timeout(60):
            await task
    assert [job["metadata"]["uid"] for job in jobs_of(plane, assignment)] == [uid]
    assert await make.jobs.holder(assignment.job_id) is None


async def test_what_another_delivery_left_behind_goes_first(
    plane: ControlPlane, make: Executor, node: Node, assignment: Assignment
):
    old = replace(assignment, holder=secrets.token_hex(16))
    async with open_cluster(NAMESPACE, plane.kubeconfig(DISTILLER)) as cluster:
        await cluster.create_job(
            job_manifest(old, make.jobs.settings, owner_uid=owner_of(plane), memory_bytes=1 << 30, device="cpu")
        )
    await asyncio.to_thread(node.pods, 3, selector(old.job_id, old.holder))
    async with make.running(assignment):
        await started(node, assignment)
        assert [job["metadata"]["name"] for job in jobs_of(plane, assignment)] == [job_name(assignment)]
        assert await asyncio.to_thread(node.pods, 0, selector(old.job_id, old.holder)) == []


async def test_cancelled_its_pods_are_gone_when_it_returns(
    plane: ControlPlane, make: Executor, node: Node, assignment: Assignment
):
    async with make.running(assignment) as task:
        await started(node, assignment)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        _, left = plane.call("GET", f"{node.path}?labelSelector={selector(assignment.job_id)}")
        assert left["items"] == []
        assert jobs_of(plane, assignment) == []


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ({"exit_code": 137, "reason": "OOMKilled"}, Code.TRAINING_BUDGET, "process 1 of the job took more memory"),
        ({"exit_code": 1, "message": "no JSON"}, Code.TRAINING_KILLED, "process 1 of the job ended with status 1"),
        (
            {"exit_code": 1, "message": last_words(TrainingError(Code.TRAINING_DIVERGED, "no number")).decode()},
            *(Code.TRAINING_DIVERGED, "no number"),
        ),
    ],
    ids=["memory", "silent", "words"],
)
async def test_how_a_process_ended_is_how_the_job_ends(
    plane: ControlPlane, make: Executor, node: Node, assignment: Assignment, how: dict, code: Code, words: str
):
    async with make.running(assignment) as task:
        pods = await started(node, assignment)
        await asyncio.to_thread(node.ended, pods[1], **how)
        error = await failure(task)
    assert error.code is code
    assert words in error.message
    (kept,) = jobs_of(plane, assignment)
    assert kept["status"]["failed"] >= 1


async def test_an_evicted_process_is_tried_again(make: Executor, node: Node, assignment: Assignment):
    async with make.running(assignment) as task:
        pods = await started(node, assignment)
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        await asyncio.to_thread(
            node.status, pods[2], phase="Failed", conditions=[{**condition, "lastTransitionTime": now}]
        )
        error = await failure(task)
    assert error.code is Code.TRAINING_KILLED
    assert "process 2 of the job had to leave its node" in error.message


async def test_a_job_past_its_deadline_has_used_up_its_budget(make: Executor, node: Node, assignment: Assignment):
    async with make.running(replace(assignment, time_left=timedelta(seconds=2))) as task:
        await started(node, assignment)
        error = await failure(task)
    assert error.code is Code.TRAINING_BUDGET


async def test_an_image_that_is_none_is_told_at_once_and_nothing_stays(
    plane: ControlPlane, make: Executor, node: Node, assignment: Assignment
):
    async with make.running(assignment) as task:
        pods = await started(node, assignment)
        state = {"waiting": {"reason": "InvalidImageName", "message": "x"}}
        known = {"name": "process", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        await asyncio.to_thread(node.status, pods[0], phase="Pending", containerStatuses=[{**known, "state": state}])
        error = await failure(task)
    assert error.code is Code.SETTING_INVALID
    assert jobs_of(plane, assignment) == []


async def test_processes_that_find_no_node_are_given_up_in_time(
    plane: ControlPlane, make: Executor, assignment: Assignment
):
    hasty = replace(make.jobs, settings=replace(make.jobs.settings, start_within=timedelta(seconds=1)))
    node, labels = Node(plane, NAMESPACE), selector(assignment.job_id)
    task = asyncio.create_task(hasty.run(assignment, make.heard))
    for pod in await asyncio.to_thread(node.pods, 3, labels):
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/0 nodes"}
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        await asyncio.to_thread(node.status, pod, conditions=[{**condition, "lastTransitionTime": at}])
    error = await failure(task)
    assert (error.code, "0/0 nodes" in error.message) == (Code.SERVICE_UNAVAILABLE, True)
    assert jobs_of(plane, assignment) == []


async def test_a_job_that_somebody_deletes_is_tried_again(
    plane: ControlPlane, make: Executor, node: Node, assignment: Assignment
):
    async with make.running(assignment) as task:
        await started(node, assignment)
        await asyncio.to_thread(plane.call, "DELETE", f"{JOBS}/{job_name(assignment)}?propagationPolicy=Background")
        error = await failure(task)
    assert error.code is Code.TRAINING_KILLED


async def test_an_api_server_that_is_killed_is_waited_for_and_its_forgotten_versions_do_no_harm(
    plane: ControlPlane, make: Executor, node: Node, assignment: Assignment
):
    async with make.running(assignment) as task:
        pods = await started(node, assignment)
        async with open_cluster(NAMESPACE, plane.kubeconfig(DISTILLER)) as cluster:
            _, version = await cluster.pods(selector(assignment.job_id))
        await asyncio.to_thread(plane.kill_program, "kube-apiserver")
        await asyncio.sleep(3)
        assert not task.done()
        await asyncio.to_thread(plane.start_program, "kube-apiserver")
        for pod in pods:
            await asyncio.to_thread(node.ended, pod)
        async with asyncio.timeout(60):
            await task
    async with open_cluster(NAMESPACE, plane.kubeconfig(DISTILLER)) as cluster:
        begun = time.monotonic()
        await cluster.pods_changed(selector(assignment.job_id), version, timedelta(seconds=5))
        await cluster.pods_changed(selector(assignment.job_id), "1", timedelta(seconds=5))
        assert time.monotonic() - begun < 20


async def test_an_api_server_that_stays_away_is_told(
    plane: ControlPlane, make: Executor, assignment: Assignment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(kubernetes_jobs, "START_PATIENCE", timedelta(seconds=1))
    monkeypatch.setattr(kubernetes_jobs, "GONE_WITHIN", timedelta(seconds=1))
    text = plane.kubeconfig(DISTILLER).read_text().replace(str(plane.port), "1")
    (tmp_path / "nobody").write_text(text)
    away = replace(make.jobs, settings=replace(make.jobs.settings, kubeconfig=tmp_path / "nobody"))
    error = await failure(asyncio.create_task(away.run(assignment, make.heard)))
    assert error.code is Code.SERVICE_UNAVAILABLE
    with pytest.raises(TutelageError) as caught:
        await away.holder(assignment.job_id)
    assert caught.value.code is Code.SERVICE_UNAVAILABLE


@pytest.mark.parametrize("who", [NOBODY, "stranger"])
async def test_a_lack_of_rights_is_a_setting(
    plane: ControlPlane, make: Executor, assignment: Assignment, monkeypatch: pytest.MonkeyPatch, who: str
):
    monkeypatch.setattr(kubernetes_jobs, "REFUSAL_PATIENCE", timedelta(seconds=1))
    monkeypatch.setattr(kubernetes_jobs, "GONE_WITHIN", timedelta(days=1))  # nothing was made, nothing is waited for
    settings = replace(make.jobs.settings, kubeconfig=plane.kubeconfig(who))
    error = await failure(asyncio.create_task(replace(make.jobs, settings=settings).run(assignment, make.heard)))
    assert error.code is Code.SETTING_INVALID


async def test_a_quota_that_is_used_up_may_pass(plane: ControlPlane, make: Executor, assignment: Assignment):
    path = f"/api/v1/namespaces/{NAMESPACE}/resourcequotas"
    await asyncio.to_thread(plane.make, path, {"metadata": {"name": "q"}, "spec": {"hard": {"count/jobs.batch": "0"}}})
    await asyncio.sleep(1)
    manifest = job_manifest(
        assignment, make.jobs.settings, owner_uid=owner_of(plane), memory_bytes=1 << 30, device="cpu"
    )
    try:
        async with open_cluster(NAMESPACE, plane.kubeconfig(ADMIN)) as cluster:
            with pytest.raises(TutelageError) as caught:
                await cluster.create_job(manifest)
    finally:
        await asyncio.to_thread(plane.call, "DELETE", f"{path}/q")
    assert caught.value.code is Code.SERVICE_UNAVAILABLE


async def test_without_a_cluster_there_are_no_jobs_of_one(assignment: Assignment, tmp_path: Path):
    for kubeconfig in (None, tmp_path / "absent"):
        with pytest.raises(SettingsError, match="cluster of jobs is not known"):
            async with open_cluster(NAMESPACE, kubeconfig):
                pass


async def test_jobs_go_with_the_config_map_of_their_service(
    make: Executor, plane: ControlPlane, node: Node, assignment: Assignment
):
    async with make.running(assignment):
        await started(node, assignment)
        plane.call("DELETE", f"{CONFIG_MAPS}/student-distiller")
        try:
            async with asyncio.timeout(60):
                while any("deletionTimestamp" not in job["metadata"] for job in jobs_of(plane, assignment)):
                    await asyncio.sleep(0.2)
        finally:
            plane.make(CONFIG_MAPS, {"metadata": {"name": "student-distiller"}, "data": {}})


async def test_without_that_config_map_the_service_is_not_set_up(
    make: Executor, plane: ControlPlane, assignment: Assignment, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(kubernetes_jobs, "REFUSAL_PATIENCE", timedelta(seconds=1))
    plane.call("DELETE", f"{CONFIG_MAPS}/student-distiller")
    try:
        async with make.running(assignment) as task:
            assert (await failure(task)).code is Code.SETTING_INVALID
    finally:
        plane.make(CONFIG_MAPS, {"metadata": {"name": "student-distiller"}, "data": {}})
    assert jobs_of(plane, assignment) == []
