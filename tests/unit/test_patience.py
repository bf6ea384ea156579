"""Patience: what may pass is tried again until the time is up; what may not is told at once."""

from __future__ import annotations

import pytest

from device_sim.patience import PAUSE_S, Patience
from tutelage.errors import Code, PersonError, ServiceError


class Time:
    """A clock that goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def failing(times: int):
    """Work that is done after so many failures."""
    left = [ServiceError(Code.SERVICE_UNAVAILABLE, f"away {i}") for i in range(times)]

    def work() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return work


def test_what_comes_back_in_time_is_waited_for():
    time = Time()
    assert Patience(10, clock=lambda: time.now_s, sleep=time.sleep).with_(failing(10)) == "done"
    assert time.now_s == 100.0 + 10 * PAUSE_S


def test_what_stays_away_is_told_when_the_time_is_up():
    time = Time()
    with pytest.raises(ServiceError, match="away 4"):
        Patience(2, clock=lambda: time.now_s, sleep=time.sleep).with_(failing(100))
    assert time.now_s == 102.0


def test_each_piece_of_work_has_the_whole_patience():
    time = Time()
    patience = Patience(2, clock=lambda: time.now_s, sleep=time.sleep)
    assert [patience.with_(failing(3)) for _ in range(3)] == ["done"] * 3


def test_without_patience_the_first_failure_is_told():
    with pytest.raises(ServiceError, match="away 0"):
        Patience(0).with_(failing(1))


def test_what_trying_again_cannot_mend_is_told_at_once():
    def work() -> str:
        raise PersonError("anna")

    time = Time()
    with pytest.raises(PersonError):
        Patience(60, clock=lambda: time.now_s, sleep=time.sleep).with_(work)
    assert time.now_s == 100.0
