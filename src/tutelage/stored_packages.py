"""Student packages in the object store, found by the digest that names them.

    objects/sha256/HEX           the file of a package, named by the digest of its bytes
    student-packages/HEX.json    written once; HEX from the package's own digest. Canonical JSON:
                                 {"file_digest": ..., "size_bytes": ...}

A package's digest is that of its manifest and not of its file, so that a pointer is needed from one to the other.
Whoever keeps a package writes both; whoever finds one verifies it as if it came from anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tutelage.canonical import canonical_json, parse_canonical
from tutelage.errors import Code, ObjectError, PackageError
from tutelage.objects import ObjectStore, object_key
from tutelage.package import StudentPackage, read_package

__all__ = ["StoredPackage", "find_package", "keep_package", "point_to_package", "read_stored_package"]

_PREFIX = "student-packages/"


@dataclass(frozen=True)
class StoredPackage:
    """Where the file of a package lies."""

    digest: str
    """Names the package."""
    file_digest: str
    """Of the file's bytes."""
    size_bytes: int

    @property
    def key(self) -> str:
        """What reads the file."""
        return object_key(self.file_digest)


def keep_package(objects: ObjectStore, package: StudentPackage, data: bytes) -> StoredPackage:
    """Keep `data`, the file of `package`; for a package that is there already, where that one lies.

    Raises:
        ObjectError: as `ObjectStore.put` and `create`.
        StorageError: `storage-full`.
    """
    stored = objects.put([data])
    return point_to_package(objects, StoredPackage(package.digest, stored.digest, stored.size))


def point_to_package(objects: ObjectStore, stored: StoredPackage) -> StoredPackage:
    """Make a package findable whose file is in `objects`; for one that is already, where that one's file lies.

    Raises:
        ObjectError: as `ObjectStore.create`.
        StorageError: `storage-full`.
    """
    pointer = canonical_json({"file_digest": stored.file_digest, "size_bytes": stored.size_bytes})
    try:
        objects.create(_key(stored.digest), pointer, needs=[stored.key])
    except ObjectError as error:
        if error.code is not Code.OBJECT_CONFLICT:
            raise
        return find_package(objects, stored.digest)
    return stored


def find_package(objects: ObjectStore, digest: str) -> StoredPackage:
    """Where the package of this `digest` lies.

    Raises:
        ObjectError: `object-missing`, nobody kept it; `object-key`, that is no digest; `object-corrupt`.
    """
    data = objects.get(_key(digest)).data
    try:
        fields = parse_canonical(data)
        return StoredPackage(digest, str(fields["file_digest"]), int(fields["size_bytes"]))
    except (ValueError, TypeError, LookupError) as error:
        raise ObjectError(Code.OBJECT_CORRUPT, f"the pointer to package {digest} is damaged: keep it again") from error


def read_stored_package(objects: ObjectStore, digest: str, *, trusted: Sequence[Ed25519PublicKey]) -> StudentPackage:
    """The package of this `digest`, verified.

    Raises:
        ObjectError: as `find_package`, or its file is gone.
        PackageError: it cannot be trusted, or another package lies in its place.
    """
    data = b"".join(objects.read(find_package(objects, digest).key))
    package = read_package(data, trusted=trusted)
    if package.digest != digest:
        raise PackageError(Code.PACKAGE_CORRUPT, f"the file kept as {digest} holds {package.digest}: keep it again")
    return package


def _key(digest: str) -> str:
    object_key(digest)  # refuses what is no digest
    return f"{_PREFIX}{digest.partition(':')[2]}.json"
