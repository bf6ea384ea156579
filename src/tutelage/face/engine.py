"""dlib behind plain arrays: find a face, cut it out upright, describe it.

This is the only module that touches dlib, whose objects never leave it. dlib is compiled code that holds the
interpreter's lock while it computes, so one engine may be shared by threads but gains nothing from them; several
processes do run side by side.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tutelage.biometrics.features import Vectors
from tutelage.captures import Pixels
from tutelage.errors import Code, MissingExtraError, PackageError
from tutelage.face.placement import LANDMARKS, Landmarks
from tutelage.face.weights import EXTRA, PURPOSE, FaceWeights

CHIP_SIDE: Final = 150
"""Pixels a side of an aligned face: what the descriptor network takes."""

DIMENSION: Final = 128
"""D: length of a descriptor."""


class FaceEngine:
    """dlib's frontal face detector (HOG), five-landmark predictor and descriptor network."""

    def __init__(self, weights: FaceWeights) -> None:
        """Load the weights once their digests are checked.

        Raises:
            MissingExtraError: dlib is not installed.
            PackageError: `package-corrupt` or `package-incomplete`, the weights are not the pinned ones.
            StorageError: `storage-failed`, they cannot be read.
        """
        self._dlib = _dlib()
        weights.check()
        try:
            self._predictor = self._dlib.shape_predictor(str(weights.landmarks.path))
            self._network = self._dlib.face_recognition_model_v1(str(weights.descriptor.path))
        except RuntimeError as error:
            raise PackageError(
                Code.PACKAGE_CORRUPT, f"dlib cannot read the weights beside {weights.descriptor.path}: reinstall both"
            ) from error
        self._detector = self._dlib.get_frontal_face_detector()

    def find(self, image: Pixels, threshold: float = 0.0) -> Landmarks | None:
        """Landmarks of the largest face in `image` (H, W, 3), or `None` where the detector finds none.

        The largest face is that of the person in front of the sensor; others stand behind. `threshold` is added to the
        detector's own: below 0 it finds more, also where nothing is.
        """
        boxes, _, _ = self._detector.run(image, 0, threshold)
        if not boxes:
            return None
        parts = self._predictor(image, max(boxes, key=lambda box: box.area())).parts()
        height, width = image.shape[:2]
        return np.array([(part.x / width, part.y / height) for part in parts], dtype=np.float64)

    def chip(self, image: Pixels, landmarks: Landmarks, padding: float) -> Pixels:
        """The face at `landmarks` cut from `image` (H, W, 3), upright: (CHIP_SIDE, CHIP_SIDE, 3).

        `padding` is the share of the face's size that is added on each side; what lies outside the image is black.
        """
        height, width = image.shape[:2]
        points = [self._dlib.point(round(x * width), round(y * height)) for x, y in landmarks.reshape(LANDMARKS)]
        face = self._dlib.full_object_detection(self._dlib.rectangle(0, 0, width, height), points)
        chip: Pixels = self._dlib.get_face_chip(image, face, size=CHIP_SIDE, padding=padding)
        return chip

    def describe(self, chips: Sequence[Pixels]) -> Vectors:
        """Unit descriptors (N, DIMENSION) of `chips`, computed as one batch; a row depends on its chip alone.

        dlib compares descriptors by Euclidean distance. Their lengths differ little, and at unit length the order of
        Euclidean distances is that of cosines, which is what the rest of this library compares by.
        """
        if not chips:
            return np.empty((0, DIMENSION), dtype=np.float32)
        rows: npt.NDArray[np.float64] = np.array(self._network.compute_face_descriptor(list(chips)), dtype=np.float64)
        unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit


def _dlib() -> Any:
    """The compiled module, which has no types."""
    try:
        return importlib.import_module("dlib")
    except ImportError as error:
        raise MissingExtraError(EXTRA, PURPOSE) from error
