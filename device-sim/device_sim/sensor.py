"""The simulated sensor: what a worn, dirty, drifting fingerprint reader makes of a finger, or of any image.

Two stages. A *press* is what the person does: placement, rotation, elastic distortion, pressure, smudges. The *sensor*
is what the device does to whatever lies before it: its condition is a vector of named knobs (`Condition`), its
scratches and dirt are fixed patterns of that one device, revealed as it ages. The second stage works on images of any
content and size, so that real images can be drifted by the same model. Everything is decided by seeds; nothing reads a
clock, and nothing is mirrored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from device_sim.masters import MASTER_SIDE
from tutelage.captures import Pixels

SIDE = 64
"""Pixels a side of a simulated fingerprint capture."""

_ELASTIC_NODES = 4
_BLUR_REACH = 3
"""Pixels of a 64-pixel capture that the blur looks to each side; larger images take more."""
_KEPT_PATTERNS = 64
"""Sensors whose patterns (64 KiB each) are kept: drawing one takes as long as a capture."""


@dataclass(frozen=True)
class Condition:
    """State of one sensor at one time; all zeros is a new, clean sensor in mild weather."""

    wear: float = 0.0
    """0..1: scratches revealed, contrast lost, noise added."""
    dirt: float = 0.0
    """0..1: opacity of the sensor's own dirt pattern."""
    moisture: float = 0.0
    """-1..1: dry fingers break ridges up, wet ones merge them."""
    blur: float = 0.0
    """0..2: standard deviation of the optical blur, pixels of a 64-pixel capture."""
    gain: float = 0.0
    """-1..1: logarithm to base 2 of the contrast amplification, with the brightness shift that comes with it."""

    def as_array(self) -> npt.NDArray[np.float32]:
        """The knobs as (5,) in the order of the fields."""
        return np.array(astuple(self), dtype=np.float32)


@dataclass(frozen=True)
class Presses:
    """What N persons did when they touched the sensor; one row each."""

    shift: npt.NDArray[np.float32]
    """(N, 2) placement x, y: pixels of the master."""
    angle: npt.NDArray[np.float32]
    """(N,) rotation, radians."""
    elastic: npt.NDArray[np.float32]
    """(N, 2, 4, 4) displacement of the skin's nodes, pixels of the master."""
    pressure: npt.NDArray[np.float32]
    """(N,) -1..1: thin to thick ridges."""
    contact: npt.NDArray[np.float32]
    """(N, 4) contact ellipse: centre x, y and half axes, in units of half a capture."""
    smudge: npt.NDArray[np.float32]
    """(N, 4) smeared spot: centre x, y, radius in units of half a capture; opacity 0..1."""
    noise: npt.NDArray[np.float32]
    """(N, 64, 64) standard normal."""

    @staticmethod
    def draw(rng: np.random.Generator, count: int) -> Presses:
        """Draw `count` independent presses."""
        normal = rng.standard_normal
        return Presses(
            shift=(normal((count, 2)) * 4.0).clip(-10, 10).astype(np.float32),
            angle=(normal(count) * 0.12).clip(-0.4, 0.4).astype(np.float32),
            elastic=(normal((count, 2, _ELASTIC_NODES, _ELASTIC_NODES)) * 0.9).astype(np.float32),
            pressure=(normal(count) * 0.35).clip(-1, 1).astype(np.float32),
            contact=np.concatenate([normal((count, 2)) * 0.08, rng.uniform(0.9, 1.35, (count, 2))], 1).astype("f4"),
            smudge=np.concatenate(
                [rng.uniform(-1, 1, (count, 2)), rng.uniform(0.1, 0.35, (count, 1)), rng.beta(1, 4, (count, 1))], 1
            ).astype("f4"),
            noise=normal((count, SIDE, SIDE), dtype=np.float32),
        )

    @staticmethod
    def of(seed: int, person: int, indices: Sequence[int]) -> Presses:
        """The presses number `indices` of one person: each is decided by `(seed, person, index)` alone."""
        drawn = [Presses.draw(np.random.default_rng([seed, person, 3, i]), 1) for i in indices]
        return Presses.stack(drawn or [Presses.draw(np.random.default_rng(seed), 0)])  # no indices, no rows

    @staticmethod
    def stack(parts: Sequence[Presses]) -> Presses:
        """Rows of all `parts`, in order; there must be a part."""
        return Presses(*(np.concatenate(fields) for fields in zip(*(_fields(p) for p in parts), strict=True)))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.angle)


def _fields(presses: Presses) -> tuple[npt.NDArray[np.float32], ...]:
    return tuple(vars(presses).values())


def sensor_patterns(seed: int, sensors: Sequence[int]) -> npt.NDArray[np.float32]:
    """Fixed patterns of each sensor: (S, 4, 64, 64): scratch threshold, fading, dirt, fixed noise.

    A scratch appears once wear exceeds its threshold, so that a sensor's scratches only ever become more.
    """
    return np.stack([_pattern(seed, s) for s in sensors])


@lru_cache(maxsize=_KEPT_PATTERNS)
def _pattern(seed: int, sensor: int) -> npt.NDArray[np.float32]:
    """One sensor's four patterns, (4, 64, 64), not to be written to."""
    rng = np.random.default_rng([seed, sensor, 4])
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    scratch = np.full((SIDE, SIDE), 9.0)
    for threshold in np.linspace(0.05, 1.0, 14):
        theta, offset, width = rng.uniform(0, math.pi), rng.normal(0, 0.5), rng.uniform(0.012, 0.045)
        across = np.abs(x * math.cos(theta) + y * math.sin(theta) - offset)
        along = -x * math.sin(theta) + y * math.cos(theta)
        line = (across < width) & (np.abs(along - rng.normal(0, 0.4)) < rng.uniform(0.4, 1.4))
        scratch[line] = np.minimum(scratch[line], threshold)
    fading = _smooth(rng, 5)
    dirt = np.clip(_smooth(rng, 9) * 2.2 - 0.9, 0, 1)
    fixed = rng.standard_normal((SIDE, SIDE)) * 0.6 + rng.standard_normal((1, SIDE)) * 0.8
    patterns: npt.NDArray[np.float32] = np.stack([scratch, fading, dirt, fixed]).astype(np.float32)
    patterns.setflags(write=False)
    return patterns


def _smooth(rng: np.random.Generator, nodes: int) -> npt.NDArray[np.float64]:
    """A smooth random field in 0..1, (64, 64), with about `nodes` bumps a side."""
    coarse = torch.from_numpy(rng.uniform(0, 1, (1, 1, nodes, nodes)))
    fine = functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic", align_corners=True)[0, 0]
    field: npt.NDArray[np.float64] = fine.clamp(0, 1).numpy()
    return field


def press_fingers(masters: torch.Tensor, presses: Presses, moisture: torch.Tensor) -> torch.Tensor:
    """Stage one: skin on glass, (N, 1, 64, 64) in 0..1 with dark ridges, of masters (N, 128, 128) and moisture (N,)."""
    p = {name: torch.from_numpy(value).to(masters.device) for name, value in vars(presses).items()}
    grid = _placement(p["shift"], p["angle"], p["elastic"])
    ridges = functional.grid_sample(masters[:, None], grid, padding_mode="reflection", align_corners=True)
    grain = _grain(p["noise"][:, None])
    wet = moisture[:, None, None, None]
    offset = -0.45 * p["pressure"][:, None, None, None] - 0.55 * wet + 1.3 * wet.clamp(max=0).abs() * grain
    value = 0.5 + 0.42 * torch.tanh(1.8 * (ridges + offset))
    touching = _ellipse(p["contact"], sharpness=9.0)
    smeared = _ellipse(p["smudge"][:, [0, 1, 2, 2]], sharpness=5.0) * p["smudge"][:, 3, None, None, None]
    value = value + (value.mean(dim=(2, 3), keepdim=True) - value) * smeared
    return 0.95 + (value - 0.95) * touching


def _placement(shift: torch.Tensor, angle: torch.Tensor, elastic: torch.Tensor) -> torch.Tensor:
    """Sampling grid (N, 64, 64, 2) in grid_sample's units for placements, rotations and skin distortion."""
    unit = torch.linspace(-1, 1, SIDE, device=shift.device)
    y, x = torch.meshgrid(unit, unit, indexing="ij")
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    turned = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1) * ((SIDE - 1) / (MASTER_SIDE - 1))
    nodes = _node_weights().to(elastic.device)
    skin = (nodes @ elastic @ nodes.T).permute(0, 2, 3, 1)
    return turned + (skin + shift[:, None, None, :]) * (2.0 / (MASTER_SIDE - 1))


def _node_weights() -> torch.Tensor:
    """How much each node of an axis counts at each of its pixels, (64, 4), in bicubic interpolation.

    Two products with it give what interpolating the two-dimensional field gives, twenty times as fast.
    """
    single = torch.eye(_ELASTIC_NODES)[None, :, :, None]  # one node at a time
    return functional.interpolate(single, (SIDE, 1), mode="bicubic", align_corners=True)[0, :, :, 0].T


def _grain(noise: torch.Tensor) -> torch.Tensor:
    """Means of 3 x 3 neighbours of (N, 1, 64, 64), zeros outside: `avg_pool2d`, ten times as fast."""
    padded = functional.pad(noise, [1] * 4)
    rows = padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]
    return (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9


def _ellipse(shape: torch.Tensor, sharpness: float) -> torch.Tensor:
    """Soft membership (N, 1, 64, 64) in 0..1 of ellipses (N, 4): centre x, y and half axes."""
    unit = torch.linspace(-1, 1, SIDE, device=shape.device)
    y, x = torch.meshgrid(unit, unit, indexing="ij")
    cx, cy, ax, ay = (shape[:, i, None, None] for i in range(4))
    radius = (((x - cx) / ax) ** 2 + ((y - cy) / ay) ** 2).sqrt()
    return torch.sigmoid(sharpness * (1 - radius))[:, None]


def sense(images: torch.Tensor, knobs: torch.Tensor, patterns: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Stage two: what the sensor makes of `images`.

    Args:
        images: (N, 1, H, W) in 0..1, any content.
        knobs: (N, 5) conditions in the order of `Condition`'s fields.
        patterns: (N, 4, 64, 64) of `sensor_patterns`, stretched to H x W.
        noise: (N, 64, 64) standard normal, stretched likewise.

    Returns:
        (N, 1, H, W) in 0..1.
    """
    size = images.shape[-2:]
    wear, dirt, _, blur, gain = (knobs[:, i, None, None, None] for i in range(5))
    scratch, fading, soil, fixed = _fit(patterns, size).chunk(4, dim=1)
    grain = _fit(noise[:, None], size)
    light = images.mean(dim=(2, 3), keepdim=True)
    images = light + (images - light) * (1 - wear * (0.35 + 0.55 * fading))
    images = torch.lerp(images, 0.92 - 0.1 * fading, (scratch < wear).float() * 0.85)
    images = images * (1 - 0.75 * dirt * soil)
    images = _blurred(images, blur * (size[1] / SIDE))
    images = 0.55 + (images - 0.55) * torch.exp2(gain) + 0.18 * gain
    seen: torch.Tensor = images + (0.025 + 0.07 * wear) * grain + 0.07 * wear * fixed
    return seen.clamp(0, 1)


def _fit(maps: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """`maps` (N, C, 64, 64) stretched to `size`; unchanged where they fit, so that scratches stay sharp."""
    return maps if maps.shape[-2:] == size else functional.interpolate(maps, size, mode="nearest-exact")


def _blurred(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Separable Gaussian of an own `sigma` (N, 1, 1, 1), pixels, for each image."""
    height, width = images.shape[-2:]
    reach = max(_BLUR_REACH, math.ceil(_BLUR_REACH * width / SIDE))
    taps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-(taps**2) / (2 * sigma.clamp(min=0.05) ** 2))
    weights = weights / weights.sum(-1, keepdim=True)
    padded, nothing = functional.pad(images, [reach] * 4, mode="replicate"), torch.zeros((), device=images.device)
    columns = sum((weights[..., i, None] * padded[..., i : i + height, :] for i in range(len(taps))), start=nothing)
    return sum((weights[..., i, None] * columns[..., i : i + width] for i in range(len(taps))), start=nothing)


def to_pixels(images: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Images (N, 1, H, W) in 0..1 as (N, H, W) grey values."""
    return (images[:, 0] * 255.0 + 0.5).to(torch.uint8).cpu().numpy()


@dataclass(frozen=True)
class Sensor:
    """One device's sensor; its scratches and dirt are decided by `(seed, number)`."""

    seed: int
    number: int

    def patterns(self) -> torch.Tensor:
        """(1, 4, 64, 64) of `sensor_patterns`."""
        return torch.from_numpy(sensor_patterns(self.seed, [self.number]))

    def capture(self, masters: torch.Tensor, presses: Presses, condition: Condition) -> list[Pixels]:
        """Captures of fingers: masters (N, 128, 128) pressed as `presses` says; each (64, 64)."""
        knobs = torch.from_numpy(condition.as_array()).expand(len(presses), -1)
        skin = press_fingers(masters, presses, knobs[:, 2])
        patterns = self.patterns().expand(len(presses), -1, -1, -1)
        return list(to_pixels(sense(skin, knobs, patterns, torch.from_numpy(presses.noise))))

    def observe(self, image: Pixels, condition: Condition, moment: int) -> Pixels:
        """The sensor's view of a real `image` (H, W) grey or (H, W, 3); `moment` decides the noise."""
        planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        stack = torch.from_numpy(planes.astype(np.float32) / 255.0)[:, None]
        knobs = torch.from_numpy(condition.as_array()).expand(len(stack), -1)
        noise = np.random.default_rng([self.seed, self.number, 5, moment]).standard_normal((1, SIDE, SIDE), np.float32)
        patterns = self.patterns().expand(len(stack), -1, -1, -1)
        seen = to_pixels(sense(stack, knobs, patterns, torch.from_numpy(noise).expand(len(stack), -1, -1)))
        return seen[0] if image.ndim == 2 else seen.transpose(1, 2, 0)
