"""Soft labels: chunks that data sets share, kept once, sealed, and read as they were said."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from drawn_persons import draw_manifest
from torch_teacher import serving_teacher, write_teacher

from student_distiller.job_spec import JobSpec
from student_distiller.soft_labels import SoftLabels
from student_distiller.teacher_client import ExtractedFeature, TeacherClient
from student_distiller.teacher_features import MOST_IN_CHUNK, TeacherFeatures, chunks
from tutelage.channel import ChannelSettings
from tutelage.cohorts import read_cohort
from tutelage.data_sets import StoredCapture, push_data_set
from tutelage.errors import Code, ObjectError, SpaceMismatchError, StorageError
from tutelage.folder_objects import FolderObjects
from tutelage.manifest import Split, read_manifest
from tutelage.nn.teachers import ResidualTeacher

KEY = bytes(range(32))


def many(count: int, first: int = 0) -> list[StoredCapture]:
    """Captures that are nowhere, with the digests that real ones would have."""
    return [
        StoredCapture(f"sha256:{hashlib.sha256(str(number).encode()).hexdigest()}", "person-000000000", Split.DISTIL)
        for number in range(first, first + count)
    ]


def said(*rows: list[float] | str) -> list[ExtractedFeature]:
    return [
        ExtractedFeature(np.zeros(0, np.float32), row)
        if isinstance(row, str)
        else ExtractedFeature(np.array(row, np.float32), "")
        for row in rows
    ]


@pytest.fixture
def objects(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "objects")


def test_chunks_hold_every_capture_once_in_its_place():
    captures = many(5000)
    found = chunks(captures)
    assert [capture for chunk in found for capture in chunk] == captures
    sizes = [len(chunk) for chunk in found]
    assert max(sizes) <= MOST_IN_CHUNK
    assert 60 < np.mean(sizes) < 160
    assert chunks([]) == []


def test_data_sets_that_share_captures_share_chunks_wherever_they_begin():
    before, after = set(chunks(many(5000))), set(chunks([*many(37, 90_000), *many(5000), *many(300, 80_000)]))
    assert len(before - after) <= 3


def test_what_was_said_is_read_again_and_who_was_first_stays(objects):
    features = TeacherFeatures(objects, "t/teacher", KEY)
    first, second, third = chunks(many(400))[:3]
    assert features.missing([first, second, third]) == [first, second, third]
    features.keep(first, said(*[[0.6, 0.8]] * (len(first) - 1), "no finger"))
    features.keep(first, said(*[[1.0, 0.0]] * len(first)))
    features.keep(third, said(*["blurred"] * len(third)))
    assert features.missing([first, second, third]) == [second]
    found = features.read([first, third])
    assert len(found.features) == len(first) + len(third)
    assert found.features.space == "t/teacher"
    np.testing.assert_array_equal(found.features.vectors[0], np.array([0.6, 0.8], np.float32))
    assert found.usable.sum() == len(first) - 1
    assert found.reasons[len(first) - 1 : len(first) + 1] == ("no finger", "blurred")
    with pytest.raises(ObjectError) as raised:
        features.read([second])
    assert raised.value.code is Code.OBJECT_MISSING


def test_features_of_another_teacher_or_key_are_not_these(objects):
    (chunk,) = chunks(many(3))
    TeacherFeatures(objects, "t/teacher", KEY).keep(chunk, said([1.0], [1.0], [1.0]))
    assert TeacherFeatures(objects, "u/teacher", KEY).missing([chunk]) == [chunk]
    with pytest.raises(StorageError) as raised:
        TeacherFeatures(objects, "t/teacher", bytes(32)).read([chunk])
    assert raised.value.code is Code.KEY_WRONG


def test_features_are_sealed_and_damage_is_told(objects, tmp_path: Path):
    one, two = chunks(many(400))[:2]
    features = TeacherFeatures(objects, "t/teacher", KEY)
    for chunk in (one, two):
        features.keep(chunk, said(*[[1.0]] * len(chunk)))
    first, second = sorted((tmp_path / "objects/teacher-features").rglob("*.safetensors"))
    assert b"vectors" not in first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(StorageError) as raised:
        features.read([one, two])
    assert raised.value.code is Code.STORE_CORRUPT


async def fetching(tmp_path: Path, objects, call) -> None:
    """Run `call` with a data set, soft labels and a teacher's servicer behind real gRPC."""
    rows = read_manifest(draw_manifest(tmp_path / "cloud", range(4), 5)).rows
    data_set = push_data_set(objects, rows, KEY).data_set
    teacher = ResidualTeacher.load(write_teacher(tmp_path / "teacher.safetensors"))
    async with serving_teacher(teacher) as (servicer, address):
        client = TeacherClient(ChannelSettings(address), timedelta(seconds=20))
        try:
            await call(data_set, SoftLabels(objects, client, KEY), servicer)
        finally:
            await client.close()


def a_spec(data_set, space: str) -> JobSpec:
    return JobSpec("thumbs", "v1", data_set.digest, "tiny", teacher_space=space)


async def test_what_was_fetched_is_what_the_teacher_says_and_is_fetched_once(tmp_path: Path, objects):
    async def call(data_set, labels, servicer):
        for _ in range(2):
            await labels.fetch(a_spec(data_set, servicer.space))
        assert servicer.captures == 20
        found = TeacherFeatures(objects, servicer.space, KEY).read(chunks(data_set.captures))
        captures = read_cohort(tmp_path / "cloud/manifest.csv", Split.DISTIL, 0).cohort.captures
        expected = servicer.teacher.extract(captures).features.vectors
        np.testing.assert_array_equal(found.features.vectors, expected)

    await fetching(tmp_path, objects, call)


async def test_another_teacher_is_refused_and_nothing_of_it_is_kept(tmp_path: Path, objects):
    async def call(data_set, labels, servicer):
        with pytest.raises(SpaceMismatchError):
            await labels.fetch(a_spec(data_set, "u/teacher"))
        assert not objects.list("teacher-features/").keys

    await fetching(tmp_path, objects, call)


async def test_what_was_fetched_before_a_failure_is_not_asked_for_again(tmp_path: Path, objects, monkeypatch):
    monkeypatch.setattr("student_distiller.teacher_features.MOST_IN_CHUNK", 6)

    async def call(data_set, labels, servicer):
        seen = []
        for chunk in chunks(data_set.captures)[:2]:
            features = TeacherFeatures(objects, servicer.space, KEY)
            pngs = features.captures(chunk)
            features.keep(chunk, await labels.teacher.extract(pngs, servicer.space))
            seen += chunk
        before = servicer.captures
        await labels.fetch(a_spec(data_set, servicer.space))
        assert before == len(seen)
        assert servicer.captures == 20

    await fetching(tmp_path, objects, call)
