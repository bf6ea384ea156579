"""The report: one HTML file that holds all it shows, to be read now, printed, or opened in ten years.

Nothing is loaded from anywhere: the style sheet is inside, plots are inline SVG, captures are data, and the page
forbids everything else to the browser (Content-Security-Policy). Every number comes from the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from device_sim.headline import findings, headline
from device_sim.markup import Html, table, tag
from device_sim.plot_style import inline_svg
from device_sim.plots import det_figure, score_figure, timeline_figure
from device_sim.results import FROZEN, SELF_DISTILLED, Made, Rates, Result, TableRow, Training
from device_sim.wording import NOT_MEASURED, day, percent, plural, seconds, size
from tutelage.files import atomic_write

MAX_EVENTS = 2000
"""Events in the page; more make browsers slow and are in the result's file."""
MAX_CAPTURES = 96
"""Captures in the page: enough to see what was kept, few enough to mail."""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_KINDS = {"synthetic": "synthetic persons and sensors", "images": "images of a folder or manifest"}


def write_report(result: Result, path: Path) -> None:
    """Make `path` hold the report of `result`, whole or not at all.

    Raises:
        StorageError: `storage-full` or `storage-failed`.
    """
    atomic_write(path, report_html(result).encode())


def report_html(result: Result) -> str:
    """The page of `result`; the same result gives the same text."""
    sections = (_top, _rates, _scores, _det, _timeline, _samples, _trainings, _captures, _events, _made)
    return page_html(result.title, *(part(result) for part in sections))


def page_html(title: str, *parts: str) -> str:
    """A page that holds all it shows."""
    style = files("device_sim").joinpath("report.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title} – Tutelage"),
        tag("style", Html(style)),
    )
    body = tag("body", *parts)
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _top(result: Result) -> Html:
    made = result.made
    notes = result.settings.get("notes", ())
    said = [str(note) for note in notes] if isinstance(notes, list | tuple) else [str(notes)]
    return tag(
        "header",
        tag("p", f"Tutelage · {_KINDS[result.kind]} · {made.date} · commit {made.commit}", class_="eyebrow"),
        tag("h1", result.title),
        tag("p", unbroken(headline(result)), class_="headline"),
        _tiles(result),
        tag("ul", *(tag("li", unbroken(sentence)) for sentence in (*findings(result), *said)), class_="findings"),
    )


def _tiles(result: Result) -> Html:
    frozen, live = result.row(FROZEN), result.row(SELF_DISTILLED)
    worn, ended = (row.after if row else Rates(None, None) for row in (frozen, live))
    note = f"{FROZEN} → {SELF_DISTILLED}, after the drift"
    tiles = [
        (name, f"{percent(getattr(worn, field))} → {percent(getattr(ended, field))}", note)
        for name, field in (("Misses", "fnmr"), ("Rank-1", "rank1"), ("Strangers accepted", "strangers"))
    ]
    labels = result.labels
    stored = f"of {plural(labels.stored, 'stored label')}; {labels.abstained} abstained"
    tiles.append(("Labels that are right", percent(labels.precision), stored))
    return tag(
        "dl",
        *(tag("div", tag("dt", a), tag("dd", b), tag("dd", c, class_="note"), class_="tile") for a, b, c in tiles),
        class_="tiles",
    )


def _rates(result: Result) -> Html:
    groups = ("Misses (FNMR) at FMR 0.1 %", "Rank-1", "Strangers accepted")
    head = tag(
        "thead",
        tag("tr", tag("td", rowspan="2"), *(tag("th", name, scope="colgroup", colspan="2") for name in groups)),
        tag("tr", *(tag("th", when, scope="col") for _ in groups for when in ("before", "after"))),
    )
    rows = (_rates_row(row) for row in result.table)
    return section(
        "Before and after the drift",
        scroll(tag("table", head, tag("tbody", *rows), class_="numbers rates")),
        caption(
            "The threshold was fixed before any training. Misses: genuine attempts below it. Rank-1: attempts whose "
            f"nearest person is the right one. {NOT_MEASURED} means not measured."
        ),
    )


def _rates_row(row: TableRow) -> Html:
    pairs = ((getattr(row.before, name), getattr(row.after, name)) for name in ("fnmr", "rank1", "strangers"))
    cells = (tag("td", percent(rate)) for pair in pairs for rate in pair)
    return tag("tr", tag("th", row.name, scope="row"), *cells, class_="own" if row.name == SELF_DISTILLED else "other")


def _scores(result: Result) -> Html:
    caption = (
        "Score 30 is one false match in 1,000, 40 one in 10,000. Captures in the shaded interval become first samples; "
        "those below the accept score, again and again, become second samples."
    )
    return plot(
        "Scores", "scores", any(result.scores.values()), lambda: score_figure(result.scores, result.marks), caption
    )


def _det(result: Result) -> Html:
    caption = (
        "Detection error trade-off on normal-deviate axes (ISO/IEC 19795-1): nearer to the lower left is better. Rates "
        "too low for the axes, 0 among them, lie on their edge. On the dotted diagonal both errors are equal."
    )
    return plot(
        "Errors at every threshold",
        "det",
        any(c.fmr for c in result.det.values()),
        lambda: det_figure(result.det),
        caption,
    )


def _timeline(result: Result) -> Html:
    caption = (
        "Each panel is one device. Dashed: the student as it was shipped. Solid: the student that runs on the device "
        "that day. Dotted uprights: a generation was swapped in or taken back. Grey ground: wear of the sensor, on "
        "the same scale. Gaps are days without measurement."
    )
    return plot(
        "Over simulated time", "timeline", bool(result.timeline), lambda: timeline_figure(result.timeline), caption
    )


def plot(title: str, name: str, there: bool, figure: Callable[[], Figure], caption: str) -> Html:
    """A section with a figure, drawn only if something is there; `name` has letters only."""
    if not there:
        return section(title, tag("p", "Nothing was measured for this plot."))
    drawn = inline_svg(figure(), name, f"{title}. {caption}")
    return section(title, tag("figure", drawn, tag("figcaption", caption), class_=name))


def _samples(result: Result) -> Html:
    labels, samples = result.labels, result.samples
    kept = (
        ("first samples", f"{samples.first:,}"),
        ("second samples", f"{samples.second:,}"),
        ("attempts sent to the teacher", f"{labels.asked:,}"),
        ("labels stored", f"{labels.stored:,}"),
        ("abstentions", f"{labels.abstained:,}"),
        ("stored labels that are right", percent(labels.precision)),
    )
    dropped = [(rule, f"{count:,}") for rule, count in samples.dropped.items()] or [("none", "0")]
    return section(
        "Samples and labels",
        tag(
            "div",
            table(("Kept and labelled", ""), kept, class_="numbers"),
            table(("Captures not kept, by rule", ""), dropped, class_="numbers"),
            class_="columns",
        ),
    )


def _trainings(result: Result) -> Html:
    if not result.trainings:
        return section("Trainings", tag("p", "No training ran: the training condition never held."))
    head = ("Device", "Day", "Generation", "Samples", "Steps", "Time", "Peak memory", "Verdict", "Why")
    return section("Trainings", scroll(table(head, map(_training_row, result.trainings))))


def _training_row(training: Training) -> tuple[str, ...]:
    return (
        f"device {training.device}",
        day(training.day),
        training.generation,
        f"{training.samples:,}",
        f"{training.steps:,}",
        tag("span", seconds(training.seconds), class_="nowrap"),
        tag("span", size(training.peak_bytes), class_="nowrap"),
        tag("span", training.verdict, class_=f"verdict {training.verdict}"),
        _reasons(training.reasons),
    )


def _reasons(reasons: tuple[str, ...]) -> str:
    if len(reasons) < 2:
        return "".join(reasons) or NOT_MEASURED
    return tag("ul", *(tag("li", reason) for reason in reasons))


def _captures(result: Result) -> Html:
    title = "Kept captures"
    if not result.kept:
        why = (
            "None are shown: captures of real persons leave a device only where that was asked for."
            if result.kind == "images"
            else "None are shown: no sample was kept, or pictures were not asked for."
        )
        return section(title, tag("p", why))
    shown = result.kept[:MAX_CAPTURES]
    left_out = "" if len(shown) == len(result.kept) else f" Shown: {len(shown)} of {len(result.kept):,}."
    cards = (
        tag(
            "li",
            tag("img", src=f"data:image/png;base64,{kept.png}", alt=f"{kept.kind} sample of {kept.label or 'nobody'}"),
            tag("strong", kept.label or "no label"),
            tag(
                "span", f"{kept.kind} sample, score {NOT_MEASURED if kept.score is None else format(kept.score, '.1f')}"
            ),
            tag("span", f"device {kept.device}, day {day(kept.day)}"),
            tag("span", kept.reason),
        )
        for kept in shown
    )
    text = "What devices kept to learn from, with the label each is learnt under." + left_out
    return section(title, tag("p", text, class_="caption"), tag("ul", *cards, class_="captures"))


def _events(result: Result) -> Html:
    if not result.events:
        return section("What happened", tag("p", "No events were recorded."))
    shown = result.events[:MAX_EVENTS]
    rows = ((day(event.day), f"device\u00a0{event.device}", event.kind, event.reason) for event in shown)
    left_out = "" if len(shown) == len(result.events) else f", the first {len(shown):,} here and all in result.json"
    summary = tag("summary", f"{plural(len(result.events), 'event')}{left_out}")
    return section("What happened", tag("details", summary, scroll(table(("Day", "Device", "Event", "Why"), rows))))


def _made(result: Result) -> Html:
    return made_section(result.made, result.settings)


def made_section(made: Made, given: Mapping[str, Any]) -> Html:
    """With what a result was made, and the settings it was made with."""
    facts = (
        ("commit", made.commit),
        ("machine", made.machine),
        ("Python", made.python),
        ("torch", made.torch),
        ("seeds", ", ".join(map(str, made.seeds)) or NOT_MEASURED),
        ("date", made.date),
    )
    settings = [(tag("code", name), tag("code", value)) for name, value in _flat(given)]
    listed = tag("details", tag("summary", plural(len(settings), "setting")), table(("Setting", "Value"), settings))
    return section("How this was made", table(("", ""), facts), listed if settings else Html())


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings by dotted name."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def section(title: str, *parts: str) -> Html:
    """A part of a page under a heading."""
    return tag("section", tag("h2", title), *parts)


def scroll(wide: Html) -> Html:
    """Something wide, which moves within the page."""
    return tag("div", wide, class_="scroll")


def caption(text: str) -> Html:
    """A small explanation."""
    return tag("p", text, class_="caption")


def unbroken(sentence: str) -> str:
    """`sentence` with numbers that keep their percent sign beside them."""
    return sentence.replace(" %", "\u00a0%")


__all__ = [
    "MAX_CAPTURES",
    "MAX_EVENTS",
    "caption",
    "made_section",
    "page_html",
    "plot",
    "report_html",
    "scroll",
    "section",
    "unbroken",
    "write_report",
]
