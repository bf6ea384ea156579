"""Versions: student packages that the registry keeps for good, each as one object and one write-once manifest.

    objects/sha256/HEX               the file of a package, named by the digest of its bytes
    versions/NAME/VERSION.json       the manifest, canonical JSON: the fields of `Version`

The manifest is written last, and once: that makes the version. A digest of a package fixes its name and version, so
that no second key is needed; finding a version by its digest is the index's work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tutelage.canonical import canonical_json, parse_canonical
from tutelage.errors import Code, ObjectError
from tutelage.objects import object_key
from tutelage.package import PackageManifest

__all__ = ["VERSIONS_PREFIX", "Lineage", "Version", "version_key"]

VERSIONS_PREFIX = "versions/"


@dataclass(frozen=True)
class Lineage:
    """Where a version comes from, beyond what its package says."""

    data_set: str | None = None
    """Digest of the manifest of the data set it was distilled on."""
    job_id: str | None = None
    """Id of the distiller's job that made it."""


@dataclass(frozen=True)
class Version:
    """A student package in the registry; it never changes."""

    digest: str
    """Names the package, and the version."""
    name: str
    version: str
    file_digest: str
    """Of all bytes of the file."""
    size_bytes: int
    space: str
    """Id of the student's embedding space."""
    teacher_space: str
    """Id of the space of the teacher it was distilled from."""
    readout: str
    """What recognises: `exit1` to `exit4`, or `fused`."""
    parent: str | None
    """Digest of the package it was trained from."""
    lineage: Lineage
    student: Mapping[str, Any] = field(repr=False)
    """Architecture, as the package's manifest has it."""
    training: Mapping[str, Any] = field(repr=False)
    """Summary of the training, as the package's manifest has it."""
    made: str
    """ISO 8601 time of making, by the maker's clock."""
    created: str
    """ISO 8601 time at which the registry took it, by its own clock."""

    @classmethod
    def of(
        cls, package: PackageManifest, *, file_digest: str, size_bytes: int, lineage: Lineage, now: datetime
    ) -> Version:
        """The version that a verified `package` makes."""
        info = package.info
        return cls(
            digest=package.digest,
            name=info.name,
            version=info.version,
            file_digest=file_digest,
            size_bytes=size_bytes,
            space=package.space,
            teacher_space=info.teacher_space,
            readout=info.readout,
            parent=info.parent,
            lineage=lineage,
            student=info.student,
            training=info.training,
            made=info.created,
            created=now.isoformat(),
        )

    @property
    def object_key(self) -> str:
        """Where its file lies."""
        return object_key(self.file_digest)

    def as_bytes(self) -> bytes:
        """The manifest."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        lineage = {"data_set": self.lineage.data_set, "job_id": self.lineage.job_id}
        return canonical_json({**fields, "lineage": lineage})

    @classmethod
    def from_bytes(cls, data: bytes) -> Version:
        """The version of a manifest.

        Raises:
            ObjectError: `object-corrupt`, it is not one.
        """
        try:
            fields = parse_canonical(data)
            return cls(**{**fields, "lineage": Lineage(**fields["lineage"])})
        except (ValueError, TypeError, LookupError) as error:
            raise ObjectError(
                Code.OBJECT_CORRUPT, "a version's manifest is damaged: restore it from a backup"
            ) from error


def version_key(name: str, version: str) -> str:
    """Where the manifest of this name and version lies."""
    return f"{VERSIONS_PREFIX}{name}/{version}.json"
