"""A made-up year of two devices, for tests of what is shown of a year."""

from __future__ import annotations

from dataclasses import replace

from device_sim.results import FROZEN, SELF_DISTILLED, Made
from device_sim.typed_json import plain
from device_sim.year.books import TEMPLATE
from device_sim.year.result import Attempts, DeviceYear, Incident, Kept, Page, Probed, Promises, Year
from device_sim.year.settings import YearSettings

DAYS = 12


def by_name(frozen, template, live):
    return {FROZEN: frozen, TEMPLATE: template, SELF_DISTILLED: live}


def page(day: int, frozen_missed: int = 4, **changes) -> Page:
    """A page with 10 genuine attempts, of which the frozen student missed so many."""
    attempts = Attempts(
        genuine=10,
        impostors=2,
        hostile=0,
        missed=by_name(frozen_missed, 2, 1),
        failed=by_name(2, 1, 0),
        admitted=by_name(0, 1, 0),
        hostile_admitted=by_name(0, 0, 0),
    )
    return replace(
        Page(
            day=day,
            sensor=0,
            wear=0.04 * day,
            moisture=-0.2,
            gain=0.1,
            online=True,
            persons=5,
            generation="v1",
            attempts=attempts,
            probed=Probed(by_name(0.4, 0.2, 0.1), by_name(0.02, 0.06, 0.02), by_name(0.03, 0.05, 0.04)),
            kept=Kept(10 * day, day, day, 0, 0, 1, 2, 1, 0, 1 << 20, 12.5),
        ),
        **changes,
    )


PROMISES = Promises(
    captures=200,
    unanswered=0,
    enrolments=7,
    re_enrolments=0,
    persons_lost=0,
    erasures=1,
    persons_remembered=0,
    spaces_mixed=0,
    restarts=3,
    nights_without_labels=2,
)
INCIDENTS = (
    Incident(0, "release-installed", "the cloud released it"),
    Incident(2, "network-out", "for 3 days"),
    Incident(4, "generation-swapped", "the gate let it pass"),
    Incident(5, "power-cut", "between two visitors"),
    Incident(6, "release-installed", "the cloud <b>released</b> it"),
    Incident(7, "attack", "begins"),
    Incident(9, "attack", "is over"),
)
YEAR = Year(
    made=Made("abc1234", "a machine", "3.11", "2.13", (1,), "2026-01-01T00:00:00+00:00"),
    settings=plain(YearSettings(devices=2, days=DAYS, measurements=4)),
    devices=tuple(
        DeviceYear(number, tuple(page(day) for day in (2, 5, 8, 11)), INCIDENTS, PROMISES, 12.0) for number in range(2)
    ),
    seconds=30.0,
)
