"""Reports of a job's processes on their way through a real Redis to the worker."""

from __future__ import annotations

import asyncio
import secrets
import time

import pytest

from student_distiller.executors import CheckpointReport, MetricsReport, Report, StepReport
from student_distiller.job_reports import MOST_KEPT, ReportBox, ReportSender
from tutelage.redis_server import connect

SOME = [
    StepReport(1, 10, {"loss": 7.5, "soft": 1e-9}),
    CheckpointReport(4, 1234, 0.25),
    StepReport(10, 10, {}),
    MetricsReport({"fused": {"persons": 3, "eer": 0.125, "tar_1e3": None}}),
]


class Box:
    """The worker's end on the real server; closed when the test has ended."""

    def __init__(self, server) -> None:
        self.server, self.url = server, f"redis://127.0.0.1:{server.port}"
        self.connection = connect(self.url)
        self.box, self.told = ReportBox(self.connection), []

    async def heard(self, report: Report) -> None:
        self.told.append(report)

    async def close(self) -> None:
        await self.connection.aclose()


@pytest.fixture
def make(redis_server) -> Box:
    return Box(redis_server)


@pytest.fixture
def holder() -> str:
    return secrets.token_hex(16)


async def test_reports_arrive_whole_in_order_and_once(make: Box, holder: str):
    with ReportSender(make.url, holder) as sender, ReportSender(make.url, secrets.token_hex(16)) as other:
        for report in SOME:
            sender.report(report)
        other.report(SOME[0])
    await make.box.drain(holder, make.heard)
    assert make.told == SOME
    await make.box.drain(holder, make.heard)
    assert make.told == SOME


async def test_they_are_relayed_while_the_job_goes_on(make: Box, holder: str):
    relaying = asyncio.ensure_future(make.box.relay(holder, make.heard))
    with ReportSender(make.url, holder) as sender:
        for count, report in enumerate(SOME, 1):
            sender.report(report)
            async with asyncio.timeout(10):
                while len(make.told) < count:
                    await asyncio.sleep(0.05)
    relaying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await relaying
    assert make.told == SOME


async def test_nobody_listening_costs_little_room_and_time(make: Box, holder: str):
    with ReportSender(make.url, holder) as sender:
        for step in range(1, MOST_KEPT + 51):
            sender.report(StepReport(step, 2 * MOST_KEPT))
    key = f"tutelage:{{distill.jobs}}:reports:{holder}"
    assert await make.connection.llen(key) == MOST_KEPT
    assert 3000 < await make.connection.ttl(key) <= 3600
    await make.box.drain(holder, make.heard)
    assert [report.step for report in make.told] == list(range(51, MOST_KEPT + 51))


async def test_what_another_release_says_is_left_out(make: Box, holder: str):
    key = f"tutelage:{{distill.jobs}}:reports:{holder}"
    words = ["no JSON", "[]", '{"kind": "unheard-of"}', '{"kind": "step", "steps": 1, "colour": 2}']
    await make.connection.rpush(key, *words, '{"kind": "step", "step": 2, "steps": 3, "losses": {}}')
    await make.box.drain(holder, make.heard)
    assert make.told == [StepReport(2, 3)]


def test_a_server_that_is_away_never_makes_a_training_wait(holder: str):
    begun = time.monotonic()
    with ReportSender("redis://127.0.0.1:1", holder) as sender:
        for report in SOME:
            sender.report(report)
        assert time.monotonic() - begun < 1
    assert time.monotonic() - begun < 5


async def test_a_worker_whose_server_is_away_goes_on(make: Box, holder: str):
    make.server.kill()
    await make.box.drain(holder, make.heard)
    assert make.told == []
    make.server.start()
    with ReportSender(make.url, holder) as sender:
        sender.report(SOME[0])
    await make.box.drain(holder, make.heard)
    assert make.told == SOME[:1]
