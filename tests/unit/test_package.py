from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from built_packages import CALIBRATION, INFO, STRANGER, TRUSTED, WEIGHTS, built, members_of
from safetensors.numpy import load, save

from tutelage.errors import Code, PackageError, StorageError, UsageError
from tutelage.impostors import open_impostors, seal_impostors
from tutelage.package import (
    PackageManifest,
    StudentPackage,
    build_package,
    read_package,
    space_of,
    verify_package,
    write_package,
)


def test_reads_what_was_built() -> None:
    read = read_package(built(), trusted=TRUSTED)
    assert read.weights == WEIGHTS
    assert read.calibration == CALIBRATION
    assert read.impostors == b"sealed"
    assert read.info == INFO
    assert read.space == space_of(WEIGHTS, "fused")
    assert len(read.signature) == 64


def test_the_manifest_says_what_is_in_the_package() -> None:
    manifest = read_package(built(), trusted=TRUSTED).manifest
    assert manifest == {
        "format": 1,
        "name": "fingerprint-tiny",
        "version": "v3+7",
        "student": {"size": "tiny", "dim": 128, "exits": 4, "side": 64, "channels": [16, 32, 48, 72]},
        "readout": "fused",
        "space": hashlib.sha256(WEIGHTS).hexdigest()[:24] + "/fused",
        "teacher_space": "t" * 24,
        "lineage": {"parent": "sha256:" + "a" * 64, "training": {"steps": 100, "loss": 0.25}},
        "created": "2024-05-06T07:08:09+00:00",
        "members": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in members_of(built()).items()
            if name not in ("manifest.json", "signature.ed25519")
        },
        "tensors": {
            "stem": {"dtype": "F32", "shape": [2, 1, 3, 3]},
            "norm.mean": {"dtype": "F16", "shape": [2]},
        },
    }


def test_verified_alone_it_says_the_same_of_itself() -> None:
    read, said = read_package(built(), trusted=TRUSTED), verify_package(built(), trusted=TRUSTED)
    assert said == PackageManifest(read.manifest)
    assert (said.digest, said.info, said.space) == (read.digest, read.info, read.space)


def test_equal_inputs_give_equal_bytes() -> None:
    shuffled = replace(INFO, student=dict(reversed(INFO.student.items())))
    assert built() == built() == built(shuffled)


def test_verifies_while_it_arrives() -> None:
    data = built()
    memory = bytearray(len(data))

    def arrived(end: int) -> None:
        memory[:end] = data[:end]

    assert verify_package(memory, trusted=TRUSTED, arrived=arrived) == verify_package(data, trusted=TRUSTED)


def test_the_digest_is_that_of_the_manifest_member() -> None:
    data = built()
    digest = "sha256:" + hashlib.sha256(members_of(data)["manifest.json"]).hexdigest()
    assert read_package(data, trusted=TRUSTED).digest == digest


def test_everything_but_the_signature_changes_the_digest() -> None:
    other_weights = save({"stem": np.zeros((2, 1, 3, 3), np.float32)})
    packages = [built(), built(replace(INFO, version="v3+8")), built(weights=other_weights), built(impostors=b"other")]
    digests = {read_package(data, trusted=TRUSTED).digest for data in packages}
    assert len(digests) == len(packages)
    by_stranger = build_package(
        weights=WEIGHTS, calibration=CALIBRATION, impostors=b"sealed", info=INFO, signer=STRANGER
    )
    assert read_package(by_stranger, trusted=[STRANGER.public_key()]).digest in digests


def test_the_readout_is_part_of_the_space() -> None:
    assert space_of(WEIGHTS, "exit1") != space_of(WEIGHTS, "fused")
    assert space_of(WEIGHTS, "fused") != space_of(WEIGHTS + b"\x00", "fused")


def test_common_tools_open_it() -> None:
    with zipfile.ZipFile(io.BytesIO(built())) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "manifest.json",
            "signature.ed25519",
            "calibration.json",
            "impostors.sealed",
            "weights.safetensors",
        ]
        assert set(load(archive.read("weights.safetensors"))) == {"stem", "norm.mean"}
        assert json.loads(archive.read("calibration.json")) == CALIBRATION


def test_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "student.zip"
    write_package(built(), path)
    assert path.read_bytes() == built()
    assert read_package(path, trusted=TRUSTED) == read_package(built(), trusted=TRUSTED)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        read_package(tmp_path / "absent", trusted=TRUSTED)
    assert caught.value.code is Code.STORAGE_FAILED


def test_with_a_real_impostor_set(rng: np.random.Generator) -> None:
    captures = [rng.integers(0, 255, (64, 64), dtype=np.uint8) for _ in range(4)]
    sealed = seal_impostors(captures, ["a", "a", "b", "c"], bytes(32))
    opened, persons = open_impostors(read_package(built(impostors=sealed), trusted=TRUSTED).impostors, bytes(32))
    assert persons == ["a", "a", "b", "c"]
    assert all((x == y).all() for x, y in zip(captures, opened, strict=True))


# Building


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "../evil"},
        {"name": "a" * 65},
        {"name": 3},
        {"version": "3"},
        {"version": "v3+"},
        {"version": "v03"},
        {"version": "v3+0"},
        {"version": "v3\n"},
        {"version": "v-1"},
        {"readout": "exit5"},
        {"readout": "exit0"},
        {"teacher_space": ""},
        {"created": "yesterday"},
        {"created": 0},
        {"parent": "a" * 64},
        {"parent": "sha256:" + "A" * 64},
        {"student": {}},
        {"student": [1]},
        {"training": None},
    ],
)
def test_what_a_maker_may_not_say(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="a package"):
        replace(INFO, **change)


@pytest.mark.parametrize("version", ["v0", "v3", "v3+1", "v999999999+999999999"])
def test_versions_as_people_write_them(version: str) -> None:
    assert read_package(built(replace(INFO, version=version, parent=None)), trusted=TRUSTED).info.version == version


@pytest.mark.parametrize("value", [float("nan"), b"bytes", np.float32(1), {1, 2}])
def test_summaries_must_be_plain_json(value: Any) -> None:
    with pytest.raises(UsageError, match="plain JSON"):
        built(replace(INFO, training={"loss": value}))


@pytest.mark.parametrize("weights", [b"", b"12345678", WEIGHTS[:-1], WEIGHTS + b"\x00", b"\xff" * 16])
def test_weights_must_be_safetensors(weights: bytes) -> None:
    with pytest.raises(PackageError) as caught:
        built(weights=weights)
    assert caught.value.code is Code.PACKAGE_CORRUPT


def test_shows_no_bytes_when_printed() -> None:
    read = read_package(built(), trusted=TRUSTED)
    assert isinstance(read, StudentPackage)
    shown = repr(read)
    for hidden in (repr(WEIGHTS), repr(read.signature), "b'sealed'", "knots"):
        assert hidden not in shown
