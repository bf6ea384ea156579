"""TLS between a real server and real clients: who is believed, who is refused, and files that are renewed."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("grpc")

from certificates import Authority
from echo_service import Echo, invoke, service, stubs

from tutelage.calls import current_call
from tutelage.channel import Channel, ChannelSettings
from tutelage.errors import Code, ServiceError, SettingsError
from tutelage.log import configure_logging
from tutelage.server import Server, ServerSettings
from tutelage.settings import Address
from tutelage.tls import CertificateFiles, ClientTls, ServerTls


class Telling(Echo):
    """Answers with the name of its caller."""

    async def One(self, request, context):  # noqa: N802
        return stubs()[0].Text(text=current_call().caller.name)


def serve(certificate: Path, key: Path, client_ca: Path | None = None) -> Server:
    tls = ServerTls(certificate, key, client_ca)
    settings = ServerSettings(address=Address("localhost", 0), drain_notice=timedelta(0), tls=tls)
    return Server(settings, [service(Telling())])


async def ask(server: Server, **tls) -> str:
    settings = ChannelSettings(Address("localhost", server.port), ClientTls(**tls))
    async with Channel(settings) as channel:
        (answer,) = await invoke(stubs()[1].EchoServiceStub(channel), "One", "who")
        return answer


async def refused(server: Server, **tls) -> bool:
    with pytest.raises(ServiceError) as caught:
        await ask(server, **tls)
    return caught.value.code in {Code.SERVICE_UNAVAILABLE, Code.DEADLINE_EXCEEDED}


@pytest.fixture
def ours(tmp_path: Path) -> tuple[Authority, Path]:
    authority = Authority("ours")
    return authority, authority.write(tmp_path / "ours.pem")


@pytest.fixture
def theirs(tmp_path: Path) -> tuple[Authority, Path]:
    authority = Authority("theirs")
    return authority, authority.write(tmp_path / "theirs.pem")


def test_a_client_believes_only_its_own_authorities(ours, theirs, tmp_path: Path):
    async def scenario():
        async with serve(*ours[0].issue(tmp_path, "server")) as server:
            assert await ask(server, enabled=True, ca_file=ours[1]) == "anonymous"
            assert await refused(server, enabled=True, ca_file=theirs[1])
            assert await refused(server)

    asyncio.run(scenario())


def test_mutual_tls_knows_its_caller_and_refuses_strangers_and_the_anonymous(ours, theirs, tmp_path: Path):
    async def scenario():
        async with serve(*ours[0].issue(tmp_path, "server"), ours[1]) as server:
            certificate, key = ours[0].issue(tmp_path, "door-3")
            proof = {"enabled": True, "ca_file": ours[1]}
            name = await ask(server, **proof, certificate_file=certificate, key_file=key)
            assert name == "spiffe://tutelage/door-3"
            assert await refused(server, **proof)
            certificate, key = theirs[0].issue(tmp_path, "stranger")
            assert await refused(server, **proof, certificate_file=certificate, key_file=key)

    asyncio.run(scenario())


def test_a_running_server_shows_its_renewed_certificate_to_new_connections(ours, theirs, tmp_path: Path):
    async def scenario():
        async with serve(*ours[0].issue(tmp_path, "server")) as server:
            standing = Channel(
                ChannelSettings(Address("localhost", server.port), ClientTls(enabled=True, ca_file=ours[1]))
            )
            stub = stubs()[1].EchoServiceStub(standing)
            assert await invoke(stub, "One", "who") == ["anonymous"]
            theirs[0].issue(tmp_path, "server")
            assert await ask(server, enabled=True, ca_file=theirs[1]) == "anonymous"
            assert await refused(server, enabled=True, ca_file=ours[1])
            assert await invoke(stub, "One", "who") == ["anonymous"]  # the old connection stands
            await standing.close()

    asyncio.run(scenario())


def test_a_running_channel_shows_its_renewed_certificate(ours, tmp_path: Path):
    async def scenario():
        async with serve(*ours[0].issue(tmp_path, "server"), ours[1]) as server:
            certificate, key = ours[0].issue(tmp_path, "door-3")
            tls = ClientTls(enabled=True, ca_file=ours[1], certificate_file=certificate, key_file=key)
            async with Channel(ChannelSettings(Address("localhost", server.port), tls)) as channel:
                stub = stubs()[1].EchoServiceStub(channel)
                assert await invoke(stub, "One", "who") == ["spiffe://tutelage/door-3"]
                new_certificate, new_key = ours[0].issue(tmp_path, "door-4")
                new_key.replace(key)
                assert await invoke(stub, "One", "who") == ["spiffe://tutelage/door-3"]  # a pair that does not fit
                new_certificate.replace(certificate)
                assert await invoke(stub, "One", "who") == ["spiffe://tutelage/door-4"]

    asyncio.run(scenario())


def test_files_that_cannot_be_used_are_refused_at_the_start_and_named(ours, tmp_path: Path):
    certificate, key = ours[0].issue(tmp_path, "a")
    _, other_key = ours[0].issue(tmp_path, "b")
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("nothing")
    for files, named in [
        ((certificate, other_key, None), "b.key is not the key"),
        ((certificate, rubbish, None), "rubbish.pem holds no private key"),
        ((rubbish, key, None), "rubbish.pem holds no certificate"),
        ((certificate, key, rubbish), "rubbish.pem holds no certificate"),
        ((tmp_path / "absent", key, None), "absent could not be read"),
    ]:
        with pytest.raises(SettingsError, match=named):
            CertificateFiles(certificate=files[0], key=files[1], authorities=files[2])


def test_files_that_break_while_running_leave_the_last_good_ones(ours, tmp_path: Path):
    stream = io.StringIO()
    configure_logging("info", stream)
    certificate, key = ours[0].issue(tmp_path, "a")
    files = CertificateFiles(certificate=certificate, key=key, authorities=ours[1])
    good = files.current()
    for broken in (b"half", b""):
        certificate.write_bytes(broken)
        assert files.current() is good
    certificate.unlink()
    assert files.current() is files.current() is good
    ours[0].issue(tmp_path, "a")
    assert files.current().chain == certificate.read_bytes() != good.chain
    written = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert written == ["certificates kept: the new ones fail"] * 3 + ["certificates renewed"]
    assert "PRIVATE" not in repr(good)


def test_halves_of_a_pair_and_files_without_tls_are_refused(tmp_path: Path):
    path = tmp_path / "x"
    for make in (
        lambda: ServerTls(certificate_file=path),
        lambda: ServerTls(client_ca_file=path),
        lambda: ClientTls(enabled=True, key_file=path),
        lambda: ClientTls(ca_file=path),
    ):
        with pytest.raises(ValueError, match=r"together|needs|enabled"):
            make()
