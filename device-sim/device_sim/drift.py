"""How a sensor's condition changes over simulated time.

Wear only grows. Dirt builds up and is wiped off by cleaning, moisture follows the season and the day's weather, the
optics fog slowly, the gain wanders. Everything about day d of device n follows from `(seed, n, d)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from device_sim.sensor import Condition
from tutelage.errors import UsageError


@dataclass(frozen=True)
class Drift:
    """The ageing of one device's sensor, new on day 0 and at its full `wear` after `days`.

    Raises:
        UsageError: there is not a whole day of ageing, or between two cleanings.
    """

    seed: int
    number: int
    days: int
    """Days until `wear` is reached, at least 1; afterwards wear stays. Also the length of a year of weather."""
    wear: float = 0.6
    """0..1 at the end."""
    cleaning_days: int = 11
    """Days between two cleanings, at least 1."""

    def __post_init__(self) -> None:
        """Refuse what cannot be divided by."""
        if min(self.days, self.cleaning_days) < 1:
            raise UsageError(
                f"a sensor ages over {self.days} days and is cleaned every {self.cleaning_days}: give 1 or more"
            )

    def at(self, day: float) -> Condition:
        """Condition on `day` >= 0; day 0 is a new sensor."""
        share = min(1.0, max(0.0, day / self.days))
        age = share * self.wear
        weather = np.random.default_rng([self.seed, self.number, 6, int(day)]).normal(0.0, 0.1)
        season = 0.25 * math.sin(2 * math.pi * (day / self.days + self._phase()))
        since_cleaning = (day + 3 * self.number) % self.cleaning_days / self.cleaning_days
        return Condition(
            wear=age,
            dirt=age * (0.45 + 0.35 * since_cleaning),
            moisture=float(np.clip(share * (season + weather) - 0.25 * age, -1, 1)),
            blur=0.9 * age,
            gain=float(np.clip(-0.45 * age + 0.05 * share * weather, -1, 1)),
        )

    def _phase(self) -> float:
        """Where in the year the device was put up, 0..1."""
        return float(np.random.default_rng([self.seed, self.number, 7]).random())


def conditions_at_wear(wear: float) -> Condition:
    """The mean condition that `Drift` reaches at `wear`: what the fixed drift suites are measured at."""
    return Condition(wear=wear, dirt=0.62 * wear, moisture=-0.25 * wear, blur=0.9 * wear, gain=-0.45 * wear)
