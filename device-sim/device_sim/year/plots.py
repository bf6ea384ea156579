"""Figures of a year: errors beside the rivals', every device with what happened to it, and what devices keep.

Rates of single pages rest on a few dozen attempts and jump; lines are means over `SMOOTHED` pages, and say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from device_sim.plot_style import (
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Style,
    legend_above,
    plain_axes,
)
from device_sim.results import FROZEN, SELF_DISTILLED
from device_sim.year.books import RECOGNISERS, TEMPLATE
from device_sim.year.result import DeviceYear, Page, Year
from device_sim.year.summary import Rates, course

SMOOTHED = 4
"""Pages that a point of a line is the mean of: a month, of a whole year."""
STYLES = {FROZEN: Style(VERMILLION, "--"), TEMPLATE: Style(PURPLE, "-."), SELF_DISTILLED: Style(BLUE, "-")}

Floats = npt.NDArray[np.float64]


def errors_figure(year: Year) -> Figure:
    """Misses, and strangers accepted, of all devices together, over the year."""
    figure = Figure(figsize=(8.0, 5.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    _course(upper, year, lambda rates: rates.missed)
    _course(lower, year, lambda rates: rates.strangers)
    upper.set_ylabel("misses")
    lower.set_ylabel("strangers accepted")
    _releases(upper, year, named=True)
    _releases(lower, year, named=False)
    lower.set_xlabel("simulated day")
    legend_above(figure, columns=4)
    return figure


def devices_figure(year: Year) -> Figure:
    """One panel a device: misses of all recognisers, wear as ground, and what happened on which day."""
    count = len(year.devices)
    figure = Figure(figsize=(8.0, 0.9 + 2.1 * count), layout="constrained")
    panels = figure.subplots(count, 1, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, device in zip(panels, year.devices, strict=True):
        _device(axes, device)
    panels[0].set_ylim(0.0, _top(year))
    panels[-1].set_xlabel("simulated day")
    figure.supylabel("misses on probes; wear of the sensor", fontsize="medium")
    legend_above(figure, columns=4)
    return figure


def holdings_figure(year: Year) -> Figure:
    """What all devices together keep and do: samples, labels, generations, bytes, seconds."""
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True).ravel()
    days = [page.day for page in year.devices[0].pages]
    _sums(panels[0], year, days, "samples in the stores", {"first samples": "first", "second samples": "second"})
    _sums(
        panels[1],
        year,
        days,
        "attempts' captures, by label",
        {"named": "labelled", "abstained": "abstained", "waiting": "waiting", "quarantined": "quarantined"},
    )
    _sums(
        panels[2],
        year,
        days,
        "local students",
        {"recognised": "generations", "refused by the gate": "refused", "taken back": "reverted"},
    )
    _bytes_and_seconds(panels[3], year, days)
    for axes in panels[2:]:
        axes.set_xlabel("simulated day")
    return figure


def _course(axes: Axes, year: Year, rate: Callable[[Rates], float | None]) -> None:
    """One rate of all recognisers over the year."""
    plain_axes(axes)
    for name in RECOGNISERS:
        points = course(year, name)
        values = np.array([rate(rates) for _, rates in points], dtype=float)
        style = STYLES[name]
        axes.plot([day for day, _ in points], smooth(values), color=style.colour, ls=style.line, lw=1.9, label=name)
    axes.set_ylim(bottom=0.0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.set_xlim(0, int(year.settings["days"]))


def _releases(axes: Axes, year: Year, *, named: bool) -> None:
    """The days on which the first device installed a version after its first."""
    for incident in year.devices[0].incidents:
        if incident.kind == "release-installed" and incident.day:
            axes.axvline(incident.day, color=MUTED, lw=1.0, ls=":", label="new version" if named else None)


def _device(axes: Axes, device: DeviceYear) -> None:
    plain_axes(axes)
    axes.set_title(f"device {device.number}", loc="left", fontsize="medium")
    days = [page.day for page in device.pages]
    axes.fill_between(days, [page.wear for page in device.pages], color=GRID, alpha=0.6, lw=0, label="sensor wear")
    for name in RECOGNISERS:
        values = np.array([page.probed.misses[name] for page in device.pages], dtype=float)
        style = STYLES[name]
        axes.plot(days, smooth(values), color=style.colour, ls=style.line, lw=1.7, label=name)
    _marks(axes, device)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))


def _marks(axes: Axes, device: DeviceYear) -> None:
    """Incidents of a device on the foot of its panel; outages and the attack as bands over it."""
    feet = {
        "power-cut": ("x", INK, "power cut"),
        "generation-swapped": ("^", BLUE, "new local student"),
        "generation-reverted": ("v", VERMILLION, "taken back"),
        "release-installed": ("D", GREEN, "new version"),
    }
    for kind, (marker, colour, words) in feet.items():
        days = [i.day for i in device.incidents if i.kind == kind and (i.day or kind != "release-installed")]
        level = axes.get_xaxis_transform()
        axes.plot(days, [0.05] * len(days), marker, color=colour, ms=4, ls="none", transform=level, label=words)
    for start, end in spans(device, "network-out"):
        axes.axvspan(start, end, color=SKY, alpha=0.25, lw=0, label="no network")
    for start, end in spans(device, "attack"):
        axes.axvspan(start, end, color=ORANGE, alpha=0.25, lw=0, label="under attack")


def spans(device: DeviceYear, kind: str) -> list[tuple[int, int]]:
    """First and last day of each outage, or of the attack."""
    found = [incident for incident in device.incidents if incident.kind == kind]
    if kind == "attack":
        last = device.pages[-1].day + 1
        days = [incident.day for incident in found]
        return [(days[0], days[1] if len(days) > 1 else last)] if days else []
    return [(incident.day, incident.day + int(incident.words.split()[1])) for incident in found]


def _sums(axes: Axes, year: Year, days: Sequence[int], title: str, lines: dict[str, str]) -> None:
    """Sums over devices of some of what they keep."""
    plain_axes(axes)
    axes.set_title(title, loc="left", fontsize="medium")
    looks = zip((BLUE, ORANGE, GREEN, PURPLE), ("-", "--", "-.", ":"), strict=True)
    for (words, field), (colour, line) in zip(lines.items(), looks, strict=False):
        axes.plot(days, _summed(year, field), color=colour, ls=line, lw=1.7, label=words, drawstyle="steps-post")
    axes.set_ylim(bottom=0.0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.legend(frameon=False, fontsize="small", loc="upper left")


def _bytes_and_seconds(axes: Axes, year: Year, days: Sequence[int]) -> None:
    """Bytes of the largest store, and seconds of training, a device."""
    plain_axes(axes)
    axes.set_title("a device's store, and its trainings", loc="left", fontsize="medium")
    largest = np.max([[page.kept.bytes for page in device.pages] for device in year.devices], axis=0)
    axes.plot(days, largest / 2**20, color=BLUE, lw=1.7, label="largest store, MiB")
    mean = _summed(year, "training_seconds") / len(year.devices) / 60
    axes.plot(days, mean, color=ORANGE, ls="--", lw=1.7, drawstyle="steps-post", label="training, minutes a device")
    axes.set_ylim(bottom=0.0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.legend(frameon=False, fontsize="small", loc="upper left")


def _summed(year: Year, field: str) -> Floats:
    summed: Floats = np.sum([[getattr(page.kept, field) for page in device.pages] for device in year.devices], axis=0)
    return summed


def smooth(values: Floats) -> Floats:
    """Each value as the mean of the latest `SMOOTHED`, itself among them; what was not measured counts for nothing."""
    return np.array([_mean(values[max(0, i - SMOOTHED + 1) : i + 1]) for i in range(len(values))])


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _top(year: Year) -> float:
    """Upper end of the devices' axes."""
    pages: list[Page] = [page for device in year.devices for page in device.pages]
    misses = [miss for page in pages for miss in page.probed.misses.values() if miss is not None]
    return min(1.0, 1.1 * max([0.2, *misses, *(page.wear for page in pages)]))
