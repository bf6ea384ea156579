"""Commands end alike by Ctrl-C and by SIGTERM, wherever the signal meets them."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from device_sim.interruption import terminated_as_interrupted

BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_raises_within_and_the_handlers_are_as_before_afterwards(number: signal.Signals):
    before = [signal.getsignal(each) for each in BOTH]
    with pytest.raises(KeyboardInterrupt), terminated_as_interrupted():
        os.kill(os.getpid(), number)
    assert [signal.getsignal(each) for each in BOTH] == before


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_that_was_ignored_before_raises_too(number: signal.Signals):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), terminated_as_interrupted():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", BOTH)
def test_what_a_finaliser_swallowed_is_heeded_at_the_next_step(number: signal.Signals, monkeypatch: pytest.MonkeyPatch):
    swallowed: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: swallowed.append(found.exc_type))

    class Finalised:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)

    with terminated_as_interrupted() as interruption:
        interruption.heed()
        Finalised()
        assert swallowed == [KeyboardInterrupt]
        with pytest.raises(KeyboardInterrupt):
            interruption.heed()
