"""A device as a process beside its cloud: enrolled, worn, taught, trained, swapped, checked in; killed in between."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("grpc")
pytest.importorskip("teacher_inference")

from service_process import running

from device_sim.models import shipped
from device_sim.service_cloud import serving_cloud
from device_sim.site import STRANGER, Site, SiteSize, synthetic_site
from tutelage.api.device.v1 import device_pb2 as pb
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceStub
from tutelage.api.registry.v1 import registry_pb2
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.captures import encode_png
from tutelage.channel import Channel, ChannelSettings
from tutelage.settings import Address

SECONDS = 60
SIZE = SiteSize(persons=8, references=3, probes=1, strangers=1, days=4, attempts=4.0, wear=0.6)
RULES = {
    "labels": {"min_count": 4, "max_age_s": 1.0, "min_gap_s": 0.0},
    "training": {"min_fresh": 1000},
    "self_distillation": {"preset": "classify", "steps": 60},
    "budget": {"seconds": 600.0},
    "gate": {"reference_slack": 5.0},
}
"""It does not train before other rules let it."""


def environment(folder: Path, cloud: Address, **rules: dict) -> dict[str, str]:
    (folder / "rules.yaml").write_text(json.dumps({**RULES, **rules}))
    return {
        "TUTELAGE_DEVICE_ID": "gate-7",
        "TUTELAGE_DEVICE_FOLDER": str(folder / "device"),
        "TUTELAGE_DEVICE_RULES_FILE": str(folder / "rules.yaml"),
        "TUTELAGE_DEVICE_TEACHER_ADDRESS": str(cloud),
        "TUTELAGE_DEVICE_REGISTRY_ADDRESS": str(cloud),
        "TUTELAGE_DEVICE_PACE_LABELS": "0.5",
        "TUTELAGE_DEVICE_PACE_TRAINING": "0.5",
        "TUTELAGE_DEVICE_PACE_FIRST_RETRY": "0.5",
        "OMP_NUM_THREADS": "1",
    }


def visits(site: Site) -> Iterator[tuple[str, list[bytes]]]:
    """Everybody who comes, with three captures each."""
    for day in range(site.days):
        for attempt in site.attempts(day):
            if attempt.person != STRANGER:
                yield attempt.person, [encode_png(attempt.tries(k)) for k in range(3)]


async def lived(stub: DeviceServiceStub, site: Site) -> None:
    """Enrol everybody, and let them come while the sensor wears."""
    for person in site.persons:
        pairs = zip(site.references.persons, site.references.captures, strict=True)
        request = pb.EnrolRequest(person=person, captures=[encode_png(c) for who, c in pairs if who == person])
        await stub.Enrol(request, timeout=SECONDS)
    for turn, (_, captures) in enumerate(visits(site)):
        for capture in captures:
            request = pb.RecognizeRequest(capture=capture, attempt=str(turn))
            answer = await stub.Recognize(request, timeout=SECONDS)
            if answer.recognition.decision == pb.DECISION_ACCEPT:
                break


async def status(stub: DeviceServiceStub) -> pb.DeviceStatus:
    return (await stub.GetStatus(pb.GetStatusRequest(), timeout=SECONDS)).status


async def until(holds, look, seconds: float = 240.0):
    async with asyncio.timeout(seconds):
        while not holds(seen := await look()):
            await asyncio.sleep(0.3)
    return seen


@pytest.mark.slow
async def test_a_device_learns_beside_its_cloud_and_reports_it(tmp_path: Path):
    models = shipped()
    site = synthetic_site(3, 0, SIZE, models.impostors)
    with serving_cloud(tmp_path / "services", models) as cloud:
        address = cloud._settings.address
        cloud.release(models)
        async with running("device_sim", environment(tmp_path, address), tmp_path) as process:
            async with process.channel as channel:
                stub = DeviceServiceStub(channel)
                released = (await status(stub)).student
                await lived(stub, site)
                none_waits = "no attempt waits for a label"
                waited = await until(lambda now: none_waits in now.labels_missing, lambda: status(stub))
                counts = {(count.kind, count.state): count.count for count in waited.samples}
                assert counts[pb.SAMPLE_KIND_SECOND, pb.SAMPLE_STATE_FRESH] >= 9
            assert process.kill(signal.SIGTERM) == 0
            told = process.log.read_text()
            assert not any(person in told for person in site.persons)

        keen = environment(tmp_path, address, training={"min_fresh": 24, "min_gap_s": 3600.0})
        async with running("device_sim", keen, tmp_path) as process:
            async with process.channel as channel:
                stub = DeviceServiceStub(channel)
                assert (await status(stub)).persons == len(site.persons)
                await until(lambda now: now.HasField("training"), lambda: status(stub))
            process.kill()  # in the middle of its training
            await process.start()
            async with process.channel as channel:
                stub = DeviceServiceStub(channel)
                now = await until(lambda now: now.student.generation != "v1", lambda: status(stub))
                assert (now.student.generation, now.released) == ("v1+1", released)
                assert now.persons == len(site.persons)
                told = [
                    pb.EventKind.Name(event.kind)
                    async for event in happened(stub, now.latest_event_id)
                    if "TRAINING" in pb.EventKind.Name(event.kind) or "GATE" in pb.EventKind.Name(event.kind)
                ]
                assert told[0] == "EVENT_KIND_TRAINING_STARTED"
                assert told[1] == "EVENT_KIND_TRAINING_RESUMED"
                assert told[-2:] == ["EVENT_KIND_TRAINING_FINISHED", "EVENT_KIND_GATE_PASSED"]
            async with Channel(ChannelSettings(address)) as channel:
                registry = ModelRegistryServiceStub(channel)
                asked = registry_pb2.GetVersionRequest(digest=released.digest)
                await until(
                    lambda found: found.devices_beyond == 1, lambda: registry.GetVersion(asked, timeout=SECONDS)
                )


async def happened(stub: DeviceServiceStub, last: int):
    async for answer in stub.WatchEvents(pb.WatchEventsRequest(after_event_id=0), timeout=SECONDS):
        yield answer.event
        if answer.event.event_id >= last:
            return
