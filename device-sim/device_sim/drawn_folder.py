"""A folder of synthetic fingers, `person/*.png`: for trying out whatever takes a folder of images."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from device_sim.drift import conditions_at_wear
from device_sim.masters import grow_masters
from device_sim.sensor import Presses, Sensor
from tutelage.captures import Pixels
from tutelage.files import atomic_write, make_folder

_PERSONS_FROM = 200_000  # fingers that nothing shipped was trained on
_AT_ONCE = 16  # masters are grown faster together


def draw_folder(
    folder: Path,
    *,
    persons: int,
    captures: int,
    wear: float,
    seed: int,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Write `captures` images of each of `persons` to `folder`, as a sensor of this `wear` (0 to 1) sees them.

    The same words give the same images.

    Raises:
        StorageError: `storage-full` or `storage-failed`.
    """
    sensor, condition = Sensor(seed, 0), conditions_at_wear(wear)
    for start in range(0, persons, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, persons))
        masters = grow_masters(seed, [_PERSONS_FROM + number for number in numbers])
        for number, master in zip(numbers, masters, strict=True):
            presses = Presses.of(seed, _PERSONS_FROM + number, range(captures))
            taken = sensor.capture(master.expand(captures, -1, -1), presses, condition)
            _write(folder / f"person-{number:03d}", taken)
            progress(number + 1, persons)


def _write(folder: Path, captures: Sequence[Pixels]) -> None:
    make_folder(folder)
    for turn, capture in enumerate(captures):
        png = io.BytesIO()
        Image.fromarray(capture).save(png, "PNG")
        atomic_write(folder / f"{turn}.png", png.getvalue())
