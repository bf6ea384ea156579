"""`tutelage manifest`: what it prints, and how bad data ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tutelage.errors import CATALOGUE, Code


@pytest.fixture
def faces(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder of eight persons with three images each."""
    for person in range(8):
        folder = tmp_path / "faces" / f"p{person}"
        folder.mkdir(parents=True)
        for number in range(3):
            Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "faces"


def test_split_writes_a_manifest_that_check_accepts(run, faces: Path, tmp_path: Path):
    out = tmp_path / "faces.csv"
    status, text, err = run("manifest", "split", faces, "--out", out, "--stream", 1, "--json")
    written = json.loads(text)
    assert (status, err) == (0, "")
    assert (written["persons"], written["images"], written["skipped_images"]) == (8, 24, [])
    assert written["splits"] == {
        "cloud": {"images": 12, "persons": 4},
        "stranger": {"images": 3, "persons": 1},
        "enrol": {"images": 3, "persons": 3},
        "stream": {"images": 3, "persons": 3},
        "probe": {"images": 3, "persons": 3},
    }
    status, text, err = run("manifest", "check", out, "--json")
    assert (status, json.loads(text), err) == (0, written, "")


def test_split_depends_on_the_seed_alone(run, faces: Path, tmp_path: Path):
    files = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv")]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        assert run("manifest", "split", faces, "--out", file, "--seed", seed)[0] == 0
    first, again, other = (file.read_text() for file in files)
    assert first == again != other


def test_check_reports_images_and_persons_that_are_skipped(run, faces: Path, tmp_path: Path):
    bad = faces / "p3" / "1.png"
    bad.write_bytes(b"")
    out = tmp_path / "[red] faces.csv"
    assert run("manifest", "split", faces, "--out", out)[0] == 0
    status, text, _ = run("manifest", "check", out)
    assert status == 0
    assert "[red] faces.csv" in text
    assert f"skipped: {bad}" in text
    assert [item["path"] for item in json.loads(run("manifest", "check", out, "--json")[1])["skipped_images"]] == [
        str(bad)
    ]
    lonely = faces / "lonely"
    lonely.mkdir()
    assert "skipped: person lonely has 0 of" in run("manifest", "split", faces, "--out", out)[1]


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", Code.MANIFEST_INVALID, "missing column"),
        ("path,person,split\n", Code.MANIFEST_INVALID, "missing column condition"),
        ("path,person,split,condition\n", Code.DATA_INSUFFICIENT, "no rows"),
        ("path,person,split,condition\nx.png,p,train,\n", Code.MANIFEST_INVALID, "unknown split 'train'"),
        ("path,person,split,condition\nabsent.png,p,enrol,\n", Code.MANIFEST_INVALID, "line 2"),
    ],
)
def test_a_bad_manifest_ends_in_its_code(run, tmp_path: Path, text: str, code: Code, words: str):
    file = tmp_path / "bad.csv"
    file.write_text(text)
    status, out, err = run("manifest", "check", file)
    assert (status, out) == (CATALOGUE[code].exit_code, "")
    assert err.startswith(f"error [{code}]: {file}")
    assert words in err


def test_check_lets_no_control_character_through(run, faces: Path, tmp_path: Path):
    out = tmp_path / "faces.csv"
    assert run("manifest", "split", faces, "--out", out)[0] == 0
    out.write_text(out.read_text().replace(",cloud,", ",cloud,\x1b[2J"))
    status, text, _ = run("manifest", "check", out)
    assert status == 0
    assert "\x1b" not in text
    assert r"\x1b[2J" in text


def test_absent_files_and_folders_end_in_a_code(run, tmp_path: Path):
    absent = tmp_path / "absent"
    assert run("manifest", "check", absent)[0] == CATALOGUE[Code.MANIFEST_INVALID].exit_code
    assert (
        run("manifest", "split", absent, "--out", tmp_path / "x.csv")[0] == CATALOGUE[Code.MANIFEST_INVALID].exit_code
    )
    assert not (tmp_path / "x.csv").exists()


def test_a_manifest_of_unreadable_images_alone_is_an_error(run, faces: Path, tmp_path: Path):
    out = tmp_path / "faces.csv"
    assert run("manifest", "split", faces, "--out", out)[0] == 0
    for image in faces.rglob("*.png"):
        image.write_bytes(b"GIF")
    status, _, err = run("manifest", "check", out)
    assert status == CATALOGUE[Code.DATA_INSUFFICIENT].exit_code
    assert "none of 24 images" in err
