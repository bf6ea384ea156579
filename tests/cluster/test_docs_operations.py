"""The page about operations is followed: lost and restored, keys, a certificate, an upgrade; each does what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from device_node import status
from helm_release import NAME, SMALL, Release
from kube import Namespace, gone, namespace, until
from operator_shell import OperatorShell, blocks, operator_shell
from registry_calls import create
from student_packages import student_package

from device_sim.public import Public
from device_sim.sensor import Condition
from tutelage.api.device.v1 import device_pb2
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceStub
from tutelage.api.registry.v1 import registry_pb2 as pb
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.captures import encode_png
from tutelage.signing import read_signer

pytestmark = pytest.mark.timeout(900)

SECONDS = 30
DEVICE = f"{NAME}-device-0"
REGISTRY = f"service/{NAME}-model-registry"
CHANNELS = ("stable", "trial")
FOLLOWED = (
    *("How it stands", "Backup", "Restore", "The index made anew"),
    *("Keys", "Certificates", "Upgrade and going back"),
)
PUBLIC = Public(persons=1, seed=21)


@dataclass(frozen=True)
class Operated:
    """A release with one device, and the shell of whoever operates it."""

    release: Release
    shell: OperatorShell

    @property
    def place(self) -> Namespace:
        return self.release.namespace

    def key(self, name: str) -> bytes:
        """One of the keys of the release."""
        return self.place.secret(f"{NAME}-keys")[name]


@pytest.fixture(scope="module")
def operated(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    with (
        namespace("tutelage-operations") as place,
        operator_shell(tmp_path_factory.mktemp("operator"), place.name) as shell,
    ):
        release = Release(place, cluster)
        release.install(SMALL)
        made = Operated(release, shell)
        asyncio.run(used(made, tmp_path_factory.mktemp("keys")))
        yield made


@dataclass(frozen=True)
class Known:
    """What the registry knows, and whom the device does."""

    versions: list[pb.Version]
    channels: dict[str, list[pb.ChannelChange]]
    persons: int
    recognised: str


async def known(release: Release) -> Known:
    """All versions, the histories of channels, and whom the device takes a capture of the only person for."""
    async with release.calling(REGISTRY) as channel:
        registry = ModelRegistryServiceStub(channel)
        versions = list((await registry.ListVersions(pb.ListVersionsRequest(), timeout=SECONDS)).versions)
        channels = {}
        for name in CHANNELS:
            asked = pb.ListChannelHistoryRequest(channel=name)
            channels[name] = list((await registry.ListChannelHistory(asked, timeout=SECONDS)).changes)
    async with release.calling(DEVICE, 50_061) as channel:
        device = DeviceServiceStub(channel)
        capture = encode_png(PUBLIC.capture(0, 50, Condition()))
        seen = await device.Recognize(device_pb2.RecognizeRequest(capture=capture), timeout=SECONDS)
        return Known(versions, channels, (await status(device)).persons, seen.recognition.person)


async def used(operated: Operated, folder: Path) -> None:
    """Enrol the person, publish a version and point a channel to it."""
    (folder / "signer.pem").write_bytes(operated.key("signer.pem"))
    (folder / "signer.pem").chmod(0o600)
    captures = [encode_png(capture) for capture in PUBLIC.references(0, 3)]
    enrol = device_pb2.EnrolRequest(person=PUBLIC.names[0], captures=captures)
    async with operated.release.calling(DEVICE, 50_061) as channel:
        await DeviceServiceStub(channel).Enrol(enrol, timeout=SECONDS)
    async with operated.release.calling(REGISTRY) as channel:
        registry = ModelRegistryServiceStub(channel)
        made = await create(registry, student_package("v2", signer=read_signer(folder / "signer.pem")))
        await registry.SetChannel(
            pb.SetChannelRequest(channel=CHANNELS[1], digest=made.digest, reason="before the backup"), timeout=SECONDS
        )


def everybody_ready(operated: Operated) -> None:
    """Return once each part is, as commands that only begin something do not wait for."""
    for part in ("model-registry", "student-distiller", "distiller-worker", "label-worker", "redis", "minio"):
        operated.place.wait_ready(part)
    operated.place.wait_ready("device-sim")


def test_the_sections_are_there_and_have_commands():
    found = blocks()
    assert [title for title in FOLLOWED if not found.get(title)] == []


def test_how_it_stands_is_told_by_logs_queues_a_device_and_a_service(operated: Operated):
    pods, certificate, calls = operated.shell.section("How it stands")
    assert f"{NAME}-model-registry" in pods
    assert "distill.jobs: " in pods
    assert certificate.strip() == ""
    for name in ("ca.crt", "tls.crt", "tls.key"):
        assert (operated.shell.folder / name).read_bytes() == operated.place.secret(f"{NAME}-operator-tls")[name]
    assert "student" in calls
    assert "release-installed" in calls
    assert calls.rstrip().endswith("{}"), "no jobs yet"


async def test_what_was_lost_is_as_it_was_after_a_restore(operated: Operated):
    before = await known(operated.release)
    assert len(before.versions) == 2
    assert before.recognised == PUBLIC.names[0]
    operated.shell.section("Backup")
    kept = operated.place.secret(f"{NAME}-keys")
    everybody_ready(operated)
    assert await known(operated.release) == before, "a backup changes nothing"
    gone(operated.place.core, operated.place.name)
    operated.shell.section("Restore")
    (printed,) = operated.shell.section("The index made anew")
    everybody_ready(operated)
    assert operated.place.secret(f"{NAME}-keys") == kept
    assert await known(operated.release) == before
    assert str(len(before.versions)) in printed


async def test_changed_keys_are_used_and_the_device_still_knows_everybody(operated: Operated):
    before = await known(operated.release)
    store, data = operated.key("device-store.key"), operated.key("data.key")
    distillers = operated.place.uids("student-distiller") | operated.place.uids("distiller-worker")
    operated.shell.run(next(block for block in blocks()["Backup"] if "holding() {" in block))
    operated.shell.section("Keys")
    assert operated.key("device-store.key") == (operated.shell.folder / "new.key").read_bytes() != store
    assert operated.key("data.key") == (operated.shell.folder / "data.key").read_bytes() != data
    for part in ("student-distiller", "distiller-worker"):
        operated.place.wait_ready(part, but=distillers)
    operated.place.wait_ready("device-sim")
    assert await known(operated.release) == before


async def test_an_upgrade_and_the_way_back_lose_nothing(operated: Operated):
    before, revisions = await known(operated.release), revision(operated)
    keys = operated.place.secret(f"{NAME}-keys")
    upgraded, back = operated.shell.section("Upgrade and going back")
    assert "distill.jobs: " in upgraded
    assert "Phase:          Succeeded" in upgraded
    assert "Rollback was a success" in back
    assert revision(operated) == revisions + 2
    assert operated.place.secret(f"{NAME}-keys") == keys, "of after the change"
    until(lambda: operated.place.ready("device-sim"), 120, "the device is back")
    assert await known(operated.release) == before


def test_a_certificate_that_was_deleted_is_another_of_the_same_authority(operated: Operated):
    name = f"{NAME}-model-registry-tls"
    before = x509.load_pem_x509_certificate(operated.place.secret(name)["tls.crt"])
    (printed,) = operated.shell.section("Certificates")
    after = x509.load_pem_x509_certificate(operated.place.secret(name)["tls.crt"])
    assert after.serial_number != before.serial_number
    after.verify_directly_issued_by(x509.load_pem_x509_certificate(operated.place.secret(f"{NAME}-ca")["tls.crt"]))
    assert f"notAfter={after.not_valid_after_utc:%b %e %H:%M:%S %Y} GMT" in printed


def revision(operated: Operated) -> int:
    """Number of the release's latest revision."""
    lines = operated.release.helm("history", NAME, "--max", "1").splitlines()
    return int(lines[-1].split()[0])
