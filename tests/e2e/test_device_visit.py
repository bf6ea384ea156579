"""`tutelage device visit`: a public is enrolled and comes; a worn sensor costs accuracy, a restart costs nothing."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from pathlib import Path

import pytest

pytest.importorskip("grpc")

from certificates import Authority
from device_node import SECONDS, node, png
from served_part import LOOPBACK
from shipped_device import ended, shipped_device, started, tutelage

from tutelage.api.device.v1.device_pb2 import RecognizeRequest
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceStub
from tutelage.channel import Channel, ChannelSettings
from tutelage.errors import CATALOGUE, Code
from tutelage.settings import Address
from tutelage.tls import ServerTls

PERSONS = ("--persons", 4, "--references", 2)


def where(running) -> tuple[str, str]:
    return "--address", f"{LOOPBACK}:{running.port}"


async def test_the_same_public_comes_again_and_misses_more_on_a_worn_sensor(tmp_path: Path):
    async with node(shipped_device(tmp_path / "device")) as running:
        words = ("device", "visit", *PERSONS, "--visits", 40, "--first-visit", 0, "--strangers", 0.3, *where(running))
        code, out, err = await tutelage(*words)
        assert (code, "enrolling: 4 of 4 persons" in err) == (0, True), err
        assert re.search(r"^persons enrolled +4 *$", out, re.MULTILINE)
        assert re.search(r"^visits +40, from number 0 on *$", out, re.MULTILINE)
        assert re.search(r"^student before, after +v1, v1 *$", out, re.MULTILINE)
        code, out, err = await tutelage(*words, "--json")
        new = json.loads(out)
        assert (code, new["enrolled"], new["visits"], new["generation_before"]) == (0, 0, 40, "v1")
        assert new["genuine"] + new["strangers"] == 40
        assert new["strangers"] >= 4
        assert new["strangers_accepted"] == 0
        assert new["accepted"] >= new["at_first"] >= 25
        code, out, err = await tutelage(*words, "--wear", 0.7, "--json")
        worn = json.loads(out)
        assert (code, worn["genuine"]) == (0, new["genuine"])
        assert worn["misses"] >= new["misses"] + 0.15
        assert worn["samples_kept"] > 0
        code, out, err = await tutelage(*words, "--until-wear", 0.7, "--json")
        assert new["at_first"] > json.loads(out)["at_first"] > worn["at_first"]


async def test_a_restart_is_waited_for_and_a_device_that_stays_away_ends_the_visits(tmp_path: Path):
    settings, port = shipped_device(tmp_path / "device"), 0
    many = ("device", "visit", *PERSONS, "--visits", 100_000, "--pause", 0.02, "--json", "--patience", 30)
    async with node(settings) as running:
        port = running.port
        process = await started(*many, *where(running))
        await visited(port)
    await asyncio.sleep(2)
    assert process.returncode is None
    async with node(settings, address=Address(LOOPBACK, port)):
        await visited(port)
        process.send_signal(signal.SIGTERM)  # as whoever runs containers does
        code, out, err = await ended(process, 30)
        assert (code, err.splitlines()[-1]) == (130, "interrupted")
        seen = json.loads(out)
        assert (seen["enrolled"], seen["visits"] >= 5) == (4, True)
        process = await started(*many[:-1], 1, *where_port(port))
        await visited(port)
    code, out, err = await ended(process, 60)
    assert code == CATALOGUE[Code.SERVICE_UNAVAILABLE].exit_code
    assert "error [service-unavailable]: " in err
    seen = json.loads(out)
    assert (seen["enrolled"], seen["generation_after"]) == (0, "v1")
    assert seen["visits"] > 0


def where_port(port: int) -> tuple[str, str]:
    return "--address", f"{LOOPBACK}:{port}"


async def visited(port: int) -> None:
    """Return once people have come: between two captures of ours the device decided about theirs."""
    async with Channel(ChannelSettings(Address(LOOPBACK, port))) as channel:
        stub = DeviceServiceStub(channel)
        first = await decided(stub)
        async with asyncio.timeout(90):
            while await decided(stub) < first + 30:
                await asyncio.sleep(0.5)  # in which more of theirs come than this one of ours


async def decided(stub: DeviceServiceStub) -> int:
    answer = await stub.Recognize(RecognizeRequest(capture=png(77, 0)), timeout=SECONDS)
    return answer.outcome.decision_id


async def test_a_steady_public_comes_again_and_again(tmp_path: Path):
    async with node(shipped_device(tmp_path / "device")) as running:
        words = ("device", "visit", *PERSONS, "--visits", 3, "--again", "--json", "--first-visit", 5)
        process = await started(*words, *where(running))
        runs = [json.loads(await asyncio.wait_for(process.stdout.readline(), 90)) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        code, _, _ = await ended(process, 30)
        assert code == 130
    assert [run["first_visit"] for run in runs] == [5, 8, 11]
    assert [run["enrolled"] for run in runs] == [4, 0, 0]


async def test_a_device_that_is_started_later_is_waited_for_and_one_that_never_is_is_told_of(tmp_path: Path):
    settings = shipped_device(tmp_path / "device")
    async with node(settings) as running:
        port = running.port
    words = ("device", "visit", *PERSONS, "--visits", 2, "--json", *where_port(port))
    code, out, err = await tutelage(*words, "--patience", 0)
    assert (code, out) == (CATALOGUE[Code.SERVICE_UNAVAILABLE].exit_code, "")
    assert "start one with `python -m device_sim`" in err
    process = await started(*words, "--patience", 60)
    await asyncio.sleep(4)
    async with node(settings, address=Address(LOOPBACK, port)):
        code, out, err = await ended(process, 90)
        assert (code, json.loads(out)["visits"]) == (0, 2), err


async def test_a_gate_may_not_enrol_but_its_owner_may_with_certificates(tmp_path: Path):
    authority = Authority("ours")
    ca = authority.write(tmp_path / "ca.pem")
    certificate, key = authority.issue(tmp_path, "device")
    settings = shipped_device(tmp_path / "device", owners=("spiffe://tutelage/owner",))
    server = {"tls": ServerTls(certificate, key, ca), "address": Address("localhost", 0)}
    async with node(settings, **server) as running:
        words = ("device", "visit", *PERSONS, "--visits", 4, "--json", "--address", f"localhost:{running.port}")
        for name, code in (("gate", CATALOGUE[Code.CALLER_REFUSED].exit_code), ("owner", 0), ("gate", 0)):
            own, own_key = authority.issue(tmp_path, name)
            proof = ("--ca-file", ca, "--certificate-file", own, "--key-file", own_key)
            assert (await tutelage(*words, *proof))[0] == code, name
