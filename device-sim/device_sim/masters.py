"""Master fingerprints: one ridge pattern per synthetic person.

A master is grown the way Cappelli's SFinGe describes it (Cappelli, Maio, Maltoni 2002; Maltoni et al., Handbook of
Fingerprint Recognition, ch. 6): an orientation field with cores and deltas after Sherlock and Monro (1993) decides
where ridges run, and a Gabor filter oriented along that field, applied again and again to random noise, makes ridges
and minutiae appear. Departures: the whole area starts from noise instead of a few seeds, which needs a dozen iterations
instead of a hundred, and the filter bank has a fixed number of orientations between which the field interpolates.
Everything about a person follows from `(seed, person)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

MASTER_SIDE = 128
"""Pixels a side of a master; a capture sees a part of it about half as wide."""
ORIENTATIONS = 16
"""Directions in the filter bank; between two of them responses are interpolated."""
PERIOD_RANGE = (6.2, 8.8)
"""Ridge periods of persons, pixels."""
KERNEL_SIDE = 17
ITERATIONS = 14
"""Filter passes; after about ten the pattern no longer changes its topology."""

_CLASSES = ("arch", "left-loop", "right-loop", "whorl")
_SHARES = (0.10, 0.33, 0.33, 0.24)


@dataclass(frozen=True)
class Pattern:
    """What decides a person's ridges before they are grown."""

    kind: str
    """`arch`, `left-loop`, `right-loop` or `whorl`."""
    cores: npt.NDArray[np.float64]
    """(n, 2) x, y of the cores, in pixels of the master."""
    deltas: npt.NDArray[np.float64]
    """(n, 2) x, y of the deltas, in pixels of the master."""
    period: float
    """Mean distance of two ridges, pixels."""
    bend: npt.NDArray[np.float64]
    """(4,) low-frequency undulation of the orientation field: amplitudes and phases, radians."""


def draw_pattern(seed: int, person: int) -> Pattern:
    """Class, singular points, ridge period and undulation of one person, decided by `(seed, person)` alone."""
    rng = np.random.default_rng([seed, person, 1])
    kind = str(rng.choice(_CLASSES, p=_SHARES))
    centre = np.array([64.0, 56.0]) + rng.normal(0.0, 5.0, 2)
    cores, deltas = _singular_points(kind, centre, rng)
    bend = np.concatenate([rng.normal(0.0, 0.18, 2), rng.uniform(0, 2 * math.pi, 2)])
    return Pattern(kind, cores, deltas, float(rng.uniform(*PERIOD_RANGE)), bend)


def _singular_points(
    kind: str, centre: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Cores and deltas of a class around `centre`; an arch has none and gets its bump from the field itself."""
    jitter = rng.normal(0.0, 4.0, (4, 2))
    if kind == "arch":
        return np.empty((0, 2)), np.empty((0, 2))
    if kind == "whorl":
        gap = rng.uniform(8.0, 26.0)
        cores = centre + np.array([[0, -gap / 2], [0, gap / 2]])
        deltas = centre + np.array([[-46, 48], [46, 48]]) + jitter[:2]
        return cores, deltas
    side = -1.0 if kind == "right-loop" else 1.0
    return centre[None], centre + np.array([[side * 38.0, 46.0]]) + jitter[:1]


def orientation_field(pattern: Pattern) -> npt.NDArray[np.float32]:
    """Ridge direction at each pixel: (MASTER_SIDE, MASTER_SIDE), radians, modulo pi.

    Zero-pole model of Sherlock and Monro (1993): half the sum of the angles to the cores minus those to the deltas.
    """
    y, x = np.mgrid[0:MASTER_SIDE, 0:MASTER_SIDE].astype(np.float64)
    angle = np.zeros_like(x)
    for cx, cy in pattern.cores:
        angle += 0.5 * np.arctan2(y - cy, x - cx)
    for dx, dy in pattern.deltas:
        angle -= 0.5 * np.arctan2(y - dy, x - dx)
    if pattern.kind == "arch":
        bump = np.exp(-(((y - 70) / 34) ** 2)) * np.exp(-(((x - 64) / 40) ** 2))
        angle += 0.9 * bump * np.sin((x - 64) / 24)
    else:
        above = (int(pattern.cores[0, 1]) - 12, int(pattern.cores[0, 0]))
        angle -= angle[above]  # ridges arch over the upper core
    amplitude, phase = pattern.bend[:2], pattern.bend[2:]
    angle += amplitude[0] * np.sin(x / 30 + phase[0]) + amplitude[1] * np.sin(y / 30 + phase[1])
    field: npt.NDArray[np.float32] = np.mod(angle, math.pi).astype(np.float32)
    return field


def _filter_bank(patterns: list[Pattern], device: torch.device) -> torch.Tensor:
    """Zero-mean Gabor kernels: (P * ORIENTATIONS, 1, KERNEL_SIDE, KERNEL_SIDE), each person's at its own period."""
    half = KERNEL_SIDE // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    theta = (math.pi / ORIENTATIONS * np.arange(ORIENTATIONS))[None, :, None, None]
    period = np.array([p.period for p in patterns])[:, None, None, None]
    across = -x * np.sin(theta) + y * np.cos(theta)
    kernels = np.cos(2 * math.pi * across / period) * np.exp(-(x**2 + y**2) / (2 * (0.48 * period) ** 2))
    kernels -= kernels.mean(axis=(2, 3), keepdims=True)
    return torch.from_numpy(kernels).float().flatten(0, 1)[:, None].to(device)


def _direction_weights(patterns: list[Pattern], device: torch.device) -> torch.Tensor:
    """How much each orientation counts at each pixel: (P, ORIENTATIONS, side, side), sums to one."""
    field = torch.from_numpy(np.stack([orientation_field(p) for p in patterns])).to(device)
    position = field / math.pi * ORIENTATIONS
    steps = torch.arange(ORIENTATIONS, device=device)[None, :, None, None]
    gap = (position[:, None] - steps).abs()
    return (1 - torch.minimum(gap, ORIENTATIONS - gap)).clamp(min=0)


def grow_masters(
    seed: int, persons: range | list[int], *, device: torch.device | str = "cpu", batch: int = 8
) -> torch.Tensor:
    """Ridge patterns of `persons`: (len(persons), MASTER_SIDE, MASTER_SIDE) float32 in [-1, 1], ridges negative.

    The same `(seed, person)` gives the same master whatever else is grown beside it: bit for bit on a processor, and
    within 1e-3 between a processor and a GPU, whose sums are rounded in another order.

    Args:
        seed: Which population the persons are of.
        persons: Numbers of the persons.
        device: Where to grow and leave the masters.
        batch: Persons grown side by side on a GPU. A processor grows one at a time: side by side takes twice as long.
    """
    where = torch.device(device)
    wanted = list(persons)
    together = 1 if where.type == "cpu" else batch
    grown = [_grow(seed, wanted[i : i + together], where) for i in range(0, len(wanted), together)]
    return torch.cat(grown) if grown else torch.empty(0, MASTER_SIDE, MASTER_SIDE, device=where)


def _grow(seed: int, persons: list[int], device: torch.device) -> torch.Tensor:
    """One batch of `grow_masters`: noise, then alternating filtering and saturation."""
    noise = np.stack([np.random.default_rng([seed, p, 2]).standard_normal((MASTER_SIDE, MASTER_SIDE)) for p in persons])
    patterns = [draw_pattern(seed, p) for p in persons]
    bank, weights = _filter_bank(patterns, device), _direction_weights(patterns, device)
    ridges = torch.from_numpy(noise).float().to(device)[None]  # (1, P, side, side): one group a person
    for _ in range(ITERATIONS):
        padded = functional.pad(ridges, [KERNEL_SIDE // 2] * 4, mode="reflect")
        every = functional.conv2d(padded, bank, groups=len(persons))  # (1, P * ORIENTATIONS, side, side)
        response = (every.reshape(1, *weights.shape) * weights).sum(2)
        ridges = torch.tanh(4.0 * response / response.std(dim=(2, 3), keepdim=True))
    return ridges[0]
