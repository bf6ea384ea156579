"""Drift: wear only grows, cleaning wipes dirt off, season and weather move moisture, all decided by seed and device."""

from __future__ import annotations

import math

import numpy as np
import pytest

from device_sim.drift import Drift, conditions_at_wear
from device_sim.sensor import Condition
from tutelage.errors import Code, UsageError

DAYS = 60


@pytest.fixture
def drift() -> Drift:
    return Drift(seed=3, number=2, days=DAYS, wear=0.6)


def test_a_sensor_is_new_on_its_first_day(drift: Drift):
    assert drift.at(0) == Condition()


def test_wear_grows_evenly_and_then_stays(drift: Drift):
    wear = np.array([drift.at(day).wear for day in range(DAYS + 30)])
    assert wear[: DAYS + 1] == pytest.approx(0.6 * np.arange(DAYS + 1) / DAYS)
    assert (wear[DAYS:] == 0.6).all()


def test_the_optics_fog_with_wear(drift: Drift):
    for day in (0, 7.5, 33, 90):
        condition = drift.at(day)
        assert condition.blur == pytest.approx(0.9 * condition.wear)


def test_dirt_builds_up_between_cleanings_and_never_passes_its_bounds(drift: Drift):
    days = range(1, DAYS + 1)
    dirt = {day: drift.at(day).dirt for day in days}
    cleaned = [day for day in days if (day + 3 * drift.number) % drift.cleaning_days == 0]
    assert len(cleaned) >= 5
    for day in list(days)[1:]:
        assert (dirt[day] < dirt[day - 1]) == (day in cleaned)
    for day in days:
        share = dirt[day] / drift.at(day).wear
        assert 0.45 <= round(share, 9) < 0.80


def test_devices_are_cleaned_on_different_days():
    def day_of_cleaning(number: int) -> int:
        ageing = Drift(3, number, DAYS)
        return next(day for day in range(12, 30) if ageing.at(day).dirt < ageing.at(day - 1).dirt)

    assert len({day_of_cleaning(number) for number in range(8)}) == 8


def test_moisture_follows_season_and_weather():
    """Without the part of wear, its mean over many devices is nothing and its course over a year is a sine."""
    devices = [Drift(3, number, 400, wear=0.0) for number in range(40)]
    year = np.array([[device.at(day).moisture for day in range(400, 800, 4)] for device in devices])  # (40, 100)
    assert abs(year.mean()) < 0.03
    spectrum = np.abs(np.fft.rfft(year, axis=1)) / 50
    assert spectrum[:, 1].mean() == pytest.approx(0.25, abs=0.03)  # one wave a year
    assert spectrum[:, 2:].max() < 0.1  # the weather has no rhythm
    rest = year - np.fft.irfft(np.fft.rfft(year, axis=1) * (np.arange(51) <= 1), 100, axis=1)
    assert rest.std() == pytest.approx(0.1, abs=0.01)
    phases = np.angle(np.fft.rfft(year, axis=1)[:, 1])
    assert phases.max() - phases.min() > math.pi  # devices were put up at different times of the year


def test_weather_is_that_of_the_day(drift: Drift):
    morning, evening, tomorrow = (drift.at(day).gain / day for day in (40.0, 40.9, 41.0))
    assert morning == pytest.approx(evening)
    assert tomorrow != pytest.approx(morning)


def test_a_day_of_a_device_follows_from_seed_and_number_alone(drift: Drift):
    later = [drift.at(day) for day in (50, 20, 50)]
    assert later[0] == later[2] == Drift(3, 2, DAYS, 0.6).at(50)
    assert Drift(4, 2, DAYS, 0.6).at(50).moisture != later[0].moisture
    assert Drift(3, 1, DAYS, 0.6).at(50).moisture != later[0].moisture


def test_knobs_stay_within_their_ranges():
    for number in range(20):
        for day in range(0, 90, 3):
            condition = Drift(5, number, DAYS, wear=1.0).at(day)
            assert 0 <= condition.wear <= 1
            assert 0 <= condition.dirt <= 1
            assert 0 <= condition.blur <= 2
            assert -1 <= condition.moisture <= 1
            assert -1 <= condition.gain <= 1


@pytest.mark.parametrize("wear", [0.2, 0.6])
def test_the_conditions_of_a_suite_are_the_mean_of_many_devices(wear: float):
    after = [Drift(9, n, DAYS, wear).at(day).as_array() for n in range(30) for day in range(DAYS, 2 * DAYS)]
    expected = conditions_at_wear(wear).as_array()
    np.testing.assert_allclose(np.mean(after, axis=0), expected, atol=0.02)
    assert expected[0] == np.float32(wear)


def test_a_suite_gets_worse_with_wear():
    mild, harsh = conditions_at_wear(0.2).as_array(), conditions_at_wear(0.6).as_array()
    assert (np.abs(mild) < np.abs(harsh)).all()
    assert conditions_at_wear(0.0) == Condition()


@pytest.mark.parametrize("settings", [{"days": 0}, {"days": -3}, {"days": 10, "cleaning_days": 0}])
def test_no_time_to_age_or_be_cleaned_is_refused(settings: dict[str, int]):
    with pytest.raises(UsageError, match="1 or more") as refused:
        Drift(1, 1, **settings)
    assert refused.value.code is Code.USAGE
