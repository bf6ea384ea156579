"""Adoption: a student that others made becomes a release of one's own fleet.

Devices trust the keys of their fleet and open strangers with the fleet's key. A student of somebody else, the shipped
ones above all, is sealed and signed anew with those; the network, its calibration and what is said of it stay.
"""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tutelage.impostors import PURPOSE
from tutelage.package import StudentPackage, build_package
from tutelage.sealing import open_sealed, seal_alike

__all__ = ["SHIPPED", "SHIPPED_SEAL_KEY", "SHIPPED_TRUST", "adopted"]

_ASSETS = resources.files("tutelage") / "assets"
SHIPPED: Traversable = _ASSETS / "student-fingerprint-tiny.tutelage"
"""The shipped fingerprint student."""
SHIPPED_SEAL_KEY: Traversable = _ASSETS / "impostors.key"
"""What its strangers are sealed with; no secret, for they are of nobody."""
SHIPPED_TRUST: Traversable = _ASSETS / "release.pub"
"""Public half of the key that signed it."""


def adopted(package: StudentPackage, *, opened_with: bytes, seal_key: bytes, signer: Ed25519PrivateKey) -> bytes:
    """The bytes of a package with the same student, sealed with `seal_key` and signed by `signer`.

    Equal inputs give equal bytes, and so one version however often it is done.

    Args:
        package: what is adopted, verified.
        opened_with: 32 bytes, the key of its makers' fleet.
        seal_key: 32 bytes, the key of one's own.
        signer: whom one's devices trust.

    Raises:
        StorageError: `key-wrong`, the strangers were sealed with another key; `store-corrupt`, they are damaged.
    """
    strangers = open_sealed(package.impostors, opened_with, purpose=PURPOSE)
    return build_package(
        weights=package.weights,
        calibration=package.calibration,
        impostors=seal_alike(strangers, seal_key, purpose=PURPOSE),
        info=package.info,
        signer=signer,
    )
