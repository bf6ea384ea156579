"""The device's commands: what they cannot use ends in one line and a documented status, before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn_persons import draw_captures
from PIL import Image

from tutelage.errors import CATALOGUE, Code


def pictures(folder: Path, persons: int) -> Path:
    """Two images of each person."""
    for person in range(persons):
        (folder / f"p{person}").mkdir(parents=True)
        for number, capture in enumerate(draw_captures(person, 2)):
            Image.fromarray(capture).save(folder / f"p{person}" / f"{number}.png")
    return folder


def unusable(tmp_path: Path, what: str) -> Path:
    """Something that `--data` cannot use."""
    path = tmp_path / what
    if what == "empty":
        path.mkdir()
    if what == "few":
        pictures(path, persons=3)
    if what == "manifest.csv":
        path.write_text("path,person,split\n")
    if what == "split.csv":
        Image.fromarray(draw_captures(0, 1)[0]).save(tmp_path / "a.png")
        path.write_text("path,person,split,condition\na.png,anna,elsewhere,\n")
    return path


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("nowhere", Code.MANIFEST_INVALID),
        ("empty", Code.DATA_INSUFFICIENT),
        ("few", Code.DATA_INSUFFICIENT),
        ("manifest.csv", Code.MANIFEST_INVALID),
        ("split.csv", Code.MANIFEST_INVALID),
    ],
)
def test_data_that_cannot_be_used_ends_in_its_documented_status(run, tmp_path: Path, what: str, code: Code):
    status, out, err = run("demo", "--data", unusable(tmp_path, what), "--out", tmp_path / "out")
    assert (status, out) == (CATALOGUE[code].exit_code, "")
    assert err.startswith(f"error [{code}]: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("demo", "--teacher", "face"), Code.USAGE),
        (("demo", "--data", "{images}", "--teacher", "{images}/none"), Code.STORAGE_FAILED),
        (("demo", "--out", "{images}/p0/0.png"), Code.STORAGE_FAILED),
        (("evaluate", "{images}", "--wrong", "some"), Code.USAGE),
        (("evaluate", "{images}", "--wrong", "0,1.5"), Code.USAGE),
    ],
)
def test_words_that_cannot_be_followed_end_in_their_documented_status(run, tmp_path: Path, words, code: Code):
    images = pictures(tmp_path / "images", persons=4)
    status, _, err = run(*(word.format(images=images) for word in words))
    assert status == CATALOGUE[code].exit_code
    assert f"error [{code}]: " in err
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [("--days", 1), ("--devices", 0), ("--wear", 2), ("--seed", -1)])
def test_numbers_out_of_range_are_refused_before_anything_is_done(run, tmp_path: Path, words):
    status, _, err = run("demo", *words, "--out", tmp_path / "out")
    assert status == CATALOGUE[Code.USAGE].exit_code
    assert str(words[0]) in err
    assert not (tmp_path / "out").exists()
