"""The executor `kubernetes`: the processes of a job as an Indexed Job of the cluster.

What the Job looks like is `student_distiller.kubernetes_manifest`, what its end means `student_distiller.
kubernetes_verdict`. Progress comes through Redis (`student_distiller.job_reports`): the process that leads tells it by
itself. The executor watches only life and death.

A worker that is killed leaves its Job behind. Whoever is given the job next finds it (`holder`), goes on under the name
of the delivery that made it, and watches it to its end: the training never noticed. Jobs that nobody took over end by
themselves at their deadline.

The service account of the distiller needs these rights in the namespace of the jobs, and no others:

    apiVersion: rbac.authorization.k8s.io/v1
    kind: Role
    metadata: {name: student-distiller}
    rules:
      - {apiGroups: [batch], resources: [jobs], verbs: [create, get, list, delete]}
      - {apiGroups: [""], resources: [pods], verbs: [list, watch]}
      - {apiGroups: [""], resources: [configmaps], resourceNames: [student-distiller], verbs: [get]}  # it owns the Jobs
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog

from student_distiller.executors import STOP_GRACE, Assignment, Heard
from student_distiller.job_reports import ReportBox
from student_distiller.kubernetes_api import Cluster, open_cluster
from student_distiller.kubernetes_manifest import (
    LABEL_HOLDER,
    KubernetesSettings,
    job_manifest,
    job_name,
    selector,
)
from student_distiller.kubernetes_verdict import Verdict, has_ended, verdict
from tutelage.errors import ServiceError, SettingsError

__all__ = ["KubernetesJobs"]

LOOK_EVERY = timedelta(seconds=10)
"""How often a job is looked at although nothing was heard of its Pods: a watch may have been cut off."""

SETTLE = timedelta(seconds=1)
"""The same while no Pod is at work: the Job's next step, or its own word on its end, follows within moments."""

AWAY_PAUSE = timedelta(seconds=2)
"""Between two questions while the API server is away; the job goes on meanwhile."""

START_PATIENCE = timedelta(minutes=1)
"""How long an API server that is away is asked to make a Job; then the queue tries again later."""

REFUSAL_PATIENCE = timedelta(seconds=30)
"""How long a refusal is not believed: an API server that has just started refuses everybody until it has read who may
do what."""

GONE_WITHIN = STOP_GRACE + timedelta(seconds=7)
"""How long the end of a Job is waited for: the grace of its processes and what nodes need to act on it. Nobody renews
the claim meanwhile, so it stays below half a lease."""


T = TypeVar("T")


@dataclass(frozen=True)
class KubernetesJobs:
    """An `Executor` on a cluster."""

    settings: KubernetesSettings
    reports: ReportBox
    """Where processes leave what they report."""
    memory_bytes: int
    """Resident memory of each process where a job asks for no other limit."""
    device: str
    """`cuda` gives each process a GPU."""

    async def holder(self, job_id: str) -> str | None:
        """Under which delivery's name processes of the job still work; None where there are none to take over."""
        async with self._opened() as cluster:
            for job in await _persisting(lambda: cluster.jobs(selector(job_id)), START_PATIENCE):
                if not has_ended(job) and "deletionTimestamp" not in job["metadata"]:
                    return str(job["metadata"]["labels"][LABEL_HOLDER])
        return None

    async def run(self, assignment: Assignment, heard: Heard) -> None:
        """See `Executor.run`; a Job that is there already is watched to its end."""
        async with self._opened() as cluster:
            relaying = asyncio.ensure_future(self.reports.relay(assignment.holder, heard))
            try:
                await _persisting(lambda: self._started(cluster, assignment), START_PATIENCE)
                ended = await self._ended(cluster, assignment)
            except SettingsError:  # refused: nothing was made, or what was made may not be deleted either
                raise
            except BaseException:
                await _deleted(cluster, job_name(assignment))
                raise
            finally:
                await _cancelled(relaying)
            await self.reports.drain(assignment.holder, heard)
            if ended.error is not None:
                await _deleted(cluster, job_name(assignment), unless_ended=True)
                structlog.get_logger().warning(
                    "job of the cluster failed", job=assignment.job_id, code=ended.error.code
                )
                raise ended.error

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Cluster]:
        async with open_cluster(self.settings.namespace, self.settings.kubeconfig) as cluster:
            yield cluster

    async def _started(self, cluster: Cluster, assignment: Assignment) -> None:
        """Make the Job, unless it is there; what other deliveries left behind goes first."""
        for job in await cluster.jobs(selector(assignment.job_id)):
            name = str(job["metadata"]["name"])
            if name != job_name(assignment) and not has_ended(job):
                await _deleted(cluster, name)
        owner = await cluster.config_map(self.settings.config_map)
        manifest = job_manifest(
            assignment,
            self.settings,
            owner_uid=owner["metadata"]["uid"],
            memory_bytes=self.memory_bytes,
            device=self.device,
        )
        made = await cluster.create_job(manifest)
        structlog.get_logger().info("job of the cluster", job=assignment.job_id, made=made)

    async def _ended(self, cluster: Cluster, assignment: Assignment) -> Verdict:
        """How the Job ended, once it has; an API server that is away is waited for, since the job goes on."""
        while True:
            found = await _persisting(lambda: self._looked(cluster, assignment), timedelta.max)
            if found is not None:
                return found

    async def _looked(self, cluster: Cluster, assignment: Assignment) -> Verdict | None:
        """How the Job ended; None if it goes on, once it is worth another look."""
        labels, start_within = selector(assignment.job_id, assignment.holder), self.settings.start_within
        pods, version = await cluster.pods(labels)
        job = await cluster.find_job(job_name(assignment))
        found = verdict(job, pods, assignment.processes, start_within, datetime.now(UTC))
        if found is None:
            idle = all(pod["status"].get("phase") in ("Succeeded", "Failed") for pod in pods)
            await cluster.pods_changed(labels, version, SETTLE if idle else min(LOOK_EVERY, start_within))
        return found


async def _persisting(attempt: Callable[[], Awaitable[T]], patience: timedelta) -> T:
    """What `attempt` returns once the API server answers.

    One that stays away longer than `patience`, or refuses longer than `REFUSAL_PATIENCE`, is an error.
    """
    begun = time.monotonic()
    while True:
        try:
            return await attempt()
        except (ServiceError, SettingsError) as error:
            allowed = patience if isinstance(error, ServiceError) else REFUSAL_PATIENCE
            if time.monotonic() - begun > allowed.total_seconds():
                raise
            structlog.get_logger().warning("cluster away", reason=error.message)
        await asyncio.sleep(AWAY_PAUSE.total_seconds())


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Cancel `task` until it has ended: the Redis client loses a cancellation that comes while it connects or reads."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=SETTLE.total_seconds())


async def _deleted(cluster: Cluster, name: str, *, unless_ended: bool = False) -> None:
    """Delete a Job and wait until its Pods are gone; what cannot be seen to end within `GONE_WITHIN` is logged.

    Its processes cannot harm then: they are another delivery's, and the job's records refuse theirs.
    """
    until = time.monotonic() + GONE_WITHIN.total_seconds()
    while time.monotonic() < until:
        try:
            job = await cluster.find_job(name)
            if job is None or (unless_ended and has_ended(job)):
                return
            if "deletionTimestamp" not in job["metadata"]:
                await cluster.delete_job(name)
        except (ServiceError, SettingsError) as error:
            structlog.get_logger().warning("job cannot be deleted yet", name=name, reason=error.message)
        await asyncio.sleep(SETTLE.total_seconds() / 2)
    structlog.get_logger().warning("job was not seen to end", name=name)
