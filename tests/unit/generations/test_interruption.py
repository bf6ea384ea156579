"""Changes of the present student that are cut short: by a full disk, or by a kill."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_disk import small_disk
from student_line import V3, V3_1, V3_2, V4, held, names, opened
from student_packages import student_package

from device_sim.generations import CURRENT, Generations, Skipped
from tutelage import files
from tutelage.errors import Code, StorageError


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "64k") as folder:
        yield folder


def fill(folder: Path) -> None:
    with (folder / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))


def test_a_package_that_does_not_fit_leaves_the_present_student(disk: Path):
    generations = opened(disk)
    generations.install(V3)
    generations.promote(V3_1)
    large = student_package("v4", ballast=100_000)
    with pytest.raises(StorageError) as caught:
        generations.install(large)
    assert caught.value.code is Code.STORAGE_FULL
    assert names(generations) == ("v3+1", "v3", "v3")
    assert held(disk) == {"v3", "v3+1"}
    fill(disk)
    with pytest.raises(StorageError) as caught:
        generations.promote(V3_2)
    assert caught.value.code is Code.STORAGE_FULL
    assert str(opened(disk).boot().generation) == "v3+1"
    (disk / "ballast").unlink()
    generations.promote(V3_2)
    assert str(opened(disk).boot().generation) == "v3+2"


def test_a_package_without_room_for_its_pointer_is_taken_back(folder: Path, grown: Generations, monkeypatch):
    real = files.atomic_write

    def full(path: Path, data: bytes, **more: Any) -> None:
        if path.name == CURRENT:
            raise StorageError(Code.STORAGE_FULL, "full")
        real(path, data, **more)

    monkeypatch.setattr("device_sim.generations.atomic_write", full)
    with pytest.raises(StorageError):
        grown.install(V4)
    assert held(folder) == {"v3", "v3+1", "v3+2"}
    assert names(grown) == ("v3+2", "v3+1", "v3")


def test_a_revert_works_on_a_full_disk(disk: Path):
    generations = opened(disk)
    generations.install(V3)
    generations.promote(V3_1)
    fill(disk)
    assert generations.revert("misses rose").skipped == ()
    again = opened(disk)
    assert names(again) == ("v3", "None", "v3")
    assert again.boot().skipped == ()
    assert held(disk) == {"v3", "ballast"}


def test_a_revert_works_where_nothing_at_all_can_be_written(folder: Path, grown: Generations, monkeypatch):
    def full(path: Path, data: bytes) -> None:
        raise StorageError(Code.STORAGE_FULL, "full")

    monkeypatch.setattr("device_sim.generations.atomic_write", full)
    reverted = grown.revert("misses rose")
    assert str(reverted.generation) == "v3+1"
    assert reverted.skipped == (Skipped(CURRENT, "full", damaged=False),)
    booted = opened(folder).boot()
    assert str(booted.generation) == "v3+1"
    assert [skip.name for skip in booted.skipped] == ["v3+2", CURRENT]


def test_a_revert_that_fails_otherwise_leaves_the_present_student(folder: Path, grown: Generations, monkeypatch):
    def broken(path: Path, data: bytes) -> None:
        raise StorageError(Code.STORAGE_FAILED, "broken")

    monkeypatch.setattr("device_sim.generations.atomic_write", broken)
    with pytest.raises(StorageError):
        grown.revert("misses rose")
    assert names(grown) == ("v3+2", "v3+1", "v3")
    assert held(folder) == {"v3", "v3+1", "v3+2"}


def test_a_killed_device_boots_before_or_after_its_change(tmp_path: Path):
    program = Path(__file__).parents[2] / "killed_device.py"
    done = subprocess.run(
        [sys.executable, program, tmp_path, "24"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["killed"] == 24
    assert told["finished"] > 10  # it was not always killed before it had done anything
    assert told["during"] > 10  # nor always between two changes
    # Package and pointer each take a temporary file, a rename and a flushed folder; a revert has one to remove instead.
    assert list(told["points"]) == ["first", "promote", "install", "revert"]
    assert min(told["points"].values()) >= 4
