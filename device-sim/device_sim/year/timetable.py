"""The timetable of one device's year: who comes and goes, which sensor is mounted, what goes wrong, and on which day.

Everything follows from the settings and the device's number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from device_sim.year.settings import YearSettings


@dataclass(frozen=True)
class Resident:
    """Somebody who is enrolled at a device for some time."""

    name: str
    number: int
    """Of the synthetic person."""
    joins: int
    """Day of the enrolment."""
    leaves: int | None = None
    """Day of the erasure; None for who stays."""

    def here(self, day: int) -> bool:
        """Whether this person is to be enrolled on `day`, in the course of which they come and go."""
        return self.joins <= day and (self.leaves is None or day < self.leaves)


@dataclass(frozen=True)
class Span:
    """Days from `start` until before `end`."""

    start: int
    end: int

    def __contains__(self, day: object) -> bool:
        """Whether `day` is one of them."""
        return isinstance(day, int) and self.start <= day < self.end


@dataclass(frozen=True)
class Timetable:
    """What happens at one device."""

    number: int
    """Of the device."""
    residents: tuple[Resident, ...]
    sensors: tuple[int, ...]
    """Day on which each sensor is mounted; the first is 0."""
    outages: tuple[Span, ...]
    power_cuts: tuple[int, ...]
    """Days of power cuts."""
    releases: tuple[int, ...]
    """Day on which each further version is released; it comes once there is a network."""
    attack: Span

    def online(self, day: int) -> bool:
        """Whether there is a network on `day`."""
        return not any(day in outage for outage in self.outages)

    def sensor(self, day: int) -> int:
        """Which sensor is mounted on `day`, from 0."""
        return sum(mounted <= day for mounted in self.sensors) - 1

    @staticmethod
    def of(settings: YearSettings, number: int) -> Timetable:
        """The timetable of device `number`."""
        rng = np.random.default_rng([settings.seed, number, 23])
        return Timetable(
            number=number,
            residents=_residents(settings, number, rng),
            sensors=_sensors(settings, rng),
            outages=_outages(settings, rng),
            power_cuts=tuple(sorted(settings.day_of(float(s)) for s in rng.uniform(0.02, 1.0, settings.power_cuts))),
            releases=_releases(settings),
            attack=_span(settings, float(rng.uniform(0.45, 0.75)), settings.hostile_stretch),
        )


def _residents(settings: YearSettings, number: int, rng: np.random.Generator) -> tuple[Resident, ...]:
    """Those of the first day, of whom the first few leave, and those who join."""
    first = number * (settings.persons + settings.joins)
    leaving = iter(sorted(settings.day_of(float(s)) for s in rng.uniform(0.15, 0.9, settings.leaves)))
    joining = sorted(settings.day_of(float(s)) for s in rng.uniform(0.05, 0.85, settings.joins))
    days = [0] * settings.persons + joining
    return tuple(Resident(f"person-{first + i:04d}", first + i, day, next(leaving, None)) for i, day in enumerate(days))


def _sensors(settings: YearSettings, rng: np.random.Generator) -> tuple[int, ...]:
    """Days at which sensors are mounted: lives of about the same length."""
    ends = [(i + float(rng.uniform(-0.1, 0.1))) / settings.sensors for i in range(1, settings.sensors)]
    return (0, *(settings.day_of(end) for end in ends))


def _outages(settings: YearSettings, rng: np.random.Generator) -> tuple[Span, ...]:
    """One outage in each of as many equal parts of the year."""
    count = len(settings.outages)
    starts = [(i + float(rng.uniform(0.2, 0.7))) / count for i in range(count)]
    return tuple(_span(settings, start, length) for start, length in zip(starts, settings.outages, strict=True))


def _releases(settings: YearSettings) -> tuple[int, ...]:
    """Releases come to all devices on the same day, spread over the year."""
    count = settings.releases
    return tuple(settings.day_of((i + 1) / (count + 1)) for i in range(count))


def _span(settings: YearSettings, start: float, length: float) -> Span:
    """Days from a share of the year on, one at least."""
    first = settings.day_of(start)
    return Span(first, first + max(1, round(length * settings.days)))
