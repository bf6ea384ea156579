"""The view of a running simulation: one row a device, days as a progress bar, the last events below.

On a terminal the view is redrawn in place. Elsewhere (a file, a pipe, a build log) it is plain lines: one for each
tenth of the days and one for each event that changes who is recognised. Nothing here knows devices: whoever runs them
hands over `DeviceView`s.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import TracebackType

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from device_sim.events import EventKind
from device_sim.wording import coarse_percent, plural, printable, seconds

SCORE_BINS = 12
"""Bins of the score histogram, from 0 to `SCORE_TOP`; higher scores belong into the last."""
SCORE_TOP = 60.0
REDRAW_S = 0.1
"""Time between two redraws: more often nobody sees, and each takes a thread's time from the simulation."""
EVENTS_SHOWN = 6
FRAME_LINES = 8
"""Lines of the view besides devices and events: progress, headings, rules."""
BAR_CELLS = 6
WIDE = 90
"""Letters a line needs before wear gets a bar beside its number."""
IMPORTANT = frozenset(
    {
        EventKind.TRAINING_FAILED,
        EventKind.GATE_PASSED,
        EventKind.GATE_FAILED,
        EventKind.GENERATION_SWAPPED,
        EventKind.GENERATION_REVERTED,
        EventKind.RELEASE_INSTALLED,
    }
)
"""Events that decide who is recognised by which student."""

_BLOCKS = " ▁▂▃▄▅▆▇█"
_PARTS = " ▏▎▍▌▋▊▉█"
_BELOW, _ABOVE = "yellow", "bright_blue"
_GOOD, _BAD = "green", "red"
_EVENT_STYLES: Mapping[str, str] = {
    EventKind.GATE_PASSED: _GOOD,
    EventKind.GENERATION_SWAPPED: _GOOD,
    EventKind.GATE_FAILED: "yellow",
    EventKind.TRAINING_FAILED: _BAD,
    EventKind.GENERATION_REVERTED: _BAD,
}


@dataclass(frozen=True)
class DeviceView:
    """What is shown of one device."""

    number: int
    generation: str
    """Student that recognises, like `v1+2`."""
    wear: float
    """Of the sensor, 0 to 1."""
    first: int
    """First samples kept so far."""
    second: int
    """Second samples kept so far."""
    labelled: int
    """Of the second samples, those the teacher named a person for."""
    abstained: int
    """Of the second samples, those the teacher would not name anybody for."""
    misses: float
    """Share of recent genuine attempts that missed, 0 to 1."""
    histogram: tuple[int, ...]
    """Recent scores in `SCORE_BINS` bins."""
    state: str
    """What the device is doing: `recognising`, `training 40 %`, `gate`."""
    verdict: str = ""
    """Of its last training."""


class LiveView:
    """A context in which a simulation is watched: enter, report days and events, leave.

    Leaving keeps the last picture on the screen, also when the simulation ended in an exception, which goes on.
    """

    def __init__(
        self,
        console: Console,
        *,
        title: str,
        accept_score: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch on `console` under `title`; scores from `accept_score` are drawn as accepted, `clock` is in seconds."""
        self._console = console
        self._title = title
        self._accept_score = accept_score
        self._clock = clock
        self._began = self._drawn = clock()
        self._day, self._days = 0, 1
        self._tenths = -1
        self._devices: tuple[DeviceView, ...] = ()
        self._events: deque[Text] = deque(maxlen=EVENTS_SHOWN)
        self._live: Live | None = None

    def __enter__(self) -> LiveView:
        """Take the terminal, where there is one."""
        self._began = self._clock()
        if self._console.is_interactive:
            self._live = Live(self.picture(), console=self._console, auto_refresh=False)
            self._live.start(refresh=True)
        else:
            self._say(self._title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Draw the last picture and give the terminal back."""
        if self._live is not None:
            self._live.update(self.picture(), refresh=True)
            self._live.stop()
            self._live = None

    def on_day(self, day: int, days: int, devices: Sequence[DeviceView]) -> None:
        """Show `devices` as they are after `day` of `days`; may be called again within a day, as states change."""
        states = [(device.state, device.verdict, device.generation) for device in self._devices]
        self._day, self._days, self._devices = day, max(days, 1), tuple(devices)
        changed = states != [(device.state, device.verdict, device.generation) for device in devices]
        tenths = 10 * day // self._days
        if self._live is not None:
            self._draw(at_once=changed)
        elif tenths > self._tenths:
            self._tenths = tenths
            self._say(fleet_line(day, self._days, self._devices))

    def on_event(self, day: float, device: int, kind: str, reason: str) -> None:
        """Add an event to the last ones; on no terminal only those that matter are written."""
        if self._live is None:
            if kind in IMPORTANT:
                self._say(f"day {day:g}, device {device}: {kind}: {reason}")
            return
        line = Text(f"day {day:>3g}  device {device}  ", style="dim", no_wrap=True, overflow="ellipsis")
        line.append(f"{printable(kind):<20}", style=f"not dim {_EVENT_STYLES.get(kind, '')}")
        self._events.append(line.append(printable(reason), style="not dim"))
        self._draw(at_once=kind in IMPORTANT)

    def picture(self) -> RenderableType:
        """Everything at once: progress, devices, events; as many of each as the terminal is high."""
        room = max(1, self._console.height - FRAME_LINES)
        shown = self._devices[:room]
        parts: list[RenderableType] = [
            self._progress(),
            devices_table(shown, self._accept_score, width=self._console.width),
        ]
        if len(shown) < len(self._devices):
            parts.append(Text(f"and {plural(len(self._devices) - len(shown), 'more device')}", style="dim"))
        events = list(self._events)[-(room - len(shown)) :] if room > len(shown) else []
        return Group(*parts, *events)

    def _progress(self) -> Table:
        line = Table.grid(padding=(0, 2), expand=True)
        line.add_column(no_wrap=True)
        line.add_column(no_wrap=True)
        line.add_column(ratio=1)
        line.add_column(justify="right", no_wrap=True)
        line.add_row(
            Text(printable(self._title), style="bold"),
            f"day {self._day} of {self._days}",
            ProgressBar(total=self._days, completed=self._day, complete_style=_ABOVE, finished_style=_GOOD),
            seconds(self._clock() - self._began),
        )
        return line

    def _draw(self, *, at_once: bool) -> None:
        now = self._clock()
        if self._live is not None and (at_once or now - self._drawn >= REDRAW_S):
            self._drawn = now
            self._live.update(self.picture(), refresh=True)

    def _say(self, line: str) -> None:
        self._console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def devices_table(devices: Sequence[DeviceView], accept_score: float, *, width: int) -> Table:
    """One row a device; scores below `accept_score` have another colour than those from it on.

    In less than `WIDE` of `width`, in letters, wear is a number without a bar.
    """
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", padding=(0, 1, 0, 0), pad_edge=False, expand=True)
    for name, align in (("#", "right"), ("student", "left"), ("wear", "left"), ("misses", "right")):
        table.add_column(name, justify=align, no_wrap=True, vertical="bottom")  # type: ignore[arg-type]
    table.add_column(f"scores\n0 to {SCORE_TOP:.0f}", no_wrap=True, min_width=SCORE_BINS, vertical="bottom")
    for name in ("kept\n1st + 2nd", "labels\n(abst.)"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("doing", no_wrap=True, overflow="ellipsis", min_width=11)
    table.add_column("last\nverdict", no_wrap=True, overflow="ellipsis" if width >= WIDE else "crop", ratio=1)
    for device in devices:
        table.add_row(*_cells(device, accept_score, width >= WIDE))
    return table


def bar(share: float, cells: int = BAR_CELLS) -> str:
    """A bar of `cells` cells, filled to `share` (0 to 1) in eighths of a cell."""
    eighths = round(min(max(share, 0.0), 1.0) * cells * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (_PARTS[part] if part else "")).ljust(cells)


def sparkline(histogram: Sequence[int], accept_score: float) -> Text:
    """One block a bin, as high as its share of the highest; empty bins are blank, any count at least a sliver.

    Bins that begin at `accept_score` or above have another colour.
    """
    top = max([1, *histogram])
    line = Text()
    for place, count in enumerate(histogram):
        height = 0 if count <= 0 else max(1, round(count / top * 8))
        accepted = place * SCORE_TOP / max(len(histogram), 1) >= accept_score
        line.append(_BLOCKS[height], style=_ABOVE if accepted else _BELOW)
    return line


def fleet_line(day: int, days: int, devices: Sequence[DeviceView]) -> str:
    """All `devices` in one plain line."""
    begin = f"day {day} of {days}"
    if not devices:
        return begin
    students = Counter(printable(device.generation) for device in devices)
    kept = sum(device.first for device in devices), sum(device.second for device in devices)
    named, abstained = sum(device.labelled for device in devices), sum(device.abstained for device in devices)
    return (
        f"{begin}: wear {coarse_percent(fmean(device.wear for device in devices))}, "
        f"misses {coarse_percent(fmean(device.misses for device in devices))}, "
        f"samples {kept[0]} first + {kept[1]} second, labels {named} named + {abstained} abstained, "
        f"students {', '.join(f'{count} x {name}' for name, count in sorted(students.items()))}"
    )


def _cells(device: DeviceView, accept_score: float, bars: bool) -> tuple[Text, ...]:
    grown = "+" in device.generation
    return (
        Text(str(device.number)),
        Text(printable(device.generation), style=_GOOD if grown else ""),
        Text(f"{bar(device.wear) if bars else ''}{coarse_percent(device.wear):>5}", style="dim"),
        Text(coarse_percent(device.misses), style="bold"),
        sparkline(device.histogram, accept_score),
        Text(f"{device.first} + {device.second}"),
        Text(f"{device.labelled} ({device.abstained})"),
        Text(printable(device.state), style="dim" if device.state == "recognising" else "bold"),
        Text(printable(device.verdict), style=_verdict_style(device.verdict)),
    )


def _verdict_style(verdict: str) -> str:
    starts = {"passed": _GOOD, "failed": "yellow", "killed": _BAD}
    return next((style for word, style in starts.items() if verdict.startswith(word)), "")
