"""A student package: one immutable, signed file that holds all a device needs of a student, named by its digest.

The file is a zip archive in the one form of `tutelage.archive`, with these members in this order:

    manifest.json         what this is, in canonical JSON; the fields are listed below
    signature.ed25519     64 bytes: an Ed25519 signature (RFC 8032) of the manifest
    calibration.json      how the student's cosines become scores, in canonical JSON
    impostors.sealed      captures of strangers, sealed (`tutelage.impostors`)
    weights.safetensors   the network's tensors

The manifest names every other member by its SHA-256, so that the signature covers them all. Its own digest names the
package:

    format         1
    name, version  of the student; version is `v3`, or `v3+7` for the seventh generation a device made of it
    student        architecture: size, dimension, exits, input side, channels, as the network's code writes them
    readout        what recognises: `exit1` to `exit4`, or `fused`
    space          id of the embedding space, from the digest of the weights and the readout
    teacher_space  id of the space of the teacher it was distilled from
    lineage        {"parent": digest of the package it was trained from, or null, "training": summary of that training}
    created        ISO 8601 time
    members        {name: {"bytes": length, "sha256": digest}}
    tensors        {name: {"dtype": type, "shape": [...]}}

Nothing here executes what it reads: no pickle, no code, JSON and safetensors only.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tutelage.archive import pack, unpack, whole
from tutelage.canonical import canonical_json, parse_canonical
from tutelage.errors import Code, PackageError, UsageError
from tutelage.files import atomic_write, read_bytes
from tutelage.package_info import PackageInfo
from tutelage.signing import is_signed_by
from tutelage.weights_header import tensors_in

__all__ = [
    "MAX_PACKAGE_BYTES",
    "PackageInfo",
    "PackageManifest",
    "StudentPackage",
    "build_package",
    "read_package",
    "space_of",
    "verify_package",
    "write_package",
]

MAX_PACKAGE_BYTES = 256 << 20
"""Larger files are refused: a hundred times a student, and still within a small device's memory."""

FORMAT = 1
"""Version of the layout above."""

_ZIP_BYTES = 4096  # more than headers, names and the signature take

MANIFEST, SIGNATURE = "manifest.json", "signature.ed25519"
CALIBRATION, IMPOSTORS, WEIGHTS = "calibration.json", "impostors.sealed", "weights.safetensors"
_MEMBERS = (MANIFEST, SIGNATURE, CALIBRATION, IMPOSTORS, WEIGHTS)
_FIELDS = frozenset(
    ("format", "name", "version", "student", "readout", "space", "teacher_space", "lineage", "created")
) | {"members", "tensors"}
# What a signature covers begins with these words, so that a device's key cannot be brought to sign a package by
# passing off one as something else.
_SIGNED_AS = b"tutelage student package\n"
_Members = Mapping[str, bytes] | Mapping[str, memoryview]


@dataclass(frozen=True)
class PackageManifest:
    """What a verified package says of itself."""

    manifest: Mapping[str, Any]
    """The fields listed at the top of this module."""

    @property
    def digest(self) -> str:
        """The package's name: `sha256:` and the hexadecimal digest of the canonical manifest."""
        return "sha256:" + hashlib.sha256(canonical_json(dict(self.manifest))).hexdigest()

    @property
    def info(self) -> PackageInfo:
        """What its maker said of it."""
        return _info(self.manifest)

    @property
    def space(self) -> str:
        """Id of the embedding space of its features."""
        return str(self.manifest["space"])


@dataclass(frozen=True)
class StudentPackage(PackageManifest):
    """The verified content of a package."""

    weights: bytes = field(repr=False)
    """Tensors in the safetensors format."""
    calibration: Mapping[str, Any] = field(repr=False)
    """JSON form of a calibration."""
    impostors: bytes = field(repr=False)
    """For `tutelage.impostors.open_impostors`, with the fleet's key."""
    signature: bytes = field(repr=False)
    """64 bytes, Ed25519."""


def space_of(weights: bytes, readout: str) -> str:
    """Id of the embedding space of a student with these `weights`, recognising by `readout`.

    Two readouts of one network are two spaces: their features are as incomparable as those of two networks.
    """
    return _space(hashlib.sha256(weights).hexdigest(), readout)


def _space(weights_hex: str, readout: str) -> str:
    return f"{weights_hex[:24]}/{readout}"


def build_package(
    *, weights: bytes, calibration: Mapping[str, Any], impostors: bytes, info: PackageInfo, signer: Ed25519PrivateKey
) -> bytes:
    """The bytes of a package; equal inputs give equal bytes.

    Raises:
        UsageError: `calibration` or `info` holds what JSON cannot carry.
        PackageError: `package-corrupt`, `weights` are not in the safetensors format, or the package would be larger
            than `MAX_PACKAGE_BYTES`.
    """
    try:
        members = {CALIBRATION: canonical_json(dict(calibration)), IMPOSTORS: impostors, WEIGHTS: weights}
        manifest = canonical_json(_manifest(info, members))
    except (TypeError, ValueError) as error:
        raise UsageError(f"calibration and training summary must be plain JSON: {error}") from error
    # Checked before packing: sizes in a zip archive have 32 bits.
    if len(manifest) + sum(map(len, members.values())) + _ZIP_BYTES > MAX_PACKAGE_BYTES:
        raise _too_large()
    return pack({MANIFEST: manifest, SIGNATURE: signer.sign(_SIGNED_AS + manifest), **members})


def write_package(data: bytes, path: Path) -> None:
    """Put a package at `path`, whole or not at all.

    Raises:
        StorageError: `storage-full` or `storage-failed`.
    """
    atomic_write(path, data)


def read_package(source: Path | bytes | memoryview, *, trusted: Sequence[Ed25519PublicKey]) -> StudentPackage:
    """The content of a package, after everything it says of itself was checked and one of `trusted` vouched for it.

    Nothing of the manifest is interpreted before its signature holds.

    Raises:
        PackageError: `package-corrupt`, bytes are damaged, superfluous, too many or in an unknown format;
            `package-incomplete`, a member, a field or a tensor is missing; `package-signature`, no trusted key
            signed it.
        StorageError: `storage-failed`, the file cannot be read.
    """
    data = read_bytes(source, at_most=MAX_PACKAGE_BYTES + 1) if isinstance(source, Path) else source
    members, manifest, calibration = _verified(data, trusted)
    weights, impostors, signature = (bytes(members[name]) for name in (WEIGHTS, IMPOSTORS, SIGNATURE))
    return StudentPackage(manifest, weights, calibration, impostors, signature)


def verify_package(
    data: bytes | memoryview, *, trusted: Sequence[Ed25519PublicKey], arrived: Callable[[int], None] = whole
) -> PackageManifest:
    """What a package says of itself, after the checks of `read_package`; nothing of its bytes is copied.

    `arrived` returns once so many bytes from the beginning of `data` are there: a package is verified while it still
    arrives.

    Raises:
        PackageError: as `read_package`.
    """
    _, manifest, _ = _verified(data, trusted, arrived)
    return PackageManifest(manifest)


def _verified(
    data: bytes | memoryview, trusted: Sequence[Ed25519PublicKey], arrived: Callable[[int], None] = whole
) -> tuple[Mapping[str, memoryview], dict[str, Any], dict[str, Any]]:
    """Members, manifest and calibration of a package that is whole and signed by one of `trusted`."""
    if len(data) > MAX_PACKAGE_BYTES:
        raise _too_large()
    digests: defaultdict[str, hashlib._Hash] = defaultdict(hashlib.sha256)
    members = unpack(data, arrived=arrived, seen=lambda name, piece: digests[name].update(piece))
    _check_names(members)
    if not is_signed_by(trusted, bytes(members[SIGNATURE]), _SIGNED_AS + bytes(members[MANIFEST])):
        raise PackageError(
            Code.PACKAGE_SIGNATURE,
            "no trusted key signed this package: get it from its maker, or trust the maker's key",
        )
    manifest = _parsed(members, MANIFEST)
    _check_manifest(manifest, members, {name: digests[name].hexdigest() for name in members})
    return members, manifest, _parsed(members, CALIBRATION)


def _manifest(info: PackageInfo, members: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": info.name,
        "version": info.version,
        "student": dict(info.student),
        "readout": info.readout,
        "space": space_of(members[WEIGHTS], info.readout),
        "teacher_space": info.teacher_space,
        "lineage": {"parent": info.parent, "training": dict(info.training)},
        "created": info.created,
        "members": _described(members, {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}),
        "tensors": _tensors(members[WEIGHTS]),
    }


def _info(manifest: Mapping[str, Any]) -> PackageInfo:
    texts = {name: manifest[name] for name in ("name", "version", "student", "readout", "teacher_space", "created")}
    return PackageInfo(**texts, parent=manifest["lineage"]["parent"], training=manifest["lineage"]["training"])


def _described(members: _Members, digests: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    return {name: {"bytes": len(members[name]), "sha256": digests[name]} for name in (CALIBRATION, IMPOSTORS, WEIGHTS)}


def _tensors(weights: bytes | memoryview) -> dict[str, dict[str, Any]]:
    """Type and shape of each tensor."""
    try:
        return tensors_in(weights)
    except ValueError as error:
        raise _corrupt(f"{WEIGHTS} is not in the safetensors format") from error


def _check_names(members: _Members) -> None:
    if SIGNATURE not in members:
        raise PackageError(Code.PACKAGE_SIGNATURE, "the package is not signed: get it from its maker")
    if missing := [name for name in _MEMBERS if name not in members]:
        raise _incomplete(", ".join(missing))
    if tuple(members) != _MEMBERS:
        surplus = [name for name in members if name not in _MEMBERS]
        raise _corrupt(f"{', '.join(surplus)} does not belong in it" if surplus else "its members are out of order")


def _parsed(members: _Members, name: str) -> dict[str, Any]:
    try:
        value = parse_canonical(bytes(members[name]))
    except ValueError as error:
        raise _corrupt(f"{name} is not in canonical JSON") from error
    if not isinstance(value, dict):
        raise _corrupt(f"{name} holds no fields")
    return value


def _check_manifest(manifest: Mapping[str, Any], members: _Members, digests: Mapping[str, str]) -> None:
    """Refuse a signed manifest that is of another format, breaks its rules or speaks of other members."""
    if manifest.get("format") != FORMAT:
        raise _corrupt(f"it is of format {manifest.get('format')}, this release reads {FORMAT}")
    if missing := sorted(_FIELDS - set(manifest)):
        raise _incomplete(f"the field {missing[0]} of {MANIFEST}")
    if surplus := sorted(set(manifest) - _FIELDS):
        raise _corrupt(f"{MANIFEST} has an unknown field, {surplus[0]}")
    try:
        info = _info(manifest)
    except UsageError as error:
        raise _corrupt(error.message) from error
    except (TypeError, LookupError) as error:
        raise _incomplete(f"a part of lineage in {MANIFEST}") from error
    _check_members(manifest, members, digests)
    # The members were just compared with the manifest: their digests need not be worked out again.
    if manifest["space"] != _space(manifest["members"][WEIGHTS]["sha256"], info.readout):
        raise _corrupt("its space is not that of its weights")


def _check_members(manifest: Mapping[str, Any], members: _Members, digests: Mapping[str, str]) -> None:
    described = _described(members, digests)
    if manifest["members"] != described:
        raise _corrupt(f"its members are not those of {MANIFEST}")
    listed, found = manifest["tensors"], _tensors(members[WEIGHTS])
    if not isinstance(listed, dict):
        raise _corrupt(f"{MANIFEST} lists no tensors")
    if missing := sorted(set(listed) - set(found)):
        raise _incomplete(f"{len(missing)} tensors, among them {missing[0]}")
    if listed != found:
        raise _corrupt(f"its tensors are not those of {MANIFEST}")


def _corrupt(fault: str) -> PackageError:
    return PackageError(Code.PACKAGE_CORRUPT, f"this package cannot be used: {fault}; fetch it again")


def _incomplete(lacking: str) -> PackageError:
    return PackageError(Code.PACKAGE_INCOMPLETE, f"this package lacks {lacking}: fetch it again")


def _too_large() -> PackageError:
    return _corrupt(f"it has more than {MAX_PACKAGE_BYTES} bytes")
