"""The report of a year: one HTML file that holds all it shows, every number of it from the year's file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from device_sim.markup import Html, table, tag
from device_sim.report import caption, made_section, page_html, plot, scroll, section, unbroken
from device_sim.results import FROZEN, SELF_DISTILLED
from device_sim.wording import percent, plural, seconds, size
from device_sim.year.books import TEMPLATE
from device_sim.year.plots import SMOOTHED, devices_figure, errors_figure, holdings_figure
from device_sim.year.result import DeviceYear, Promises, Year
from device_sim.year.summary import Rates, pages_of, rates_over, thirds
from tutelage.files import atomic_write

TITLE = "A year of device life"


def write_report(year: Year, path: Path) -> None:
    """Make `path` hold the report of `year`, whole or not at all.

    Raises:
        StorageError: `storage-full` or `storage-failed`.
    """
    atomic_write(path, report_html(year).encode())


def report_html(year: Year) -> str:
    """The page of `year`; the same year gives the same text."""
    parts = (_top, _errors, _rates, _devices, _holdings, _promises, _incidents)
    return page_html(TITLE, *(part(year) for part in parts), made_section(year.made, year.settings))


def _top(year: Year) -> Html:
    made, days = year.made, int(year.settings["days"])
    said = f"{plural(len(year.devices), 'device')}, {plural(days, 'day')}, simulated in {seconds(year.seconds)}"
    return tag(
        "header",
        tag("p", f"Tutelage · synthetic persons and sensors · {made.date} · commit {made.commit}", class_="eyebrow"),
        tag("h1", TITLE),
        tag("p", unbroken(headline(year)), class_="headline"),
        tag("dl", *_tiles(year), class_="tiles"),
        tag("ul", *(tag("li", unbroken(line)) for line in (said, *_findings(year))), class_="findings"),
    )


def headline(year: Year) -> str:
    """The year in a sentence or two."""
    frozen, template, live = (rates_over(pages_of(year), name) for name in (FROZEN, TEMPLATE, SELF_DISTILLED))
    return (
        f"At the first capture of {plural(_genuine(year), 'genuine attempt')} the learning devices missed "
        f"{percent(live.missed)}, the frozen student {percent(frozen.missed)}, adapted templates "
        f"{percent(template.missed)}. Of strangers' captures they would have accepted {percent(live.strangers)}, "
        f"{percent(frozen.strangers)} and {percent(template.strangers)}."
    )


def _genuine(year: Year) -> int:
    return sum(page.attempts.genuine for page in pages_of(year))


def _tiles(year: Year) -> Iterator[Html]:
    """The rates a reader asks for first, of the frozen student and of the learning devices."""
    frozen, live = (rates_over(pages_of(year), name) for name in (FROZEN, SELF_DISTILLED))
    for name, field in (
        ("Misses", "missed"),
        ("Attempts that failed", "failed"),
        ("Strangers accepted", "strangers"),
        ("Attackers accepted", "hostile"),
    ):
        rates = f"{percent(getattr(frozen, field))} → {percent(getattr(live, field))}"
        note = tag("dd", f"{FROZEN} → {SELF_DISTILLED}", class_="note")
        yield tag("div", tag("dt", name), tag("dd", rates), note, class_="tile")


def _findings(year: Year) -> Iterator[str]:
    kept = [device.pages[-1].kept for device in year.devices]
    yield (
        f"{plural(sum(k.generations for k in kept), 'local student')} recognised, {sum(k.refused for k in kept)} were "
        f"refused by the gate, {sum(k.reverted for k in kept)} taken back"
    )
    p = promised(year)
    yield (
        f"{plural(p.restarts, 'power cut')}, {plural(p.nights_without_labels, 'night')} without the teacher: "
        f"{p.unanswered} of {plural(p.captures, 'capture')} unanswered, {p.persons_lost} persons lost, "
        f"{p.re_enrolments} enrolled again; {p.erasures} erased"
    )


def promised(year: Year) -> Promises:
    """The promises of all devices together."""
    fields = vars(year.devices[0].promises)
    return Promises(**{name: sum(getattr(device.promises, name) for device in year.devices) for name in fields})


def _errors(year: Year) -> Html:
    said = (
        f"All devices together, each point the mean of {SMOOTHED} pages. Misses: genuine attempts whose first capture "
        "is not accepted as who it is. Strangers: captures of people nobody enrolled, on the sensor as it is that day, "
        "that would be accepted as anybody. Dotted uprights: a version that the cloud released; the students of all "
        "devices start from it anew."
    )
    return plot("Errors over the year", "errors", bool(pages_of(year)), lambda: errors_figure(year), said)


def _rates(year: Year) -> Html:
    head = (
        "",
        "",
        "Misses",
        "Failed",
        "Impostors in",
        "Attackers in",
        "Probes missed",
        "Strangers in",
        "On a new sensor",
    )
    rows = [
        (span if place == 0 else "", name, *_cells(rates))
        for span, by_name in thirds(year).items()
        for place, (name, rates) in enumerate(by_name.items())
    ]
    said = (
        "Misses and failed attempts are of genuine attempts: those whose first capture missed, and those in which all "
        "did. Probes and strangers' captures are measured apart, and met by no device. On a new sensor: strangers' "
        "captures as a new sensor would have taken them, which tells what the student has become apart from what the "
        "sensor has."
    )
    return section("In numbers", scroll(table(head, rows, class_="numbers rates")), caption(said))


def _cells(rates: Rates) -> tuple[str, ...]:
    return tuple(percent(value) for value in vars(rates).values())


def _devices(year: Year) -> Html:
    said = (
        "Each panel is one device. Grey ground: wear of the sensor, which a new one ends. Misses are of probes, each "
        f"point the mean of {SMOOTHED} pages. Blue bands: no network. Yellow bands: a tenth of the attempts are "
        "attackers'."
    )
    return plot("Every device", "devices", bool(pages_of(year)), lambda: devices_figure(year), said)


def _holdings(year: Year) -> Html:
    said = (
        "Sums over all devices, but for bytes and minutes. Who leaves is erased with everything that is of them, so "
        "that counts of samples can fall."
    )
    return plot("What devices keep and do", "holdings", bool(pages_of(year)), lambda: holdings_figure(year), said)


def _promises(year: Year) -> Html:
    p = promised(year)
    largest = max(page.kept.bytes for page in pages_of(year))
    rows = (
        ("captures unanswered", f"{p.unanswered:,} of {p.captures:,}"),
        ("persons enrolled again", f"{p.re_enrolments:,} of {p.enrolments:,}"),
        ("persons a device should have known and did not, by day", f"{p.persons_lost:,}"),
        ("persons a device should have forgotten and had not, by day", f"{p.persons_remembered:,} of {p.erasures:,}"),
        ("days on which references lay in another space", f"{p.spaces_mixed:,}"),
        ("starts after a power cut", f"{p.restarts:,}"),
        ("nights without the teacher", f"{p.nights_without_labels:,}"),
        ("largest store", size(largest)),
    )
    return section("What must never happen", table(("", "all devices"), rows, class_="numbers"))


def _incidents(year: Year) -> Html:
    parts = (
        tag(
            "details",
            tag("summary", f"device {device.number}: {plural(len(device.incidents), 'incident')}"),
            scroll(table(("Day", "What", "How"), _lines(device))),
        )
        for device in year.devices
    )
    return section("What happened", *parts)


def _lines(device: DeviceYear) -> Iterator[tuple[str, ...]]:
    return ((str(incident.day), incident.kind, incident.words) for incident in device.incidents)
