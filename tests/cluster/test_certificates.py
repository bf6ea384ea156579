"""Certificates of a release change while it is used: one by hand, one by an upgrade when its time has come."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from certificates import reissued
from cryptography import x509
from helm_release import CHART, NAME, Release
from kube import until
from tls_doors import serial_number

from tutelage.api.device.v1 import device_pb2
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceStub
from tutelage.api.registry.v1 import registry_pb2
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.channel import Channel

SECONDS = 30
ROTATED_S = 200
"""A kubelet looks at the Secrets of its Pods once a minute or so."""
CHECK_IN_S = 120
"""Some check-ins of a device, which shows its new certificate to the registry then."""
REGISTRY, DEVICE = f"service/{NAME}-model-registry", f"{NAME}-device-0"
RENEW_AFTER = "tutelage/renew-after"


def serial(pem: bytes) -> int:
    return x509.load_pem_x509_certificate(pem).serial_number


def serials(release: Release) -> dict[str, int]:
    """Of the authority and of all certificates, by the names of their Secrets."""
    place = release.namespace
    found = place.core.list_namespaced_secret(place.name, field_selector="type=kubernetes.io/tls").items
    return {one.metadata.name: serial(base64.b64decode(one.data["tls.crt"])) for one in found}


def replaced(release: Release, component: str) -> int:
    """Serial number of a new certificate of a component, which takes the place of the old one in its Secret."""
    place = release.namespace
    name, authority = f"{NAME}-{component}-tls", place.secret(f"{NAME}-ca")
    made, key = reissued(place.secret(name)["tls.crt"], authority["tls.crt"], authority["tls.key"])
    data = {"tls.crt": base64.b64encode(made).decode(), "tls.key": base64.b64encode(key).decode()}
    place.core.patch_namespaced_secret(name, place.name, {"data": data})
    return serial(made)


@asynccontextmanager
async def called_all_the_time(registry: Channel, device: Channel) -> AsyncIterator[dict[str, int]]:
    """How many calls went well; the first that fails, which nobody tries again, ends the block with its error."""
    counts = {"registry": 0, "device": 0}

    async def call() -> None:
        while True:
            asked = registry_pb2.GetChannelRequest(channel="stable")
            await ModelRegistryServiceStub(registry).GetChannel(asked, timeout=SECONDS)
            counts["registry"] += 1
            await DeviceServiceStub(device).GetStatus(device_pb2.GetStatusRequest(), timeout=SECONDS)
            counts["device"] += 1
            await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as group:
        calling = group.create_task(call())
        yield counts
        calling.cancel()


async def answered(device: Channel) -> float:
    """When the registry last answered a device, in seconds since 1970."""
    status = (await DeviceServiceStub(device).GetStatus(device_pb2.GetStatusRequest(), timeout=SECONDS)).status
    return status.registry.answer_time.ToMicroseconds() / 1e6


async def test_certificates_that_are_replaced_are_shown_soon_and_no_call_fails(release: Release):
    proof = release.certificate()
    with release.forwarded(REGISTRY, 50_051) as registry_at, release.forwarded(DEVICE, 50_061) as device_at:
        doors = {"model-registry": registry_at, "device-sim": device_at}
        async with (
            release.calling(REGISTRY) as registry,
            release.calling(DEVICE, 50_061) as device,
            called_all_the_time(registry, device) as counts,
        ):
            made = {component: replaced(release, component) for component in doors}

            def shown() -> bool:
                return {part: serial_number(address, proof) for part, address in doors.items()} == made

            await asyncio.to_thread(until, shown, ROTATED_S, "new connections see the new certificates")
            before, since = dict(counts), time.time()
            async with asyncio.timeout(CHECK_IN_S):
                while min(counts[part] - before[part] for part in counts) < 10 or await answered(device) < since:
                    await asyncio.sleep(0.2)
    async with release.calling(REGISTRY, who="device-sim") as renewed:
        asked = registry_pb2.GetChannelRequest(channel="stable")
        assert await ModelRegistryServiceStub(renewed).GetChannel(asked, timeout=SECONDS)


def test_an_upgrade_renews_the_certificate_whose_time_has_come_and_no_other(release: Release):
    place, due = release.namespace, f"{NAME}-label-worker-tls"
    before = serials(release)
    place.core.patch_namespaced_secret(due, place.name, {"metadata": {"annotations": {RENEW_AFTER: "1"}}})
    release.helm("upgrade", NAME, str(CHART), "--reuse-values", "--wait", "--timeout", "300s")
    after = serials(release)
    assert {name for name in before if before[name] != after[name]} == {due}
    assert set(after) == set(before)
    made = place.core.read_namespaced_secret(due, place.name)
    assert int(made.metadata.annotations[RENEW_AFTER]) > 1
    authority = x509.load_pem_x509_certificate(place.secret(f"{NAME}-ca")["tls.crt"])
    x509.load_pem_x509_certificate(place.secret(due)["tls.crt"]).verify_directly_issued_by(authority)
