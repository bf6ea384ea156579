"""`tutelage smoke`: a whole installation passes step by step, a broken one is told what fails; nobody stays behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grpc")
pytest.importorskip("student_distiller")

from certificates import Authority
from device_cloud import teaching
from device_node import events, node, node_settings, status
from served_part import LOOPBACK
from shipped_device import PATIENT, ended, shipped_device, started, tutelage
from toy_device import SETTINGS

from device_sim.called_service import DEVICE, CalledService
from device_sim.node_settings import RegistrySettings, TeacherSettings
from device_sim.patience import Patience
from device_sim.public import Public
from device_sim.sampling import SampleRules
from device_sim.sensor import Condition
from device_sim.smoke_person import SmokePerson
from tutelage.api.device.v1 import device_pb2 as pb
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceStub
from tutelage.captures import encode_png
from tutelage.channel import Channel, ChannelSettings
from tutelage.errors import CATALOGUE, Code, ServiceError
from tutelage.settings import Address
from tutelage.tls import ClientTls, ServerTls

STUDENT = resources.files("tutelage") / "assets/student-fingerprint-tiny.tutelage"
STEPS = ["health", "enrol", "recognise", "stranger", "teacher", "registry", "erase"]
CLOUD = [
    ("teacher", "health"),
    ("teacher", "space"),
    ("registry", "health"),
    ("registry", "versions"),
    ("registry", "channel"),
    ("distiller", "health"),
    ("distiller", "jobs"),
]


@asynccontextmanager
async def up(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[Address]:
    """All services in a process of their own, on loopback."""
    quick = {"TUTELAGE_SERVER_DRAIN_NOTICE": "0", "TUTELAGE_METRICS_ENABLED": "false"}
    command = [sys.executable, "-m", "tutelage", "up", "--folder", str(folder), "--address", "localhost:0"]
    with (folder.parent / "up.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=subprocess.PIPE, stderr=log, env={**os.environ, **quick, **environment}
        )
        try:
            line = (await asyncio.wait_for(process.stdout.readline(), 90)).decode()
            assert line.startswith("serving at localhost:"), (folder.parent / "up.log").read_text()
            yield Address("localhost", int(line.split(":")[1]))
        finally:
            process.terminate()
            await process.wait()


def proofs(folder: Path) -> tuple[ServerTls, ClientTls, dict[str, str], list[object]]:
    """Certificates for everybody, as settings of servers and clients, as environment, and as words of a command."""
    ours = Authority("ours")
    ca, (crt, key) = ours.write(folder / "ca.pem"), ours.issue(folder, "all")
    files = {"CERTIFICATE_FILE": str(crt), "KEY_FILE": str(key)}
    environment = {f"TUTELAGE_SERVER_TLS_{name}": path for name, path in (*files.items(), ("CLIENT_CA_FILE", str(ca)))}
    to_teacher = {**files, "CA_FILE": str(ca), "ENABLED": "true"}
    environment |= {f"TUTELAGE_DISTILLER_TEACHER_TLS_{name}": path for name, path in to_teacher.items()}
    words: list[object] = ["--ca-file", ca, "--certificate-file", crt, "--key-file", key]
    return ServerTls(crt, key, ca), ClientTls(True, ca, crt, key), environment, words


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "mtls"])
async def test_a_whole_installation_passes_and_nobody_stays_enrolled(tmp_path: Path, secured: bool):
    server, client, environment, words = proofs(tmp_path) if secured else (ServerTls(), ClientTls(), {}, [])
    async with up(tmp_path / "up", environment) as cloud:
        settings = shipped_device(
            tmp_path / "device",
            student_file=Path(str(STUDENT)),
            teacher=TeacherSettings(cloud, tls=client),
            registry=RegistrySettings(cloud, tls=client),
        )
        async with node(settings, tls=server, address=Address("localhost", 0)) as running:
            where = ["--device", f"localhost:{running.port}"]
            where += [word for part in ("teacher", "registry", "distiller") for word in (f"--{part}", cloud)]
            code, out, err = await tutelage("smoke", *where, *words)
            lines = [line.split() for line in out.splitlines()]
            assert (code, err) == (0, ""), out
            assert [tuple(line[1:3]) for line in lines] == CLOUD + [("device", step) for step in STEPS]
            assert {line[0] for line in lines} == {"ok"}
            for said in ("stable is not set yet", "it reaches its teacher", "it reaches its registry", "no job yet"):
                assert said in out
            code, out, err = await tutelage("smoke", *where, *words, "--json")
            told = json.loads(out)
            assert (code, told["ok"], len(told["steps"])) == (0, True, len(CLOUD) + len(STEPS))
            assert {(step["ending"], step["code"]) for step in told["steps"]} == {("ok", None)}
            async with Channel(ChannelSettings(Address("localhost", running.port), client)) as channel:
                stub = DeviceServiceStub(channel)
                now = await status(stub)
                assert (now.persons, now.pending_erasures) == (0, 0)
                assert {count.state for count in now.samples} <= {pb.SAMPLE_STATE_DROPPED}  # rows without a capture
                assert len(await events(stub, pb.EVENT_KIND_PERSON_ERASED)) == 2
            if secured:
                code, out, _ = await tutelage("smoke", *where, "--patience", 0, "--timeout", 2)
                assert code == CATALOGUE[Code.SERVICE_UNAVAILABLE].exit_code
                assert "ok      device     erase" in out


def endings(out: str, part: str) -> dict[str, str]:
    """How each step of a part ended."""
    return {step["step"]: step["ending"] for step in json.loads(out)["steps"] if step["part"] == part}


async def test_every_part_that_is_broken_is_told_and_the_first_decides_the_status(tmp_path: Path):
    async with teaching(tmp_path) as teacher:
        settings = shipped_device(
            tmp_path / "device", teacher=TeacherSettings(Address(LOOPBACK, 9), timeout=timedelta(seconds=1))
        )
        async with node(settings) as running:
            device = f"{LOOPBACK}:{running.port}"
            words = ("--teacher", teacher, "--registry", teacher, "--device", device, "--patience", 1)
            code, out, err = await tutelage("smoke", *words, "--json")
            assert code == CATALOGUE[Code.SERVICE_WRONG].exit_code, out
            assert err.startswith(
                f"error [service-wrong]: the registry at {teacher}: whoever answers there does not know "
            )
            assert endings(out, "teacher") == {"health": "ok", "space": "ok"}
            assert endings(out, "registry") == {"health": "failed", "versions": "skipped", "channel": "skipped"}
            expected = dict.fromkeys(STEPS, "ok") | {"teacher": "failed", "registry": "skipped", "erase": "failed"}
            assert endings(out, "device") == expected  # the teacher cannot be told to forget her
            said = json.loads(out)["steps"][-1]["said"]
            assert "tutelage device erase smoke-" in said
            async with Channel(ChannelSettings(Address(LOOPBACK, running.port))) as channel:
                now = await status(DeviceServiceStub(channel))
            assert (now.persons, now.pending_erasures, now.teacher.reached) == (0, 1, False)


async def test_a_device_that_should_have_a_registry_and_has_none_is_wrong(tmp_path: Path):
    async with teaching(tmp_path) as teacher, calling_at(shipped_device(tmp_path / "device")) as (stub, device):
        code, out, err = await tutelage("smoke", "--device", device, "--patience", 0)
        assert (code, err) == (0, "")
        assert "it has no teacher" in out
        words = ("smoke", "--device", device, "--teacher", teacher, "--patience", 0)
        code, out, err = await tutelage(*words)
        assert code == CATALOGUE[Code.SERVICE_WRONG].exit_code
        assert "set TUTELAGE_DEVICE_TEACHER_ADDRESS" in err
        assert (await status(stub)).persons == 0


async def test_a_device_that_knows_nobody_again_is_found_out(tmp_path: Path):
    """Its rules ask for more than the highest score there is."""
    blind = replace(SETTINGS, sampling=SampleRules(accept_score=1e3, sample_low=1e3, sample_high=2e3))
    async with calling_at(node_settings(tmp_path / "device", blind)) as (stub, device):
        code, _, err = await tutelage("smoke", "--device", device)
        assert code == CATALOGUE[Code.SERVICE_WRONG].exit_code
        assert "the device did not accept 3 fresh captures" in err
        assert (await status(stub)).persons == 0


async def test_a_device_that_lets_strangers_in_is_found_out(tmp_path: Path):
    """The strangers of the check are enrolled there under names of their own, so that each is accepted."""
    public = Public(seed=7, persons=3)
    strangers = {
        f"stranger-{place}": [public.capture(place, press, Condition()) for press in range(3)] for place in (1, 2)
    }
    settings = shipped_device(tmp_path / "device", student_file=Path(str(STUDENT)))
    async with calling_at(settings) as (stub, device):
        for name, captures in strangers.items():
            await stub.Enrol(pb.EnrolRequest(person=name, captures=map(encode_png, captures)), timeout=PATIENT)
        where = ChannelSettings(Address.parse(device))
        with CalledService(DEVICE, where, timeout=timedelta(seconds=PATIENT)) as called:
            steps = {step.name: step for step in SmokePerson(called, Patience(0), seed=7).steps()}
            with pytest.raises(ServiceError, match="the device let 2 strangers in"):
                await asyncio.to_thread(steps["stranger"].do)


@asynccontextmanager
async def calling_at(settings: Any) -> AsyncIterator[tuple[DeviceServiceStub, str]]:
    """The calls of a device that serves until the block ends, and its address."""
    async with node(settings) as running, Channel(ChannelSettings(Address(LOOPBACK, running.port))) as channel:
        yield DeviceServiceStub(channel), f"{LOOPBACK}:{running.port}"


async def test_who_interrupts_the_check_leaves_nobody_behind(tmp_path: Path):
    """The registry is never reached: the device goes on waiting for it, until somebody ends the check."""
    settings = shipped_device(
        tmp_path / "device", student_file=Path(str(STUDENT)), registry=RegistrySettings(Address(LOOPBACK, 9))
    )
    async with calling_at(settings) as (stub, device):
        process = await started("smoke", "--device", device, "--patience", 90)
        async with asyncio.timeout(90):
            while b"stranger" not in await process.stdout.readline():
                pass
        assert (await status(stub)).persons == 1
        process.send_signal(signal.SIGTERM)
        code, _, _ = await ended(process, 30)
        assert code == 130
        assert (await status(stub)).persons == 0


async def test_nothing_to_check_is_refused():
    code, out, err = await tutelage("smoke")
    assert (code, out) == (CATALOGUE[Code.USAGE].exit_code, "")
    assert "name a --device, --teacher, --registry or --distiller" in err
    code, out, err = await tutelage("smoke", "--device", "nowhere")
    assert (code, out) == (CATALOGUE[Code.SETTING_INVALID].exit_code, "")
    assert "nowhere" in err
