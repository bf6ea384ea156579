"""Settings of backends: which teacher, what runs it, and rules between the two."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

pytest.importorskip("grpc")
pytest.importorskip("torch")

from teacher_inference.backends import BackendKind, BackendSettings, Device
from teacher_inference.batching import BatchingBackend
from teacher_inference.opening import open_backend
from tutelage.errors import Code, SettingsError, TutelageError
from tutelage.settings import Address, read_settings, settings_table


def test_without_any_variable_the_shipped_teacher_runs_in_this_process():
    found = read_settings(BackendSettings, {})
    assert (found.kind, found.teacher) == (BackendKind.IN_PROCESS, "fingerprint")


def test_a_server_is_read_from_the_environment():
    found = read_settings(
        BackendSettings,
        {
            "X_KIND": "torchserve",
            "X_ADDRESS": "teacher:7070",
            "X_START_TIMEOUT": "5",
            "X_BATCHING_AT_ONCE": "4",
            "X_BATCHING_WAIT": "0",
        },
        "X_",
    )
    assert (found.kind, found.address) == (BackendKind.TORCHSERVE, Address("teacher", 7070))
    assert (found.start_timeout, found.batching.at_once) == (timedelta(seconds=5), 4)
    assert found.batching.wait == timedelta(0)


@pytest.mark.parametrize("kind", ["torchserve", "open-inference"])
def test_a_server_needs_an_address(kind: str):
    with pytest.raises(SettingsError, match="needs the server's address"):
        read_settings(BackendSettings, {"X_KIND": kind}, "X_")


def test_every_field_says_what_it_means():
    rows = settings_table(BackendSettings).splitlines()[2:]
    assert len(rows) >= 18
    assert all(len(row.split("|")[3].split()) >= 4 for row in rows)


def opened(**settings) -> None:
    async def work() -> None:
        backend = await open_backend(BackendSettings(device=Device.CPU, threads=1, **settings))
        assert isinstance(backend, BatchingBackend)
        await backend.close()

    asyncio.run(work())


def test_a_teacher_that_is_not_there_is_told_when_it_is_opened(tmp_path):
    opened()
    with pytest.raises(TutelageError) as raised:
        opened(teacher=str(tmp_path / "none.safetensors"))
    assert raised.value.code is Code.STORAGE_FAILED
    tmp_path.joinpath("bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(TutelageError) as raised:
        opened(teacher=str(tmp_path / "bad.safetensors"))
    assert raised.value.code is Code.PACKAGE_CORRUPT
