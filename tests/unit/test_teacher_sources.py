"""Teachers by name, and which processor trains."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tutelage.errors import Code, PackageError, StorageError, UsageError
from tutelage.nn import teacher_sources
from tutelage.nn.teacher_sources import open_teacher, processor
from tutelage.nn.teachers import TeacherNetwork, TeacherSpec, teacher_file

SPEC = TeacherSpec(channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1), dimension=16)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small teacher nobody trained."""
    path = tmp_path / "face"
    path.write_bytes(teacher_file(TeacherNetwork(SPEC), "small", {}))
    return path


@pytest.fixture
def assets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A library whose assets are what a test puts there."""
    monkeypatch.setattr(teacher_sources.resources, "files", lambda package: tmp_path / package)
    (tmp_path / "tutelage" / "assets").mkdir(parents=True)
    return tmp_path / "tutelage" / "assets"


def test_a_path_opens_a_teacher_file(file: Path):
    teacher = open_teacher(str(file))
    assert (teacher.name, teacher.space.endswith("/teacher")) == ("small", True)


@pytest.mark.parametrize("word", ["absent.safetensors", ".", "fingerprints"])
def test_what_is_no_file_is_refused_with_the_names_there_are(word: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="`face` or `fingerprint`") as caught:
        open_teacher(word)
    assert caught.value.code is Code.STORAGE_FAILED


def test_a_file_that_is_no_teacher_is_refused(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"no teacher")
    with pytest.raises(PackageError) as caught:
        open_teacher(str(tmp_path / "x"))
    assert caught.value.code is Code.PACKAGE_CORRUPT


def test_the_shipped_teacher_is_opened_by_its_name(assets: Path, file: Path):
    (assets / "teacher-fingerprint.safetensors").write_bytes(file.read_bytes())
    assert open_teacher("fingerprint").space == open_teacher(str(file)).space


def test_an_installation_without_it_says_so(assets: Path):
    with pytest.raises(StorageError, match="install tutelage again") as caught:
        open_teacher("fingerprint")
    assert caught.value.code is Code.STORAGE_FAILED


@pytest.mark.needs("dlib")
def test_a_name_comes_before_a_file_of_that_name(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(file.parent)
    assert open_teacher("face").space.endswith("/face")
    assert open_teacher("./face").space.endswith("/teacher")


@pytest.mark.parametrize(
    ("word", "available", "expected"), [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu")]
)
def test_auto_takes_what_there_is(monkeypatch, word: str, available: bool, expected: str):
    monkeypatch.setattr(teacher_sources, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: available)))
    assert processor(word) == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_not_promised_where_there_is_none():
    with pytest.raises(UsageError, match="--device cpu"):
        processor("cuda")
