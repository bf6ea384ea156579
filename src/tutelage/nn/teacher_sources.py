"""Where a teacher comes from when people name one: a public network, the shipped one, or a file.

`face` is the public face network of the extra `face`; `fingerprint` is the teacher that ships with the library; any
other word is the path of a teacher file. A file that bears one of the two names is reached as `./face`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import torch

from tutelage.errors import Code, StorageError, UsageError
from tutelage.face import FaceTeacher
from tutelage.labelling import Teacher
from tutelage.nn.teachers import ResidualTeacher

SHIPPED = "teacher-fingerprint.safetensors"
"""Among the library's assets."""


def open_teacher(word: str, device: str = "cpu") -> Teacher:
    """The teacher called `word`, ready to extract on `device`; the face network always runs on the processor.

    Raises:
        MissingExtraError: `face`, and that extra is not installed.
        PackageError: the file is no teacher file, or damaged.
        StorageError: `storage-failed`, there is no such file or it cannot be read.
    """
    if word == "face":
        return FaceTeacher()
    if word == "fingerprint":
        return _shipped(device)
    path = Path(word)
    if not path.is_file():
        raise StorageError(
            Code.STORAGE_FAILED, f"there is no teacher file {path}: name one, or say `face` or `fingerprint`"
        )
    return ResidualTeacher.load(path, device)


def processor(word: str) -> str:
    """The device that a training named `auto`, `cpu` or `cuda` runs on: `cpu` or `cuda`.

    Raises:
        UsageError: `cuda` was asked for and there is none.
    """
    available = torch.cuda.is_available()
    if word == "cuda" and not available:
        raise UsageError("there is no CUDA device that torch can use: say --device cpu, or install a driver")
    return "cuda" if word in ("auto", "cuda") and available else "cpu"


def _shipped(device: str) -> ResidualTeacher:
    asset = resources.files("tutelage") / "assets" / SHIPPED
    if not asset.is_file():
        raise StorageError(
            Code.STORAGE_FAILED, f"this installation lacks its fingerprint teacher ({SHIPPED}): install tutelage again"
        )
    with resources.as_file(asset) as path:
        return ResidualTeacher.load(path, device)
