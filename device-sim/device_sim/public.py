"""The public of one door: synthetic persons who come to a device, and strangers among them.

All captures are synthetic fingers, decided by the seed, the site and the number of the visit alone. Persons, their
names and the sensor are those of the demonstration's device of that number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from device_sim.masters import grow_masters
from device_sim.sensor import Condition, Presses, Sensor
from device_sim.site import STRANGER
from tutelage.captures import Pixels

__all__ = ["Public", "Visitor"]

STRANGERS = 60
"""Different people who come to one door without being enrolled."""
_STRANGERS_FROM = 600_000
_VISITS_FROM = 10_000
"""First press of visits; references are pressed below."""
_TRIES = 10
"""Presses that are set aside for one visit."""


@dataclass(frozen=True)
class Visitor:
    """Somebody who has come and presses a finger on the sensor as often as it takes."""

    person: str
    """Who is enrolled; `STRANGER` for somebody who is not."""
    tries: Callable[[int, Condition], Pixels]
    """The capture of try 0, 1, ... on a sensor in that condition."""


@dataclass(frozen=True)
class Public:
    """The people of one site."""

    seed: int = 1
    """Which population they are of."""
    site: int = 0
    """Number of the device in the demonstration's counting, 0 or more: decides its persons and its sensor."""
    persons: int = 12
    """How many there are, 1 or more."""
    _masters: dict[int, torch.Tensor] = field(init=False, repr=False, compare=False, default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of the persons, in their order."""
        return [f"person-{self._number(place):03d}" for place in range(self.persons)]

    def references(self, place: int, count: int) -> list[Pixels]:
        """Enrolment captures of the person at that `place` in `names`, on a new sensor."""
        return [self.capture(place, press, Condition()) for press in range(count)]

    def capture(self, place: int, press: int, condition: Condition) -> Pixels:
        """What a sensor in that `condition` sees of this `press` of the person at that `place` in `names`."""
        return self._pressed(self._number(place), press, condition)

    def visitor(self, visit: int, strangers: float) -> Visitor:
        """Who comes at `visit` (0 or more), where so large a share (0..1) of all visitors are strangers."""
        rng = np.random.default_rng([self.seed, self.site, 25, visit])
        strange, who = bool(rng.random() < strangers), int(rng.integers(1 << 30))
        number = self._stranger(who % STRANGERS) if strange else self._number(who % self.persons)
        name = STRANGER if strange else self.names[who % self.persons]
        first = _VISITS_FROM + _TRIES * visit
        return Visitor(name, lambda k, condition: self._pressed(number, first + k, condition))

    def _number(self, place: int) -> int:
        return self.site * self.persons + place

    def _stranger(self, which: int) -> int:
        return _STRANGERS_FROM + self.site * STRANGERS + which

    def _pressed(self, number: int, press: int, condition: Condition) -> Pixels:
        if number not in self._masters:
            self._masters[number] = grow_masters(self.seed, [number])
        sensor, presses = Sensor(self.seed, self.site), Presses.of(self.seed, number, [press])
        return sensor.capture(self._masters[number], presses, condition)[0]
