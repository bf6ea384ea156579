"""Soft labels: the teacher's features of a data set's captures, asked for once and then kept by what they are made of.

    teacher-features/SPACE/HEX.safetensors

SPACE is a hash of the teacher's space, HEX one of the digests of the captures in a *chunk*. The file is sealed with the
data key for the purpose `teacher features SPACE/HEX`; inside is a safetensors file: `vectors` (N, D), rows of zeros
where a capture is not usable, and `reasons`, the UTF-8 bytes of a JSON list of N texts. A chunk is written once and
whole, so that a worker that is killed asks again for one chunk at most.

Where a chunk ends is decided by its captures: after one whose digest begins with a small number, on average after 128,
at the latest after 256. Data sets that share captures thus share chunks wherever they begin: persons who are added to a
data set of 10,000 captures cost a few questions and not 10,000, and all of it is some 100 reads and not 10,000.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from student_distiller.teacher_client import ExtractedFeature
from tutelage.biometrics.features import Features, Vectors
from tutelage.data_sets import AT_ONCE, StoredCapture, read_capture_png
from tutelage.errors import Code, ObjectError
from tutelage.labelling import Extraction
from tutelage.objects import ObjectStore
from tutelage.sealing import open_sealed, seal_alike

__all__ = ["MOST_IN_CHUNK", "Chunk", "TeacherFeatures", "chunks"]

MOST_IN_CHUNK = 256
"""Captures in one chunk: what one request to the teacher may hold."""

_ENDS_BELOW = 2  # of 256 values of a digest's first byte: a chunk ends after 128 captures on average

Chunk: TypeAlias = tuple[StoredCapture, ...]
"""Captures side by side in a data set."""


def chunks(captures: Sequence[StoredCapture]) -> list[Chunk]:
    """All `captures` in their order, divided where their digests say."""
    found: list[list[StoredCapture]] = [[]]
    for capture in captures:
        found[-1].append(capture)
        if _ends(capture) or len(found[-1]) == MOST_IN_CHUNK:
            found.append([])
    return [tuple(chunk) for chunk in found if chunk]


@dataclass(frozen=True)
class TeacherFeatures:
    """The features that one teacher gave, in one object store; synchronous, as the store is."""

    objects: ObjectStore
    space: str
    """Of the teacher."""
    key: bytes
    """The fleet's data key."""

    def missing(self, wanted: Sequence[Chunk]) -> list[Chunk]:
        """Those of the `wanted` chunks for which the teacher must be asked."""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            known = threads.map(self._is_kept, wanted)
            return [chunk for chunk, is_kept in zip(wanted, known, strict=True) if not is_kept]

    def captures(self, chunk: Chunk) -> list[bytes]:
        """The chunk's captures as PNG, to be sent to the teacher."""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return list(threads.map(lambda capture: read_capture_png(self.objects, capture, self.key), chunk))

    def keep(self, chunk: Chunk, found: Sequence[ExtractedFeature]) -> None:
        """Keep what the teacher said of each capture of a chunk; who was first stays."""
        width = max((len(feature.vector) for feature in found), default=0)
        vectors = np.zeros((len(found), width), np.float32)
        for row, feature in enumerate(found):
            if len(feature.vector):
                vectors[row] = feature.vector
        reasons = json.dumps([feature.reason for feature in found]).encode()
        plain = save_arrays({"vectors": vectors, "reasons": np.frombuffer(reasons, np.uint8).copy()})
        place = self._place(chunk)
        try:
            self.objects.create(
                f"teacher-features/{place}.safetensors", seal_alike(plain, self.key, purpose=_purpose(place))
            )
        except ObjectError as error:
            if error.code is not Code.OBJECT_CONFLICT:
                raise

    def read(self, wanted: Sequence[Chunk]) -> Extraction:
        """What the teacher said of all captures of these chunks, in their order.

        Raises:
            ObjectError: `object-missing`, it was not asked; `object-corrupt`.
            StorageError: `key-wrong`, `store-corrupt`.
            InputError: `data-insufficient`, there is no chunk, or these are no features.
        """
        with ThreadPoolExecutor(AT_ONCE) as threads:
            parts = list(threads.map(self._read, wanted))
        width = max((vectors.shape[1] for vectors, _ in parts), default=0)
        features = Features.concat([Features(_widened(vectors, width), self.space) for vectors, _ in parts])
        usable = np.asarray(features.vectors.any(axis=1))
        reasons = tuple(reason for _, said in parts for reason in said)
        return Extraction(features, usable, reasons, ("",) * len(reasons))

    def _read(self, chunk: Chunk) -> tuple[Vectors, list[str]]:
        place = self._place(chunk)
        sealed = self.objects.get(f"teacher-features/{place}.safetensors").data
        plain = open_sealed(sealed, self.key, purpose=_purpose(place))
        try:
            arrays = load_arrays(plain)
            reasons = json.loads(arrays["reasons"].tobytes())
            if len(reasons) != len(chunk) or len(arrays["vectors"]) != len(chunk):
                raise ValueError("another number of captures")
        except (SafetensorError, LookupError, ValueError) as error:
            raise ObjectError(Code.OBJECT_CORRUPT, f"the features {place} are damaged: delete them") from error
        return arrays["vectors"], reasons

    def _is_kept(self, chunk: Chunk) -> bool:
        try:
            self.objects.get(f"teacher-features/{self._place(chunk)}.safetensors")
        except ObjectError as error:
            if error.code is Code.OBJECT_MISSING:
                return False
            raise
        return True

    def _place(self, chunk: Chunk) -> str:
        digests = "\n".join(capture.digest for capture in chunk)
        space = hashlib.sha256(self.space.encode()).hexdigest()[:24]
        return f"{space}/{hashlib.sha256(digests.encode()).hexdigest()}"


def _ends(capture: StoredCapture) -> bool:
    return int(capture.digest.partition(":")[2][:2], 16) < _ENDS_BELOW


def _widened(vectors: Vectors, width: int) -> Vectors:
    """A chunk without any usable capture has rows of no length: as many zeros as the others are long."""
    return vectors if vectors.shape[1] else np.zeros((len(vectors), width), np.float32)


def _purpose(place: str) -> str:
    return f"teacher features {place}"
