"""Fingers that are pressed on a sensor in ways that are known, and images that it saw."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from scipy import ndimage

from device_sim.masters import MASTER_SIDE
from device_sim.sensor import SIDE, Condition, Presses, press_fingers, sense
from tutelage.captures import Pixels

SEED = 7
PERSONS = 40
CLEAN = Condition()
CORNER = (MASTER_SIDE - SIDE) // 2
SCRATCH, FADING, SOIL, FIXED = range(4)


def neutral(count: int, **changes: object) -> Presses:
    """Straight, evenly pressed, wholly in contact, clean and without noise, but for `changes`."""
    zeros = Presses.draw(np.random.default_rng(0), count)
    zeros = Presses(*(np.zeros_like(value) for value in vars(zeros).values()))
    contact = np.tile(np.float32([0, 0, 50, 50]), (count, 1))
    smudge = np.tile(np.float32([0, 0, 1, 0]), (count, 1))
    given = {name: np.broadcast_to(np.float32(v), getattr(zeros, name).shape).copy() for name, v in changes.items()}
    return dataclasses.replace(zeros, **({"contact": contact, "smudge": smudge} | given))


def pressed(master: torch.Tensor, moisture: float = 0.0, **changes: object) -> np.ndarray:
    """One press of `master`, (64, 64) in 0..1."""
    return press_fingers(master[None], neutral(1, **changes), torch.tensor([moisture]))[0, 0].numpy()


def sensed(image: np.ndarray, *, pattern: np.ndarray | None = None, noise: float = 0.0, **knobs: float) -> np.ndarray:
    """What a sensor with these `knobs` makes of one `image` (H, W) in 0..1; without `pattern` an even, unmarked one."""
    if pattern is None:
        pattern = np.zeros((4, SIDE, SIDE), np.float32)
        pattern[SCRATCH] = 9.0
    dials = torch.from_numpy(Condition(**knobs).as_array())[None]
    grain = torch.full((1, SIDE, SIDE), noise)
    seen = sense(torch.from_numpy(np.float32(image))[None, None], dials, torch.from_numpy(pattern)[None], grain)
    return seen[0, 0].numpy()


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1])


def texture(rng: np.random.Generator, *shape: int) -> Pixels:
    """An image without symmetry, with all greys."""
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), (2.0, 2.0, 0)[: len(shape)])
    low, high = smooth.min(), smooth.max()
    return np.rint((smooth - low) / (high - low) * 255).astype(np.uint8)


def dark_parts(image: np.ndarray) -> int:
    """Number of connected dark areas: whole ridges, or the pieces they broke into."""
    return int(ndimage.label(image < 0.5)[1])
