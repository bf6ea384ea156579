"""Endless batches of synthetic fingerprints, for training teachers and students.

Each batch is decided by its step: who presses, how, on which sensor, in which condition. The next few batches are drawn
by threads while one is being used; rendering runs on the device that holds the masters.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from device_sim.masters import grow_masters
from device_sim.sensor import Presses, press_fingers, sense, sensor_patterns
from tutelage.nn.batches import EVERY_ROW, standardise
from tutelage.nn.teachers import ResidualTeacher

_SENSORS = 512
_AHEAD = 12


@dataclass(frozen=True)
class Range:
    """Which sensor conditions a batch covers: each knob between nothing and its bound, harsher ones rarer."""

    wear: float
    dirt: float
    moisture: float
    """Either sign."""
    blur: float
    gain: float
    """Either sign."""

    def draw(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
        """Knobs (count, 5) in the order of `Condition`: one severity a capture scales all knobs."""
        severity = rng.uniform(0, 1, (count, 1))
        low = np.array([0, 0, -self.moisture, 0, -self.gain])
        high = np.array([self.wear, self.dirt, self.moisture, self.blur, self.gain])
        knobs = severity * rng.uniform(low, high, (count, 5))
        knobs[:, 0] = self.wear * severity[:, 0]  # wear is the main knob: spread evenly
        return knobs.astype(np.float32)


FULL_RANGE = Range(wear=0.9, dirt=0.9, moisture=0.8, blur=1.4, gain=0.7)
"""What a teacher is trained on."""
GOOD_SENSORS = Range(wear=0.10, dirt=0.10, moisture=0.3, blur=0.25, gain=0.2)
"""What a released student is trained on: it has not seen what its devices will become."""


@dataclass
class FingerprintBatches:
    """`Batches` of masters `first .. first + persons - 1` of `seed`, rendered on the fly."""

    seed: int
    persons: int
    conditions: Range
    device: str = "cpu"
    first: int = 0
    _masters: Tensor = field(init=False, repr=False)
    _patterns: Tensor = field(init=False, repr=False)
    _pool: ThreadPoolExecutor = field(init=False, repr=False)
    _drawn: dict[tuple[int, int], Future[tuple[Presses, npt.NDArray[np.float32], npt.NDArray[np.int64]]]] = field(
        init=False, repr=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        """Grow the masters and the sensors' patterns."""
        batch = 64 if self.device != "cpu" else 8
        wanted = range(self.first, self.first + self.persons)
        self._masters = grow_masters(self.seed, wanted, device=self.device, batch=batch)
        self._patterns = torch.from_numpy(sensor_patterns(self.seed, range(_SENSORS))).to(self.device)
        self._pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="presses")

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """Standardised inputs (size, 1, 64, 64) and labels (size,), both on the masters' device."""
        for ahead in range(step, step + _AHEAD):
            if (ahead, size) not in self._drawn:
                self._drawn[ahead, size] = self._pool.submit(self._draw, ahead, size)
        presses, knobs, persons = self._drawn.pop((step, size)).result()
        chosen, dials = torch.from_numpy(persons).to(self.device), torch.from_numpy(knobs).to(self.device)
        sensors = torch.from_numpy(persons * 7 + step).to(self.device) % _SENSORS
        with torch.no_grad():
            skin = press_fingers(self._masters[chosen], presses, dials[:, 2])
            noise = torch.from_numpy(presses.noise).to(self.device)
            return standardise(sense(skin, dials, self._patterns[sensors], noise)), chosen

    def _draw(self, step: int, size: int) -> tuple[Presses, npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Everything random about a batch."""
        rng = np.random.default_rng([self.seed, 8, step])
        persons = rng.integers(0, self.persons, size)
        return Presses.draw(rng, size), self.conditions.draw(rng, size), persons


@dataclass(frozen=True)
class FingerprintTeaching:
    """`TaughtBatches`: the teacher looks at the very capture that the student sees."""

    source: FingerprintBatches
    teacher: ResidualTeacher
    centres: Tensor
    """(C, D_t) unit mean teacher features."""

    @staticmethod
    def of(source: FingerprintBatches, teacher: ResidualTeacher, captures_each: int = 8) -> FingerprintTeaching:
        """Work out the centres from about `captures_each` captures of every person."""
        rounds = max(1, captures_each * source.persons // 256)
        sums = torch.zeros(source.persons, teacher.network.spec.dimension, device=source.device)
        for step in range(rounds):
            inputs, labels = source.batch(1_000_000 + step, 256)
            sums.index_add_(0, labels, teacher.vectors(inputs))
        return FingerprintTeaching(source, teacher, functional.normalize(sums, dim=1))

    @property
    def persons(self) -> int:
        """C of the source."""
        return self.source.persons

    def taught(self, step: int, size: int, rows: slice = EVERY_ROW) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, labels and teacher features of these `rows` of the batch at `step`."""
        inputs, labels = (part[rows] for part in self.source.batch(step, size))
        return inputs, labels, self.teacher.vectors(inputs).clone()
