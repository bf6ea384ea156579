"""Jobs whose processes are Pods of an Indexed Job: two share a training, one is killed, one training is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_jobs import STATE, Work, drawn_fingers, pushed, spec, versions, working
from helm_release import BRISK, Release
from kube import Namespace, namespace
from kube import until as soon

VALUES = {
    **BRISK,
    "firstRelease": {"enabled": False},
    "devices": {"replicas": 0},
    "distillerWorker": {
        **BRISK["distillerWorker"],
        "executor": "kubernetes",
        "processCpu": 0.1,
        "memoryBytes": 1 << 30,
        "scratchBytes": 256 << 20,
    },
}
"""Pods of jobs ask for little, so that two of them find room."""
COMPONENT = "distillation"


@pytest.fixture(scope="module")
def yard(cluster: str) -> Iterator[Release]:
    with namespace("tutelage-executor") as place:
        release = Release(place, cluster)
        release.install(VALUES)
        yield release


@pytest.fixture(scope="module")
def data_set(yard: Release, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("captures")
    return pushed(yard, drawn_fingers(folder))


def shared(data_set: str, name: str, steps: int) -> Any:
    """A job of two processes."""
    wanted = spec(data_set, name=name, version="v1", steps=steps)
    wanted.budget.processes = 2
    return wanted


async def at_work(work: Work, place: Namespace, job_id: str) -> list[str]:
    """Names of the two Pods of a job that has made some steps."""
    await work.stepping(job_id, beyond=5)
    pods = [pod.metadata.name for pod in place.pods(COMPONENT) if pod.status.phase == "Running"]
    assert len(pods) == 2
    return pods


def jobs(place: Namespace, job_id: str | None = None) -> list[Any]:
    """The Jobs of all jobs, or of one."""
    labels = f"app.kubernetes.io/component={COMPONENT}" if job_id is None else f"tutelage/job={job_id}"
    return list(place.batch.list_namespaced_job(place.name, label_selector=labels).items)


def goes_on(place: Namespace, before: set[str]) -> bool:
    """Whether a Pod that is none of those `before` says that it goes on from a checkpoint."""
    new = {pod.metadata.name for pod in place.pods(COMPONENT)} - before
    return any("job goes on from a checkpoint" in place.log(pod) for pod in new)


async def test_two_pods_share_a_training_and_go_on_from_the_checkpoint_after_one_was_killed(
    yard: Release, data_set: str
):
    place = yard.namespace
    async with working(yard) as work:
        job = await work.submitted(shared(data_set, "shared", 80), "shared")
        watching = asyncio.create_task(work.watched(job.job_id, 550))
        pods = await at_work(work, place, job.job_id)
        for pod in pods:
            assert "process of a job at work" in place.log(pod)
        (found,) = jobs(place, job.job_id)
        assert (found.spec.completion_mode, found.spec.completions) == ("Indexed", 2)
        await work.stepping(job.job_id, beyond=20)
        place.kill(pods[1])
        await asyncio.to_thread(soon, lambda: goes_on(place, set(pods)), 300, "a new Pod goes on from a checkpoint")
        await work.ended(job.job_id, 480)
        job = await work.job(job.job_id)
        told = await watching
    assert (job.progress.state, job.deliveries) == (STATE.JOB_STATE_SUCCEEDED, 2)
    assert any(answer.progress.losses.get("loss", 0) > 0 for answer in told)
    assert told[-1].progress.step == 80
    assert [made.digest for made in await versions(yard, "shared")] == [job.result.digest]
    both = jobs(place, job.job_id)
    assert sorted(found.status.succeeded or 0 for found in both) == [0, 2], "one failed, and can be looked at"
    assert all(found.spec.ttl_seconds_after_finished > 0 for found in both), "the cluster deletes them by itself"


async def test_a_cancelled_job_leaves_no_job_and_no_pod(yard: Release, data_set: str):
    place = yard.namespace
    async with working(yard) as work:
        job = await work.submitted(shared(data_set, "endless", 100_000), "endless")
        pods = await at_work(work, place, job.job_id)
        await work.cancelled(job.job_id, "not needed")
        job = await work.ended(job.job_id)
    assert job.progress.state == STATE.JOB_STATE_CANCELLED
    soon(lambda: not jobs(place, job.job_id), 300, "the Job is gone")
    soon(lambda: not set(pods) & {pod.metadata.name for pod in place.pods(COMPONENT)}, 120, "its Pods are gone")


def test_what_is_left_of_jobs_goes_with_the_release(yard: Release):
    yard.uninstall()
    soon(lambda: not jobs(yard.namespace), 60, "no Job is left")
    soon(lambda: not yard.namespace.pods(COMPONENT), 60, "no Pod is left")
