"""Where a face lies in captures that are all cut in the same way, learnt from those in which one was found.

A sensor that cuts its captures itself (a kiosk, a gate, a prepared data set) puts every face at nearly the same place.
Where the detector misses one, mostly because of hard light, the median placement of the others is a good guess. A
placement serves only captures of the size it was learnt from, and there is none unless the faces found agree: both are
signs that the captures are indeed cut alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

LANDMARKS: Final = (5, 2)
"""Five points (x, y): the corners of one eye, the corners of the other, the base of the nose."""

MIN_FOUND: Final = 5
"""Faces that must have been found: a median of fewer follows a single turned head."""

MAX_SPREAD: Final = 0.5
"""Largest median distance of face centres from their median, in distances between the eyes. Captures of a public set
cut by hand have 0.2 (`docs/teachers/face.md`); at 0.5 a borrowed cut would often miss an eye."""

Landmarks: TypeAlias = npt.NDArray[np.float64]
"""(5, 2): points as shares of the image's width and height, so that they hold at any enlargement."""

Size: TypeAlias = tuple[int, int]
"""Height and width of a capture in pixels."""


@dataclass(frozen=True)
class Placement:
    """The median placement of the faces in captures of one size."""

    landmarks: Landmarks
    """(5, 2), shares of width and height."""
    found: int
    """How many faces it is the median of."""
    spread: float
    """How far they lie apart: median distance of a face's centre from the median centre, in distances between the
    eyes."""

    @property
    def note(self) -> str:
        """What the answer says of a capture that borrowed this placement."""
        return f"no face found: cut where the faces of {self.found} captures cut alike lie"


def median_placements(found: Iterable[tuple[Size, Landmarks]]) -> Mapping[Size, Placement]:
    """One placement for each size of capture with at least `MIN_FOUND` faces that agree to `MAX_SPREAD`."""
    by_size: dict[Size, list[Landmarks]] = {}
    for size, landmarks in found:
        by_size.setdefault(size, []).append(landmarks)
    placements = {size: _median(size, faces) for size, faces in by_size.items() if len(faces) >= MIN_FOUND}
    return {size: placement for size, placement in placements.items() if placement.spread <= MAX_SPREAD}


def _median(size: Size, faces: list[Landmarks]) -> Placement:
    """Median of each coordinate, and the spread of the centres measured in pixels of the capture."""
    stack = np.stack(faces)  # (N, 5, 2)
    landmarks = np.median(stack, axis=0)
    pixels = np.array(size[::-1], dtype=np.float64)
    apart = np.linalg.norm((stack.mean(axis=1) - landmarks.mean(axis=0)) * pixels, axis=1)
    spread = float(np.median(apart)) / _between_eyes(landmarks * pixels)
    return Placement(landmarks, len(faces), spread)


def _between_eyes(points: Landmarks) -> float:
    """Distance between the middles of the eyes; never 0, so that it can be divided by."""
    return max(float(np.linalg.norm(points[0:2].mean(axis=0) - points[2:4].mean(axis=0))), 1e-9)
