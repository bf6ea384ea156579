"""Student packages for tests: real files in the real form, with a few bytes where the network's weights would be."""

from __future__ import annotations

import hashlib

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import save

from tutelage.archive import unpack
from tutelage.package import MANIFEST, PackageInfo, build_package

CLOUD = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
DEVICE = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34)))


def student_package(
    version: str, *, parent: str | None = None, signer: Ed25519PrivateKey | None = None, ballast: int = 0
) -> bytes:
    """A package of `version`, signed by whoever should unless said otherwise, with so many bytes of weights more."""
    weights = {
        "w": np.frombuffer(hashlib.sha256(version.encode()).digest(), np.uint8),
        "b": np.zeros(ballast, np.uint8),
    }
    info = PackageInfo(
        name="tiny",
        version=version,
        student={"size": "tiny"},
        readout="fused",
        teacher_space="t",
        created="2024-05-06T07:08:09+00:00",
        parent=parent,
    )
    return build_package(
        weights=save(weights),
        calibration={"space": "s"},
        impostors=b"sealed",
        info=info,
        signer=signer or (DEVICE if "+" in version else CLOUD),
    )


def digest(data: bytes) -> str:
    """Name of a package, whoever signed it."""
    return f"sha256:{hashlib.sha256(unpack(data)[MANIFEST]).hexdigest()}"
