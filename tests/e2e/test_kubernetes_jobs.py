"""Jobs of a cluster from SubmitJob to the package: real gRPC, control plane, Redis and S3; Pods are processes here.

Skipped where the programs of `control_plane` are not installed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from control_plane import DISTILLER, USER, ControlPlane, missing_programs
from distiller import STATE, Distiller, Keys, StudentDistillerServiceStub, cloud, distilling, spec
from process_node import ProcessNode
from prometheus_client import CollectorRegistry
from served_part import servers
from service_process import ServiceProcess, running
from torch_teacher import serving_teacher, write_teacher

pytest.importorskip("kubernetes")

import yaml

from student_distiller import kubernetes_jobs
from student_distiller.kubernetes_manifest import PORT, SCRATCH_FOLDER, SECRET_FOLDER, KubernetesSettings, selector
from student_distiller.service import ExecutorKind
from tutelage.nn.teachers import ResidualTeacher
from tutelage.package import read_package
from tutelage.signing import read_public_key
from tutelage.stored_packages import find_package
from tutelage.stores import StoresSettings, open_stores

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {', '.join(missing_programs())}")

NAMESPACE = "jobs"
SECRETS = f"{SECRET_FOLDER}/student-distiller"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path_factory.mktemp("plane"))
    try:
        plane.start()
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        plane.make("/api/v1/namespaces", {"metadata": {"name": NAMESPACE, "labels": labels}})
        plane.grant(NAMESPACE, USER, yaml.safe_load(kubernetes_jobs.__doc__.split("no others:\n")[1])["rules"])
        yield plane
    finally:
        plane.stop()


@pytest.fixture
def places(redis_server, minio_server) -> StoresSettings:
    return servers(redis_server, minio_server)


def variables(places: StoresSettings) -> dict[str, str]:
    """Entries of the ConfigMap, as a chart would write them."""
    stores, keys = "TUTELAGE_STORES_", "TUTELAGE_DISTILLER_"
    return {
        f"{stores}REDIS_ADDRESS": str(places.redis.address),
        f"{stores}REDIS_TLS": "false",
        f"{stores}OBJECTS_ADDRESS": str(places.objects.address),
        f"{stores}OBJECTS_BUCKET": places.objects.bucket,
        f"{stores}OBJECTS_TLS": "false",
        f"{stores}OBJECTS_ACCESS_KEY_FILE": f"{SECRETS}/access",
        f"{stores}OBJECTS_SECRET_KEY_FILE": f"{SECRETS}/secret",
        f"{keys}SIGNER_FILE": f"{SECRETS}/signer.pem",
        f"{keys}SEAL_KEY_FILE": f"{SECRETS}/seal.key",
        f"{keys}DATA_KEY_FILE": f"{SECRETS}/data.key",
        f"{keys}DEVICE": "cpu",
    }


@contextmanager
def node(plane: ControlPlane, folder: Path, places: StoresSettings) -> Iterator[ProcessNode]:
    """A node whose Pods find the keys in `folder`, and each other on this machine."""
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    plane.call("DELETE", f"{path}/student-distiller")
    plane.make(path, {"metadata": {"name": "student-distiller"}, "data": variables(places)})
    for name, value in (("access", "tester"), ("secret", "tester-secret")):
        (folder / name).write_text(value)
    (folder / "scratch").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    known = {
        SECRETS: folder,
        SCRATCH_FOLDER: folder / "scratch",
        f"master-port={PORT}": f"master-port={port}",
    }
    with ProcessNode(plane, NAMESPACE, folder, known) as machine:
        yield machine


def cluster(plane: ControlPlane) -> dict[str, Any]:
    settings = KubernetesSettings(NAMESPACE, "distiller:1", plane.kubeconfig(DISTILLER))
    return {"executor": ExecutorKind.KUBERNETES, "kubernetes": settings}


def pods(plane: ControlPlane, job_id: str) -> list[str]:
    """Names of the Pods that are there for a job."""
    _, found = plane.call("GET", f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={selector(job_id)}")
    return [pod["metadata"]["name"] for pod in found["items"]]


async def test_two_pods_under_torchrun_make_one_package(plane: ControlPlane, places: StoresSettings, tmp_path: Path):
    async with distilling(tmp_path, places, **cluster(plane)) as distiller:
        with node(plane, tmp_path, places) as machine:
            data_set = distiller.push(cloud(tmp_path / "cloud"))
            wanted = spec(data_set, steps=12)
            wanted.budget.processes = 2
            job = await distiller.submit(wanted)
            watched = [answer async for answer in distiller.watched(job.job_id)]
            job = await distiller.get(job.job_id)
            logs = [one.log.read_text()[-1500:] for one in machine.running.values()]
            assert job.progress.state == STATE.JOB_STATE_SUCCEEDED, (job, logs)
            assert len(machine.started) == 2
            assert sorted(word for words in machine.commands for word in words if "node-rank" in word) == [
                *("--node-rank=0", "--node-rank=1")
            ]
        steps = [answer.progress.step for answer in watched]
        assert steps == sorted(steps)
        assert {answer.progress.losses["loss"] > 0 for answer in watched if answer.progress.losses} == {True}
        assert {row.readout for row in job.progress.metrics} >= {"exit1", "fused"}
        stored = find_package(distiller.stores.objects, job.result.digest)
        package = read_package(
            b"".join(distiller.stores.objects.read(stored.key)), trusted=[read_public_key(distiller.keys.public)]
        )
        assert (package.digest, package.info.name) == (job.result.digest, "thumbs")


async def test_a_killed_process_costs_a_delivery_and_a_cancelled_job_leaves_nothing(
    plane: ControlPlane, places: StoresSettings, tmp_path: Path
):
    async with distilling(tmp_path, places, **cluster(plane)) as distiller:
        with node(plane, tmp_path, places) as machine:
            data_set = distiller.push(cloud(tmp_path / "cloud"))
            job = await distiller.submit(spec(data_set, steps=100_000), key="another")
            await distiller.until(job.job_id, lambda job: job.progress.step > 1)
            (first,) = machine.started
            machine.kill(first)
            await distiller.until(job.job_id, lambda job: job.deliveries == 2 and len(machine.started) == 2)
            await distiller.until(job.job_id, lambda job: job.progress.state == STATE.JOB_STATE_RUNNING)
            await distiller.until(job.job_id, lambda job: job.progress.step > 1)
            await distiller.cancel(job.job_id)
            job = await distiller.ended(job.job_id)
            assert (job.progress.state, job.deliveries) == (STATE.JOB_STATE_CANCELLED, 2)
            async with asyncio.timeout(60):  # the worker hears of it, deletes the Job, and the control plane its Pod
                while await asyncio.to_thread(pods, plane, job.job_id) != [first]:  # one that failed can be looked at
                    await asyncio.sleep(0.2)
                while any(one.process.poll() is None for one in machine.running.values()):
                    await asyncio.sleep(0.2)


@asynccontextmanager
async def distiller_process(
    plane: ControlPlane, places: StoresSettings, folder: Path
) -> AsyncIterator[tuple[Distiller, ServiceProcess]]:
    """A distiller as a process of its own, which a test kills, and what a test has of one."""
    here = {name: value.replace(SECRETS, str(folder)) for name, value in variables(places).items()}
    keys = Keys(folder)
    teacher = ResidualTeacher.load(write_teacher(folder / "teacher.safetensors"))
    async with serving_teacher(teacher) as (servicer, address), open_stores(places) as stores:
        await asyncio.to_thread(stores.objects.ensure_bucket)
        prefix = "TUTELAGE_DISTILLER_"
        own = {
            f"{prefix}TEACHER_ADDRESS": str(address),
            f"{prefix}LEASE": "2",
            f"{prefix}EXECUTOR": "kubernetes",
            f"{prefix}KUBERNETES_NAMESPACE": NAMESPACE,
            f"{prefix}KUBERNETES_IMAGE": "distiller:1",
            f"{prefix}KUBERNETES_KUBECONFIG": str(plane.kubeconfig(DISTILLER)),
        }
        async with running("student_distiller", {**here, **own}, folder) as process, process.channel as channel:
            yield Distiller(stores, servicer, keys, address, CollectorRegistry(), channel), process


async def test_a_killed_service_costs_its_job_not_a_single_step(
    plane: ControlPlane, places: StoresSettings, tmp_path: Path
):
    with node(plane, tmp_path, places) as machine:
        async with distiller_process(plane, places, tmp_path) as (distiller, process):
            data_set = distiller.push(cloud(tmp_path / "cloud"))
            job = await distiller.submit(spec(data_set, steps=150), key="outlives")
            await distiller.until(job.job_id, lambda job: job.progress.step > 1)
            process.kill()
            (pod,) = machine.started
            assert machine.running[pod].process.poll() is None
            await process.start()
            async with process.channel as channel:
                distiller.stub = StudentDistillerServiceStub(channel)
                job = await distiller.ended(job.job_id)
            assert job.progress.state == STATE.JOB_STATE_SUCCEEDED, (job, process.log.read_text()[-3000:])
            assert job.deliveries == 2
            assert machine.started == [pod], "no other process was needed"
