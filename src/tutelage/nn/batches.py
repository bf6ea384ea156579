"""Where a training loop's batches come from.

A source decides each batch by `(its seed, step)` alone, never by how often it was asked: a training resumed from a
checkpoint sees the very batches it would have seen. No source mirrors images: a mirrored finger is another finger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

EVERY_ROW = slice(None)
"""Which rows of a batch are wanted where nobody else has the others."""

_SEEDS = 1 << 63  # what a generator can be seeded with


class Batches(Protocol):
    """A source of labelled inputs."""

    @property
    def persons(self) -> int:
        """C: labels lie in 0..C-1."""
        ...

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        """Inputs (size, 1, side, side), zero mean and unit variance each, and labels (size,)."""
        ...


def standardise(images: Tensor) -> Tensor:
    """Each image (B, 1, H, W) with zero mean and unit variance, as `tutelage.captures.to_input` does."""
    centred = images - images.mean(dim=(1, 2, 3), keepdim=True)
    return centred / centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1e-6)


@dataclass(frozen=True)
class Augmentation:
    """How far an input is moved and changed in training; all are half ranges around no change."""

    shift: float = 0.06
    """Of the image's side."""
    degrees: float = 8.0
    zoom: float = 0.08
    """Relative."""
    contrast: float = 0.3
    """Strength of a smooth change of light across the image, in standard deviations."""
    noise: float = 0.15
    """Standard deviation of added noise, in standard deviations of the image."""

    def apply(self, inputs: Tensor, generator: torch.Generator, rows: slice = EVERY_ROW) -> Tensor:
        """Changed copies of these `rows` of standardised inputs (B, 1, H, W), standardised again.

        Numbers are drawn for all rows, so that a row is changed alike whatever other rows are wanted.
        """
        count, device = len(inputs), inputs.device
        grid = self.placement(inputs, generator, rows)
        moved = functional.grid_sample(inputs[rows], grid, padding_mode="reflection", align_corners=False)
        light = torch.randn(count, 1, 3, 3, generator=generator)[rows].to(device) * self.contrast
        light = functional.interpolate(light, inputs.shape[-2:], mode="bicubic", align_corners=True)
        grain = torch.randn(inputs.shape, generator=generator)[rows].to(device) * self.noise
        amount = torch.rand(count, 1, 1, 1, generator=generator)[rows].to(device)
        return standardise(moved + light + amount * grain)

    def placement(self, inputs: Tensor, generator: torch.Generator, rows: slice = EVERY_ROW) -> Tensor:
        """Sampling grid (B, H, W, 2), in grid_sample's units, of random shifts, rotations and zooms; none mirrors.

        Of inputs (N, 1, H, W) these `rows`; numbers are drawn for all.
        """
        draw = 2 * torch.rand(len(inputs), 4, generator=generator)[rows] - 1
        angle, zoom = draw[:, 0] * math.radians(self.degrees), 1 + draw[:, 1] * self.zoom
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        x, y = draw[:, 2] * 2 * self.shift, draw[:, 3] * 2 * self.shift
        matrix = torch.stack([torch.stack([cos, -sin, x], 1), torch.stack([sin, cos, y], 1)], 1)
        return functional.affine_grid(matrix.to(inputs.device), [len(draw), *inputs.shape[1:]], align_corners=False)


@dataclass(frozen=True)
class InputBatches:
    """Batches drawn from given inputs, each changed a little."""

    inputs: Tensor
    """(N, 1, side, side), standardised."""
    labels: Tensor
    """(N,) class numbers."""
    seed: int
    augmentation: Augmentation = Augmentation()

    @property
    def persons(self) -> int:
        """C: one more than the highest label."""
        return int(self.labels.max()) + 1

    def batch(self, step: int, size: int, rows: slice = EVERY_ROW) -> tuple[Tensor, Tensor]:
        """These `rows` of a batch of `size` decided by `(seed, step)`, the same whatever other rows are wanted."""
        chosen = self.chosen(step, size)
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) % _SEEDS)
        return self.augmentation.apply(self.inputs[chosen], generator, rows), self.labels[chosen[rows]]

    def chosen(self, step: int, size: int) -> Tensor:
        """Numbers (size,) of the inputs in the batch at `step`.

        A person is drawn first, so that persons with many images do not outweigh.
        """
        rng = np.random.default_rng([self.seed, step])
        uniform = rng.random(size)
        return torch.from_numpy(_balanced(self.labels.cpu().numpy(), uniform, rng))


def _balanced(
    labels: npt.NDArray[np.int64], uniform: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Row numbers: a person drawn evenly, then one of the person's rows by `uniform`."""
    order = np.argsort(labels, kind="stable")
    persons, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    drawn = rng.integers(0, len(persons), len(uniform))
    return order[starts[drawn] + (uniform * counts[drawn]).astype(np.int64)]


def label_numbers(persons: Sequence[str]) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Class numbers (N,) of person ids and the ids in the order of their numbers."""
    names, numbers = np.unique(np.asarray(persons), return_inverse=True)
    return numbers.astype(np.int64), tuple(str(n) for n in names)
