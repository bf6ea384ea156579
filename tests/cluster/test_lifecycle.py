"""A release through its life: upgraded and taken back while it is used, taken away, and installed on what it left."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from account_rights import allowed, may
from cluster_jobs import FINAL, STATE, drawn_fingers, pushed, spec, working
from helm_release import BRISK, CHART, NAME, Release
from kube import Namespace, namespace, until
from kubernetes import client
from steady_caller import steady_caller

from device_sim.public import Public
from device_sim.sensor import Condition
from tutelage.api.device.v1 import device_pb2 as device_pb
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceStub
from tutelage.api.distiller.v1 import distiller_pb2
from tutelage.api.registry.v1 import registry_pb2
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.captures import encode_png

pytestmark = pytest.mark.timeout(1200)

SECONDS = 30
REPLACED_S = 600
"""Devices are replaced one after the other, and a busy machine takes minutes for each."""
OLD_TAG, OLD_VERSION = "previous", "0.0.9"
ROLLED = ("model-registry", "teacher-inference", "student-distiller", "device-sim")
"""Images that an upgrade of this release replaces."""
PROGRAMS = (
    "model-registry",
    "teacher-inference",
    "label-worker",
    "student-distiller",
    "distiller-worker",
    "device-sim",
)
DEVICES = (f"{NAME}-device-0", f"{NAME}-device-1")
VOLUMES = [f"data-{NAME}-minio-0", f"data-{NAME}-redis-0", *(f"device-{name}" for name in DEVICES)]
WORKER = f"{NAME}-distiller-worker"
SAVED = "saved-keys"
VALUES = {
    **BRISK,
    "modelRegistry": {**BRISK["modelRegistry"], "autoscaling": {"enabled": True, "maxReplicas": 1}},
    "distillerWorker": {
        **BRISK["distillerWorker"],
        "executor": "kubernetes",
        "processCpu": 0.1,
        "memoryBytes": 1 << 30,
        "scratchBytes": 256 << 20,
    },
}
PUBLIC = Public(persons=2, seed=77)
CAPTURE = encode_png(PUBLIC.capture(0, 50, Condition()))


@dataclass(frozen=True)
class Life:
    """A release that begins with an older chart and older images, and what its jobs learn from."""

    now: Release
    """Of the chart and the images of today."""
    data: Path
    tag: str
    """Of today's images."""

    @property
    def image(self) -> str:
        """Has everything that a client needs."""
        return f"tutelage/device-sim:{self.tag}"

    @property
    def place(self) -> Namespace:
        return self.now.namespace

    def tags(self) -> set[str]:
        """Of the images that all Pods of our programs run, but for those on their way out."""
        pods = [pod for part in PROGRAMS for pod in self.place.pods(part)]
        return {c.image.rpartition(":")[2] for pod in pods for c in pod.spec.containers}


@pytest.fixture(scope="module")
def previous(cluster: str, request: pytest.FixtureRequest) -> str:
    """Tag of images that are today's under an older name, once the cluster has them."""
    loader = request.config.getoption("--image-loader")
    if loader:
        if shutil.which("docker") is None:
            pytest.fail("docker gives images the tag of an older release")
        names = [f"tutelage/{name}" for name in ROLLED]
        for name in names:
            subprocess.run(["docker", "tag", f"{name}:{cluster}", f"{name}:{OLD_TAG}"], check=True)
        olds = [f"{name}:{OLD_TAG}" for name in names]
        subprocess.run([*shlex.split(loader), *olds], check=True, stdout=subprocess.DEVNULL)
    return OLD_TAG


@pytest.fixture(scope="module")
def life(cluster: str, previous: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """A release of the chart before this one, with two devices."""
    old = tmp_path_factory.mktemp("older") / "tutelage"
    shutil.copytree(CHART, old)
    about = (old / "Chart.yaml").read_text()
    (old / "Chart.yaml").write_text(re.sub(r"(?m)^(version|appVersion): .*$", rf"\1: {OLD_VERSION}", about))
    data = drawn_fingers(tmp_path_factory.mktemp("captures"))
    with namespace("tutelage-lifecycle") as place:
        before = Release(place, previous, old)
        before.install(VALUES)
        yield Life(Release(place, cluster), data, cluster)


# What has to be the same afterwards


def secrets(place: Namespace) -> dict[str, Any]:
    """Keys, passwords, authority and certificates."""
    found = place.core.list_namespaced_secret(place.name, label_selector="app.kubernetes.io/name=tutelage").items
    return {secret.metadata.name: secret.data for secret in found}


async def versions(release: Release) -> list[str]:
    """Digests of all versions in the registry, the latest first."""
    async with release.calling(f"service/{NAME}-model-registry") as channel:
        answer = await ModelRegistryServiceStub(channel).ListVersions(
            registry_pb2.ListVersionsRequest(), timeout=SECONDS
        )
    return [version.digest for version in answer.versions]


async def enrol(release: Release) -> None:
    """Enrol everybody at each device."""
    for name in DEVICES:
        async with release.calling(name, 50_061) as channel:
            device = DeviceServiceStub(channel)
            for place, person in enumerate(PUBLIC.names):
                captures = [encode_png(capture) for capture in PUBLIC.references(place, 3)]
                await device.Enrol(device_pb.EnrolRequest(person=person, captures=captures), timeout=SECONDS)


async def known(release: Release) -> dict[str, tuple[int, str]]:
    """How many persons each device knows, and whom it takes the capture for."""
    found = {}
    for name in DEVICES:
        async with release.calling(name, 50_061) as channel:
            device = DeviceServiceStub(channel)
            status = (await device.GetStatus(device_pb.GetStatusRequest(), timeout=SECONDS)).status
            seen = await device.Recognize(device_pb.RecognizeRequest(capture=CAPTURE), timeout=SECONDS)
            found[name] = status.persons, seen.recognition.person
    return found


EVERYBODY = dict.fromkeys(DEVICES, (len(PUBLIC.names), PUBLIC.names[0]))


# The life


async def test_an_upgrade_fails_no_call_and_loses_no_job_no_version_and_no_key(life: Life):
    await enrol(life.now)
    data_set, kept, made = pushed(life.now, life.data), secrets(life.place), await versions(life.now)
    assert made, "the first release of the fleet"
    with steady_caller(life.place, life.image, CAPTURE) as caller:
        async with working(life.now) as work:
            job = await work.submitted(spec(data_set, name="upgraded", version="v2", steps=200), "upgraded")
            await work.stepping(job.job_id)
        life.now.install(VALUES, seconds=REPLACED_S)
        told = caller.goes_on()
    assert told["failed"] == []
    assert life.tags() == {life.tag}
    assert secrets(life.place) == kept
    await nothing_is_lost(life, job.job_id, made)


async def nothing_is_lost(life: Life, job_id: str, made: list[str]) -> None:
    """The job ends well and becomes a version beside those that were `made`; every device knows everybody."""
    async with working(life.now) as work:
        job = await work.ended(job_id)
    assert job.progress.state == STATE.JOB_STATE_SUCCEEDED, job
    assert await known(life.now) == EVERYBODY
    assert set(await listed(life.now, job.result.digest)) == {*made, job.result.digest}


async def listed(release: Release, digest: str) -> list[str]:
    """All versions, once the registry has made one of a job's result."""
    async with asyncio.timeout(90):
        while digest not in (found := await versions(release)):
            await asyncio.sleep(1)
    return found


def test_a_worker_may_do_what_its_role_says_and_nothing_else(life: Life):
    assert allowed(life.place, WORKER) == {
        *(f"{verb} batch/jobs" for verb in ("create", "get", "list", "delete")),
        *(f"{verb} /pods" for verb in ("list", "watch")),
    }
    assert may(life.place, WORKER, "get", "configmaps", name=WORKER)
    assert not may(life.place, WORKER, "get", "configmaps", name=f"{NAME}-model-registry")
    assert not may(life.place, WORKER, "update", "configmaps", name=WORKER)
    with namespace("tutelage-elsewhere") as elsewhere:
        assert allowed(life.place, WORKER, elsewhere) == set()


def test_the_number_of_registries_follows_their_processor_time(life: Life):
    api = client.AutoscalingV2Api()

    def measured() -> bool:
        found = api.read_namespaced_horizontal_pod_autoscaler(f"{NAME}-model-registry", life.place.name)
        metrics = [m.resource.current for m in found.status.current_metrics or () if m.resource]  # at first of no kind
        return any(current.average_utilization is not None for current in metrics)

    assert until(measured, 120, "the autoscaler knows the processor time of registries")


async def test_going_back_fails_no_call_and_loses_no_job_no_version_and_no_key(life: Life):
    kept, made = secrets(life.place), await versions(life.now)
    data_set = pushed(life.now, life.data)
    with steady_caller(life.place, life.image, CAPTURE) as caller:
        async with working(life.now) as work:
            job = await work.submitted(spec(data_set, name="taken-back", version="v3", steps=200), "taken-back")
            await work.stepping(job.job_id)
        life.now.helm("rollback", NAME, "--wait", "--timeout", f"{REPLACED_S}s", seconds=REPLACED_S + 30)
        told = caller.goes_on()
    assert told["failed"] == []
    assert life.tags() == {OLD_TAG}
    assert secrets(life.place) == kept
    await nothing_is_lost(life, job.job_id, made)


async def test_uninstalling_ends_a_job_under_way_and_leaves_the_volumes_and_the_saved_keys(life: Life):
    keys = life.place.core.read_namespaced_secret(f"{NAME}-keys", life.place.name).data
    life.place.core.create_namespaced_secret(life.place.name, {"metadata": {"name": SAVED}, "data": keys})
    data_set = pushed(life.now, life.data)
    async with working(life.now) as work:
        job = await work.submitted(spec(data_set, name="left", version="v4", steps=300), "left")
        await work.stepping(job.job_id)
        assert job.progress.state not in FINAL
    assert life.place.pods("distillation")
    life.now.uninstall()
    expected = sorted([*(f"PersistentVolumeClaim {name}" for name in VOLUMES), f"Secret {SAVED}"])
    until(lambda: life.place.left() == expected, 120, f"only {expected} are left, not {life.place.left()}")


async def test_installing_again_on_the_volumes_with_the_saved_keys_finds_everything(life: Life):
    life.now.install({**VALUES, "keys": {"existingSecret": SAVED}})
    assert await known(life.now) == EVERYBODY
    async with working(life.now) as work:
        asked = distiller_pb2.ListJobsRequest(name="left")
        (job,) = (await work.stub.ListJobs(asked, timeout=SECONDS)).jobs
        job = await work.ended(job.job_id, 400)
    assert job.progress.state == STATE.JOB_STATE_SUCCEEDED, job
    assert len(await listed(life.now, job.result.digest)) == 4
