from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from student_line import KEYS, V3, V3_1, V3_2, V4, file_of, held, names, opened
from student_packages import CLOUD, DEVICE, STRANGER, digest, student_package

from device_sim.generations import CURRENT, Booted, Generation, Generations
from device_sim.pointer import MAX_REVERTED, Entry, Pointer, Standing
from tutelage.errors import Code, PackageError, UsageError
from tutelage.package import read_package

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
