"""The process of a device for tests: the toy device behind real gRPC, in this process, with its chores."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from lived_device import WORN
from prometheus_client import CollectorRegistry
from served_part import LOOPBACK, quick_server
from toy_device import FLEET_KEY, PERSONS, SETTINGS, STORE_KEY, finger, name_of, toy_release

from device_sim.device_settings import DeviceSettings
from device_sim.node_settings import NodeSettings, PaceSettings
from device_sim.service import open_node
from device_sim.typed_json import plain
from tutelage.api.device.v1 import device_pb2 as pb
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceStub
from tutelage.captures import encode_png
from tutelage.channel import Channel, ChannelSettings
from tutelage.server import Server
from tutelage.settings import Address, Secret
from tutelage.signing import public_pem

SECONDS = 30
QUICK = PaceSettings(*(timedelta(seconds=0.1) for _ in range(4)))
"""Looks all the time, and tries again at once."""


def node_settings(folder: Path, rules: DeviceSettings = SETTINGS, **other: Any) -> NodeSettings:
    """A toy device in `folder`, with everything it needs in files beside it."""
    beside = folder.parent / f"{folder.name}-files"
    beside.mkdir(exist_ok=True)
    (beside / "student.tutelage").write_bytes(toy_release().package)
    (beside / "release.pub").write_bytes(public_pem(toy_release().trusted))
    (beside / "rules.yaml").write_text(json.dumps(plain(rules)))
    given = NodeSettings(
        folder=folder,
        store_key=Secret(STORE_KEY.hex().encode()),
        fleet_key=Secret(FLEET_KEY.hex().encode()),
        trusted_files=(beside / "release.pub",),
        student_file=beside / "student.tutelage",
        rules_file=beside / "rules.yaml",
        pace=QUICK,
    )
    return replace(given, **other)


@asynccontextmanager
async def node(settings: NodeSettings, **server: Any) -> AsyncIterator[Server]:
    """The device serves until the block ends; then it is put down."""
    async with (
        open_node(settings, CollectorRegistry()) as service,
        Server(quick_server(**server), [service]) as running,
    ):
        yield running


@asynccontextmanager
async def calling(settings: NodeSettings) -> AsyncIterator[DeviceServiceStub]:
    """The calls of a device that serves until the block ends."""
    async with node(settings) as running, Channel(ChannelSettings(Address(LOOPBACK, running.port))) as channel:
        yield DeviceServiceStub(channel)


def png(person: int, press: int, wear: float = 0.0) -> bytes:
    return encode_png(finger(person, press, wear))


async def enrol_all(stub: DeviceServiceStub, persons: int = PERSONS) -> None:
    for person in range(persons):
        request = pb.EnrolRequest(person=name_of(person), captures=[png(person, 0), png(person, 1)])
        assert (await stub.Enrol(request, timeout=SECONDS)).references == 2


async def attempt(stub: DeviceServiceStub, person: int, press: int, wear: float) -> list[pb.RecognizeResponse]:
    """One person tries up to three times, and leaves when accepted."""
    answers: list[pb.RecognizeResponse] = []
    while len(answers) < 3 and not (answers and answers[-1].recognition.decision == pb.DECISION_ACCEPT):
        capture = png(person, press + len(answers), wear)
        answers.append(await stub.Recognize(pb.RecognizeRequest(capture=capture, attempt=str(press)), timeout=SECONDS))
    return answers


async def live(stub: DeviceServiceStub, rounds: int, *, first: int = 100, wear: float = WORN) -> None:
    """Everybody comes so many times."""
    for turn in range(rounds):
        for person in range(PERSONS):
            await attempt(stub, person, first + 10 * (turn * PERSONS + person + 1), wear)


async def status(stub: DeviceServiceStub) -> pb.DeviceStatus:
    return (await stub.GetStatus(pb.GetStatusRequest(), timeout=SECONDS)).status


async def until(holds: Callable[[Any], bool], look: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What `look` gives once it `holds`."""
    async with asyncio.timeout(seconds):
        while not holds(seen := await look()):
            await asyncio.sleep(0.05)
    return seen


async def events(stub: DeviceServiceStub, *kinds: Any, after: int = 0) -> list[pb.Event]:
    """What has happened so far."""
    last, found = (await status(stub)).latest_event_id, []
    if last > after:
        async for answer in stub.WatchEvents(pb.WatchEventsRequest(after_event_id=after), timeout=SECONDS):
            found.append(answer.event)
            if answer.event.event_id >= last:
                break
    return [event for event in found if not kinds or event.kind in kinds]
