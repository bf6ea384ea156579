"""A year in numbers: what all devices together came to, by recogniser and by part of the year.

Counts of attempts are added up over devices; rates on probes are means over pages and devices, each of which has about
the same number of captures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from device_sim.year.books import RECOGNISERS
from device_sim.year.result import Page, Year


@dataclass(frozen=True)
class Rates:
    """How one recogniser did over some pages; None where there was nothing."""

    missed: float | None
    """Share of genuine attempts whose first capture missed."""
    failed: float | None
    """Share of genuine attempts of which every capture missed."""
    admitted: float | None
    """Share of impostors' attempts that were accepted."""
    hostile: float | None
    """Share of attackers' attempts that were accepted."""
    probe_misses: float | None
    """Share of probes that missed."""
    strangers: float | None
    """Share of strangers' captures that would be accepted."""
    strangers_new: float | None
    """The same, of captures by a new sensor."""


def pages_of(year: Year, start: float = 0.0, end: float = 1.0) -> list[Page]:
    """Pages of all devices from one share of the year to another."""
    days = int(year.settings["days"])
    return [page for device in year.devices for page in device.pages if start * days <= page.day < end * days]


def rates_over(pages: Sequence[Page], name: str) -> Rates:
    """Rates of the recogniser called `name`."""
    attempts = [page.attempts for page in pages]
    genuine = sum(a.genuine for a in attempts)
    return Rates(
        missed=_share(sum(a.missed[name] for a in attempts), genuine),
        failed=_share(sum(a.failed[name] for a in attempts), genuine),
        admitted=_share(sum(a.admitted[name] for a in attempts), sum(a.impostors for a in attempts)),
        hostile=_share(sum(a.hostile_admitted[name] for a in attempts), sum(a.hostile for a in attempts)),
        probe_misses=_mean(page.probed.misses[name] for page in pages),
        strangers=_mean(page.probed.strangers[name] for page in pages),
        strangers_new=_mean(page.probed.strangers_new[name] for page in pages),
    )


def course(year: Year, name: str) -> list[tuple[int, Rates]]:
    """Rates of one recogniser by the day of each page, all devices together."""
    by_day: dict[int, list[Page]] = {}
    for page in pages_of(year):
        by_day.setdefault(page.day, []).append(page)
    return [(day, rates_over(pages, name)) for day, pages in sorted(by_day.items())]


def thirds(year: Year) -> dict[str, dict[str, Rates]]:
    """Rates by recogniser of the whole year and of each third of it."""
    spans = {
        "whole year": (0.0, 1.0),
        "first third": (0.0, 1 / 3),
        "second": (1 / 3, 2 / 3),
        "last third": (2 / 3, 1.0),
    }
    return {
        span: {name: rates_over(pages_of(year, *ends), name) for name in RECOGNISERS} for span, ends in spans.items()
    }


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
