"""A model archive holds a teacher as it is, and the handler opens no other."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from drawn_persons import draw_captures

pytest.importorskip("grpc")
pytest.importorskip("torch")

from teacher_inference import archive, torchserve_handler
from teacher_inference.answers import decode_answer
from teacher_inference.archive import ArchiveSettings, make_archive
from teacher_inference.torchserve_handler import TeacherHandler
from tutelage.captures import encode_png
from tutelage.errors import Code, TutelageError
from tutelage.nn.teacher_sources import open_teacher
from tutelage.nn.teachers import TeacherNetwork, TeacherSpec, teacher_file

PNGS = [encode_png(pixels) for pixels in draw_captures(1, 5)]


@pytest.fixture
def own_teacher(tmp_path: Path) -> Path:
    path = tmp_path / "own.safetensors"
    network = TeacherNetwork(TeacherSpec(channels=(4, 4, 4, 4), blocks=(1, 1, 1, 1), dimension=8))
    path.write_bytes(teacher_file(network, "own", {}))
    return path


def context(folder: Path, **config) -> SimpleNamespace:
    """What TorchServe tells a handler about the archive that it unpacked into `folder`."""
    manifest = json.loads((folder / "MAR-INF/MANIFEST.json").read_text())
    return SimpleNamespace(system_properties={"model_dir": str(folder)}, manifest=manifest, model_yaml_config=config)


@pytest.fixture
def unpacked(own_teacher: Path, tmp_path: Path) -> Path:
    pytest.importorskip("model_archiver", reason="torch-model-archiver is not installed")
    made = make_archive(str(own_teacher), tmp_path, ArchiveSettings("prints", workers=2, threads=1))
    assert made == tmp_path / "prints.mar"
    with zipfile.ZipFile(made) as packed:
        packed.extractall(tmp_path / "unpacked")
    return tmp_path / "unpacked"


def test_an_archive_holds_the_teacher_the_handler_and_how_they_run(unpacked, own_teacher):
    files = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert files == {
        "MAR-INF/MANIFEST.json",
        "model-config.yaml",
        "teacher.json",
        "teacher.safetensors",
        "torchserve_handler.py",
    }
    assert unpacked.joinpath("teacher.safetensors").read_bytes() == own_teacher.read_bytes()
    assert unpacked.joinpath("torchserve_handler.py").read_text() == Path(torchserve_handler.__file__).read_text()
    assert "maxWorkers: 2\nbatchSize: 1\n" in unpacked.joinpath("model-config.yaml").read_text()
    assert json.loads(unpacked.joinpath("MAR-INF/MANIFEST.json").read_text())["model"]["modelName"] == "prints"


def test_the_handler_answers_each_request_of_a_batch_with_its_own_captures(unpacked, own_teacher):
    handler = TeacherHandler()
    handler.initialize(context(unpacked, torch_threads=1))
    requests = [
        {"000001": bytearray(PNGS[1]), "000000": bytearray(PNGS[0])},
        {},
        {"000000": {"decoded": "json"}, "000001": bytearray(PNGS[2])},
    ]
    answers = [decode_answer(answer) for answer in handler.handle(requests, None)]
    teacher = open_teacher(str(own_teacher))
    own = teacher.extract(draw_captures(1, 5)).features.vectors
    assert {(answer.name, answer.space) for answer in answers} == {("own", teacher.space)}
    np.testing.assert_allclose(answers[0].vectors, own[:2], atol=1e-5)
    assert answers[1].vectors.shape == (0, 8)
    assert answers[2].usable.tolist() == [False, True]
    np.testing.assert_allclose(answers[2].vectors[1], own[2], atol=1e-5)


def test_the_handler_refuses_another_teacher_than_the_archive_names(unpacked):
    about = json.loads(unpacked.joinpath("teacher.json").read_text())
    unpacked.joinpath("teacher.json").write_text(json.dumps({**about, "space": "b" * 24 + "/teacher"}))
    with pytest.raises(RuntimeError, match="the archive is of bbb"):
        TeacherHandler().initialize(context(unpacked))


@pytest.mark.needs("dlib")
@pytest.mark.needs("model_archiver")
def test_a_public_network_is_archived_by_its_name(tmp_path):
    with zipfile.ZipFile(make_archive("face", tmp_path)) as packed:
        packed.extractall(tmp_path / "unpacked")
    assert not (tmp_path / "unpacked/teacher.safetensors").exists()
    handler = TeacherHandler()
    handler.initialize(context(tmp_path / "unpacked"))
    (answer,) = map(decode_answer, handler.handle([{"000000": bytearray(PNGS[0])}], None))
    assert (answer.name, answer.space.split("/")[1]) == ("face", "face")
    assert (answer.usable.tolist(), answer.reasons) == ([False], ["no face found"])


def test_what_cannot_be_archived_leaves_what_was_there(own_teacher, tmp_path):
    pytest.importorskip("model_archiver", reason="torch-model-archiver is not installed")
    tmp_path.joinpath("teacher.mar").write_bytes(b"former")
    for word in (str(tmp_path / "none"), str(tmp_path / "teacher.mar")):
        with pytest.raises(TutelageError):
            make_archive(word, tmp_path)
    with pytest.raises(TutelageError) as raised:
        make_archive(str(own_teacher), tmp_path, ArchiveSettings("no name!"))
    assert raised.value.code is Code.STORAGE_FAILED
    assert tmp_path.joinpath("teacher.mar").read_bytes() == b"former"


def test_without_the_archiver_one_sentence_says_what_to_install(own_teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "find_spec", lambda name: None)
    with pytest.raises(TutelageError, match=r"teacher-inference\[torchserve\]") as raised:
        make_archive(str(own_teacher), tmp_path)
    assert raised.value.code is Code.EXTRA_MISSING


def test_the_command_ends_in_the_documented_status(tmp_path):
    words = [
        sys.executable,
        "-m",
        "teacher_inference.archive",
        "--teacher",
        str(tmp_path / "none"),
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stderr.startswith("error [")
    assert done.returncode in {51, 70}  # without the archiver it says so first
