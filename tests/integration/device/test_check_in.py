"""Checking in: what is told is digests and counters, what is wanted is installed only if it is what was named."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("grpc")

from toy_device import PERSONS, ToyLife, name_of, toy_release

from device_sim.check_in_chore import LEAST_S, CheckInChore
from device_sim.event_counts import EventCounts
from device_sim.events import EventKind
from tutelage.api.registry.v1 import registry_pb2 as pb
from tutelage.errors import Code, PackageError, ServiceError, TutelageError
from tutelage.package import read_package


def digest_of(data: bytes) -> str:
    return read_package(data, trusted=[toy_release().trusted]).digest


@dataclass
class Registry:
    """Wants what it is told to want, and hands out what it is told to."""

    wanted: pb.WantedVersion | None = None
    package: bytes = b""
    interval: timedelta = timedelta(seconds=30)
    error: TutelageError | None = None
    told: list[pb.CheckInRequest] = field(default_factory=list)
    downloads: int = 0

    def check_in(self, device_id: str, channel: str, state: pb.DeviceState) -> pb.CheckInResponse:
        self.told.append(pb.CheckInRequest(device_id=device_id, channel=channel, state=state))
        answer = pb.CheckInResponse(wanted=self.wanted)
        answer.interval.FromTimedelta(self.interval)
        return answer

    def download(self, wanted: pb.WantedVersion) -> bytes:
        self.downloads += 1
        if self.error is not None:
            raise self.error
        return self.package

    def wants(self, version: str, package: bytes, digest: str = "") -> None:
        self.wanted = pb.WantedVersion(digest=digest or digest_of(package), version=version)
        self.package = package


def chore(life: ToyLife, registry: Registry) -> CheckInChore:
    counts = EventCounts(life.device.store, life.folder / "event-counts.json")
    return CheckInChore(
        life.device, registry, device_id="gate-7", channel="stable", counts=counts, clock=lambda: 1_800_000_000.5
    )


def test_digests_and_counters_are_told_and_nothing_biometric(life: ToyLife):
    life.enrolled()
    registry = Registry()
    assert chore(life, registry).do() == 30.0
    (told,) = registry.told
    own = digest_of(toy_release().package)
    assert (told.device_id, told.channel, told.state.persons) == ("gate-7", "stable", PERSONS)
    assert (told.state.generation, told.state.digest, told.state.released_digest) == ("v1", own, own)
    assert not told.state.HasField("parent")
    assert dict(told.state.events) == {"release-installed": 1, "enrolled": PERSONS}
    assert told.state.device_time.ToMilliseconds() == 1_800_000_000_500
    assert not any(name_of(person) in str(told) for person in range(PERSONS))


def test_what_was_reverted_is_told(life: ToyLife):
    life.device.install(toy_release("v2").package)
    life.device.revert("a test")
    registry = Registry()
    chore(life, registry).do()
    assert list(registry.told[0].state.reverted_digests) == [digest_of(toy_release("v2").package)]
    assert registry.told[0].state.generation == "v1"


@pytest.mark.parametrize("seconds", [0.0, 0.001])
def test_a_registry_in_a_hurry_is_not_asked_all_the_time(life: ToyLife, seconds: float):
    assert chore(life, Registry(interval=timedelta(seconds=seconds))).do() == LEAST_S


def test_the_wanted_version_recognises_with_everybody_enrolled(life: ToyLife):
    life.enrolled()
    registry = Registry()
    registry.wants("v2", toy_release("v2").package)
    at_registry = chore(life, registry)
    at_registry.do()
    assert life.device.model.version == "v2"
    assert len(life.device.model.gallery.persons) == 2 * PERSONS
    at_registry.do()
    assert registry.downloads == 1
    assert registry.told[1].state.generation == "v2"


@pytest.mark.parametrize(
    "error",
    [
        ServiceError(Code.SERVICE_UNAVAILABLE, "away: try again"),
        PackageError(Code.PACKAGE_CORRUPT, "the download does not have the digest it should: fetch it again"),
    ],
)
def test_a_transfer_that_breaks_is_tried_again_and_refuses_nothing(life: ToyLife, error: TutelageError):
    registry = Registry(error=error)
    registry.wants("v2", toy_release("v2").package)
    at_registry = chore(life, registry)
    with pytest.raises(type(error)):
        at_registry.do()
    assert life.device.store.last_event(EventKind.RELEASE_REFUSED) is None
    registry.error = None
    at_registry.do()
    assert life.device.model.version == "v2"


def test_another_package_than_the_one_that_was_named_is_refused_once(life: ToyLife):
    registry = Registry()
    registry.wants("v3", toy_release("v3").package, digest="sha256:" + "0" * 64)
    at_registry = chore(life, registry)
    for _ in range(3):
        at_registry.do()
    assert registry.downloads == 1
    assert life.device.model.version == "v1"
    assert [e.kind for e in life.device.store.events()].count(EventKind.RELEASE_REFUSED) == 1
    assert life.device.store.last_event(EventKind.RELEASE_REFUSED).generation == "v3"


def test_an_older_version_is_refused_without_a_transfer(life: ToyLife, tmp_path: Path):
    life.device.install(toy_release("v2").package)
    registry = Registry()
    registry.wants("v1", toy_release().package)
    chore(life, registry).do()
    assert registry.downloads == 0
    assert "v1 is older than v2" in life.device.store.last_event(EventKind.RELEASE_REFUSED).reason
    assert life.device.model.version == "v2"
