"""From nothing to the first recognition: what `helm install` gives without a single value."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from helm_release import NAME, RefusedError, Release
from kube import Namespace, namespace, until

from device_sim.public import Public
from device_sim.sensor import Condition
from tutelage.api.device.v1 import device_pb2 as pb
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceStub
from tutelage.captures import encode_png

FIRST_RECOGNITION_S = 300
SECONDS = 30


@pytest.fixture(scope="module")
def nothing(cluster: str) -> Iterator[tuple[Namespace, Release]]:
    with namespace("tutelage-install") as place:
        yield place, Release(place, cluster)


async def test_the_defaults_are_ready_and_recognise_somebody_within_five_minutes(nothing: tuple[Namespace, Release]):
    place, release = nothing
    begin, person = time.monotonic(), Public(persons=1)
    said = release.install({}, seconds=FIRST_RECOGNITION_S)
    assert "helm test tutelage" in said
    captures = [encode_png(capture) for capture in person.references(0, 3)]
    async with release.calling(f"{NAME}-device-0", 50_061) as channel:
        device = DeviceServiceStub(channel)
        await device.Enrol(pb.EnrolRequest(person=person.names[0], captures=captures), timeout=SECONDS)
        answers = [
            await device.Recognize(pb.RecognizeRequest(capture=encode_png(capture), attempt="first"), timeout=SECONDS)
            for capture in (person.capture(0, press, Condition()) for press in (3, 4, 5))
        ]
    accepted = [a.recognition.person for a in answers if a.recognition.decision == pb.DECISION_ACCEPT]
    assert set(accepted) == {person.names[0]}
    assert time.monotonic() - begin < FIRST_RECOGNITION_S
    assert place.restarts() == {}, "nothing had to be tried twice"


def test_helm_test_goes_through_the_loop(nothing: tuple[Namespace, Release]):
    place, release = nothing
    try:
        said = release.helm("test", NAME, "--timeout", "180s")
    except RefusedError as refusal:
        raise AssertionError(place.log(f"{NAME}-smoke")) from refusal
    assert "Phase:          Succeeded" in said


def test_uninstalling_leaves_the_volumes_and_nothing_else(nothing: tuple[Namespace, Release]):
    place, release = nothing
    release.uninstall()
    volumes = [
        f"PersistentVolumeClaim data-{NAME}-minio-0",
        f"PersistentVolumeClaim data-{NAME}-redis-0",
        f"PersistentVolumeClaim device-{NAME}-device-0",
    ]

    def nothing_else() -> bool:
        assert place.left() == volumes
        return True

    until(nothing_else, 120, "Pods have ended")
