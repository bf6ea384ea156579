"""Batches of real images as worn sensors would see them: what a teacher of a site's images is trained on.

A teacher has to name people whom the device no longer recognises, so it must know more sensors than the student does:
each batch is moved a little, then held before simulated sensors in conditions of the full range given. Decided by
`(seed, step)` alone; nothing is mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from device_sim.sensor import SIDE, sense, sensor_patterns
from device_sim.synthetic import Range
from tutelage.nn.batches import Augmentation, InputBatches, standardise

SENSORS = 64


@dataclass(frozen=True)
class WornBatches:
    """`Batches` over given images."""

    images: Tensor
    """(N, 1, 64, 64) in 0..1."""
    labels: Tensor
    """(N,) class numbers."""
    seed: int
    conditions: Range

    @property
    def persons(self) -> int:
        """C: one more than the highest label."""
        return int(self.labels.max()) + 1

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """A batch decided by `(seed, step)`."""
        rows = InputBatches(self.images, self.labels, self.seed).chosen(step, size)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        grid = Augmentation().placement(self.images[rows], generator)
        moved = functional.grid_sample(self.images[rows], grid, padding_mode="reflection", align_corners=False)
        rng = np.random.default_rng([self.seed, 17, step])
        knobs = torch.from_numpy(self.conditions.draw(rng, size))
        patterns = torch.from_numpy(sensor_patterns(self.seed, rng.integers(0, SENSORS, size).tolist()))
        noise = torch.from_numpy(rng.standard_normal((size, SIDE, SIDE), np.float32))
        return standardise(sense(moved, knobs, patterns, noise)), self.labels[rows]
