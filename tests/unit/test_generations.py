from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from student_packages import CLOUD, DEVICE, STRANGER, digest, student_package

from device_sim.generations import CURRENT, Booted, Generation, Generations, Skipped
from device_sim.pointer import MAX_REVERTED, Entry, Pointer, Standing
from tutelage import files
from tutelage.errors import Code, PackageError, StorageError, UsageError
from tutelage.package import read_package

KEYS = {"cloud_keys": [CLOUD.public_key()], "device_key": DEVICE.public_key()}


V3 = student_package("v3")
V3_1 = student_package("v3+1", parent=digest(V3))
V3_2 = student_package("v3+2", parent=digest(V3_1))
V4 = student_package("v4")


def opened(folder: Path) -> Generations:
    return Generations(folder, **KEYS)


def file_of(folder: Path, data: bytes) -> Path:
    return folder / (digest(data).removeprefix("sha256:") + ".tutelage")


def held(folder: Path) -> set[str]:
    """Versions whose files lie in the folder, whatever is in them."""
    known = {file_of(folder, data).name: version for version, data in ALL.items()}
    return {known.get(path.name, path.name) for path in folder.iterdir() if path.name != CURRENT}


ALL = {"v3": V3, "v3+1": V3_1, "v3+2": V3_2, "v4": V4}


def names(generations: Generations) -> tuple[str, str, str]:
    return str(generations.current), str(generations.previous), str(generations.released)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "device" / "students"


@pytest.fixture
def grown(folder: Path) -> Generations:
    """v3 was installed, v3+1 and v3+2 were promoted."""
    generations = opened(folder)
    generations.install(V3)
    generations.promote(V3_1)
    generations.promote(V3_2)
    return generations


# Names


@pytest.mark.parametrize(("text", "version", "local"), [("v3", 3, 0), ("v3+7", 3, 7), ("v0", 0, 0), ("v10+12", 10, 12)])
def test_generations_read_and_write_their_names(text: str, version: int, local: int):
    generation = Generation.parse(text)
    assert generation == Generation(version, local)
    assert str(generation) == text
    assert generation.is_released is (local == 0)


@pytest.mark.parametrize(
    "text", ["", "3", "v", "v03", "v3+", "v3+0", "v3+07", "v-1", "v3+1+1", "v3 ", "v3\n", "V3", "v٣"]
)
def test_other_names_are_refused(text: str):
    with pytest.raises(UsageError, match="written like v3"):
        Generation.parse(text)


def test_generations_are_ordered_by_age():
    names = ["v9", "v3+10", "v10", "v3", "v3+9"]
    assert [str(g) for g in sorted(map(Generation.parse, names))] == ["v3", "v3+9", "v3+10", "v9", "v10"]
    assert str(Generation.parse("v3").next_local()) == "v3+1"
    assert str(Generation.parse("v3+9").next_local()) == "v3+10"


# Installing and promoting


def test_an_empty_folder_holds_no_student(folder: Path):
    generations = opened(folder)
    assert names(generations) == ("None", "None", "None")
    for call in (generations.boot, lambda: generations.revert("x"), lambda: generations.promote(V3_1)):
        with pytest.raises(UsageError, match="install a released package first"):
            call()
    with pytest.raises(UsageError):
        _ = generations.next_generation
    assert list(folder.iterdir()) == []


def test_a_first_release(folder: Path):
    generations = opened(folder)
    installed = generations.install(V3)
    assert installed == read_package(V3, trusted=KEYS["cloud_keys"])
    assert names(generations) == ("v3", "None", "v3")
    assert opened(folder).boot() == Booted(installed, Generation(3), ())
    assert file_of(folder, V3).read_bytes() == V3


def test_generations_follow_each_other_and_survive_a_restart(folder: Path, grown: Generations):
    for generations in (grown, opened(folder)):
        assert names(generations) == ("v3+2", "v3+1", "v3")
        assert str(generations.next_generation) == "v3+3"
        booted = generations.boot()
        assert (booted.package.info.version, booted.generation, booted.skipped) == ("v3+2", Generation(3, 2), ())
    assert held(folder) == {"v3", "v3+1", "v3+2"}


def test_only_what_can_still_be_needed_is_kept(folder: Path, grown: Generations):
    v3_3 = student_package("v3+3", parent=digest(V3))
    grown.promote(v3_3)
    assert held(folder) == {"v3", "v3+2", file_of(folder, v3_3).name}
    grown.install(V4)
    assert names(grown) == ("v4", "v3+3", "v4")
    assert held(folder) == {"v3", "v4", file_of(folder, v3_3).name}
    v4_1 = student_package("v4+1", parent=digest(V4))
    grown.promote(v4_1)
    assert held(folder) == {"v4", file_of(folder, v4_1).name}


def test_numbers_start_anew_with_a_version_and_go_on_when_it_comes_back(folder: Path, grown: Generations):
    grown.install(V4)
    assert str(grown.next_generation) == "v4+1"
    grown.install(V3, allow_older=True)
    assert str(opened(folder).next_generation) == "v3+3"


def test_a_number_may_be_left_out_but_not_taken_twice(grown: Generations):
    other = student_package("v3+2", parent=digest(V3_2))
    with pytest.raises(UsageError, match=r"v3\+2 cannot follow v3\+2: name it v3\+3"):
        grown.promote(other)
    grown.promote(student_package("v3+9", parent=digest(V3_2)))
    assert str(grown.next_generation) == "v3+10"


def test_an_older_release_needs_permission(folder: Path):
    generations = opened(folder)
    generations.install(V4)
    with pytest.raises(UsageError, match="v3 is older than v4"):
        generations.install(V3)
    assert names(generations) == ("v4", "None", "v4")
    assert held(folder) == {"v4"}
    generations.install(V3, allow_older=True)
    assert names(generations) == ("v3", "v4", "v3")


def test_a_version_never_changes(folder: Path, grown: Generations):
    with pytest.raises(UsageError, match="another package is already v3"):
        grown.install(student_package("v3", ballast=1))
    assert names(grown) == ("v3+2", "v3+1", "v3")


def test_the_present_release_again_repairs_its_file_alone(folder: Path, grown: Generations):
    file_of(folder, V3).write_bytes(b"rotten")
    grown.install(V3)
    assert names(grown) == ("v3+2", "v3+1", "v3")
    assert file_of(folder, V3).read_bytes() == V3


@pytest.mark.parametrize("parent", [V3, V3_2])
def test_a_student_may_be_made_of_the_present_one_or_its_release(grown: Generations, parent: bytes):
    assert grown.promote(student_package("v3+3", parent=digest(parent))).info.version == "v3+3"


@pytest.mark.parametrize(
    ("version", "parent", "match"),
    [
        ("v3+3", digest(V3_1), "made of another student"),
        ("v3+3", None, "made of another student"),
        ("v4+1", digest(V3_2), "cannot follow"),
        ("v2+9", digest(V3_2), "cannot follow"),
    ],
)
def test_a_student_of_another_line_is_refused(grown: Generations, version: str, parent: str | None, match: str):
    with pytest.raises(UsageError, match=match):
        grown.promote(student_package(version, parent=parent))
    assert names(grown) == ("v3+2", "v3+1", "v3")


# Whose word counts


def refused(call: Callable[[], object]) -> Code:
    with pytest.raises(PackageError) as caught:
        call()
    return caught.value.code


@pytest.mark.parametrize(
    "data",
    [
        student_package("v4", signer=DEVICE),
        student_package("v4", signer=STRANGER),
        student_package("v3+3", parent=digest(V3_2), signer=CLOUD),
        student_package("v3+3", parent=digest(V3_2), signer=DEVICE),
    ],
)
def test_a_release_needs_the_word_of_the_cloud(folder: Path, grown: Generations, data: bytes):
    assert refused(lambda: grown.install(data)) is Code.PACKAGE_SIGNATURE
    assert names(opened(folder)) == ("v3+2", "v3+1", "v3")
    assert held(folder) == {"v3", "v3+1", "v3+2"}


@pytest.mark.parametrize(
    "data",
    [
        student_package("v3+3", parent=digest(V3_2), signer=CLOUD),
        student_package("v3+3", parent=digest(V3_2), signer=STRANGER),
        student_package("v4", signer=CLOUD),
        student_package("v4", parent=digest(V3_2), signer=DEVICE),
    ],
)
def test_a_local_generation_needs_the_word_of_this_device(folder: Path, grown: Generations, data: bytes):
    assert refused(lambda: grown.promote(data)) is Code.PACKAGE_SIGNATURE
    assert held(folder) == {"v3", "v3+1", "v3+2"}


def test_damaged_bytes_are_not_even_written(folder: Path, grown: Generations):
    broken = bytearray(V4)
    broken[len(broken) // 2] ^= 1
    for call in (grown.install, grown.promote):
        assert refused(lambda call=call: call(bytes(broken))) in {Code.PACKAGE_CORRUPT, Code.PACKAGE_SIGNATURE}
    assert held(folder) == {"v3", "v3+1", "v3+2"}


@pytest.mark.parametrize("wrong", [student_package("v3+2", parent=digest(V3_1), signer=CLOUD), V4, V3_1])
def test_a_package_under_another_name_is_not_booted(folder: Path, grown: Generations, wrong: bytes):
    file_of(folder, V3_2).write_bytes(wrong)
    booted = opened(folder).boot()
    assert str(booted.generation) == "v3+1"
    assert [skip.name for skip in booted.skipped] == ["v3+2"]


def test_a_release_by_the_device_is_not_booted(folder: Path):
    opened(folder).install(V3)
    forged = student_package("v9", signer=DEVICE)
    file_of(folder, forged).write_bytes(forged)
    entry = Entry("v9", digest(forged))
    (folder / CURRENT).write_bytes(Pointer(Standing(entry, entry)).as_bytes())
    assert refused(opened(folder).boot) is Code.PACKAGE_CORRUPT


# Reverting


def test_a_revert_brings_back_the_last_good_one(folder: Path, grown: Generations):
    reverted = grown.revert("misses rose")
    assert (str(reverted.generation), reverted.skipped) == ("v3+1", ())
    assert reverted.package.digest == digest(V3_1)
    for generations in (grown, opened(folder)):
        assert names(generations) == ("v3+1", "v3", "v3")
        assert str(generations.next_generation) == "v3+3"
    assert held(folder) == {"v3", "v3+1"}


def test_reverts_end_at_the_release(folder: Path, grown: Generations):
    grown.revert("first")
    assert str(grown.revert("second").generation) == "v3"
    assert names(grown) == ("v3", "None", "v3")
    with pytest.raises(PackageError, match="there is no other"):
        grown.revert("third")
    assert str(opened(folder).boot().generation) == "v3"


def test_a_reverted_release_gives_way_to_the_line_before_it(folder: Path, grown: Generations):
    grown.install(V4)
    grown.revert("strangers came near")
    assert names(grown) == ("v3+2", "v3", "v3")
    assert str(grown.next_generation) == "v3+3"
    with pytest.raises(UsageError, match=r"v4 was reverted on this device \(strangers came near\)"):
        opened(folder).install(V4)
    opened(folder).install(V4, allow_reverted=True)
    again = opened(folder)
    assert names(again) == ("v4", "v3+2", "v4")
    again.revert("again")
    with pytest.raises(UsageError, match="again"):
        again.install(V4)


def test_a_revert_steps_over_what_is_damaged(folder: Path, grown: Generations):
    file_of(folder, V3_1).write_bytes(V3_1[:-1])
    reverted = grown.revert("misses rose")
    assert str(reverted.generation) == "v3"
    assert [(skip.name, skip.damaged) for skip in reverted.skipped] == [("v3+1", True)]
    assert held(folder) == {"v3"}


def test_a_revert_to_nothing_leaves_the_present_student(folder: Path, grown: Generations):
    for data in (V3, V3_1):
        file_of(folder, data).unlink()
    with pytest.raises(PackageError, match=r"v3\+1: .*v3: "):
        grown.revert("misses rose")
    assert str(opened(folder).boot().generation) == "v3+2"


def test_reverted_students_are_not_remembered_without_end():
    entries = [Entry(f"v{i}", f"sha256:{i:064x}") for i in range(MAX_REVERTED + 2)]
    pointer = Pointer(Standing(entries[0], entries[0]))
    for entry in (*entries, entries[5]):
        pointer = pointer.without(entry, "bad")
    digests = [known.digest for known in pointer.reverted]
    assert len(digests) == len(set(digests)) == MAX_REVERTED
    assert digests[-1] == entries[5].digest
    assert Pointer.from_bytes(pointer.as_bytes()) == pointer


# Booting from damage


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


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> None:
    with (folder / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))


def test_a_package_that_does_not_fit_leaves_the_present_student(small_disk: Path):
    generations = opened(small_disk)
    generations.install(V3)
    generations.promote(V3_1)
    large = student_package("v4", ballast=100_000)
    with pytest.raises(StorageError) as caught:
        generations.install(large)
    assert caught.value.code is Code.STORAGE_FULL
    assert names(generations) == ("v3+1", "v3", "v3")
    assert held(small_disk) == {"v3", "v3+1"}
    fill(small_disk)
    with pytest.raises(StorageError) as caught:
        generations.promote(V3_2)
    assert caught.value.code is Code.STORAGE_FULL
    assert str(opened(small_disk).boot().generation) == "v3+1"
    (small_disk / "ballast").unlink()
    generations.promote(V3_2)
    assert str(opened(small_disk).boot().generation) == "v3+2"


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


def test_a_revert_works_on_a_full_disk(small_disk: Path):
    generations = opened(small_disk)
    generations.install(V3)
    generations.promote(V3_1)
    fill(small_disk)
    assert generations.revert("misses rose").skipped == ()
    again = opened(small_disk)
    assert names(again) == ("v3", "None", "v3")
    assert again.boot().skipped == ()
    assert held(small_disk) == {"v3", "ballast"}


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


# Being killed


def test_a_killed_device_boots_before_or_after_its_change(tmp_path: Path):
    program = Path(__file__).parents[1] / "killed_device.py"
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
