from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from rich.console import Console, RenderableType

from device_sim.live import EVENTS_SHOWN, DeviceView, LiveView, bar, devices_table, fleet_line, sparkline
from tutelage.errors import Code, TrainingError

DEVICE = DeviceView(
    number=0,
    generation="v1",
    wear=0.39,
    first=200,
    second=30,
    labelled=20,
    abstained=3,
    misses=0.52,
    histogram=(0, 1, 2, 4, 0, 0, 8, 0, 0, 0, 0, 3),
    state="recognising",
    verdict="",
)


@dataclass
class Clock:
    """Time that passes only when told."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lines_console(width: int = 100) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=False)


def terminal(width: int = 100, height: int = 30) -> Console:
    return Console(
        file=io.StringIO(),
        width=width,
        height=height,
        force_terminal=True,
        force_interactive=True,
        _environ={"TERM": "xterm-256color"},
    )


def shown(part: RenderableType, width: int = 100) -> list[str]:
    console = lines_console(width)
    console.print(part)
    return console.file.getvalue().splitlines()


def frames(console: Console) -> int:
    """How often the view was drawn so far."""
    return console.file.getvalue().count(" of 16")


@pytest.fixture
def view(clock: Clock) -> Iterator[LiveView]:
    with LiveView(terminal(), title="Fingers", clock=clock) as entered:
        yield entered


def test_a_device_is_a_row_with_all_its_numbers():
    (line,) = (line for line in shown(devices_table([DEVICE], 30.0, width=100)) if "recognising" in line)
    assert line.split() == [
        "0",
        "v1",
        "██▍",
        "39",
        "%",
        "52",
        "%",
        "▁▂▄",
        "█",
        "▃",
        "200",
        "+",
        "30",
        "20",
        "(3)",
        "recognising",
    ]


def test_a_narrow_terminal_gets_wear_without_a_bar_and_the_first_letters_of_the_verdict():
    device = replace(DEVICE, verdict="failed: strangers 3 of 200")
    lines = shown(devices_table([device], 30.0, width=80), width=80)
    (line,) = (line for line in lines if "recognising" in line)
    assert "██▍" not in line
    assert line.split()[-1] == "fail"
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "      "), (1.0, "██████"), (0.5, "███   "), (0.39, "██▍   "), (7, "██████"), (-1, "      ")],
)
def test_a_bar_is_filled_in_eighths(share: float, text: str):
    assert bar(share) == text


def test_a_sparkline_has_a_block_a_bin_and_another_colour_from_the_accept_score_on():
    line = sparkline((0, 1, 2, 4, 0, 100, 100, 0, 0, 0, 0, 50), 30.0)
    assert line.plain == " ▁▁▁ ██    ▄"
    styles = [str(span.style) for span in line.spans]
    assert len(styles) == 12
    assert set(styles[:6]) == {"yellow"}
    assert set(styles[6:]) == {"bright_blue"}


def test_a_sparkline_of_nothing_is_blank():
    assert sparkline((0,) * 12, 30.0).plain == " " * 12
    assert sparkline((), 30.0).plain == ""


def test_a_fleet_is_one_line():
    other = replace(DEVICE, generation="v1+1", wear=0.41, misses=0.02, first=1, second=2, labelled=3, abstained=4)
    assert fleet_line(10, 16, [DEVICE, other, other]) == (
        "day 10 of 16: wear 40 %, misses 19 %, samples 202 first + 34 second, "
        "labels 26 named + 11 abstained, students 1 x v1, 2 x v1+1"
    )
    assert fleet_line(1, 2, []) == "day 1 of 2"


def test_the_picture_holds_progress_devices_and_events(view: LiveView, clock: Clock):
    clock.now += 65.0
    view.on_day(4, 16, [DEVICE, replace(DEVICE, number=1, verdict="passed: misses 2 of 12")])
    view.on_event(4, 1, "gate-passed", "misses 2 of 12")
    lines = shown(view.picture())
    assert lines[0].startswith("Fingers  day 4 of 16")
    assert lines[0].endswith("1 min 05 s")
    assert [line.split()[0] for line in lines if "recognising" in line] == ["0", "1"]
    assert "passed: misses 2 …" in "".join(lines)
    assert lines[-1].split() == ["day", "4", "device", "1", "gate-passed", "misses", "2", "of", "12"]


def test_only_the_last_events_are_kept(view: LiveView):
    view.on_day(1, 16, [DEVICE])
    for number in range(EVENTS_SHOWN + 3):
        view.on_event(1, 0, "sample-kept", f"number {number}.")
    lines = shown(view.picture())
    assert [line.split()[-1] for line in lines[-EVENTS_SHOWN:]] == [f"{n}." for n in range(3, EVENTS_SHOWN + 3)]


def test_a_picture_is_never_higher_than_its_terminal(clock: Clock):
    for height in (9, 14, 19, 24, 29):
        console = terminal(height=height)
        view = LiveView(console, title="Fingers", clock=clock)
        view.on_day(1, 16, [replace(DEVICE, number=n) for n in range(12)])
        with view:
            for number in range(9):
                view.on_event(1, 0, "sample-kept", str(number))
            lines = shown(view.picture())
        assert len(lines) < height
        hidden = 12 - sum("recognising" in line for line in lines)
        assert any(f"and {hidden} more device" in line for line in lines) == (hidden > 0)


def test_long_reasons_are_cut_not_wrapped(view: LiveView):
    view.on_event(1, 0, "gate-failed", "word " * 100)
    (line,) = (line for line in shown(view.picture()) if "gate-failed" in line)
    assert len(line) == 100
    assert line.endswith("…")


def test_redraws_are_spaced_except_where_a_state_changes(clock: Clock):
    console = terminal()
    with LiveView(console, title="Fingers", clock=clock) as view:
        view.on_day(1, 16, [DEVICE])
        drawn = frames(console)
        view.on_day(1, 16, [replace(DEVICE, first=201)])
        view.on_event(1, 0, "sample-kept", "score 41")
        assert frames(console) == drawn
        view.on_day(1, 16, [replace(DEVICE, state="training 10 %")])
        assert frames(console) == drawn + 1
        clock.now += 0.2
        view.on_day(1, 16, [replace(DEVICE, state="training 10 %", first=202)])
        assert frames(console) == drawn + 2


def test_an_event_that_matters_is_drawn_at_once(clock: Clock):
    console = terminal()
    with LiveView(console, title="Fingers", clock=clock) as view:
        view.on_event(1, 0, "gate-passed", "reason 7.")
        assert "reason 7." in console.file.getvalue()


def test_leaving_draws_what_was_held_back_and_frees_the_terminal(clock: Clock):
    console = terminal()
    with LiveView(console, title="Fingers", clock=clock) as view:
        view.on_event(1, 0, "sample-kept", "reason 8.")
        assert "reason 8." not in console.file.getvalue()
    assert "reason 8." in console.file.getvalue()
    assert console.file.getvalue().endswith("\x1b[?25h")  # the cursor is back


def test_an_error_inside_goes_on_and_the_terminal_is_free(clock: Clock):
    console = terminal()
    with pytest.raises(KeyboardInterrupt), LiveView(console, title="Fingers", clock=clock):
        raise KeyboardInterrupt
    assert console.file.getvalue().endswith("\x1b[?25h")
    with LiveView(console, title="again", clock=clock):
        assert "again" in console.file.getvalue()


def test_on_no_terminal_there_is_a_line_for_each_tenth_of_the_days(clock: Clock):
    console = lines_console()
    with LiveView(console, title="Fingers", clock=clock) as view:
        for day in range(201):
            view.on_day(day, 200, [DEVICE])
            view.on_day(day, 200, [replace(DEVICE, state="training 10 %")])
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "Fingers"
    assert [line.split(":")[0] for line in lines[1:]] == [f"day {day} of 200" for day in range(0, 201, 20)]


def test_on_no_terminal_only_events_that_matter_are_lines(clock: Clock):
    console = lines_console(width=40)
    with LiveView(console, title="Fingers", clock=clock) as view:
        view.on_event(3, 1, "sample-kept", "score 41")
        view.on_event(3.5, 1, "generation-reverted", "misses rose from 6 % to 14 % in 40 attempts of [bold]")
    assert console.file.getvalue().splitlines()[1:] == [
        "day 3.5, device 1: generation-reverted: misses rose from 6 % to 14 % in 40 attempts of [bold]"
    ]


def test_on_a_dumb_terminal_nothing_is_redrawn(clock: Clock):
    console = Console(file=io.StringIO(), width=100, force_terminal=True, force_interactive=False)
    with LiveView(console, title="Fingers", clock=clock) as view:
        view.on_day(1, 2, [DEVICE])
    assert "\x1b[?25l" not in console.file.getvalue()
    assert "day 1 of 2" in console.file.getvalue()


@pytest.mark.parametrize("console", [lines_console(), terminal()], ids=["lines", "terminal"])
def test_foreign_text_cannot_steer_the_terminal(console: Console, clock: Clock):
    hostile = "a\x1b[2J\x1b]0;title\x07[red]\nb"
    with LiveView(console, title=hostile, clock=clock) as view:
        view.on_day(1, 1, [replace(DEVICE, generation=hostile, state=hostile, verdict=hostile)])
        view.on_event(1, 0, hostile, hostile)
        view.on_event(1, 0, "gate-failed", hostile)
    text = console.file.getvalue()
    assert "\x1b[2J" not in text
    assert "\x1b]0" not in text
    assert "[red] b" in text


def test_a_simulation_of_no_days_can_be_watched(clock: Clock):
    console = lines_console()
    with LiveView(console, title="Fingers", clock=clock) as view:
        view.on_day(0, 0, [])
    assert console.file.getvalue().splitlines() == ["Fingers", "day 0 of 1"]


def test_a_training_error_is_not_swallowed(clock: Clock):
    with pytest.raises(TrainingError), LiveView(lines_console(), title="Fingers", clock=clock):
        raise TrainingError(Code.TRAINING_KILLED, "killed")
