"""The look of all figures, and their way into a page: hues, lines, axes, SVG that takes the page's colours.

Hues are those of Okabe and Ito (2008), told apart with any colour vision, and never the only difference: line styles
differ too. One student has one hue in all figures; dashed is before the drift. In a page every hue is a custom property
of its style sheet (`HUES`), so that the same figure is readable on light and on dark ground.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, product
from types import MappingProxyType
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from device_sim.markup import Html
from device_sim.results import FROZEN, SELF_DISTILLED, TEACHER
from device_sim.wording import printable

INK, MUTED, GRID = "#000000", "#6b7280", "#d9dde3"
VERMILLION, BLUE, GREEN, PURPLE, ORANGE, SKY = "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
HUES = MappingProxyType(
    {
        INK: "--ink",
        MUTED: "--muted",
        GRID: "--grid",
        VERMILLION: "--vermillion",
        BLUE: "--blue",
        GREEN: "--green",
        PURPLE: "--purple",
        ORANGE: "--orange",
        SKY: "--sky",
    }
)
"""Name of the custom property that a page may set for each hue; without it the hue itself is drawn."""
LINES = ("-", "--", "-.", ":")
LABEL_LETTERS = 60
"""Longer names are cut: a legend wider than its figure hides the data."""

# Word, hue, lines in order of choice: where students are perfect, curves lie on each other, and both must be seen.
_KNOWN = (
    (FROZEN.split()[0], VERMILLION, LINES),
    (SELF_DISTILLED, BLUE, LINES),
    (TEACHER, GREEN, ("-.", "-", "--", ":")),
)
_STRANGERS = "strangers"
_BEFORE = re.compile(r"\b(before|new|clean|day 0)\b")
_OTHERS = (ORANGE, SKY, PURPLE, BLUE, GREEN, VERMILLION)
_NO_METADATA = MappingProxyType(dict.fromkeys(("Creator", "Date", "Format", "Type")))


@dataclass(frozen=True)
class Style:
    """How one series is drawn."""

    colour: str
    """Hexadecimal, one of `HUES`."""
    line: Any
    """Line style as matplotlib takes it."""


def styles(names: Iterable[str]) -> list[Style]:
    """A style for each of `names`, no two alike while there are styles left; known students get their own hue."""
    found: list[Style] = []
    others = cycle(Style(colour, line) for line, colour in product(LINES, _OTHERS))
    for name in names:
        free = (style for style in _wished(name, others) if style not in found)
        found.append(next(free, Style(INK, LINES[0])))
    return found


def label(name: str) -> str:
    """`name` as a legend shows it: cut, printable, and without the signs that mean something to matplotlib."""
    text = printable(name).replace("$", r"\$")
    text = text if len(text) <= LABEL_LETTERS else f"{text[: LABEL_LETTERS - 1]}…"
    return f" {text}" if text.startswith("_") else text


def plain_axes(axes: Axes) -> None:
    """Frame on two sides, faint grid below the data, nothing else."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize="small")
    axes.grid(color=GRID, lw=0.7)
    axes.set_axisbelow(True)


def legend_above(figure: Figure, *, columns: int) -> None:
    """One legend for all axes of `figure`, above them, where it can cover no data; nothing where nothing is named."""
    drawn = (pair for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True))
    handles = {name: handle for handle, name in drawn}
    if handles:
        place: Literal["outside upper center"] = "outside upper center"
        figure.legend(handles.values(), handles.keys(), loc=place, ncols=columns, frameon=False, fontsize="small")


def as_png(figure: Figure) -> bytes:
    """`figure` as a PNG file on white ground, 150 dots an inch."""
    with _quiet(), io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=150, facecolor="white", metadata={"Software": None})
        return file.getvalue()


def as_svg(figure: Figure) -> str:
    """`figure` as a file of its own; the same figure gives the same bytes."""
    # Text stays text: it can be searched, read aloud, and takes the page's font.
    with _quiet(), mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tutelage"}), io.StringIO() as file:
        figure.savefig(file, format="svg", transparent=True, metadata=dict(_NO_METADATA))
        return file.getvalue()


def inline_svg(figure: Figure, name: str, description: str) -> Html:
    """`figure` as an element of a page, as wide as its place, with the page's colours and fonts.

    `name`, letters only, comes before all its ids, so that several figures can be on one page; `description` is what
    those hear who cannot see it.
    """
    text = as_svg(figure)
    root, body = text[text.index("<svg") :].split(">", 1)
    view = re.search(r'viewBox="[^"]*"', root)
    # Its rules would hold for the whole page, which has them in its own sheet.
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\b(id="|xlink:href="#|url\(#)', rf"\g<1>{name}-", body)
    for colour, variable in HUES.items():
        body = body.replace(f": {colour}", f": var({variable}, {colour})")
    heard = Html.of(description)
    return Html(f'<svg class="plot" role="img" aria-label="{heard}" {view.group() if view else ""}>{body}')


def _wished(name: str, others: Iterator[Style]) -> Iterator[Style]:
    """Styles that `name` may have, the best first."""
    if _STRANGERS in name:
        yield from (Style(PURPLE, line) for line in (":", *LINES))
    for word, colour, lines in _KNOWN:
        if word in name:
            first = ("--",) if _BEFORE.search(name) else ()
            yield from (Style(colour, line) for line in (*first, *lines))
    # One round and a bit: enough to meet every style once, wherever the cycle stands.
    yield from (style for style, _ in zip(others, range(len(LINES) * len(_OTHERS) + 1), strict=False))


@contextmanager
def _quiet() -> Iterator[None]:
    """Names in scripts that matplotlib's own font lacks are no reason to warn: the page's fonts draw the text."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
