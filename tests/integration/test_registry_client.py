"""The registry's client for callers that wait, against the real service: transfers that break go on."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest

pytest.importorskip("grpc")

from registry_calls import file_digest, settings
from served_part import served, twins
from student_packages import STRANGER, digest, student_package

from model_registry.service import PART
from tutelage.api.registry.v1 import registry_pb2 as pb
from tutelage.channel import ChannelSettings
from tutelage.errors import Code, ObjectError, PackageError, RequestError, ServiceError
from tutelage.registry_client import RegistryClient
from tutelage.settings import Address

TIMEOUT = timedelta(seconds=20)


@contextmanager
def registry(folder):
    """A client of a registry that serves in a thread of its own."""
    ready, ended, found = threading.Event(), asyncio.Event(), {}

    async def serve() -> None:
        async with served(PART, settings(folder), twins(folder / "objects")) as channel:
            found.update(address=channel._settings.address, loop=asyncio.get_running_loop())
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    try:
        with RegistryClient(ChannelSettings(found["address"]), timeout=TIMEOUT) as client:
            yield client
    finally:
        found["loop"].call_soon_threadsafe(ended.set)
        thread.join()


def state(data: bytes) -> pb.DeviceState:
    return pb.DeviceState(generation="v1", digest=digest(data), released_digest=digest(data))


def test_what_is_published_reaches_a_device_whole(tmp_path):
    data = student_package("v1", ballast=900_000)
    with registry(tmp_path) as client:
        version = client.publish(data, lineage=pb.Lineage(job_id="job-1"))
        assert client.publish(data) == version
        assert not client.check_in("gate", "stable", state(data)).HasField("wanted")
        client.set_channel("stable", version.digest, expected=None, reason="first")
        wanted = client.check_in("gate", "stable", state(data)).wanted
        assert client.download(wanted) == data
        with pytest.raises(ObjectError) as raised:
            client.set_channel("stable", version.digest, expected=None, reason="again")
        assert raised.value.code is Code.OBJECT_CONFLICT
        wanted.file_digest = "sha256:" + "0" * 64
        with pytest.raises(PackageError) as corrupt:
            client.download(wanted)
        assert corrupt.value.code is Code.PACKAGE_CORRUPT


def test_what_the_registry_refuses_is_refused_here(tmp_path):
    with registry(tmp_path) as client:
        with pytest.raises(PackageError) as raised:
            client.publish(student_package("v1", signer=STRANGER))
        assert raised.value.code is Code.PACKAGE_SIGNATURE
        client.publish(student_package("v2"))
        with pytest.raises(RequestError) as conflict:
            client.publish(student_package("v2", ballast=1))
        assert conflict.value.code is Code.REQUEST_CONFLICT


def test_transfers_that_break_go_on_where_they_stopped(tmp_path, monkeypatch):
    data, asked = student_package("v1", ballast=9_000_000), []
    with registry(tmp_path) as client:
        wanted = pb.WantedVersion(digest=client.publish(data).digest, file_digest=file_digest(data))
        listen = client._channel.listen

        def breaking(method, request, *, timeout):
            asked.append(request.offset)
            for number, answer in enumerate(listen(method, request, timeout=timeout)):
                yield answer
                if number == 2 and len(asked) < 3:
                    raise ServiceError(Code.SERVICE_UNAVAILABLE, "the connection broke: try again")

        monkeypatch.setattr(client._channel, "listen", breaking)
        assert client.download(wanted) == data
        assert len(asked) == 3
        assert 0 == asked[0] < asked[1] < asked[2]


def test_a_call_that_waits_for_its_next_try_ends_when_the_client_is_closed():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = Address("127.0.0.1", probe.getsockname()[1])
    client = RegistryClient(ChannelSettings(nobody), timeout=timedelta(seconds=60))
    ended: list[ServiceError] = []

    def ask() -> None:
        with pytest.raises(ServiceError) as raised:
            client.check_in("gate", "stable", pb.DeviceState())
        ended.append(raised.value)

    calls = [threading.Thread(target=ask) for _ in range(8)]
    for call in calls:
        call.start()
    time.sleep(1)
    client.close()
    for call in calls:
        call.join(20)
    ask()  # and one that comes later
    assert [error.code for error in ended] == [Code.CALL_CANCELLED] * 9
