"""Student packages made from scratch, and broken on purpose by a maker whose key is trusted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import save

from tutelage.archive import pack, unpack
from tutelage.canonical import canonical_json
from tutelage.errors import PackageError
from tutelage.package import PackageInfo, build_package, read_package

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
TRUSTED = [SIGNER.public_key()]
WEIGHTS = save({"stem": np.ones((2, 1, 3, 3), np.float32), "norm.mean": np.zeros(2, np.float16)})
CALIBRATION = {"space": "s", "knots": [0.1, 0.2]}
INFO = PackageInfo(
    name="fingerprint-tiny",
    version="v3+7",
    student={"size": "tiny", "dim": 128, "exits": 4, "side": 64, "channels": [16, 32, 48, 72]},
    readout="fused",
    teacher_space="t" * 24,
    created="2024-05-06T07:08:09+00:00",
    parent="sha256:" + "a" * 64,
    training={"steps": 100, "loss": 0.25},
)


def built(info: PackageInfo = INFO, *, weights: bytes = WEIGHTS, impostors: bytes = b"sealed") -> bytes:
    return build_package(weights=weights, calibration=CALIBRATION, impostors=impostors, info=info, signer=SIGNER)


def members_of(data: bytes) -> dict[str, bytes]:
    return {name: bytes(content) for name, content in unpack(data).items()}


def refused(data: bytes | Path) -> PackageError:
    with pytest.raises(PackageError) as caught:
        read_package(data, trusted=TRUSTED)
    return caught.value


def resigned(change: Callable[[dict[str, Any]], None], **members: bytes) -> bytes:
    """A package whose maker signed a manifest after `change`, with other `members` (dots written as underscores)."""
    held = members_of(built())
    held.update({name.replace("_", "."): content for name, content in members.items()})
    manifest = json.loads(held["manifest.json"])
    change(manifest)
    held["manifest.json"] = canonical_json(manifest)
    held["signature.ed25519"] = SIGNER.sign(b"tutelage student package\n" + held["manifest.json"])
    return pack(held)


def describe(manifest: dict[str, Any], name: str, content: bytes) -> None:
    manifest["members"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
