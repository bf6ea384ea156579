"""The loop on a cluster: a sensor wears, TorchServe names whom the device no longer knows, the device recovers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from device_node import events, status, until
from device_visits import PORT, visited
from helm_release import EAGER_DEVICES, MODEST, NAME, Release
from kube import namespace

from tutelage.api.device.v1 import device_pb2 as pb
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceStub
from tutelage.api.teacher.v1 import teacher_pb2
from tutelage.api.teacher.v1.teacher_pb2_grpc import TeacherInferenceServiceStub

DEVICE = f"{NAME}-device-0"
PUBLIC = {"seed": 3, "persons": 8}
WORN = {**PUBLIC, "wear": 0.6, "visits": 100, "strangers": 0.15}
TRAINED = [
    *(pb.EVENT_KIND_TRAINING_STARTED, pb.EVENT_KIND_TRAINING_FINISHED),
    *(pb.EVENT_KIND_GATE_PASSED, pb.EVENT_KIND_GENERATION_SWAPPED),
]
"""What happens on the way to a new student, and in this order."""


@pytest.fixture(scope="module")
def school(cluster: str) -> Iterator[Release]:
    """A release with the teacher on TorchServe and one device."""
    with namespace("tutelage-loop") as place:
        release = Release(place, cluster)
        release.install({**MODEST, "devices": EAGER_DEVICES})
        yield release


async def backend(release: Release) -> int:
    """What runs the teacher of a release, as it says itself."""
    async with release.calling(f"service/{NAME}-teacher-inference") as channel:
        stub = TeacherInferenceServiceStub(channel)
        return (await stub.GetTeacher(teacher_pb2.GetTeacherRequest(), timeout=30)).teacher.backend


async def test_a_device_on_a_worn_sensor_is_taught_by_torchserve_trains_and_knows_everybody_again(school: Release):
    new = visited(school, DEVICE, visits=30, first_visit=0, **PUBLIC)
    worn = visited(school, DEVICE, first_visit=1_000, **WORN)
    assert worn["misses"] > new["misses"] + 0.1
    assert await backend(school) == teacher_pb2.TEACHER_BACKEND_TORCHSERVE
    async with school.calling(DEVICE, PORT) as channel:
        device = DeviceServiceStub(channel)
        trained = await until(lambda now: now.student.digest != now.released.digest, lambda: status(device), 240)
        happened = [event.kind for event in await events(device)]
    assert happened.count(pb.EVENT_KIND_LABEL_STORED) >= 10
    assert [kind for kind in happened if kind in TRAINED] == TRAINED
    taught = visited(school, DEVICE, first_visit=5_000, **WORN)
    assert taught["generation_before"] == trained.student.generation == "v1+1"
    assert taught["enrolled"] == 0
    assert taught["misses"] <= worn["misses"] / 2
    assert taught["strangers_accepted"] <= worn["strangers_accepted"]
    assert taught["mistaken"] <= worn["mistaken"]
