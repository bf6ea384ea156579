"""Distillation jobs on a cluster, from a pushed data set to the version that the whole fleet runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_jobs import STATE, drawn_fingers, pushed, spec, versions, working
from device_node import status, until
from helm_release import NAME, Release

from device_sim.public import Public
from tutelage.api.device.v1 import device_pb2 as pb
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceStub
from tutelage.api.registry.v1 import registry_pb2
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.captures import encode_png
from tutelage.errors import Code, TutelageError

SECONDS = 30
DEVICES = (f"{NAME}-device-0", f"{NAME}-device-1")
PORT = 50_061
REGISTRY = f"service/{NAME}-model-registry"
CHECK_IN_S = 120
"""Two check-ins and a download, with room for a slow machine."""


@pytest.fixture(scope="module")
def fingers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captures to learn from."""
    return drawn_fingers(tmp_path_factory.mktemp("captures"))


async def enrolled(device: DeviceServiceStub, public: Public) -> int:
    """Persons whom a device knows, once the `public` is among them."""
    for place, name in enumerate(public.names):
        captures = [encode_png(capture) for capture in public.references(place, 3)]
        await device.Enrol(pb.EnrolRequest(person=name, captures=captures), timeout=SECONDS)
    return (await status(device)).persons


async def pointed(registry: ModelRegistryServiceStub, digest: str, before: str) -> None:
    """Set the channel of the fleet, from where it is."""
    change = registry_pb2.SetChannelRequest(
        channel="stable", digest=digest, expected_digest=before, reason="distilled from captures of this fleet"
    )
    await registry.SetChannel(change, timeout=SECONDS)


async def running(release: Release, device: str, digest: str) -> pb.DeviceStatus:
    """How a device stands once it runs the version of that digest."""
    async with release.calling(device, PORT) as channel:
        stub = DeviceServiceStub(channel)
        return await until(lambda now: now.student.digest == digest, lambda: status(stub), CHECK_IN_S)


async def test_a_job_becomes_a_version_that_both_devices_run_with_everybody_enrolled(release: Release, fingers: Path):
    data_set, public, known = pushed(release, fingers), Public(seed=9, site=7, persons=3), {}
    for device in DEVICES:
        async with release.calling(device, PORT) as channel:
            known[device] = await enrolled(DeviceServiceStub(channel), public)
    async with release.calling(REGISTRY) as channel:
        registry = ModelRegistryServiceStub(channel)
        asked = registry_pb2.GetChannelRequest(channel="stable")
        first = (await registry.GetChannel(asked, timeout=SECONDS)).channel.version.digest
        async with working(release) as work:
            wanted = spec(data_set, name="fingers", version="v2", steps=12, parent=first)
            job = await work.submitted(wanted, "fleet")
            told = await work.watched(job.job_id)
            job = await work.job(job.job_id)
        assert job.progress.state == STATE.JOB_STATE_SUCCEEDED, job
        steps = [answer.progress.step for answer in told]
        assert (steps, steps[-1]) == (sorted(steps), 12)
        assert any(answer.progress.losses.get("loss", 0) > 0 for answer in told)
        (made,) = await versions(release, "fingers")
        assert (made.digest, made.version, made.lineage.job_id) == (job.result.digest, "v2", job.job_id)
        await pointed(registry, made.digest, first)
    for device in DEVICES:
        now = await running(release, device, made.digest)
        assert (now.student.generation, now.persons) == ("v2", known[device])


async def test_the_account_of_a_device_cannot_set_the_channel(release: Release):
    async with release.calling(REGISTRY, who="device-sim") as channel:
        registry = ModelRegistryServiceStub(channel)
        asked = registry_pb2.GetChannelRequest(channel="stable")
        first = (await registry.GetChannel(asked, timeout=SECONDS)).channel
        with pytest.raises(TutelageError) as refused:
            await pointed(registry, first.version.digest, first.version.digest)
        assert refused.value.code is Code.CALLER_REFUSED
        assert (await registry.GetChannel(asked, timeout=SECONDS)).channel == first
