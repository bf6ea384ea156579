"""What happens in a year, and when: all follows from settings and number, and a short year has all of a long one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from device_sim.year.place import Place, Who, mixture
from device_sim.year.seasons import LIGHT, Seasons
from device_sim.year.settings import YearSettings
from device_sim.year.timetable import Span, Timetable
from tutelage.errors import UsageError

SMALL = YearSettings(
    devices=2, days=40, persons=4, joins=2, leaves=1, attempts=3.0, attackers=2, strangers=2, impostor_share=0.2
)


@pytest.fixture(scope="module")
def place() -> Place:
    return Place(SMALL, Timetable.of(SMALL, 1))


@pytest.mark.parametrize("days", [12, 365])
@pytest.mark.parametrize("number", [0, 3])
def test_a_short_year_holds_everything_that_a_long_one_holds(days: int, number: int):
    settings = YearSettings(days=days)
    table = Timetable.of(settings, number)
    assert len(table.sensors) == settings.sensors
    assert list(table.sensors) == sorted(table.sensors)
    assert table.sensors[0] == 0
    assert len(table.outages) == len(settings.outages)
    assert all(not table.online(outage.start) for outage in table.outages)
    assert table.online(0)
    assert len(table.power_cuts) == settings.power_cuts
    assert sum(r.leaves is not None for r in table.residents) == settings.leaves
    assert sum(r.joins > 0 or i >= settings.persons for i, r in enumerate(table.residents)) == settings.joins
    assert 0 < table.attack.start < table.attack.end <= days
    days_of_all = [*table.sensors, *table.power_cuts, *table.releases, *(r.joins for r in table.residents)]
    assert all(0 <= day < days for day in days_of_all)


def test_a_timetable_follows_from_seed_and_number_alone():
    assert Timetable.of(SMALL, 0) == Timetable.of(SMALL, 0)
    assert Timetable.of(SMALL, 0) != Timetable.of(replace(SMALL, seed=2), 0)
    assert Timetable.of(SMALL, 0).power_cuts != Timetable.of(SMALL, 1).power_cuts


def test_devices_share_no_persons():
    numbers = [{r.number for r in Timetable.of(SMALL, n).residents} for n in range(2)]
    assert not numbers[0] & numbers[1]


def test_all_devices_get_a_release_on_the_same_day():
    assert Timetable.of(SMALL, 0).releases == Timetable.of(SMALL, 1).releases == (13, 26)


def test_a_span_holds_its_first_day_and_not_its_end():
    assert [day for day in range(6) if day in Span(2, 4)] == [2, 3]


def test_measured_days_are_spread_evenly_and_end_with_the_last():
    assert replace(SMALL, measurements=4).measured_days == (9, 19, 29, 39)
    assert replace(SMALL, measurements=400).measured_days == tuple(range(40))


@pytest.mark.parametrize(
    "words", [{"days": 0}, {"persons": 4, "leaves": 3}, {"attackers": 9}, {"measurements": 0}, {"devices": 0}]
)
def test_a_year_in_which_nothing_can_happen_is_refused(words: dict[str, int]):
    with pytest.raises(UsageError):
        YearSettings(**words)


def test_it_is_dark_and_dry_in_winter_and_the_other_way_round_in_summer():
    seasons = Seasons(1, 0, 365)
    winter, summer = ([seasons.at(day) for day in days] for days in (range(5, 35), range(190, 220)))
    assert np.mean([s.light for s in winter]) < -0.8 * LIGHT < 0.8 * LIGHT < np.mean([s.light for s in summer])
    assert np.mean([s.moisture for s in winter]) < -0.1 < 0.1 < np.mean([s.moisture for s in summer])


def test_wear_grows_until_a_sensor_is_replaced_by_a_new_one(place: Place):
    table = place.timetable
    wear = [place.condition(day).wear for day in range(SMALL.days)]
    for start, end in zip(table.sensors, (*table.sensors[1:], SMALL.days), strict=True):
        assert wear[start] == 0.0
        assert wear[start:end] == sorted(wear[start:end])
        assert wear[end - 1] > 0.8 * SMALL.wear


def test_a_replaced_sensor_has_scratches_of_its_own(place: Place):
    resident = place.timetable.residents[0]
    worn = [end - 1 for end in place.timetable.sensors[1:]]
    before, after = (place.references(resident, day)[0].astype(float) for day in worn)
    assert np.abs(before - after).mean() > 4.0


def test_a_new_sensor_shows_strangers_as_they_are_on_the_first_day_whatever_the_day(place: Place):
    day = max(range(SMALL.days), key=lambda d: place.condition(d).wear)
    worn, new = (place.strangers(day, new_sensor=new) for new in (False, True))
    assert len(worn) == len(new) == SMALL.strangers
    contrast = [np.mean([capture.std() for capture in captures]) for captures in (worn, new)]
    assert contrast[0] < 0.9 * contrast[1]
    first = place.strangers(0, new_sensor=True)
    assert [c.shape for c in first] == [c.shape for c in new]
    assert np.mean([c.std() for c in first]) == pytest.approx(contrast[1], rel=0.1)


def test_who_comes_follows_from_the_day_and_nobody_comes_who_is_not_enrolled(place: Place):
    enrolled = place.residents(20)
    twice = [[(v.who, v.person, v.tries(0).tobytes()) for v in place.visits(20, enrolled)] for _ in range(2)]
    assert twice[0] == twice[1]
    names = {r.name for r in enrolled}
    assert {person for who, person, _ in twice[0] if who is Who.GENUINE} <= names
    assert not {person for who, person, _ in twice[0] if who is not Who.GENUINE} - {""}


def test_attackers_come_during_the_attack_alone_and_impostors_at_any_time(place: Place):
    days = {who: set() for who in Who}
    for day in range(SMALL.days):
        for visit in place.visits(day, place.residents(day)):
            days[visit.who].add(day)
    assert days[Who.HOSTILE]
    assert all(day in place.timetable.attack for day in days[Who.HOSTILE])
    assert len(days[Who.IMPOSTOR]) > len(days[Who.HOSTILE])


def test_a_mixture_goes_from_one_finger_to_the_other(place: Place):
    own, other = (place._masters[r.number] for r in place.timetable.residents[:2])

    def alike(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])

    towards = [alike(mixture(own, other, share), other) for share in (0.0, 0.2, 0.4, 1.0)]
    assert towards == sorted(towards)
    assert alike(mixture(own, other, 0.0), own) > 0.98 < towards[-1]
    assert alike(mixture(own, other, 0.4), own) > towards[2]
