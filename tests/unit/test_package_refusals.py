"""Packages that are damaged, forged or incomplete: each is refused, with the code that says which."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from built_packages import INFO, SIGNER, STRANGER, TRUSTED, built, describe, members_of, refused, resigned
from safetensors.numpy import save

from tutelage import package
from tutelage.archive import pack
from tutelage.errors import Code, PackageError
from tutelage.package import read_package, verify_package, write_package


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
    for name, content in members_of(built()).items():
        for _ in range(40):
            tampered = members_of(built())
            flipped = bytearray(content)
            flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
            tampered[name] = bytes(flipped)
            assert refused(pack(tampered)).code is wanted.get(name, Code.PACKAGE_CORRUPT)


def test_what_is_not_read_is_not_verified_either(rng: np.random.Generator) -> None:
    data = built()
    for position in rng.integers(len(data), size=200):
        flipped = bytearray(data)
        flipped[position] ^= 1
        with pytest.raises(PackageError) as caught:
            verify_package(flipped, trusted=TRUSTED)
        assert caught.value.message == refused(bytes(flipped)).message
    with pytest.raises(PackageError):
        verify_package(data, trusted=[STRANGER.public_key()])


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
    members = members_of(built())
    del members["signature.ed25519"]
    assert refused(pack(members)).code is Code.PACKAGE_SIGNATURE
    assert refused(pack({**members_of(built()), "signature.ed25519": b""})).code is Code.PACKAGE_SIGNATURE


def test_a_signature_of_the_bare_manifest_does_not_count() -> None:
    members = members_of(built())
    members["signature.ed25519"] = SIGNER.sign(members["manifest.json"])
    assert refused(pack(members)).code is Code.PACKAGE_SIGNATURE


def test_the_signature_of_another_package_does_not_count() -> None:
    other = members_of(built(replace(INFO, version="v4")))["signature.ed25519"]
    assert refused(pack({**members_of(built()), "signature.ed25519": other})).code is Code.PACKAGE_SIGNATURE


# Members and tensors


@pytest.mark.parametrize("name", ["manifest.json", "calibration.json", "impostors.sealed", "weights.safetensors"])
def test_missing_members(name: str) -> None:
    members = members_of(built())
    del members[name]
    error = refused(pack(members))
    assert error.code is Code.PACKAGE_INCOMPLETE
    assert name in error.message


def test_surprising_members() -> None:
    error = refused(pack({**members_of(built()), "extra.bin": b""}))
    assert error.code is Code.PACKAGE_CORRUPT
    assert "extra.bin does not belong" in error.message


def test_members_out_of_order() -> None:
    error = refused(pack(dict(reversed(members_of(built()).items()))))
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


@pytest.mark.parametrize("field", sorted(json.loads(members_of(built())["manifest.json"])))
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
    members = members_of(built())
    members["manifest.json"] += b"\n"
    members["signature.ed25519"] = SIGNER.sign(b"tutelage student package\n" + members["manifest.json"])
    assert refused(pack(members)).code is Code.PACKAGE_CORRUPT
