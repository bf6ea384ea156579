"""Chores: what fails is tried again after pauses that grow and are drawn by chance, is told once, and ends nothing."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import dataclass, field

import pytest

from device_sim.chores import Backoff, ChoreThread
from tutelage.errors import Code, ServiceError
from tutelage.log import configure_logging


@dataclass
class Scripted:
    """A chore that does what is written."""

    script: list[Exception | float]
    name: str = "scripted"
    done: int = 0
    ready: threading.Event = field(default_factory=threading.Event)

    def do(self) -> float:
        self.done += 1
        step = self.script.pop(0) if self.script else 3600.0
        if not self.script:
            self.ready.set()
        if isinstance(step, Exception):
            raise step
        return step


AWAY = ServiceError(Code.SERVICE_UNAVAILABLE, "nobody answers: try again")


def most(low: float, high: float) -> float:
    assert low == 0.0
    return high


def test_pauses_double_up_to_their_bound_and_begin_anew_after_a_success():
    backoff = Backoff(2.0, 15.0, most)
    assert [backoff.failed() for _ in range(5)] == [2.0, 4.0, 8.0, 15.0, 15.0]
    backoff.succeeded()
    assert backoff.failed() == 2.0


def test_pauses_are_drawn_from_nothing_on_and_never_overflow():
    backoff = Backoff(1.0, 100.0)
    pauses = [backoff.failed() for _ in range(3000)]
    assert min(pauses[10:]) < 10.0
    assert 90.0 < max(pauses) <= 100.0


def test_a_failure_is_told_once_and_the_end_of_failing_too():
    out = io.StringIO()
    configure_logging("info", out)
    chore = Scripted([AWAY, AWAY, ValueError("with a secret"), 5.0, 7.0])
    counted: list[bool] = []
    thread = ChoreThread(chore, Backoff(1.0, 60.0, most), lambda _, well: counted.append(well))
    assert [thread.once() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 7.0]
    assert counted == [False, False, False, True, True]
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["event"], line.get("code")) for line in told] == [
        ("chore fails, it is tried again", "service-unavailable"),
        ("chore goes on", None),
    ]
    assert told[1]["failures"] == 3


def test_a_defect_is_told_with_its_place_and_without_its_words():
    out = io.StringIO()
    configure_logging("info", out)
    ChoreThread(Scripted([ValueError("anna")]), Backoff(1.0, 60.0, most)).once()
    (line,) = out.getvalue().splitlines()
    assert "anna" not in line
    assert "in do" in json.loads(line)["frames"]


def test_it_is_done_again_when_it_said_at_once_when_woken_and_no_more_when_stopped():
    chore = Scripted([0.0, 0.0, 0.0, 3600.0])
    thread = ChoreThread(chore, Backoff(1.0, 60.0))
    thread.start()
    assert chore.ready.wait(20)
    chore.script, done = [3600.0], chore.done
    chore.ready.clear()
    assert thread.alive
    thread.wake()
    assert chore.ready.wait(20)
    assert chore.done == done + 1
    thread.stop()
    thread.join()
    assert not thread.alive
    assert chore.done == done + 1


def test_a_chore_that_never_began_can_be_stopped():
    thread = ChoreThread(Scripted([]), Backoff(1.0, 60.0))
    thread.stop()
    thread.join()
    assert not thread.alive


@pytest.mark.parametrize("failures", [0, 1, 70])
def test_a_pause_is_always_a_finite_number(failures: int):
    backoff = Backoff(2.0, 900.0, most)
    for _ in range(failures):
        backoff.failed()
    assert 0.0 < backoff.failed() <= 900.0
