"""A device tells Prometheus what happened on it, ever, and how full its store is."""

from __future__ import annotations

import asyncio
from pathlib import Path

from device_node import enrol_all, node_settings
from prometheus_client import CollectorRegistry
from served_part import LOOPBACK, quick_server
from toy_device import PERSONS

from device_sim.service import open_node
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceStub
from tutelage.channel import Channel, ChannelSettings
from tutelage.server import Server
from tutelage.settings import Address


def told(metrics: CollectorRegistry, kind: str) -> float | None:
    return metrics.get_sample_value("tutelage_device_events_total", {"kind": kind})


def test_events_are_counted_over_restarts_and_the_store_beside_its_limit(tmp_path: Path):
    before, after = CollectorRegistry(), CollectorRegistry()
    settings = node_settings(tmp_path / "device")

    async def scenario() -> None:
        async with (
            open_node(settings, before) as service,
            Server(quick_server(), [service]) as server,
            Channel(ChannelSettings(Address(LOOPBACK, server.port))) as channel,
        ):
            assert told(before, "enrolled") == 0
            await enrol_all(DeviceServiceStub(channel))
            assert told(before, "enrolled") == PERSONS
            limit = before.get_sample_value("tutelage_device_store_limit_bytes")
            assert 0 < before.get_sample_value("tutelage_device_store_bytes") < limit
        async with open_node(settings, after):
            assert (told(after, "enrolled"), told(after, "gate-failed")) == (PERSONS, 0)

    asyncio.run(scenario())
