"""What a cluster refuses a job, takes from it, or does not answer: images, nodes, rights, quotas, an API server away.

Skipped where the programs of `control_plane` are not installed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cluster_executor import (
    CONFIG_MAPS,
    JOBS,
    NAMESPACE,
    Executor,
    assignment,
    failure,
    jobs_of,
    make,
    node,
    owner_of,
    plane,
    started,
)
from control_plane import ADMIN, DISTILLER, NOBODY, ControlPlane, Node, missing_programs

pytest.importorskip("kubernetes")


from student_distiller import kubernetes_jobs
from student_distiller.executors import Assignment
from student_distiller.kubernetes_api import open_cluster
from student_distiller.kubernetes_manifest import job_manifest, job_name, selector
from tutelage.errors import Code, SettingsError, TutelageError

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {', '.join(missing_programs())}")


__all__ = ["assignment", "make", "node", "plane"]


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
