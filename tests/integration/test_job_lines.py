"""The line between a worker and the processes of its jobs: orders, reports, stops, and who is gone."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from student_distiller.executors import CheckpointReport, MetricsReport, StepReport, report_from_json, report_to_json
from student_distiller.job_lines import ProcessLine, WorkerLine
from student_distiller.job_orders import JobOrder, KeyFiles
from tutelage.errors import Code, SettingsError, StorageError, TrainingError
from tutelage.settings import Address, Secret
from tutelage.stores import ObjectsSettings

REPORTS = [
    StepReport(3, 9, {"loss": 0.5}),
    CheckpointReport(3, 100, 0.25),
    MetricsReport({"fused": {"eer": None, "persons": 3}}),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "line"


async def connected(path: Path, gone=lambda: None) -> ProcessLine:
    return await asyncio.to_thread(ProcessLine, path, gone)


@pytest.mark.parametrize("report", REPORTS)
def test_reports_go_through_json_unchanged(report):
    assert report_from_json(json.loads(json.dumps(report_to_json(report)))) == report


async def test_a_process_gets_its_order_and_is_heard(path: Path):
    heard = []

    async def take(report):
        heard.append(report)

    async with WorkerLine(path, {"a": 1}, take) as worker:
        process = await connected(path)
        assert process.order == {"a": 1}
        for report in REPORTS:
            await asyncio.to_thread(process.report, report)
        process.close()
        await worker.drained()
    assert heard == REPORTS


async def test_a_process_is_asked_to_stop_also_when_it_comes_late(path: Path):
    async with WorkerLine(path, {}, None) as worker:
        early = await connected(path)
        assert not early.must_stop()
        worker.ask_to_stop()
        late = await connected(path)
        async with asyncio.timeout(10):
            while not (early.must_stop() and late.must_stop()):
                await asyncio.sleep(0.01)
        early.close()
        late.close()


async def test_a_process_whose_worker_is_gone_ends(path: Path):
    gone = threading.Event()
    async with WorkerLine(path, {}, None):
        process = await connected(path, gone.set)
    assert await asyncio.to_thread(gone.wait, 10)
    process.close()
    with pytest.raises(TrainingError) as raised:
        await connected(path)
    assert raised.value.code is Code.TRAINING_KILLED


async def test_of_several_failures_the_cause_is_told(path: Path):
    async with WorkerLine(path, {}, None) as worker:
        assert worker.failure is None
        for error in (TrainingError(Code.TRAINING_KILLED, "others"), StorageError(Code.STORAGE_FULL, "full")):
            process = await connected(path)
            await asyncio.to_thread(process.failed, error)
            process.close()
            await worker.drained()
        assert (worker.failure.code, worker.failure.message) == (Code.STORAGE_FULL, "full")
        assert isinstance(worker.failure, StorageError)


@pytest.mark.parametrize(
    "said", [b"\x00\xff\n", b"{}\n", b'{"report":{"kind":"x"}}\n', b"[]\n", b'{"report"', b"x" * 99]
)
async def test_nonsense_from_a_process_does_not_hurt(path: Path, said: bytes):
    async with WorkerLine(path, {}, None) as worker:
        with socket.socket(socket.AF_UNIX) as strange:
            strange.connect(str(path))
            strange.sendall(said)
        await asyncio.sleep(0.05)
        process = await connected(path)
        process.close()
        await worker.drained()


def order(place: ObjectsSettings) -> JobOrder:
    keys = KeyFiles(Path("/k/signer"), Path("/k/seal"), Path("/k/data"), (Path("/k/a.pub"), Path("/k/b.pub")))
    every, spent = timedelta(seconds=60), timedelta(seconds=1.5)
    return JobOrder("0" * 32, "me", spent, place, keys, Path("/scratch"), every, "cpu")


@pytest.mark.parametrize(
    "place",
    [
        ObjectsSettings(folder=Path("/objects")),
        ObjectsSettings(Address("s3", 9000), "bucket", Secret(b"name"), Secret(b"secret"), tls=False),
    ],
)
def test_an_order_goes_through_json_unchanged_and_does_not_show_secrets(place):
    made = order(place)
    assert JobOrder.from_json(json.loads(json.dumps(made.as_json()))) == made
    assert "secret=" not in repr(made).replace("secret_key=", "")
    with pytest.raises(SettingsError):
        JobOrder.from_json({**made.as_json(), "place": {"adress": None}})
