"""The registry behind mTLS, where only publishers publish, and what it counts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("grpc")

from certificates import Authority
from prometheus_client import CollectorRegistry
from registry_calls import SECONDS, check_in, create, download, set_channel, settings
from served_part import quick_server, served, twins
from student_packages import digest, student_package

from model_registry.service import PART
from tutelage.api.registry.v1 import registry_pb2 as pb
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.channel import Channel, ChannelSettings
from tutelage.errors import Code, TutelageError
from tutelage.server import Server
from tutelage.serving import Context
from tutelage.settings import Address
from tutelage.stores import open_stores
from tutelage.tls import ClientTls, ServerTls

PUBLISHER = "spiffe://tutelage/student-distiller"


def test_only_publishers_publish_and_everybody_known_reads(tmp_path: Path):
    ours = Authority("ours")
    ca = ours.write(tmp_path / "ours.pem")
    tls = ServerTls(*ours.issue(tmp_path, "server"), client_ca_file=ca)
    data = student_package("v1")

    def caller(name: str, port: int) -> Channel:
        certificate, key = ours.issue(tmp_path, name)
        return Channel(ChannelSettings(Address("localhost", port), ClientTls(True, ca, certificate, key)))

    async def published() -> None:
        own = settings(tmp_path, publishers=(PUBLISHER,))
        async with served(PART, own, twins(tmp_path / "objects"), tls=tls) as plain:
            port = plain._settings.address.port
            async with caller("student-distiller", port) as publishers, caller("gate-7", port) as devices:
                publisher, device = map(ModelRegistryServiceStub, (publishers, devices))
                for refused in (create(device, data), device.SetChannel(set_channel(digest(data)), timeout=SECONDS)):
                    with pytest.raises(TutelageError) as raised:
                        await refused
                    assert raised.value.code is Code.CALLER_REFUSED
                await create(publisher, data)
                await publisher.SetChannel(set_channel(digest(data)), timeout=SECONDS)
                assert (await device.CheckIn(check_in("gate-7", digest(data)), timeout=SECONDS)).wanted.version == "v1"
                history = pb.ListChannelHistoryRequest(channel="stable")
                (change,) = (await device.ListChannelHistory(history, timeout=SECONDS)).changes
                assert change.actor == PUBLISHER

    asyncio.run(published())


def test_what_was_moved_is_counted(tmp_path: Path):
    data, metrics = student_package("v1", ballast=5_000), CollectorRegistry()

    async def moved() -> None:
        async with (
            open_stores(twins(tmp_path / "objects")) as stores,
            PART.open(settings(tmp_path), Context(stores, metrics)) as service,
            Server(quick_server(), [service]) as server,
            Channel(ChannelSettings(Address("127.0.0.1", server.port))) as channel,
        ):
            stub = ModelRegistryServiceStub(channel)
            for _ in range(2):
                await create(stub, data)
            await download(stub, digest(data), 100)

    asyncio.run(moved())
    assert metrics.get_sample_value("tutelage_registry_versions_created_total") == 1
    moved_bytes = "tutelage_registry_transferred_bytes_total"
    assert metrics.get_sample_value(moved_bytes, {"direction": "in"}) == len(data)
    assert metrics.get_sample_value(moved_bytes, {"direction": "out"}) == len(data) - 100
