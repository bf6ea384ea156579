"""Booting from a folder in which something is damaged, missing or forged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from student_line import V3, V3_1, V3_2, V4, file_of, held, names, opened
from student_packages import CLOUD, DEVICE, STRANGER, student_package

from device_sim.generations import CURRENT, Booted, Generations
from tutelage.errors import Code, PackageError, StorageError, UsageError


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 16
    path.write_bytes(bytes(data))


DAMAGES = [damaged, Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(V4)]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    ("hit", "booted"),
    [
        ([V3_2], "v3+1"),
        ([V3_1], "v3+2"),
        ([V3], "v3+2"),
        ([V3_2, V3_1], "v3"),
        ([V3_2, V3], "v3+1"),
        ([V3_1, V3], "v3+2"),
    ],
)
def test_boot_steps_over_damage_and_says_so(
    folder: Path, grown: Generations, damage: Callable[[Path], object], hit: list[bytes], booted: str
):
    for data in hit:
        damage(file_of(folder, data))
    found = opened(folder).boot()
    assert str(found.generation) == found.package.info.version == booted
    before = [v for v in ("v3+2", "v3+1", "v3") if v > booted]
    assert [skip.name for skip in found.skipped] == before
    assert all(skip.damaged and skip.reason for skip in found.skipped)
    again = opened(folder)
    assert again.boot() == Booted(found.package, found.generation, ())
    assert str(again.next_generation) == "v3+3"


@pytest.mark.parametrize("damage", DAMAGES)
def test_nothing_is_booted_where_everything_is_damaged(folder: Path, grown: Generations, damage: Callable):
    for data in (V3, V3_1, V3_2):
        damage(file_of(folder, data))
    with pytest.raises(PackageError) as caught:
        opened(folder).boot()
    assert caught.value.code is Code.PACKAGE_CORRUPT
    for version in ("v3+2", "v3+1", "v3"):
        assert f"{version}: " in caught.value.message
    opened(folder).install(V4)
    assert str(opened(folder).boot().generation) == "v4"


def test_what_cannot_be_read_just_now_is_tried_again(folder: Path, grown: Generations):
    path = file_of(folder, V3_2)
    path.rename(path.with_suffix(".aside"))
    path.mkdir()
    generations = opened(folder)
    found = generations.boot()
    assert str(found.generation) == "v3+1"
    assert [(skip.name, skip.damaged) for skip in found.skipped] == [("v3+2", False)]
    assert names(generations) == ("v3+1", "v3", "v3")
    path.rmdir()
    path.with_suffix(".aside").rename(path)
    assert str(opened(folder).boot().generation) == "v3+2"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"current": null}', b'{"current": {"package": 1, "released": 2}}'],
)
def test_without_a_pointer_the_newest_release_is_booted(folder: Path, grown: Generations, content: bytes):
    file_of(folder, V4).write_bytes(V4)
    (folder / CURRENT).write_bytes(content)
    generations = opened(folder)
    found = generations.boot()
    assert str(found.generation) == "v4"
    assert [(skip.name, skip.damaged) for skip in found.skipped] == [(CURRENT, True)]
    generations.install(V3, allow_older=True)
    assert str(generations.next_generation) == "v3+3"  # read off the files, for the pointer forgot
    assert opened(folder).boot().skipped == ()


def test_a_lost_pointer_is_found_again_from_the_files(folder: Path, grown: Generations):
    (folder / CURRENT).unlink()
    found = opened(folder).boot()
    assert str(found.generation) == "v3"
    assert [skip.name for skip in found.skipped] == [CURRENT]


def test_without_a_pointer_forged_files_do_not_count(folder: Path, grown: Generations):
    for forged in (
        student_package("v9", signer=DEVICE),
        student_package("v8", signer=STRANGER),
        student_package("v7+1", signer=CLOUD),
    ):
        file_of(folder, forged).write_bytes(forged)
    (folder / ("0" * 64 + ".tutelage")).write_bytes(V4)  # under another name than its own
    (folder / CURRENT).unlink()
    assert str(opened(folder).boot().generation) == "v3"


def test_a_pointer_alone_is_no_student(folder: Path):
    folder.mkdir(parents=True)
    (folder / CURRENT).write_bytes(b"rotten")
    with pytest.raises(UsageError, match="install a released package first"):
        opened(folder).boot()
    opened(folder).install(V3)
    assert str(opened(folder).boot().generation) == "v3"


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p["current"]["package"].update(digest="sha256:../../evil"),
        lambda p: p["current"]["package"].update(generation="v5+1"),
        lambda p: p["current"]["released"].update(generation="v3+1"),
        lambda p: p["current"].pop("released"),
        lambda p: p.update(surprise=1),
        lambda p: p.update(previous=[]),
        lambda p: p["taken"].update({"3": "7"}),
    ],
)
def test_a_pointer_that_contradicts_itself_is_not_followed(folder: Path, grown: Generations, change: Callable):
    pointer = json.loads((folder / CURRENT).read_bytes())
    change(pointer)
    (folder / CURRENT).write_bytes(json.dumps(pointer).encode())
    found = opened(folder).boot()
    assert str(found.generation) == "v3"
    assert [skip.name for skip in found.skipped] == [CURRENT]


def test_leftovers_of_a_power_cut_go_at_the_next_start(folder: Path, grown: Generations):
    (folder / ".tutelage-0123456789abcdef.tmp").write_bytes(b"half")
    file_of(folder, V4).write_bytes(V4)  # written, but not yet pointed to
    (folder / "notes.txt").write_text("mine")
    opened(folder).boot()
    assert held(folder) == {"v3", "v3+1", "v3+2", "notes.txt"}


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError) as caught:
        opened(tmp_path / "file" / "students")
    assert caught.value.code is Code.STORAGE_FAILED
