"""A student is adopted and published by commands, and a device that has none waits for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from device_cloud import serving

from device_sim.first_student import first_student
from device_sim.node_settings import NodeSettings, RegistrySettings
from model_registry.service import PART
from model_registry.service import RegistrySettings as ServiceSettings
from tutelage.adoption import SHIPPED
from tutelage.channel import ChannelSettings
from tutelage.errors import Code, ObjectError, ServiceError
from tutelage.impostors import open_impostors
from tutelage.package import read_package
from tutelage.registry_client import RegistryClient
from tutelage.sealing import make_key
from tutelage.settings import Address
from tutelage.signing import make_signer, public_pem, read_public_key

WITHIN = timedelta(seconds=20)


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """A folder with the keys of a fleet."""
    make_key(tmp_path / "fleet.key")
    (tmp_path / "signer.pub").write_bytes(public_pem(make_signer(tmp_path / "signer.pem").public_key()))
    return tmp_path


def tutelage(*words: object) -> str:
    command = [sys.executable, "-m", "tutelage", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def adopt(fleet: Path, name: str) -> Path:
    keys = ("--signer-file", fleet / "signer.pem", "--seal-key-file", fleet / "fleet.key")
    tutelage("package", "adopt", "shipped", *keys, "--out", fleet / name)
    return fleet / name


def test_what_was_adopted_is_the_same_student_under_the_fleets_own_keys(fleet: Path):
    path = adopt(fleet, "own.tutelage")
    own = read_package(path, trusted=[read_public_key(fleet / "signer.pub")])
    shipped = read_package(SHIPPED.read_bytes(), trusted=[read_public_key(Path(str(SHIPPED.parent / "release.pub")))])
    assert (own.weights, own.calibration, own.info, own.space) == (
        *(shipped.weights, shipped.calibration, shipped.info, shipped.space),
    )
    assert own.digest != shipped.digest
    captures, _ = open_impostors(own.impostors, bytes.fromhex((fleet / "fleet.key").read_text()))
    assert len(captures) > 100
    assert adopt(fleet, "again.tutelage").read_bytes() == path.read_bytes()


async def test_a_package_is_published_once_however_often_it_is_done(fleet: Path):
    path = adopt(fleet, "own.tutelage")
    async with serving(PART, ServiceSettings((fleet / "signer.pub",)), fleet / "registry") as address:
        words = ("package", "publish", path, "--registry", address, "--channel", "stable", "--first")
        assert "stable points to it" in await asyncio.to_thread(tutelage, *words)
        assert "already" in await asyncio.to_thread(tutelage, *words)
        assert "points" not in await asyncio.to_thread(tutelage, *words[:-1])
        settings = NodeSettings(registry=RegistrySettings(address))
        with RegistryClient(ChannelSettings(address), timeout=WITHIN) as registry:
            assert await asyncio.to_thread(first_student, settings, registry) == path.read_bytes()


async def test_a_device_without_a_student_waits_for_its_channel_as_long_as_it_is_told(fleet: Path):
    path = adopt(fleet, "own.tutelage")
    async with serving(PART, ServiceSettings((fleet / "signer.pub",)), fleet / "registry") as address:
        hasty = NodeSettings(registry=RegistrySettings(address))
        patient = replace(hasty, registry=replace(hasty.registry, patience=timedelta(minutes=1)))
        with RegistryClient(ChannelSettings(address), timeout=WITHIN) as registry:
            with pytest.raises(ObjectError) as caught:
                await asyncio.to_thread(first_student, hasty, registry)
            assert caught.value.code is Code.OBJECT_MISSING
            waiting = asyncio.create_task(asyncio.to_thread(first_student, patient, registry))
            await asyncio.sleep(1)
            assert not waiting.done()
            words = ("package", "publish", path, "--registry", address, "--channel", "stable")
            await asyncio.to_thread(tutelage, *words)
            async with asyncio.timeout(20):
                assert await waiting == path.read_bytes()


async def test_patience_with_a_registry_that_is_away_has_an_end():
    nowhere = Address("127.0.0.1", 1)
    settings = NodeSettings(registry=RegistrySettings(nowhere, patience=timedelta(seconds=2)))
    with (
        RegistryClient(ChannelSettings(nowhere), timeout=timedelta(seconds=0.5)) as registry,
        pytest.raises(ServiceError),
    ):
        await asyncio.to_thread(first_student, settings, registry)
