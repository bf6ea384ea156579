"""A release beside a Redis and an object store that are not its own: it makes none, works, and says what it lacks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from external_stores import BUCKET, MINIO, REDIS, ExternalStores
from helm_release import NAME, SMALL, STORE_IMAGES, Release
from kube import Namespace, namespace, until
from labelling_service import ended, enrol, submit
from registry_calls import create
from student_packages import digest, student_package

from device_sim.public import Public
from tutelage.api.registry.v1 import registry_pb2
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.api.teacher.v1 import teacher_pb2
from tutelage.api.teacher.v1.teacher_pb2_grpc import TeacherInferenceServiceStub
from tutelage.captures import encode_png
from tutelage.signing import read_signer

SECONDS = 30
PARTS = ("model-registry", "teacher-inference", "label-worker", "student-distiller", "distiller-worker", "device-sim")
REFUSED = {
    "label-worker": ("queue refuses its worker", "queue-refused"),
    "model-registry": ("objects cannot be tended", "objects-refused"),
    "student-distiller": ("dependency fails", "queue-refused"),
}
"""What a Pod whose password is wrong logs, and with which code."""


@dataclass(frozen=True)
class Guest:
    """A release, and the stores of somebody else that it uses."""

    release: Release
    stores: ExternalStores

    @property
    def place(self) -> Namespace:
        return self.release.namespace


@pytest.fixture(scope="module")
def guest(cluster: str) -> Iterator[Guest]:
    with namespace("tutelage-house") as house, namespace("tutelage-guest") as place:
        stores = ExternalStores(house)
        stores.start(dict(zip((REDIS, MINIO), STORE_IMAGES, strict=True)))
        stores.give(place)
        release = Release(place, cluster)
        minio = {**stores.values(MINIO), "bucket": BUCKET}
        release.install({**SMALL, "redis": stores.values(REDIS), "minio": minio})
        yield Guest(release, stores)


def test_every_part_is_ready_and_no_store_of_its_own_was_made(guest: Guest):
    assert [part for part in PARTS if not guest.place.ready(part)] == []
    assert guest.place.restarts() == {}, "nothing had to be tried twice"
    own = [thing for thing in guest.place.left() if f"{NAME}-redis" in thing or f"{NAME}-minio" in thing]
    assert own == []


def test_helm_test_goes_through_the_loop(guest: Guest):
    said = guest.release.helm("test", NAME, "--timeout", "180s")
    assert "Phase:          Succeeded" in said


async def test_a_version_is_published_and_a_channel_set_in_the_bucket_that_was_named(guest: Guest, tmp_path: Path):
    (tmp_path / "signer.pem").write_bytes(guest.place.secret(f"{NAME}-keys")["signer.pem"])
    (tmp_path / "signer.pem").chmod(0o600)
    data = student_package("v2", signer=read_signer(tmp_path / "signer.pem"))
    async with guest.release.calling(f"service/{NAME}-model-registry") as channel:
        registry = ModelRegistryServiceStub(channel)
        made = await create(registry, data)
        change = registry_pb2.SetChannelRequest(channel="trial", digest=made.digest, reason="tried in the house")
        await registry.SetChannel(change, timeout=SECONDS)
        found = await registry.GetChannel(registry_pb2.GetChannelRequest(channel="trial"), timeout=SECONDS)
    assert found.channel.version.digest == made.digest == digest(data)
    assert {"objects", "versions", "channels"} <= set(guest.stores.bucket_folders())


async def test_a_label_batch_goes_through_the_queue_of_that_redis(guest: Guest):
    public = Public(persons=1, seed=5)
    person, captures = public.names[0], [encode_png(capture) for capture in public.references(0, 4)]
    async with guest.release.calling(f"service/{NAME}-teacher-inference") as channel:
        teacher = TeacherInferenceServiceStub(channel)
        await teacher.EnrolPerson(enrol(person, *captures[:3]), timeout=SECONDS)
        batch = (await teacher.SubmitLabelBatch(submit("first", captures[3:]), timeout=SECONDS)).batch
        batch = await ended(teacher, batch)
    assert batch.state == teacher_pb2.LABEL_BATCH_STATE_DONE, batch
    assert [answer.person for answer in batch.answers] == [person]
    assert [key for key in guest.stores.redis_keys() if "label.batches" in key]


def test_who_is_given_a_wrong_password_is_not_ready_says_why_and_is_ready_with_the_right_one(guest: Guest):
    guest.stores.give(guest.place, right=False)
    for part in REFUSED:
        for pod in guest.place.pods(part):
            guest.place.kill(pod.metadata.name)
    for part, (event, code) in REFUSED.items():
        until(lambda part=part, what=(event, code): what in logged(guest.place, part), 90, f"{part} says {code}")
        assert guest.place.ready(part) == []
    guest.stores.give(guest.place)
    for part in REFUSED:
        guest.place.killed(part)


def logged(place: Namespace, part: str) -> list[tuple[str, str]]:
    """Event and code of the lines that the Pods of a component have logged, where they have a code."""
    texts = [place.log(pod.metadata.name) for pod in place.pods(part)]
    lines = (json.loads(line) for text in texts for line in text.splitlines() if line.startswith("{"))
    return [(line["event"], line["code"]) for line in lines if "code" in line]
