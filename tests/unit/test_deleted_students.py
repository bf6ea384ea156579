"""Students that an erased person was learnt from: who they are, that none is left, and what recognises instead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from device_store import code_of, opened
from student_packages import CLOUD, DEVICE, student_package

from device_sim import generations as module
from device_sim.generations import Generations
from device_sim.lessons import learnt_from
from device_sim.pointer import Entry, Generation
from device_sim.shredder import shred_file, shred_folder
from tutelage.errors import Code, PackageError, StorageError

V1, V1_1, V1_2, V2 = (Generation.parse(name) for name in ("v1", "v1+1", "v1+2", "v2"))


@pytest.fixture
def students(tmp_path: Path) -> Generations:
    """v1, then v1+1 made of it, then v1+2 made of that."""
    folder = tmp_path / "students"
    new = Generations(folder, cloud_keys=[CLOUD.public_key()], device_key=DEVICE.public_key())
    digest = new.install(student_package("v1")).digest
    for name in ("v1+1", "v1+2"):
        digest = new.promote(student_package(name, parent=digest)).digest
    return new


def entry(students: Generations, name: Generation) -> Entry:
    return next(e for e in students.required.entries() if e.named == name)


def on_disk(tmp_path: Path) -> int:
    return len(list((tmp_path / "students").glob("*.tutelage")))


def reopened(tmp_path: Path) -> Generations:
    keys = {"cloud_keys": [CLOUD.public_key()], "device_key": DEVICE.public_key()}
    return Generations(tmp_path / "students", **keys)


# Packages


def test_the_newest_student_that_is_left_recognises(students: Generations, tmp_path: Path):
    booted = students.delete([entry(students, V1_2)])
    assert (booted.generation, students.current, students.previous) == (V1_1, V1_1, V1)
    assert on_disk(tmp_path) == 2
    assert reopened(tmp_path).boot().generation == V1_1
    assert students.next_generation == Generation.parse("v1+3")  # its number is not given again


def test_with_all_of_them_gone_the_released_version_recognises(students: Generations, tmp_path: Path):
    booted = students.delete([entry(students, V1_1), entry(students, V1_2)])
    assert (booted.generation, students.current, students.previous) == (V1, V1, None)
    assert on_disk(tmp_path) == 1


def test_what_cannot_be_fallen_back_on_any_more_costs_the_present_student_nothing(
    students: Generations, tmp_path: Path
):
    students.delete([entry(students, V1_1)])
    assert (students.current, students.previous) == (V1_2, V1)
    assert on_disk(tmp_path) == 2
    students.install(student_package("v2"))
    students.delete([Entry(str(V1_2), students.required.previous.package.digest)])
    assert (students.current, students.previous) == (V2, V1)


def test_a_released_version_is_never_deleted(students: Generations):
    students.delete([entry(students, V1)])
    assert (students.current, students.previous, students.released) == (V1_2, V1_1, V1)


def test_with_nothing_else_that_verifies_everything_stays(students: Generations, tmp_path: Path):
    released = tmp_path / "students" / (entry(students, V1).digest[7:] + ".tutelage")
    whole = released.read_bytes()
    released.write_bytes(whole[:-1])
    with pytest.raises(PackageError):
        students.delete([entry(students, V1_1), entry(students, V1_2)])
    assert (students.current, on_disk(tmp_path)) == (V1_2, 3)


def test_a_second_call_finishes_what_the_first_could_not(
    students: Generations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    unwanted = [entry(students, V1_2)]

    def failing(path: Path) -> None:
        raise StorageError(Code.STORAGE_FAILED, "it cannot be removed: check permissions")

    with monkeypatch.context() as patched:
        patched.setattr(module, "shred_file", failing)
        assert code_of(lambda: students.delete(unwanted)) is Code.STORAGE_FAILED
    assert (students.current, on_disk(tmp_path)) == (V1_1, 3)
    assert reopened(tmp_path).current == V1_1
    students.delete(unwanted)
    assert on_disk(tmp_path) == 2


def test_a_full_disk_is_given_room_by_what_goes(students: Generations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write, tries = module.atomic_write, []

    def full_once(path: Path, data: bytes) -> None:
        tries.append(on_disk(tmp_path))
        if len(tries) == 1:
            raise StorageError(Code.STORAGE_FULL, "the disk is full: free some space")
        write(path, data)

    monkeypatch.setattr(module, "atomic_write", full_once)
    students.delete([entry(students, V1_2)])
    assert (tries, students.current) == ([3, 2], V1_1)


# Lessons


def taught(path: Path, person: str, *generations: Generation) -> list[Generation]:
    with opened(path) as store, store._database.transaction() as connection:
        return learnt_from(connection, store._pseudonyms.found(person) or "nobody", generations)


def test_a_student_has_learnt_from_whom_its_parents_learnt(tmp_path: Path):
    path = tmp_path / "store.sqlite"
    with opened(path) as store:
        store.add_lessons(V1_1, 1, ["anna", "bert"], parent=V1, kept=[])
        store.add_lessons(V1_2, 2, ["anna", "cleo"], parent=V1_1, kept=[V1_1])
        assert [store.latest_set(g) for g in (V1, V1_1, V1_2)] == [0, 1, 2]
    assert taught(path, "anna", V1, V1_1, V1_2) == [V1_1, V1_2]
    assert taught(path, "bert", V1, V1_1, V1_2) == [V1_1, V1_2]
    assert taught(path, "cleo", V1, V1_1, V1_2) == [V1_2]
    assert taught(path, "somebody else", V1, V1_1, V1_2) == []


def test_a_student_of_whom_nothing_is_known_may_have_learnt_from_anybody_and_so_its_children(tmp_path: Path):
    path = tmp_path / "store.sqlite"
    with opened(path) as store:
        store.add_lessons(V1_2, 2, ["anna"], parent=V1_1, kept=[V1_1])
    assert taught(path, "somebody else", V1, V1_1, V1_2) == [V1_1, V1_2]


def test_a_number_that_was_given_up_and_is_tried_again_has_learnt_from_both_tries(tmp_path: Path):
    path = tmp_path / "store.sqlite"
    with opened(path) as store:
        store.add_lessons(V1_1, 1, ["anna"], parent=V1, kept=[])
        store.add_lessons(V1_1, 2, ["bert"], parent=V1, kept=[])
        assert store.latest_set(V1_1) == 2
    assert taught(path, "anna", V1_1) == taught(path, "bert", V1_1) == [V1_1]


def test_lessons_of_students_that_are_gone_go(tmp_path: Path):
    path = tmp_path / "store.sqlite"
    with opened(path) as store:
        for local in range(1, 6):
            generation = Generation(1, local)
            store.add_lessons(generation, local, ["anna"], parent=Generation(1), kept=[Generation(1, local - 1)])
        rows = store._database.rows("SELECT DISTINCT generation FROM lessons ORDER BY generation")
    assert [row[0] for row in rows] == ["v1+4", "v1+5"]


# Files


def test_a_file_is_overwritten_before_it_goes(tmp_path: Path):
    path, other = tmp_path / "secret", tmp_path / "another name of it"
    path.write_bytes(b"secret" * 50_000)
    os.link(path, other)
    shred_file(path)
    assert not path.exists()
    assert other.read_bytes() == bytes(300_000)
    shred_file(path)  # one that is not there is no error


def test_a_folder_goes_with_all_that_is_in_it_but_not_with_what_it_points_to(tmp_path: Path):
    folder, elsewhere, other = tmp_path / "job", tmp_path / "elsewhere", tmp_path / "another name of it"
    (folder / "deep").mkdir(parents=True)
    elsewhere.write_bytes(b"not of the job")
    (folder / "deep" / "a").write_bytes(b"a")
    os.link(folder / "deep" / "a", other)
    (folder / "link").symlink_to(elsewhere)
    shred_folder(folder)
    assert not folder.exists()
    assert other.read_bytes() == b"\0"
    assert elsewhere.read_bytes() == b"not of the job"
    shred_folder(folder)
