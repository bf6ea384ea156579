"""A teacher's answer between machines, and the checks it has to pass before anybody believes it.

As bytes an answer is one safetensors file, which can be read without running anything it holds. Tensors: `features`
float32 (N, D) and `usable` bool (N,). The header's field `answer` is JSON: `name` and `space` of the teacher, `reasons`
and `notes` with one text a capture.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tutelage.biometrics.features import Features
from tutelage.errors import Code, InputError, ServiceError, SpaceMismatchError
from tutelage.labelling import Extraction

__all__ = [
    "CAPTURES",
    "FEATURES",
    "NOTES",
    "REASONS",
    "SPACE",
    "USABLE",
    "Answer",
    "Identity",
    "decode_answer",
    "encode_answer",
]

CAPTURES = "captures"
"""Name of the tensor that a model takes, where a protocol has names for it; the others are those it gives."""
FEATURES, USABLE, REASONS, NOTES, SPACE = "features", "usable", "reasons", "notes", "space"

_FIELD = "answer"
_LENGTH_BYTES = 8  # safetensors: a little-endian length, then as many bytes of JSON


@dataclass(frozen=True)
class Identity:
    """Which teacher it is."""

    name: str
    """What people call it."""
    space: str
    """Id of the embedding space of its features."""
    dimension: int
    """D: numbers in a feature."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What a server says that a teacher saw in N captures; not believed yet."""

    name: str
    """What the teacher is called there."""
    space: str
    """Id of the space that the features are said to live in."""
    vectors: npt.NDArray[Any]
    """Features, meant to be float32 (N, D)."""
    usable: npt.NDArray[Any]
    """Verdicts, meant to be bool (N,)."""
    reasons: Sequence[str]
    """Why a capture is not usable, meant to be one a capture."""
    notes: Sequence[str]
    """What was assumed to extract a usable one, meant to be one a capture."""

    @property
    def identity(self) -> Identity:
        """Which teacher answered.

        Raises:
            ServiceError: `service-failed`, the answer names none or its features are not rows.
        """
        if not self.name or not self.space or self.vectors.ndim != 2 or not self.vectors.shape[1]:
            raise _wrong("it does not say which teacher answers")
        return Identity(self.name, self.space, self.vectors.shape[1])

    def extraction(self, teacher: Identity, captures: int) -> Extraction:
        """The same as an extraction of so many `captures` by `teacher`, once it is known to be one.

        Raises:
            SpaceMismatchError: the features live in another space.
            ServiceError: `service-failed`, it is wrong in any other way.
        """
        if self.space != teacher.space:
            raise SpaceMismatchError(teacher.space, self.space)
        if self.vectors.shape != (captures, teacher.dimension) or self.vectors.dtype != np.float32:
            found = f"{self.vectors.dtype} {self.vectors.shape}"
            raise _wrong(f"its features are {found}, not float32 {(captures, teacher.dimension)}")
        if self.usable.shape != (captures,) or self.usable.dtype != np.bool_:
            raise _wrong(f"its verdicts are {self.usable.dtype} {self.usable.shape}, not bool {(captures,)}")
        try:
            features = Features(self.vectors, self.space)
            extraction = Extraction(features, self.usable, tuple(self.reasons), tuple(self.notes))
        except InputError as error:
            raise _wrong(error.message) from error
        if (extraction.usable & ~self.vectors.any(axis=1)).any():
            raise _wrong("a usable capture has a feature of zeros")
        return extraction


def encode_answer(name: str, extraction: Extraction) -> bytes:
    """The answer of the teacher called `name`."""
    about = {
        "name": name,
        SPACE: extraction.features.space,
        REASONS: extraction.reasons,
        NOTES: extraction.notes,
    }
    tensors = {FEATURES: extraction.features.vectors, USABLE: extraction.usable}
    return save(tensors, metadata={_FIELD: json.dumps(about)})


def decode_answer(data: bytes) -> Answer:
    """What `encode_answer` encoded.

    Raises:
        ServiceError: `service-failed`, the bytes are no answer.
    """
    try:
        tensors = load(data)
        length = int.from_bytes(data[:_LENGTH_BYTES], "little")
        about = json.loads(json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])["__metadata__"][_FIELD])
        name, space = str(about["name"]), str(about[SPACE])
        reasons, notes = ([str(text) for text in about[key]] for key in (REASONS, NOTES))
        return Answer(name, space, tensors[FEATURES], tensors[USABLE], reasons, notes)
    except (SafetensorError, LookupError, TypeError, ValueError) as error:
        raise _wrong("it is not a safetensors file with features and verdicts") from error


def _wrong(what: str) -> ServiceError:
    return ServiceError(
        Code.SERVICE_FAILED, f"the teacher's server gave a wrong answer: {what}; check which model it serves"
    )
