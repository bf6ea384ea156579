"""Seasons of light and moisture: what the time of the year does to a sensor, whatever its age.

In winter it is dark and skin is dry, in summer both turn round, and every day has weather of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MOISTURE = 0.25
"""Swing of the year's moisture to either side, in units of `Condition.moisture`."""
LIGHT = 0.18
"""Swing of the year's light to either side, in units of `Condition.gain`."""
WEATHER = 0.08
"""Standard deviation of a day's own moisture."""


@dataclass(frozen=True)
class Season:
    """One day's part of a sensor's condition."""

    moisture: float
    """-1..1: dry to wet."""
    light: float
    """-1..1: added to the gain."""


@dataclass(frozen=True)
class Seasons:
    """The seasons at one device; everything follows from `(seed, number)`."""

    seed: int
    number: int
    days: int
    """Length of the year."""

    def at(self, day: int) -> Season:
        """The season on `day`; the first is in the middle of winter, and device after device a little later."""
        turn = 2 * math.pi * (day / self.days - self._delay())
        weather = float(np.random.default_rng([self.seed, self.number, 21, day]).normal(0.0, WEATHER))
        return Season(-MOISTURE * math.cos(turn) + weather, -LIGHT * math.cos(turn))

    def _delay(self) -> float:
        """Share of the year by which seasons come later here than elsewhere."""
        return float(np.random.default_rng([self.seed, self.number, 22]).uniform(0.0, 0.1))
