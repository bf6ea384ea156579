"""Progress: lines for logs, a bar for terminals, forecasts from where the work began."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tutelage.commands.progress import shown_progress


class Clock:
    """Time that a test moves."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_log_gets_a_line_every_ten_seconds_and_the_last(capsys: pytest.CaptureFixture[str]):
    clock = Clock()
    with shown_progress("training", clock=clock) as report:
        for step in range(1, 26):
            report(step, 25, {"loss": 5.0 / step, "other": 1.0})
            clock.now_s += 1.0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "training: 1 of 25 steps, loss 5.000",
        "training: 11 of 25 steps, loss 0.455, 1 steps/s, 14 s left",
        "training: 21 of 25 steps, loss 0.238, 1 steps/s, 4 s left",
        "training: 25 of 25 steps, loss 0.200, 1 steps/s, 0 s left",
    ]


@pytest.mark.parametrize(
    ("seconds_a_step", "words"),
    [(0.5, "2 steps/s, 50 s left"), (30.0, "0.0333 steps/s, 50 min left"), (120.0, "0.00833 steps/s, 3 h 20 min left")],
)
def test_a_forecast_is_made_from_where_the_work_was_resumed(capsys, seconds_a_step: float, words: str):
    clock = Clock()
    with shown_progress("training", clock=clock) as report:
        report(800, 1000, {})
        clock.now_s += 100 * seconds_a_step
        report(900, 1000, {})
    assert capsys.readouterr().err.splitlines()[-1] == f"training: 900 of 1000 steps, {words}"


def test_other_work_is_counted_in_its_own_unit(capsys):
    with shown_progress("asking", "captures", clock=Clock()) as report:
        report(3, 3, {})
    assert capsys.readouterr().err == "asking: 3 of 3 captures\n"


def test_a_terminal_gets_a_bar_that_begins_where_the_work_was_resumed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR")
    screen = io.StringIO()
    clock = Clock()
    with shown_progress(
        "training", console=Console(file=screen, force_terminal=True, width=100), clock=clock
    ) as report:
        report(50, 100, {"loss": 2.0})
        clock.now_s += 10
        report(100, 100, {"loss": 1.5})
    shown = screen.getvalue()
    assert "100/100" in shown
    assert "loss 1.500, 5 steps/s, 0 s left" in shown


def test_work_that_is_interrupted_is_not_swallowed():
    with pytest.raises(KeyboardInterrupt), shown_progress("training", clock=Clock()):
        raise KeyboardInterrupt
