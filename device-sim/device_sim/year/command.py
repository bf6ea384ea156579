"""A simulated year before a person: progress with a forecast, a table, the two files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from device_sim.wording import percent, plural, seconds
from device_sim.year.fleet import play_year
from device_sim.year.report import headline, promised, write_report
from device_sim.year.result import Year, write_year
from device_sim.year.settings import YearSettings
from device_sim.year.summary import thirds
from tutelage.commands.progress import shown_progress
from tutelage.files import storage_error

DEVICE = "device-*"
SHOWN = {"misses": "missed", "failed": "failed", "attackers": "hostile", "strangers": "strangers"}
"""Columns of the table, and the rates in them: as many as a narrow terminal is wide; the page has all."""


def show_year(console: Console, out: Path, settings: YearSettings, *, processes: int, as_json: bool) -> Year:
    """Simulate a year on so many `processes`, 0 for as many as there are processors, and show it on `console`.

    Raises:
        StorageError: `out` cannot be written.
    """
    torch.set_num_threads(1)  # networks this small gain nothing from more, and every device needs a processor
    _make_room(out)
    wanted = processes or os.cpu_count() or 1
    with shown_progress("a year of device life", "days of devices", console=console) as told:

        def progress(what: str, done: int, total: int) -> None:
            # Preparations are short beside the year, and of other units: the bar is the year's.
            if what == "days of devices":
                told(done, total, {})

        year = play_year(settings, out, progress, processes=min(wanted, settings.devices))
    write_year(year, out / "year.json")
    write_report(year, out / "year.html")
    _show(year, console)
    console.print(
        f"report: {out / 'year.html'}   result: {out / 'year.json'}   {seconds(year.seconds)}", soft_wrap=True
    )
    if as_json:
        print(json.dumps(year.as_json()))  # noqa: T201
    return year


def _make_room(out: Path) -> None:
    """Make `out` a folder in which no earlier year left devices; released versions and all else stay.

    Raises:
        StorageError: `storage-failed`.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for store in out.glob(f"{DEVICE}/store.sqlite"):
            shutil.rmtree(store.parent)
    except OSError as error:
        raise storage_error(error, out, "prepared") from error


def _show(year: Year, console: Console) -> None:
    """The year as a table."""
    shown = Table(title=headline(year), title_justify="left")
    for name in ("", "", *SHOWN):
        shown.add_column(name, justify="right" if name else "left", no_wrap=True)
    for span, by_name in thirds(year).items():
        for place, (name, rates) in enumerate(by_name.items()):
            shown.add_row(span if place == 0 else "", name, *(percent(getattr(rates, SHOWN[n])) for n in SHOWN))
        shown.add_section()
    console.print(shown)
    p = promised(year)
    console.print(
        f"{plural(p.captures, 'capture')}, {p.unanswered} unanswered; {plural(p.enrolments, 'person')} enrolled, "
        f"{p.re_enrolments} again, {p.persons_lost} lost; {plural(p.restarts, 'power cut')}; "
        f"{plural(p.nights_without_labels, 'night')} without the teacher"
    )
