"""Where a distillation's student comes from: drawn by a seed, or the student of an earlier package or weights file.

A student that goes on from a package is that package's child: it keeps the architecture and the name, and takes the
next version. A package is believed only if somebody trusted signed it; bare weights say nothing of their origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tutelage.errors import PackageError, UsageError
from tutelage.files import read_bytes
from tutelage.nn.students import SPECS, Student, StudentSpec, load_student
from tutelage.package import MAX_PACKAGE_BYTES, StudentPackage, read_package

DEFAULT_SIZE = "tiny"
"""What runs on the smallest device; also what bare weights are taken for."""

_ZIP = b"PK\x03\x04"  # how every package begins


@dataclass(frozen=True)
class Beginning:
    """A student before it is distilled."""

    student: Student
    name: str
    """Of the package to come, unless the caller has a better one."""
    version: str = "v1"
    """Of the package to come, likewise."""
    parent: str | None = None
    """Digest of the package it comes from."""


def drawn_student(size: str | None, seed: int) -> Beginning:
    """A student of random weights, the same for the same `seed`.

    Raises:
        UsageError: there is no such size.
    """
    torch.manual_seed(seed)
    spec = _spec(size)
    return Beginning(Student(spec), f"student-{spec.name}")


def continued_student(path: Path, size: str | None, trusted: Sequence[Ed25519PublicKey]) -> Beginning:
    """The student in the package or in the weights file at `path`.

    Raises:
        UsageError: it is a package and nobody is trusted, or one of another size than `size`.
        PackageError: `package-signature`, nobody trusted signed it; `package-corrupt` or `package-incomplete`, it is
            damaged, or weights that do not fit a student of this `size`.
        StorageError: it cannot be read.
    """
    data = read_bytes(path, at_most=MAX_PACKAGE_BYTES + 1)
    if data.startswith(_ZIP):
        return child_student(read_package(data, trusted=_somebody(path, trusted)), size)
    spec = _spec(size)
    try:
        return Beginning(load_student(spec, data), f"student-{spec.name}")
    except PackageError as error:
        raise PackageError(
            error.code, f"{path} holds neither a package nor the weights of a {spec.name} student: {error.message}"
        ) from error


def child_student(package: StudentPackage, size: str | None) -> Beginning:
    """The student in a verified package, to be distilled further.

    Raises:
        UsageError: it is of another size than `size`.
        PackageError: `package-corrupt` or `package-incomplete`, its weights do not fit its architecture.
    """
    spec = StudentSpec.from_json(package.info.student)
    if size not in (None, spec.name):
        raise UsageError(f"the package holds a {spec.name} student: leave out the size {size}")
    released = int(package.info.version[1:].partition("+")[0])
    return Beginning(load_student(spec, package.weights), package.info.name, f"v{released + 1}", package.digest)


def _somebody(path: Path, trusted: Sequence[Ed25519PublicKey]) -> Sequence[Ed25519PublicKey]:
    if not trusted:
        raise UsageError(f"{path} is a package: say whose signature you believe, with --trust KEYFILE")
    return trusted


def _spec(size: str | None) -> StudentSpec:
    spec = SPECS.get(size or DEFAULT_SIZE)
    if spec is None:
        raise UsageError(f"there is no student of size {size}: take one of {', '.join(SPECS)}")
    return spec
