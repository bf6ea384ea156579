"""A client inside the cluster that calls all the time, and tells of every call that failed.

It runs in a Pod of the release's namespace with the labels of the smoke check, which policies let in everywhere, and
the operator's certificate. What may be repeated its channel repeats, as every client's does. A recognition is no such
call: while a device is not there, the client does what a sensor does, and shows the capture again as the same attempt,
for as long as somebody would stand before a door; it counts how often. Each second it prints a line, `told` and JSON:
how many calls of each kind went well, how many captures were shown `again`, and which calls `failed`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from helm_release import NAME
from kube import Namespace, until
from visitor_pods import manifest

EVERY_S = 0.2
COMPONENT = "smoke"
_PROGRAM = """\
import asyncio, base64, json, secrets, sys, time
from pathlib import Path
from tutelage.api.device.v1 import device_pb2
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceStub
from tutelage.api.registry.v1 import registry_pb2
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.channel import Channel, ChannelSettings, idempotent_methods
from tutelage.errors import TutelageError
from tutelage.settings import Address
from tutelage.tls import ClientTls

release, capture, every = sys.argv[1], base64.b64decode(sys.argv[2]), float(sys.argv[3])
folder = Path("/etc/tutelage/tls")
proof = ClientTls(True, *(folder / name for name in ("ca.crt", "tls.crt", "tls.key")))
counts, failed = {"again": 0}, []

def to(name, port, module, service):
    methods = idempotent_methods(module.DESCRIPTOR.services_by_name[service])
    return Channel(ChannelSettings(Address(name, port), proof), idempotent=methods)

async def recognized(device):
    shown = device_pb2.RecognizeRequest(capture=capture, attempt=secrets.token_hex(8))
    patience = time.monotonic() + 20
    while True:
        try:
            return await device.Recognize(shown, timeout=20)
        except TutelageError as error:
            if error.code != "service-unavailable" or time.monotonic() > patience:
                raise
        counts["again"] += 1
        await asyncio.sleep(0.5)

async def keep(what, call):
    while True:
        begun = time.monotonic()
        try:
            await call()
            counts[what] = counts.get(what, 0) + 1
        except TutelageError as error:
            failed.append([round(time.time(), 1), what, error.code, error.message])
        await asyncio.sleep(max(0.0, every - (time.monotonic() - begun)))

async def tell():
    while True:
        print("told", json.dumps({"counts": counts, "failed": failed}), flush=True)
        await asyncio.sleep(1)

async def main():
    async with (
        to(f"{release}-model-registry", 50_051, registry_pb2, "ModelRegistryService") as one,
        to(f"{release}-device", 50_061, device_pb2, "DeviceService") as other,
    ):
        registry, device = ModelRegistryServiceStub(one), DeviceServiceStub(other)
        asked = registry_pb2.GetChannelRequest(channel="stable")
        await asyncio.gather(
            keep("GetChannel", lambda: registry.GetChannel(asked, timeout=20)),
            keep("Recognize", lambda: recognized(device)),
            tell(),
        )

asyncio.run(main())
"""


def _pod(name: str, image: str, capture: bytes) -> dict[str, Any]:
    command = ("python", "-c", _PROGRAM, NAME, base64.b64encode(capture).decode(), str(EVERY_S))
    labels = {"app.kubernetes.io/instance": NAME, "app.kubernetes.io/component": COMPONENT}
    made = manifest(name, image, command, labels)
    (container,) = made["spec"]["containers"]
    container["volumeMounts"] = [{"name": "tls", "mountPath": "/etc/tutelage/tls", "readOnly": True}]
    made["spec"]["volumes"] = [{"name": "tls", "secret": {"secretName": f"{NAME}-operator-tls"}}]
    return made


class SteadyCaller:
    """What the client has told so far."""

    def __init__(self, place: Namespace, pod: str) -> None:
        self._place, self._pod = place, pod

    def told(self) -> dict[str, Any]:
        """Its last word: `counts` of calls that went well, and those that `failed`."""
        lines = [line for line in self._place.log(self._pod, lines=5).splitlines() if line.startswith("told ")]
        return dict(json.loads(lines[-1].removeprefix("told "))) if lines else {"counts": {}, "failed": []}

    def goes_on(self, calls: int = 20, seconds: float = 120) -> dict[str, Any]:
        """What it tells once so many more calls of each kind went well."""
        before = self.told()["counts"]

        def look() -> dict[str, Any]:
            told = self.told()
            more = [told["counts"].get(what, 0) - before.get(what, 0) for what in ("GetChannel", "Recognize")]
            return told if min(more) >= calls else {}

        return until(look, seconds, f"{calls} more calls of each kind; last: {self.told()}")


@contextmanager
def steady_caller(place: Namespace, image: str, capture: bytes, name: str = "steady") -> Iterator[SteadyCaller]:
    """A client at work, which shows the `capture` to devices; it goes with the block."""
    place.core.create_namespaced_pod(place.name, _pod(name, image, capture))
    try:
        until(lambda: place.core.read_namespaced_pod(name, place.name).status.phase == "Running", 120, f"{name} runs")
        caller = SteadyCaller(place, name)
        caller.goes_on()
        yield caller
    finally:
        place.core.delete_namespaced_pod(name, place.name, grace_period_seconds=0)
