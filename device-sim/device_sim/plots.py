"""Figures of a result: score distributions, DET curves, accuracy over simulated time, label precision by coverage.

Figures are objects of matplotlib without any global state (`Figure`, never `pyplot`): making one leaves nothing behind,
and tests can look into its axes. Rates are drawn as rates and only labelled in percent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter
from scipy.special import ndtr, ndtri

from device_sim.plot_style import BLUE, GRID, INK, MUTED, VERMILLION, Style, label, legend_above, plain_axes, styles
from device_sim.results import DayPoint, DetCurve, ScoreMarks

Floats = npt.NDArray[np.floating]

SCORE_BIN = 2.0
"""Width of a bar of score distributions: 2 is a factor of 1.6 in FMR."""
SCORE_LIMIT = 100.0
"""Scores beyond are drawn at the edge: that is one false match in ten thousand million, far out of any measurement."""
RATE_TICKS = (1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
DET_FLOOR, DET_CEILING = 1e-5, 0.995
"""Ends of DET axes at the utmost: the normal deviates of 0 and 1 are infinite."""
OPERATING_FMR = 1e-3
"""False match rate at which misses are quoted everywhere else."""
MAX_COLUMNS = 3
GENERATION_LEVELS = 3
"""Heights at which names of generations stand in turn, so that neighbours do not cover each other."""


def score_figure(scores: Mapping[str, Sequence[float]], marks: ScoreMarks) -> Figure:
    """Overlaid distributions of the scores by name, as shares of the captures of each, over bins of `SCORE_BIN`.

    The accept score is a line, the sample interval a shaded span. Names without scores are left out.
    """
    shown = {name: np.clip(values, 0.0, SCORE_LIMIT) for name, values in scores.items() if len(values)}
    top = max([marks.high, *(float(values.max()) for values in shown.values())])
    edges = np.arange(0.0, SCORE_BIN * (math.floor(top / SCORE_BIN) + 1.5), SCORE_BIN)
    figure, axes = _single(8.0, 4.0)
    axes.axvspan(marks.low, marks.high, color=GRID, alpha=0.6, lw=0)
    for (name, values), style in zip(shown.items(), styles(shown), strict=True):
        share = np.histogram(values, edges)[0] / len(values)
        _bars(axes, share, edges, f"{label(name)} (n = {len(values):,})", style)
    axes.set_xlim(0.0, edges[-1])
    axes.set_ylim(0.0, axes.dataLim.ymax * 1.15 if shown else 1.0)
    _upright(axes, marks.accept, f"accept from {marks.accept:g}", side="left")
    _top_note(axes, marks.low, f"sample interval {marks.low:g} to {marks.high:g}", side="right")
    axes.set_xlabel("score, −10·log₁₀(FMR)")
    axes.set_ylabel("share of captures")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    legend_above(figure, columns=2)
    return figure


def det_figure(curves: Mapping[str, DetCurve]) -> Figure:
    """DET curves by name on normal-deviate axes (ISO/IEC 19795-1), with the operating point and equal errors marked.

    Rates below an axis, 0 among them, are drawn at its edge; FMR above one half is not drawn. Names without points are
    left out.
    """
    shown = {name: curve for name, curve in curves.items() if curve.fmr}
    figure, axes = _single(8.0, 4.8)
    x_ends = _low_end((curve.fmr for curve in shown.values()), OPERATING_FMR / 2), 0.5
    y_ends = _low_end((curve.fnmr for curve in shown.values()), 0.01), _worst(shown.values(), x_ends[0])
    _deviate_axes(axes, x_ends, y_ends)
    low, high = max(x_ends[0], y_ends[0]), min(x_ends[1], y_ends[1])
    axes.plot([low, high], [low, high], color=MUTED, lw=0.8, ls=(0, (1, 3)))
    for (name, curve), style in zip(shown.items(), styles(shown), strict=True):
        fmr, fnmr = np.maximum(curve.fmr, x_ends[0]), np.clip(curve.fnmr, *y_ends)
        inside = fmr <= x_ends[1]
        axes.plot(
            fmr[inside], fnmr[inside], color=style.colour, ls=style.line, lw=1.8, label=label(name), clip_on=False
        )
    _upright(axes, OPERATING_FMR, "FMR 0.1 %", side="right")
    axes.set_xlabel("false match rate, FMR")
    axes.set_ylabel("false non-match rate, FNMR")
    legend_above(figure, columns=2)
    return figure


def timeline_figure(timeline: Mapping[str, Sequence[DayPoint]]) -> Figure:
    """Misses over simulated days, one panel per device: of the student as shipped, and of the one that runs.

    Changes of the running generation are marked with its name; where wear is known it is the shaded ground.
    """
    columns = {0: 1, 1: 1, 2: 2, 4: 2}.get(len(timeline), MAX_COLUMNS)
    rows = max(1, math.ceil(len(timeline) / columns))
    figure = Figure(figsize=(8.0, 1.0 + 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (device, points) in zip(panels, timeline.items(), strict=False):
        _device_panel(axes, device, points)
    for axes in panels[len(timeline) :]:
        axes.set_axis_off()
    panels[0].set_ylim(0.0, _headroom(timeline.values()))
    legend_above(figure, columns=4)
    figure.supxlabel("simulated day", fontsize="medium")
    figure.supylabel("misses (FNMR at FMR 0.1 %)", fontsize="medium")
    return figure


def coverage_figure(curves: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """What labels are worth by coverage: points (share of attempts labelled, label precision or accuracy gained)."""
    figure, axes = _single(6.4, 4.2)
    shown = {name: sorted(points) for name, points in curves.items() if len(points)}
    for (name, points), style in zip(shown.items(), styles(shown), strict=True):
        coverage, precision = zip(*points, strict=True)
        look = {"color": style.colour, "ls": style.line, "lw": 1.8, "marker": "o", "ms": 3.5}
        axes.plot(coverage, precision, label=label(name), clip_on=False, **look)
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(top=1.0)
    axes.set_xlabel("coverage: attempts that got a label")
    axes.set_ylabel("share")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    legend_above(figure, columns=2)
    return figure


def _single(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of that many inches with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    plain_axes(axes)
    return figure, axes


def _bars(axes: Axes, share: Floats, edges: Floats, name: str, style: Style) -> None:
    """One distribution: a faint area, and an outline in the style of the series."""
    axes.stairs(share, edges, fill=True, color=style.colour, alpha=0.13)
    outline: StepPatch = axes.stairs(share, edges, color=style.colour, lw=1.8, label=name)
    outline.set_linestyle(style.line)


def _upright(axes: Axes, x: float, text: str, *, side: str) -> None:
    """A marked place on the horizontal axis."""
    axes.axvline(x, color=INK, lw=1.2)
    _top_note(axes, x, text, side=side)


def _top_note(axes: Axes, x: float, text: str, *, side: str, level: float = 1.0, size: str = "small") -> None:
    """`text` just below `level` (1 is the upper frame), on that `side` of `x`."""
    shift, align = (4, "left") if side == "right" else (-4, "right")
    axes.annotate(
        text,
        (x, level),
        (shift, -3),
        va="top",
        ha=align,
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        fontsize=size,
    )


def _low_end(rates: Iterable[Sequence[float]], at_most: float) -> float:
    """Low end of a DET axis that shows all `rates` above 0, as far down as anybody measures."""
    return max(DET_FLOOR, min([at_most, *(rate for series in rates for rate in series if rate > 0.0)]))


def _worst(curves: Iterable[DetCurve], fmr_end: float) -> float:
    """High end of the FNMR axis: the most misses at any FMR in sight, at least a half."""
    pairs = (pair for curve in curves for pair in zip(curve.fmr, curve.fnmr, strict=True))
    return min(DET_CEILING, max([0.5, *(fnmr for fmr, fnmr in pairs if fmr >= fmr_end)]))


def _deviate_axes(axes: Axes, x_ends: tuple[float, float], y_ends: tuple[float, float]) -> None:
    """Both axes in normal deviates, labelled in percent."""
    for axis, ends, scale, limits in (
        (axes.xaxis, x_ends, axes.set_xscale, axes.set_xlim),
        (axes.yaxis, y_ends, axes.set_yscale, axes.set_ylim),
    ):
        scale("function", functions=(ndtri, ndtr))
        limits(*ends)
        axis.set_major_locator(FixedLocator([tick for tick in RATE_TICKS if ends[0] <= tick <= ends[1]]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate * 100:g} %"))


def _device_panel(axes: Axes, device: str, points: Sequence[DayPoint]) -> None:
    plain_axes(axes)
    axes.set_title(label(device), loc="left", fontsize="medium")
    days = [point.day for point in points]
    # None becomes NaN, which leaves a gap: a day without attempts has no misses, not zero.
    wear, frozen, live = (
        np.array([getattr(point, name) for point in points], dtype=float)
        for name in ("wear", "frozen_fnmr", "live_fnmr")
    )
    if not np.isnan(wear).all():
        axes.fill_between(days, wear, color=GRID, alpha=0.6, lw=0, label="sensor wear")
    axes.plot(days, frozen, color=VERMILLION, ls="--", lw=1.6, label="frozen student")
    axes.plot(days, live, color=BLUE, lw=2.0, marker="o", ms=2.5, label="running student")
    _generation_marks(axes, points)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def _generation_marks(axes: Axes, points: Sequence[DayPoint]) -> None:
    changes = [now for was, now in pairwise(points) if was.generation != now.generation]
    for number, point in enumerate(changes):
        axes.axvline(point.day, color=MUTED, lw=0.9, ls=":", label="new generation")
        late = point.day > (points[0].day + 3 * points[-1].day) / 4
        level, side = 1.0 - 0.09 * (number % GENERATION_LEVELS), "left" if late else "right"
        _top_note(axes, point.day, label(point.generation), side=side, level=level, size="x-small")


def _headroom(devices: Iterable[Sequence[DayPoint]]) -> float:
    """Upper end of the timeline's axis: above all data there is room for the names of generations."""
    found = [
        value
        for points in devices
        for point in points
        for value in (point.wear, point.frozen_fnmr, point.live_fnmr)
        if value is not None
    ]
    return max([0.05, *found]) * 1.35
