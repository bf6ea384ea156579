"""The place of a device: its sensors as they age and are replaced, and every capture that anybody makes there.

All captures are synthetic fingers, decided by the settings, the device's number and the moment alone: whoever looks at
the same moment sees the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch

from device_sim.drift import Drift
from device_sim.masters import grow_masters
from device_sim.sensor import Condition, Presses, Sensor
from device_sim.year.seasons import Seasons
from device_sim.year.settings import YearSettings
from device_sim.year.timetable import Resident, Timetable
from tutelage.captures import Pixels

FIRST_SHARE, LAST_SHARE = 0.1, 0.4
"""Share of the victim in an attacker's finger, on the first and on the last day of the attack."""
_IMPOSTORS_FROM, _ATTACKERS_FROM, _STRANGERS_FROM = 800_000, 850_000, 900_000
_IMPOSTORS = 40
"""Different people who try their luck at one device."""
_REPLACED = 1000
"""Between the number of a device's sensor and that of its next one."""


class Who(StrEnum):
    """Kinds of people before a device."""

    GENUINE = "genuine"
    IMPOSTOR = "impostor"
    HOSTILE = "hostile"


@dataclass(frozen=True)
class Visit:
    """Somebody who comes and tries until accepted, at most as often as a device lets anybody."""

    who: Who
    person: str
    """Who is enrolled; empty for impostors and attackers."""
    tries: Callable[[int], Pixels]
    """The capture of try 0, 1, ...; decided by the seed, made when asked for."""


@dataclass(frozen=True)
class Place:
    """One device's place."""

    settings: YearSettings
    timetable: Timetable

    @cached_property
    def _masters(self) -> dict[int, torch.Tensor]:
        """Fingers of the residents and strangers, by their number."""
        wanted = [r.number for r in self.timetable.residents]
        for base, count in ((_IMPOSTORS_FROM, _IMPOSTORS), (_ATTACKERS_FROM, self.settings.attackers)):
            wanted += self._others(base, count)
        wanted += self._others(_STRANGERS_FROM, self.settings.strangers)
        return dict(zip(wanted, grow_masters(self.settings.seed, wanted), strict=True))

    def _others(self, base: int, count: int) -> list[int]:
        """Numbers of this place's people of one kind."""
        return [base + self.timetable.number * count + i for i in range(count)]

    @cached_property
    def _drifts(self) -> tuple[Drift, ...]:
        """The ageing of each sensor over its own life."""
        mounted = (*self.timetable.sensors, self.settings.days)
        lives = [max(1, end - start) for start, end in pairwise(mounted)]
        cleaning = max(1, round(0.03 * self.settings.days))
        return tuple(
            Drift(self.settings.seed, self._sensor_number(i), life, self.settings.wear, cleaning)
            for i, life in enumerate(lives)
        )

    def _sensor_number(self, mounted: int) -> int:
        return self.timetable.number + _REPLACED * mounted

    @cached_property
    def _seasons(self) -> Seasons:
        return Seasons(self.settings.seed, self.timetable.number, self.settings.days)

    def condition(self, day: int) -> Condition:
        """Condition of the mounted sensor: its age, and the season."""
        mounted = self.timetable.sensor(day)
        aged = self._drifts[mounted].at(day - self.timetable.sensors[mounted])
        season = self._seasons.at(day)
        return replace(
            aged,
            moisture=float(np.clip(season.moisture - 0.25 * aged.wear, -1, 1)),
            gain=float(np.clip(aged.gain + season.light, -1, 1)),
        )

    def residents(self, day: int) -> tuple[Resident, ...]:
        """Who is to be enrolled on `day`."""
        return tuple(r for r in self.timetable.residents if r.here(day))

    def references(self, resident: Resident, day: int) -> list[Pixels]:
        """Enrolment captures, taken on `day`."""
        return self._captures(resident.number, range(self.settings.references), day)

    def probes(self, residents: Sequence[Resident], day: int) -> list[tuple[str, Pixels]]:
        """Person and capture: `probes` captures of each of `residents` that are used for nothing else."""
        base = 1000 + 10 * day
        presses = range(base, base + self.settings.probes)
        return [(r.name, capture) for r in residents for capture in self._captures(r.number, presses, day)]

    def strangers(self, day: int, *, new_sensor: bool = False) -> list[Pixels]:
        """One capture of each of those who are only measured with, as it is that day or would be on a new sensor."""
        numbers, presses = self._others(_STRANGERS_FROM, self.settings.strangers), [1000 + 10 * day]
        condition = Condition() if new_sensor else self.condition(day)
        return [c for n in numbers for c in self._pressed(self._masters[n], n, presses, day, condition)]

    def visits(self, day: int, enrolled: Sequence[Resident]) -> Iterator[Visit]:
        """Who comes on `day`, in order, where `enrolled` are those who may come as themselves."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, self.timetable.number, 24, day])
        hostile = settings.hostile_share if day in self.timetable.attack else 0.0
        for turn in range(int(rng.poisson(settings.attempts * len(enrolled)))):
            kind, who = float(rng.random()), int(rng.integers(1 << 30))
            press = 10_000 + (day * 1000 + turn) * 10
            if kind < settings.impostor_share:
                number = self._others(_IMPOSTORS_FROM, _IMPOSTORS)[who % _IMPOSTORS]
                yield Visit(Who.IMPOSTOR, "", self._tries(self._masters[number], number, press, day))
            elif kind < settings.impostor_share + hostile and settings.attackers:
                yield Visit(Who.HOSTILE, "", self._attack(who % settings.attackers, press, day))
            else:
                resident = enrolled[who % len(enrolled)]
                tries = self._tries(self._masters[resident.number], resident.number, press, day)
                yield Visit(Who.GENUINE, resident.name, tries)

    def _attack(self, attacker: int, press: int, day: int) -> Callable[[int], Pixels]:
        """Tries of an attacker, whose finger is a mixture with the victim's, more of it each day."""
        number = self._others(_ATTACKERS_FROM, self.settings.attackers)[attacker]
        # Victims are the last of the first day's residents: those who leave are the first.
        victim = self.timetable.residents[self.settings.persons - 1 - attacker]
        attack = self.timetable.attack
        over = (day - attack.start) / max(1, attack.end - attack.start - 1)
        share = FIRST_SHARE + over * (LAST_SHARE - FIRST_SHARE)
        mixed = mixture(self._masters[number], self._masters[victim.number], share)
        return self._tries(mixed, number, press, day)

    def _tries(self, master: torch.Tensor, number: int, press: int, day: int) -> Callable[[int], Pixels]:
        return lambda k: self._pressed(master, number, [press + k], day, self.condition(day))[0]

    def _captures(self, number: int, presses: Sequence[int], day: int) -> list[Pixels]:
        return self._pressed(self._masters[number], number, presses, day, self.condition(day))

    def _pressed(
        self, master: torch.Tensor, number: int, presses: Sequence[int], day: int, condition: Condition
    ) -> list[Pixels]:
        sensor = Sensor(self.settings.seed, self._sensor_number(self.timetable.sensor(day)))
        drawn = Presses.of(self.settings.seed, number, presses)
        return sensor.capture(master.expand(len(drawn), -1, -1), drawn, condition)


def mixture(own: torch.Tensor, other: torch.Tensor, share: float) -> torch.Tensor:
    """A finger (128, 128) with both ridge patterns, as sharp as any; `share` (0..1) is how much is of `other`."""
    mixed = torch.lerp(own, other, share)
    return torch.tanh(2.4 * mixed / mixed.std().clamp(min=1e-6))
