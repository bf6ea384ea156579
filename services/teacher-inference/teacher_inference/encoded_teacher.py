"""A teacher that takes captures as they travel: PNG files in, features out.

Captures travel encoded, so whatever runs a teacher has to decode them first. A file that is no capture is reported like
a capture that the teacher cannot use, never raised: captures of several callers may share one batch, and one damaged
file must not cost the others their labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tutelage.biometrics.features import Features, Vectors
from tutelage.captures import Pixels, decode_png
from tutelage.errors import CaptureError
from tutelage.labelling import Extraction, Teacher

__all__ = ["EncodedTeacher"]


class EncodedTeacher:
    """Decodes PNG files for a teacher; as safe for several threads as the teacher is."""

    def __init__(self, teacher: Teacher) -> None:
        """Decode for `teacher`, which sees only what is a capture."""
        self._teacher = teacher
        self.name = teacher.name
        self.space = teacher.space

    def extract(self, captures: Sequence[bytes]) -> Extraction:
        """One entry a file, in order; the row of a file that is no capture is zero."""
        decoded = [_decoded(capture) for capture in captures]
        rows = [row for row, pixels in enumerate(decoded) if not isinstance(pixels, CaptureError)]
        seen = self._teacher.extract([pixels for pixels in decoded if not isinstance(pixels, CaptureError)])
        if len(rows) == len(captures):
            return seen
        vectors: Vectors = np.zeros((len(captures), seen.features.vectors.shape[1]), dtype=np.float32)
        vectors[rows] = seen.features.vectors
        usable = np.zeros(len(captures), dtype=np.bool_)
        usable[rows] = seen.usable
        reasons = [pixels.message if isinstance(pixels, CaptureError) else "" for pixels in decoded]
        notes = [""] * len(captures)
        for row, reason, note in zip(rows, seen.reasons, seen.notes, strict=True):
            reasons[row], notes[row] = reason, note
        return Extraction(Features(vectors, seen.features.space), usable, tuple(reasons), tuple(notes))


def _decoded(capture: bytes) -> Pixels | CaptureError:
    """The pixels in a PNG file, or why there are none."""
    try:
        return decode_png(capture)
    except CaptureError as error:
        return error
