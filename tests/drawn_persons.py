"""Persons told apart in a few steps of training: each is a mixture of two waves, each capture a noisy one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image


def draw_captures(person: int, count: int, side: int = 32) -> list[npt.NDArray[np.uint8]]:
    """`count` captures (side, side) of one person; the same every time."""
    own, each = np.random.default_rng([7, person]), np.random.default_rng([8, person])
    frequency, angle = own.uniform(2, 6, 2), own.uniform(0, np.pi, 2)
    y, x = np.mgrid[:side, :side] / side
    captures = []
    for _ in range(count):
        phase = each.normal(0, 0.3, 2)
        waves = [
            np.sin(2 * np.pi * f * (x * np.cos(a) + y * np.sin(a)) + p)
            for f, a, p in zip(frequency, angle, phase, strict=True)
        ]
        image = sum(waves) + each.normal(0, 0.3, (side, side))
        captures.append(np.round((image - image.min()) / np.ptp(image) * 255).astype(np.uint8))
    return captures


def draw_manifest(folder: Path, persons: Iterable[int], images: int, split: str = "cloud") -> Path:
    """A manifest beside `images` images of each of these persons."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["path,person,split,condition"]
    for person in persons:
        for number, capture in enumerate(draw_captures(person, images)):
            name = f"{person}-{number}.png"
            Image.fromarray(capture).save(folder / name)
            lines.append(f"{name},p{person:02d},{split},drawn")
    path = folder / "manifest.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
