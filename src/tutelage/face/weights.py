"""The published weights: where they are installed, and proof that they are the ones this teacher was measured with.

The weight files come with the distribution `face_recognition_models`. Its package is located but never imported, since
its code needs a part of setuptools that new installations lack. A file is used only if its SHA-256 is the pinned one:
an embedding space is what its weights make it, and a silently exchanged file would be a different teacher.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tutelage.errors import Code, MissingExtraError, PackageError, StorageError

EXTRA = "face"
"""Name of the optional part that installs the weights and dlib."""

PURPOSE = "the face teacher"

DESCRIPTOR_FILE = "dlib_face_recognition_resnet_model_v1.dat"
DESCRIPTOR_SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
"""Of the 22,466,066 bytes in face_recognition_models 0.3.0."""

# Five landmarks, not 68: the 68-point model was trained on images whose licence excludes commercial use (README of
# davisking/dlib-models), and alignment needs only the eyes and the nose.
LANDMARKS_FILE = "shape_predictor_5_face_landmarks.dat"
LANDMARKS_SHA256 = "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888"
"""Of the 9,150,489 bytes in face_recognition_models 0.3.0."""


@dataclass(frozen=True)
class WeightFile:
    """One file of weights and the digest it must have."""

    path: Path
    sha256: str
    """64 lower-case hexadecimal digits."""

    def check(self) -> None:
        """Read the whole file and compare its digest.

        Raises:
            PackageError: `package-incomplete`, there is no such file; `package-corrupt`, it has another digest.
            StorageError: `storage-failed`, it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise PackageError(
                Code.PACKAGE_INCOMPLETE, f"{self.path} is missing: reinstall face_recognition_models"
            ) from error
        except OSError as error:
            raise StorageError(Code.STORAGE_FAILED, f"{self.path} cannot be read: {error.strerror}") from error
        if found != self.sha256:
            raise PackageError(
                Code.PACKAGE_CORRUPT,
                f"{self.path} is not the published file (sha256 {found}, expected {self.sha256}): "
                "reinstall face_recognition_models",
            )


@dataclass(frozen=True)
class FaceWeights:
    """All weights a face teacher reads from files; the detector's are part of dlib itself."""

    landmarks: WeightFile
    descriptor: WeightFile

    def check(self) -> None:
        """Check both files; see `WeightFile.check` for what it raises."""
        self.landmarks.check()
        self.descriptor.check()


def installed_weights() -> FaceWeights:
    """The published weights within the installed distribution, not yet checked.

    Raises:
        MissingExtraError: the distribution is not installed.
    """
    spec = find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(EXTRA, PURPOSE)
    folder = Path(spec.submodule_search_locations[0]) / "models"
    return FaceWeights(
        landmarks=WeightFile(folder / LANDMARKS_FILE, LANDMARKS_SHA256),
        descriptor=WeightFile(folder / DESCRIPTOR_FILE, DESCRIPTOR_SHA256),
    )
