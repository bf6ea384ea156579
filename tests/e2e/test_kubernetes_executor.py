"""Jobs of a cluster against a real API server and its controllers: made, watched, taken over, ended.

Skipped where the programs of `control_plane` are not installed.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cluster_executor import (
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
from control_plane import DISTILLER, ControlPlane, Node, missing_programs

pytest.importorskip("kubernetes")


from student_distiller.executors import Assignment, StepReport
from student_distiller.job_reports import ReportSender
from student_distiller.kubernetes_api import open_cluster
from student_distiller.kubernetes_manifest import job_manifest, job_name, selector
from student_distiller.kubernetes_verdict import last_words
from tutelage.errors import Code, SettingsError, TrainingError

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {', '.join(missing_programs())}")


__all__ = ["assignment", "make", "node", "plane"]


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
