"""A public pre-trained face network as a teacher, with its own detector, landmarks and alignment (extra `face`).

dlib is loaded only when a `FaceTeacher` is made, so whoever does not recognise faces needs nothing of the extra. What
is known of the model, and what it measures, is in `docs/teachers/face.md`.
"""

from __future__ import annotations

from tutelage.face.placement import Placement
from tutelage.face.teacher import NO_FACE, FaceSettings, FaceTeacher
from tutelage.face.weights import FaceWeights, WeightFile, installed_weights

__all__ = [
    "NO_FACE",
    "FaceSettings",
    "FaceTeacher",
    "FaceWeights",
    "Placement",
    "WeightFile",
    "installed_weights",
]
