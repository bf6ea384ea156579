"""Data sets in the object store: the same captures are the same data set, sealed, whole and without names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_persons import draw_manifest

from tutelage.cohorts import held_out, read_cohort
from tutelage.data_sets import (
    has_data_set,
    pull_cohort,
    push_data_set,
    read_capture_png,
    read_data_set,
)
from tutelage.errors import Code, ManifestError, ObjectError, StorageError
from tutelage.folder_objects import FolderObjects
from tutelage.manifest import Split, read_manifest

KEY = bytes(range(32))
OTHER_KEY = bytes(32)


@pytest.fixture
def rows(tmp_path: Path):
    return read_manifest(draw_manifest(tmp_path / "cloud", [3, 11, 2], 4)).rows


@pytest.fixture
def objects(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "objects")


class Interrupted(FolderObjects):
    """A store that takes so many objects and then goes away."""

    left = 5

    def put(self, chunks, **named):
        if self.left == 0:
            raise ObjectError(Code.OBJECTS_UNAVAILABLE, "away")
        self.left -= 1
        return super().put(chunks, **named)


def test_a_data_set_gives_back_what_was_pushed(objects, rows):
    told = []
    pushed = push_data_set(objects, rows, KEY, lambda *done: told.append(done))
    found = read_data_set(objects, pushed.data_set.digest)
    assert found == pushed.data_set
    assert (found.persons, len(found.captures), pushed.sent, told[-1]) == (3, 12, 12, (12, 12))
    cohort = pull_cohort(objects, found.select(Split.DISTIL), KEY)
    expected = read_cohort(rows[0].path.parent / "manifest.csv", Split.DISTIL, 0).cohort
    assert all((a == b).all() for a, b in zip(cohort.captures, expected.captures, strict=True))
    assert found.size_bytes == sum(len(b"".join(objects.read(key))) for key in captures_in(objects, found))


def captures_in(objects, found) -> list[str]:
    return [f"objects/sha256/{capture.digest.partition(':')[2]}" for capture in found.captures]


def test_persons_are_numbers_that_sort_and_are_drawn_as_their_names_would_be(objects, rows):
    found = push_data_set(objects, rows, KEY).data_set
    names = dict(zip((row.person for row in rows), (capture.person for capture in found.captures), strict=True))
    assert sorted(names) == ["p02", "p03", "p11"]
    assert [names[name] for name in sorted(names)] == [f"person-{number:09d}" for number in range(3)]
    for seed in range(5):
        assert {names[name] for name in held_out(tuple(names), 0.3, seed)} == held_out(tuple(names.values()), 0.3, seed)


def test_nothing_in_the_store_can_be_read_without_the_key(objects, rows, tmp_path: Path):
    found = push_data_set(objects, rows, KEY).data_set
    files = [path.read_bytes() for path in (tmp_path / "objects").rglob("*") if path.is_file()]
    assert len(files) == 14
    assert not any(b"PNG" in data or b"p02" in data or b"p11" in data for data in files)
    with pytest.raises(StorageError) as raised:
        read_capture_png(objects, found.captures[0], OTHER_KEY)
    assert raised.value.code is Code.KEY_WRONG


def test_the_same_captures_are_the_same_data_set_and_are_sent_once(objects, rows):
    first, second = push_data_set(objects, rows, KEY), push_data_set(objects, rows, KEY)
    assert (second.data_set, second.sent) == (first.data_set, 0)
    assert push_data_set(objects, rows, OTHER_KEY).data_set.digest != first.data_set.digest
    fewer = push_data_set(objects, rows[:-1], KEY)
    assert (fewer.sent, fewer.data_set.digest != first.data_set.digest) == (0, True)


def test_an_interrupted_push_leaves_no_data_set_and_is_gone_on_with(rows, tmp_path: Path):
    interrupted = Interrupted(tmp_path / "objects")
    with pytest.raises(ObjectError):
        push_data_set(interrupted, rows, KEY)
    assert not interrupted.list("data-sets/").keys
    pushed = push_data_set(FolderObjects(tmp_path / "objects"), rows, KEY)
    assert pushed.sent == 12 - 5


def test_an_image_that_cannot_be_read_is_skipped_and_reported(objects, rows):
    rows[1].path.write_bytes(b"no image")
    pushed = push_data_set(objects, rows, KEY)
    assert [item.row for item in pushed.skipped] == [rows[1]]
    assert len(pushed.data_set.captures) == 11
    for row in rows:
        row.path.write_bytes(b"")
    with pytest.raises(ManifestError) as raised:
        push_data_set(objects, rows, KEY)
    assert raised.value.code is Code.DATA_INSUFFICIENT


def test_splits_are_kept_and_chosen_by(objects, rows):
    split = [replace(row, split=Split.TEACHER if row.person == "p11" else row.split) for row in rows]
    found = read_data_set(objects, push_data_set(objects, split, KEY).data_set.digest)
    assert len(found.select(Split.DISTIL)) == 8
    assert len(found.select(Split.TEACHER)) == 12


def test_what_is_no_data_set_is_not_found(objects, rows):
    digest = push_data_set(objects, rows, KEY).data_set.digest
    assert has_data_set(objects, digest)
    absent = "sha256:" + "0" * 64
    assert not has_data_set(objects, absent)
    for bad, code in ((absent, Code.OBJECT_MISSING), ("../../etc/passwd", Code.OBJECT_KEY), ("", Code.OBJECT_KEY)):
        with pytest.raises(ObjectError) as raised:
            read_data_set(objects, bad)
        assert raised.value.code is code


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"format":2}', b"\xff"])
def test_a_damaged_manifest_is_told(objects, rows, damage: bytes, tmp_path: Path):
    digest = push_data_set(objects, rows, KEY).data_set.digest
    (tmp_path / f"objects/data-sets/{digest.partition(':')[2]}.json").write_bytes(damage)
    with pytest.raises(ObjectError) as raised:
        read_data_set(objects, digest)
    assert raised.value.code is Code.OBJECT_CORRUPT


def test_a_sealed_capture_that_was_swapped_for_another_is_told(objects, rows, tmp_path: Path):
    found = push_data_set(objects, rows, KEY).data_set
    first, second = (tmp_path / "objects" / key for key in captures_in(objects, found)[:2])
    first.write_bytes(second.read_bytes())
    with pytest.raises(ObjectError) as raised:
        pull_cohort(objects, found.captures, KEY)
    assert raised.value.code is Code.OBJECT_CORRUPT


def test_the_command_pushes_and_says_the_digest(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    manifest = draw_manifest(tmp_path / "cloud", range(3), 2)
    key = tmp_path / "data.key"
    key.write_text(KEY.hex())
    status, _, err = run("data-set", "push", manifest, "--key", key)
    assert (status, "no object store is set" in err) == (78, True)
    monkeypatch.setenv("TUTELAGE_STORES_OBJECTS_FOLDER", str(tmp_path / "objects"))
    monkeypatch.setenv("TUTELAGE_DISTILLER_DATA_KEY_FILE", str(key))
    status, text, err = run("data-set", "push", manifest)
    assert (status, "6 captures of 3 persons" in text, "6 sent" in text) == (0, True, True)
    status, document, _ = run("data-set", "push", manifest, "--json")
    document = json.loads(document)
    assert document["data_set"] == text.splitlines()[-1]
    assert (document["captures"], document["persons"], document["sent"]) == (6, 3, 0)
    cohort = pull_cohort(
        FolderObjects(tmp_path / "objects"),
        read_data_set(FolderObjects(tmp_path / "objects"), document["data_set"]).captures,
        KEY,
    )
    assert np.shape(cohort.captures) == (6, 32, 32)
