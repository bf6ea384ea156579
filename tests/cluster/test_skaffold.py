"""The developer's way: skaffold builds, installs, puts a changed source into a running Pod, and takes all away."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
import yaml
from developed_copy import DevelopedCopy
from helm_release import NAME, Release
from kube import Namespace, namespace, until
from source_tree import ROOT

from device_sim.public import Public
from device_sim.sensor import Condition
from tutelage.api.device.v1 import device_pb2 as pb
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceStub
from tutelage.api.registry.v1 import registry_pb2 as registry
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.captures import encode_png
from tutelage.channel import Channel, ChannelSettings
from tutelage.settings import Address

DEVICES = 3
BUILT_SECONDS = 1800
SECONDS = 60
PARTS = ("teacher-inference", "label-worker", "student-distiller", "distiller-worker", "model-registry")
SOURCE, SHOWN = "services/model-registry/model_registry/__init__.py", "put here by skaffold"


@pytest.fixture(scope="module")
def copy(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DevelopedCopy, Namespace]]:
    """A copy of the repository, and a namespace for what is made of it."""
    missing = [name for name in ("skaffold", "docker", "kind") if shutil.which(name) is None]
    context = subprocess.run(["kubectl", "config", "current-context"], capture_output=True, text=True, check=True)
    if missing or not context.stdout.startswith("kind-"):
        pytest.skip(f"not installed: {', '.join(missing)}" if missing else "the cluster is not kind's")
    with namespace(f"{NAME}-skaffold") as place:
        yield DevelopedCopy(tmp_path_factory.mktemp("copy"), place.name), place


@pytest.mark.timeout(BUILT_SECONDS)
async def test_run_builds_and_installs_what_recognises(copy: tuple[DevelopedCopy, Namespace]):
    project, place = copy
    project.skaffold("run")
    assert len(place.ready("device-sim")) == DEVICES
    assert {part: len(place.ready(part)) for part in PARTS} == dict.fromkeys(PARTS, 1)
    images = {pod.spec.containers[0].image for part in PARTS for pod in place.pods(part)}
    assert not [image for image in images if image.endswith(":dev")], "each image has a tag of its own"
    person = Public(persons=1)
    captures = [encode_png(capture) for capture in person.references(0, 3)]
    async with Release(place, "").calling(f"{NAME}-device-0", 50_061) as channel:
        device = DeviceServiceStub(channel)
        await device.Enrol(pb.EnrolRequest(person=person.names[0], captures=captures), timeout=SECONDS)
        probe = encode_png(person.capture(0, 77, Condition()))
        answer = await device.Recognize(pb.RecognizeRequest(capture=probe), timeout=SECONDS)
    assert answer.recognition.person == person.names[0]


async def test_dev_puts_a_changed_source_into_the_pod_that_runs(copy: tuple[DevelopedCopy, Namespace]):
    project, place = copy
    with project.developing() as skaffold:
        skaffold.says("Watching for changes", 600)
        port = int(skaffold.says(rf"{NAME}-model-registry.*127\.0\.0\.1:(\d+)", SECONDS)[1])
        before = place.uids("model-registry")
        with (project.folder / SOURCE).open("a") as source:
            source.write(f'\nprint("{SHOWN}", flush=True)\n')
        skaffold.says(r"Syncing \d+ files? for tutelage/model-registry", SECONDS)
        pod = place.pods("model-registry")[0].metadata.name
        until(lambda: "server started" in place.log(pod).partition(SHOWN)[2], 180, "the process started anew")
        place.wait_ready("model-registry")
        assert place.uids("model-registry") == before, "no other Pod"
        assert place.restarts() == {}, "nor another container"
        secured = ChannelSettings(Address("localhost", port), Release(place, "").certificate())
        async with Channel(secured) as channel:
            asked = registry.GetChannelRequest(channel="stable")
            assert (
                await ModelRegistryServiceStub(channel).GetChannel(asked, timeout=SECONDS)
            ).channel.channel == "stable"


def test_delete_leaves_the_volumes_and_their_keys(copy: tuple[DevelopedCopy, Namespace]):
    project, place = copy
    project.skaffold("delete")
    volumes = ["data-{}-minio-0", "data-{}-redis-0", *(f"device-{{}}-device-{number}" for number in range(DEVICES))]
    kept = [*(f"PersistentVolumeClaim {volume.format(NAME)}" for volume in volumes), f"Secret {NAME}-keys"]
    until(lambda: place.left() == kept, 180, "only volumes and their keys are left")


@pytest.mark.parametrize("profiles", ["kind", "full,-kind"])
@pytest.mark.parametrize(("variable", "expected"), [("", "tutelage"), ("elsewhere", "elsewhere")])
def test_a_profile_needs_no_variable_and_takes_the_one_that_is_set(profiles: str, variable: str, expected: str):
    if shutil.which("skaffold") is None:
        pytest.skip("skaffold is not installed")
    environment = {name: value for name, value in os.environ.items() if name != "TUTELAGE_NAMESPACE"}
    if variable:
        environment["TUTELAGE_NAMESPACE"] = variable
    words = ("render", "--profile", profiles, "--digest-source", "none", "--offline")
    done = subprocess.run(["skaffold", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    things = [thing for thing in yaml.safe_load_all(done.stdout) if isinstance(thing, dict)]
    (certificate,) = [thing for thing in things if thing["metadata"]["name"] == f"{NAME}-redis-tls"]
    assert f"{NAME}-redis.{expected}.svc," in certificate["metadata"]["annotations"]["tutelage/names"]
    assert ("- name: torchserve" in done.stdout) == (profiles != "kind")
