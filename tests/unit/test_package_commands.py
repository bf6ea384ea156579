"""`tutelage package`: nothing unsigned passes for verified, and looking is safe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import save

from tutelage.archive import pack, unpack
from tutelage.canonical import canonical_json
from tutelage.errors import CATALOGUE, Code
from tutelage.package import MANIFEST, PackageInfo, build_package
from tutelage.signing import public_pem

MAKER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small package by MAKER."""
    info = PackageInfo(
        name="thumbs",
        version="v3",
        student={"size": "tiny"},
        readout="fused",
        teacher_space="teacher/1",
        created="2026-11-23T12:00:00+00:00",
    )
    data = build_package(
        weights=save({"w": np.zeros((2, 3), np.float32)}), calibration={}, impostors=b"x", info=info, signer=MAKER
    )
    path = tmp_path / "student.tutelage"
    path.write_bytes(data)
    return path


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Path]:
    """Files of public keys."""
    paths = {"maker": tmp_path / "maker.pem", "stranger": tmp_path / "stranger.pem"}
    paths["maker"].write_bytes(public_pem(MAKER.public_key()))
    paths["stranger"].write_bytes(public_pem(STRANGER.public_key()))
    return paths


def test_show_prints_what_a_package_says_and_that_nobody_checked_it(run, package: Path):
    status, out, err = run("package", "show", package)
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (status, err) == (0, "")
    assert (lines["name"], lines["version"], lines["tensors"]) == ("thumbs", "v3", "1")
    assert lines["verified"].startswith("no")


def test_verify_prints_the_same_and_that_it_was_checked(run, package: Path, keys: dict[str, Path]):
    words = ("--trust", keys["stranger"], "--trust", keys["maker"])
    status, out, err = run("package", "verify", package, *words, "--json")
    verified, shown = json.loads(out), json.loads(run("package", "show", package, "--json")[1])
    assert (status, err) == (0, "")
    assert (verified.pop("verified"), shown.pop("verified")) == (True, False)
    assert verified == shown
    assert verified["manifest"]["tensors"] == {"w": {"dtype": "F32", "shape": [2, 3]}}
    assert "yes" in run("package", "verify", package, *words)[1].splitlines()[0]


def test_a_package_of_somebody_else_is_not_verified(run, package: Path, keys: dict[str, Path]):
    status, out, err = run("package", "verify", package, "--trust", keys["stranger"])
    assert (status, out) == (CATALOGUE[Code.PACKAGE_SIGNATURE].exit_code, "")
    assert err.startswith("error [package-signature]: ")


def test_every_flipped_byte_is_noticed(run, package: Path, keys: dict[str, Path], rng: np.random.Generator):
    data = package.read_bytes()
    codes = {CATALOGUE[code].exit_code for code in Code if code.startswith("package-")}
    for place in rng.choice(len(data), 40, replace=False):
        package.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        status, out, _ = run("package", "verify", package, "--trust", keys["maker"])
        assert status in codes
        assert out == ""


@pytest.mark.parametrize("command", ["show", "verify"])
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.PACKAGE_CORRUPT),
        (b"PK", Code.PACKAGE_CORRUPT),
        (b"no zip at all", Code.PACKAGE_CORRUPT),
        (pack({"weights.safetensors": b"x"}), None),
        (pack({MANIFEST: b"{"}), None),
        (pack({MANIFEST: b"[]"}), None),
    ],
)
def test_what_is_no_package_ends_in_a_code(run, tmp_path: Path, keys, command: str, data: bytes, code: Code | None):
    file = tmp_path / "file"
    file.write_bytes(data)
    words = ("--trust", keys["maker"]) if command == "verify" else ()
    status, out, err = run("package", command, file, *words)
    expected = [code] if code else [c for c in Code if c.startswith("package-")]
    assert status in {CATALOGUE[c].exit_code for c in expected}
    assert out == ""
    assert err.startswith("error [package-")


def test_show_says_which_file_is_no_package(run, tmp_path: Path):
    absent = tmp_path / "absent"
    status, _, err = run("package", "show", absent)
    assert status == CATALOGUE[Code.STORAGE_FAILED].exit_code
    assert str(absent) in err


def test_a_key_file_that_holds_no_key_ends_in_a_code(run, package: Path):
    status, _, err = run("package", "verify", package, "--trust", package)
    assert status == CATALOGUE[Code.KEY_WRONG].exit_code
    assert str(package) in err


def test_show_lets_no_control_character_through(run, package: Path):
    members = unpack(package.read_bytes())
    manifest = json.loads(bytes(members[MANIFEST])) | {"name": "\x1b[2Jgone", "\x1b]0;title": "[red]not markup[/red]"}
    package.write_bytes(pack(members | {MANIFEST: canonical_json(manifest)}))
    for words in ([], ["--json"]):
        status, out, _ = run("package", "show", package, *words)
        assert status == 0
        assert "\x1b" not in out
        assert "[red]not markup[/red]" in out
