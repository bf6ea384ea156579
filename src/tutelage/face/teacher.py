"""The face teacher: captures at sensor resolution to unit features of a published face network.

A capture is enlarged (dlib's detector was made for faces of 80 pixels and more, a capture has at most 256 a side), the
largest face is found, five landmarks give its place and tilt, the upright face is cut out with some padding, and the
descriptor network turns it into 128 numbers. Alignment is worth more than any other choice here: the same network fed
with captures squeezed to its input size names far fewer persons (`docs/teachers/face.md`).
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from tutelage.biometrics.features import Features, Vectors
from tutelage.captures import Pixels, check_capture
from tutelage.errors import CaptureError, UsageError
from tutelage.face.engine import CHIP_SIDE, DIMENSION, FaceEngine
from tutelage.face.placement import Landmarks, Placement, Size, median_placements
from tutelage.face.weights import FaceWeights, installed_weights
from tutelage.labelling import Extraction

NO_FACE: Final = "no face found"
"""The reason given for a capture in which the detector finds no face."""

PIPELINE: Final = 1
"""Counted up when the steps below change so that features of before and after must not be compared."""

BATCH: Final = 32
"""Faces described at once: larger batches were not faster, and this bounds the memory whatever is asked."""

MAX_ENLARGE: Final = 8.0
"""Bounds the work: the detector's time grows with its square."""

Placements: TypeAlias = Callable[[Iterable[tuple[Size, Landmarks]]], Mapping[Size, Placement]]
"""What faces that were not found may borrow, given those that were."""


@dataclass(frozen=True)
class FaceSettings:
    """How captures are prepared for the network."""

    enlarge: float = 3.0
    """Factor, above 0 and at most `MAX_ENLARGE`, by which a capture grows before the detector sees it."""
    padding: float = 0.25
    """Share of the face added on each side of its cut, at least 0; a quarter is what dlib's own examples use."""
    equalise: bool = False
    """Whether a capture's grey levels are spread evenly (histogram equalisation) before anything else; drops colour.
    Under hard light the detector then finds more faces, but features need not get better (`docs/teachers/face.md`):
    measure on captures of the site."""
    site_alignment: bool = False
    """Whether captures without a face that was found are cut where the other faces of the same call lie; for captures
    that are all cut in the same way. See `FaceTeacher.for_site` where calls are small."""
    detector_threshold: float = 0.0
    """Added to the detector's threshold: below 0 more faces are found, and more that are none."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        if not 0 < self.enlarge <= MAX_ENLARGE:
            raise UsageError(f"enlarge must be above 0 and at most {MAX_ENLARGE:g}: {self.enlarge}")
        if not 0 <= self.padding < math.inf:
            raise UsageError(f"padding must be at least 0: {self.padding}")
        if not math.isfinite(self.detector_threshold):
            raise UsageError(f"detector_threshold must be a number: {self.detector_threshold}")


@dataclass(frozen=True)
class _Place:
    """Where one capture is to be cut, or why it cannot be."""

    landmarks: Landmarks | None
    reason: str = ""
    note: str = ""


class FaceTeacher:
    """dlib's public face network with detection and alignment; a `tutelage.labelling.Teacher`."""

    name = "face"

    def __init__(self, settings: FaceSettings | None = None, weights: FaceWeights | None = None) -> None:
        """Load the published network, by default with the default settings and the installed weights.

        Raises:
            MissingExtraError: the extra `face` is not installed.
            PackageError: the weights are not the pinned ones.
            StorageError: the weights cannot be read.
        """
        self.settings = settings or FaceSettings()
        used = weights or installed_weights()
        self.engine = FaceEngine(used)
        self.space = _space(used, self.settings)
        self._placements: Placements = median_placements if self.settings.site_alignment else _nothing

    def for_site(self, captures: Sequence[Pixels]) -> FaceTeacher:
        """A teacher that shares this one's network and space and borrows placements learnt once from `captures`.

        Unlike `FaceSettings.site_alignment` its answer for a capture does not depend on what else is asked in the same
        call, so a site's references and stream can teach it where faces lie, and single captures profit.
        """
        learnt = median_placements(
            (_size(captures[row]), place.landmarks)
            for row, place in enumerate(self._found(captures))
            if place.landmarks is not None
        )
        site = copy.copy(self)
        site._placements = lambda _: learnt
        return site

    def extract(self, captures: Sequence[Pixels]) -> Extraction:
        """Features (N, 128) with, for each capture, whether it is usable, why not, and what was assumed.

        Without site alignment the answer for a capture depends on that capture alone. The row of a capture that is not
        usable is zero.
        """
        places = self._borrowed(captures, self._found(captures))
        usable = np.array([place.landmarks is not None for place in places], dtype=np.bool_)
        vectors: Vectors = np.zeros((len(captures), DIMENSION), dtype=np.float32)
        vectors[usable] = self._described(captures, places)
        return Extraction(
            Features(vectors, self.space),
            usable,
            tuple(place.reason for place in places),
            tuple(place.note for place in places),
        )

    def _found(self, captures: Sequence[Pixels]) -> list[_Place]:
        """Where the detector finds a face, or why a capture has none."""
        places = []
        for capture in captures:
            try:
                image = self._image(capture)
            except CaptureError as error:
                places.append(_Place(None, error.message))
                continue
            landmarks = self.engine.find(image, self.settings.detector_threshold)
            places.append(_Place(landmarks, "" if landmarks is not None else NO_FACE))
        return places

    def _borrowed(self, captures: Sequence[Pixels], places: Sequence[_Place]) -> list[_Place]:
        """The same places, with a placement of the site where no face was found and there is one to borrow."""
        placements = self._placements(
            (_size(capture), place.landmarks)
            for capture, place in zip(captures, places, strict=True)
            if place.landmarks is not None
        )
        borrowed = []
        for capture, place in zip(captures, places, strict=True):
            placement = placements.get(_size(capture)) if place.reason == NO_FACE else None
            borrowed.append(_Place(placement.landmarks, note=placement.note) if placement else place)
        return borrowed

    def _described(self, captures: Sequence[Pixels], places: Sequence[_Place]) -> Vectors:
        """Unit descriptors (M, 128) of the M captures that have a place."""
        found = [(row, place.landmarks) for row, place in enumerate(places) if place.landmarks is not None]
        blocks = [self.engine.describe([])]
        for start in range(0, len(found), BATCH):
            # Enlarged anew, not kept from the search: a thousand large captures would take gigabytes.
            chips = [
                self.engine.chip(self._image(captures[row]), landmarks, self.settings.padding)
                for row, landmarks in found[start : start + BATCH]
            ]
            blocks.append(self.engine.describe(chips))
        return np.concatenate(blocks)

    def _image(self, capture: Pixels) -> Pixels:
        """The capture as the detector sees it: RGB (H', W', 3), enlarged, equalised if asked.

        Raises:
            CaptureError: it is no capture.
        """
        image = Image.fromarray(check_capture(capture))
        if self.settings.equalise:
            image = ImageOps.equalize(image.convert("L"))
        size = (max(1, round(image.width * self.settings.enlarge)), max(1, round(image.height * self.settings.enlarge)))
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR).convert("RGB"))


def _size(capture: Pixels) -> Size:
    return (int(capture.shape[0]), int(capture.shape[1]))


def _nothing(_found: Iterable[tuple[Size, Landmarks]]) -> Mapping[Size, Placement]:
    """No site alignment: nobody borrows."""
    return {}


def _space(weights: FaceWeights, settings: FaceSettings) -> str:
    """Id of the embedding space: whatever decides which feature a given face has.

    Left out are `site_alignment` and `detector_threshold`: they decide only whether a face is used and where it is
    taken to be, so features with and without them are of one space and may be compared.
    """
    content = {
        "pipeline": PIPELINE,
        "landmarks": weights.landmarks.sha256,
        "descriptor": weights.descriptor.sha256,
        "chip_side": CHIP_SIDE,
        "enlarge": float(settings.enlarge),
        "padding": float(settings.padding),
        "equalise": settings.equalise,
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{digest[:24]}/face"
