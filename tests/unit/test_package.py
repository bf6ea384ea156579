from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import load, save

from tutelage import package
from tutelage.archive import pack, unpack
from tutelage.canonical import canonical_json
from tutelage.errors import Code, PackageError, StorageError, UsageError
from tutelage.package import (
    PackageInfo,
    StudentPackage,
    build_package,
    open_impostors,
    read_package,
    seal_impostors,
    space_of,
    write_package,
)

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


def refused(data: bytes | Path) -> PackageError:
    with pytest.raises(PackageError) as caught:
        read_package(data, trusted=TRUSTED)
    return caught.value


def resigned(change: Callable[[dict[str, Any]], None], **members: bytes) -> bytes:
    """A package whose maker signed a manifest after `change`, with other `members` (dots written as underscores)."""
    held = unpack(built())
    held.update({name.replace("_", "."): content for name, content in members.items()})
    manifest = json.loads(held["manifest.json"])
    change(manifest)
    held["manifest.json"] = canonical_json(manifest)
    held["signature.ed25519"] = SIGNER.sign(b"tutelage student package\n" + held["manifest.json"])
    return pack(held)


def describe(manifest: dict[str, Any], name: str, content: bytes) -> None:
    manifest["members"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


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
            for name, content in unpack(built()).items()
            if name not in ("manifest.json", "signature.ed25519")
        },
        "tensors": {
            "stem": {"dtype": "F32", "shape": [2, 1, 3, 3]},
            "norm.mean": {"dtype": "F16", "shape": [2]},
        },
    }


def test_equal_inputs_give_equal_bytes() -> None:
    shuffled = replace(INFO, student=dict(reversed(INFO.student.items())))
    assert built() == built() == built(shuffled)


def test_the_digest_is_that_of_the_manifest_member() -> None:
    data = built()
    digest = "sha256:" + hashlib.sha256(unpack(data)["manifest.json"]).hexdigest()
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


# Hostile bytes


def test_every_flipped_byte_is_refused() -> None:
    data = built()
    codes = set()
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        codes.add(refused(bytes(flipped)).code)
    assert codes <= {Code.PACKAGE_CORRUPT, Code.PACKAGE_INCOMPLETE, Code.PACKAGE_SIGNATURE}


def test_random_flips_are_refused(rng: np.random.Generator) -> None:
    data = np.frombuffer(built(weights=save({"w": rng.normal(size=2000)})), dtype=np.uint8)
    for _ in range(200):
        flipped = data.copy()
        flipped[rng.integers(len(data))] ^= rng.integers(1, 256, dtype=np.uint8)
        assert refused(flipped.tobytes()).code in {Code.PACKAGE_CORRUPT, Code.PACKAGE_SIGNATURE}


def test_flips_behind_correct_checksums_are_refused(rng: np.random.Generator) -> None:
    """Whoever tampers repairs the archive; digests and the signature must hold alone."""
    wanted = {"manifest.json": Code.PACKAGE_SIGNATURE, "signature.ed25519": Code.PACKAGE_SIGNATURE}
    for name, content in unpack(built()).items():
        for _ in range(40):
            tampered = unpack(built())
            flipped = bytearray(content)
            flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
            tampered[name] = bytes(flipped)
            assert refused(pack(tampered)).code is wanted.get(name, Code.PACKAGE_CORRUPT)


def test_every_shortening_is_refused() -> None:
    data = built()
    assert {refused(data[:length]).code for length in range(0, len(data), 7)} == {Code.PACKAGE_CORRUPT}
    assert refused(data + b"\x00").code is Code.PACKAGE_CORRUPT


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    bomb = pickle.dumps({"weights": Bomb()})
    assert refused(bomb).code is Code.PACKAGE_CORRUPT
    change = lambda manifest: describe(manifest, "weights.safetensors", bomb)  # noqa: E731
    assert refused(resigned(change, weights_safetensors=bomb)).code is Code.PACKAGE_CORRUPT
    with pytest.raises(PackageError):
        built(weights=bomb)
    assert not (tmp_path / "exploded").exists()


def test_too_many_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = built()
    write_package(data, tmp_path / "student.zip")
    monkeypatch.setattr(package, "MAX_PACKAGE_BYTES", len(data) - 1)
    for source in (data, tmp_path / "student.zip"):
        assert "has more than" in refused(source).message
    with pytest.raises(PackageError, match="has more than"):
        built()


def test_the_limit_on_bytes_leaves_room_for_any_student() -> None:
    assert package.MAX_PACKAGE_BYTES == 256 * 1024 * 1024


# Signatures


@pytest.mark.parametrize("trusted", [[], [STRANGER.public_key()]])
def test_only_trusted_keys_count(trusted: list[Any]) -> None:
    with pytest.raises(PackageError) as caught:
        read_package(built(), trusted=trusted)
    assert caught.value.code is Code.PACKAGE_SIGNATURE
    assert caught.value.exit_code == 32


def test_one_of_several_trusted_keys_is_enough() -> None:
    assert read_package(built(), trusted=[STRANGER.public_key(), SIGNER.public_key()]).info == INFO


def test_without_a_signature() -> None:
    members = unpack(built())
    del members["signature.ed25519"]
    assert refused(pack(members)).code is Code.PACKAGE_SIGNATURE
    assert refused(pack({**unpack(built()), "signature.ed25519": b""})).code is Code.PACKAGE_SIGNATURE


def test_a_signature_of_the_bare_manifest_does_not_count() -> None:
    members = unpack(built())
    members["signature.ed25519"] = SIGNER.sign(members["manifest.json"])
    assert refused(pack(members)).code is Code.PACKAGE_SIGNATURE


def test_the_signature_of_another_package_does_not_count() -> None:
    other = unpack(built(replace(INFO, version="v4")))["signature.ed25519"]
    assert refused(pack({**unpack(built()), "signature.ed25519": other})).code is Code.PACKAGE_SIGNATURE


# Members and tensors


@pytest.mark.parametrize("name", ["manifest.json", "calibration.json", "impostors.sealed", "weights.safetensors"])
def test_missing_members(name: str) -> None:
    members = unpack(built())
    del members[name]
    error = refused(pack(members))
    assert error.code is Code.PACKAGE_INCOMPLETE
    assert name in error.message


def test_surprising_members() -> None:
    error = refused(pack({**unpack(built()), "extra.bin": b""}))
    assert error.code is Code.PACKAGE_CORRUPT
    assert "extra.bin does not belong" in error.message


def test_members_out_of_order() -> None:
    error = refused(pack(dict(reversed(unpack(built()).items()))))
    assert error.code is Code.PACKAGE_CORRUPT
    assert "order" in error.message


def test_a_missing_tensor() -> None:
    fewer = save({"stem": np.ones((2, 1, 3, 3), np.float32)})

    def change(manifest: dict[str, Any]) -> None:
        describe(manifest, "weights.safetensors", fewer)

    error = refused(resigned(change, weights_safetensors=fewer))
    assert error.code is Code.PACKAGE_INCOMPLETE
    assert error.exit_code == 31
    assert "norm.mean" in error.message


@pytest.mark.parametrize(
    "tensors",
    [
        {"stem": np.ones((2, 1, 3, 3), np.float32), "norm.mean": np.zeros(3, np.float16)},
        {"stem": np.ones((2, 1, 3, 3), np.float64), "norm.mean": np.zeros(2, np.float16)},
        {"stem": np.ones((2, 1, 3, 3), np.float32), "norm.mean": np.zeros(2, np.float16), "more": np.zeros(1)},
    ],
)
def test_other_tensors_than_listed(tensors: dict[str, Any]) -> None:
    weights = save(tensors)
    change = lambda manifest: describe(manifest, "weights.safetensors", weights)  # noqa: E731
    error = refused(resigned(change, weights_safetensors=weights))
    assert error.code is Code.PACKAGE_CORRUPT
    assert "tensors" in error.message


def test_a_space_of_other_weights() -> None:
    error = refused(resigned(lambda manifest: manifest.update(space="0" * 24 + "/fused")))
    assert error.code is Code.PACKAGE_CORRUPT
    assert "space" in error.message


def test_a_calibration_that_is_no_json() -> None:
    for content in (b"", b"[1]", b'{"a": 1}', b'{"a":NaN}'):
        change = lambda manifest, content=content: describe(manifest, "calibration.json", content)  # noqa: E731
        error = refused(resigned(change, calibration_json=content))
        assert error.code is Code.PACKAGE_CORRUPT
        assert "calibration.json" in error.message


@pytest.mark.parametrize("field", sorted(json.loads(unpack(built())["manifest.json"])))
def test_manifests_with_a_missing_or_meaningless_field(field: str) -> None:
    missing = refused(resigned(lambda manifest: manifest.pop(field)))
    # Without a format nothing can be said about what else should be there.
    assert missing.code is (Code.PACKAGE_CORRUPT if field == "format" else Code.PACKAGE_INCOMPLETE)
    for value in (None, 17, "", "\n", [], {}):
        error = refused(resigned(lambda manifest, value=value: manifest.update({field: value})))
        assert error.code in {Code.PACKAGE_CORRUPT, Code.PACKAGE_INCOMPLETE}


def test_a_manifest_with_an_unknown_field() -> None:
    error = refused(resigned(lambda manifest: manifest.update(surprise=1)))
    assert error.code is Code.PACKAGE_CORRUPT
    assert "surprise" in error.message


def test_a_package_of_a_later_format() -> None:
    error = refused(resigned(lambda manifest: manifest.update(format=2)))
    assert error.code is Code.PACKAGE_CORRUPT
    assert "format 2, this release reads 1" in error.message


def test_a_signed_manifest_in_another_form() -> None:
    members = unpack(built())
    members["manifest.json"] += b"\n"
    members["signature.ed25519"] = SIGNER.sign(b"tutelage student package\n" + members["manifest.json"])
    assert refused(pack(members)).code is Code.PACKAGE_CORRUPT


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
