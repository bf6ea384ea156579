"""`tutelage distil`: from captures and a teacher to a package that devices believe."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from drawn_persons import draw_manifest
from safetensors import safe_open

from tutelage.archive import unpack
from tutelage.biometrics.calibration import Calibration
from tutelage.biometrics.features import impostor_cosines
from tutelage.captures import to_input
from tutelage.cohorts import held_out, read_cohort
from tutelage.errors import CATALOGUE, Code
from tutelage.impostors import open_impostors
from tutelage.manifest import Split
from tutelage.nn.packaging import Strangers
from tutelage.nn.students import READOUTS, TINY, Recogniser, Student, save_weights
from tutelage.nn.teachers import ResidualTeacher, TeacherNetwork, TeacherSpec, teacher_file
from tutelage.package import read_package
from tutelage.sealing import read_key
from tutelage.signing import public_pem, read_public_key

KEY_NAMES = ("signer.pem", "signer.pub", "impostors.key")
WORDS = ("--steps", 3, "--batch", 8, "--device", "cpu", "--created", "2026-11-23T12:00:00+00:00")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten persons of the cloud with six captures each: three of them are enough to calibrate with."""
    return draw_manifest(tmp_path_factory.mktemp("cloud"), range(10), 6)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small teacher nobody trained; random features are good enough to follow."""
    torch.manual_seed(0)
    spec = TeacherSpec(channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1), dimension=16)
    path = tmp_path_factory.mktemp("teacher") / "small.safetensors"
    path.write_bytes(teacher_file(TeacherNetwork(spec), "small", {}))
    return path


@pytest.fixture
def distil(run, manifest: Path, teacher: Path, tmp_path: Path):
    """Distil into `tmp_path/s.tutelage` unless told otherwise; gives status, JSON document if any, and errors."""

    def call(*words: object, data: Path = manifest) -> tuple[int, dict[str, Any], str]:
        out = () if "--out" in words else ("--out", tmp_path / "s.tutelage")
        taught = () if "--teacher" in words else ("--teacher", teacher)
        status, text, err = run("distil", data, *taught, *out, *WORDS, *words, "--json")
        return status, json.loads(text) if text else {}, err

    return call


def exit_code(code: Code) -> int:
    return CATALOGUE[code].exit_code


def test_the_whole_way_from_images_to_a_verified_package(run, manifest: Path, tmp_path: Path):
    teacher, out = tmp_path / "t.safetensors", tmp_path / "s.tutelage"
    assert run("teacher", "train", manifest, "--out", teacher, *WORDS)[0] == 0
    status, text, err = run("distil", manifest, "--teacher", teacher, "--out", out, *WORDS)
    assert status == 0
    assert all(f"made the key file {tmp_path / name}" in err for name in ("signer.pem", "signer.pub", "impostors.key"))
    assert all(word in text for word in (*READOUTS, "teacher", "rank-1", "18 captures of 3 persons held out"))
    assert "hold out 46 persons for 20, 142 persons for 30" in text
    assert f"tutelage package verify {out} --trust {tmp_path / 'signer.pub'}" in text
    status, text, _ = run("package", "verify", out, "--trust", tmp_path / "signer.pub", "--json")
    shown = json.loads(text)
    assert (status, shown["verified"]) == (0, True)
    assert shown["manifest"]["teacher_space"] == ResidualTeacher.load(teacher).space
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("impostors.key", "s.tutelage", "signer.pem", "signer.pub", "t.safetensors")
    ]


def test_the_document_says_what_the_package_says(distil, teacher: Path, tmp_path: Path):
    status, document, _ = distil("--name", "thumbs", "--version", "v7")
    package = read_package(tmp_path / "s.tutelage", trusted=[read_public_key(tmp_path / "signer.pub")])
    training = package.info.training
    assert status == 0
    assert document["digest"] == package.digest
    assert (package.info.name, package.info.version, package.info.parent) == ("thumbs", "v7", None)
    assert (document["readout"], document["space"]) == (package.info.readout, package.space)
    assert package.info.teacher_space == ResidualTeacher.load(teacher).space
    assert package.info.created == "2026-11-23T12:00:00+00:00"
    assert (document["persons"], document["captures"], document["left_out"]) == (7, 42, {})
    assert set(document["held_out"]) == {*READOUTS, "teacher"}
    assert {(errors["persons"], errors["captures"]) for errors in document["held_out"].values()} == {(3, 18)}
    assert training["held_out"] == document["held_out"]
    assert (training["settings"]["steps"], training["settings"]["batch"]) == (3, 8)
    assert document["readout_chosen_by"] == "lowest EER"
    lowest = min(document["held_out"][readout]["eer"] for readout in READOUTS)
    assert document["held_out"][package.info.readout]["eer"] == lowest


def test_the_package_is_calibrated_on_the_persons_held_out(distil, manifest: Path, tmp_path: Path):
    assert distil()[0] == 0
    package = read_package(tmp_path / "s.tutelage", trusted=[read_public_key(tmp_path / "signer.pub")])
    sealed = Strangers(*open_impostors(package.impostors, read_key(tmp_path / "impostors.key")))
    captures, persons = sealed.unseen.captures, sealed.unseen.persons
    cohort = read_cohort(manifest, Split.DISTIL, 0).cohort
    unseen = cohort.rows(cohort.rows_of(held_out(cohort.names, 0.25, 0)))
    assert persons == [f"stranger-{number:03d}" for number in range(3) for _ in range(6)]
    assert all((a == b).all() for a, b in zip(captures, unseen.captures, strict=True))
    features = Recogniser.of_package(package).features(to_input(captures))
    again = Calibration.fit(impostor_cosines(features, persons), space=package.space, persons=3)
    assert Calibration.from_json(package.calibration) == again


def test_the_same_words_give_the_same_bytes_but_for_the_seal(distil, tmp_path: Path):
    parts = []
    for seed in (1, 1, 2):
        _, document, _ = distil("--seed", seed)
        members = unpack((tmp_path / "s.tutelage").read_bytes())
        said = json.loads(bytes(members["manifest.json"]))
        del said["members"]["impostors.sealed"]["sha256"]  # sealed with a new nonce every time
        parts.append((members["weights.safetensors"], members["calibration.json"], said))
        assert document["keys"]["made"] == ([] if len(parts) > 1 else [str(tmp_path / n) for n in KEY_NAMES])
    assert parts[0] == parts[1]
    assert parts[1][0] != parts[2][0]


def test_keys_are_private_and_never_overwritten(distil, tmp_path: Path):
    files = [tmp_path / "one.pem", tmp_path / "one.pub", tmp_path / "two.key"]
    words = ("--steps", 1, "--signer", files[0], "--seal-key", files[2])
    assert distil(*words)[0] == 0
    assert [stat.S_IMODE(file.stat().st_mode) for file in (files[0], files[2])] == [0o600, 0o600]
    before = [file.read_bytes() for file in files]
    files[1].unlink()
    _, document, err = distil(*words)
    assert document["keys"]["made"] == [str(files[1])]
    assert f"made the key file {files[1]}" in err
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize("name", KEY_NAMES)
def test_a_file_that_holds_another_key_ends_in_a_code(distil, tmp_path: Path, name: str):
    other = public_pem(Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key())
    (tmp_path / name).write_bytes(other)
    status, _, err = distil()
    assert status == exit_code(Code.KEY_WRONG)
    assert str(tmp_path / name) in err
    assert not (tmp_path / "s.tutelage").exists()
    assert (tmp_path / name).read_bytes() == other


def test_a_package_goes_on_as_the_next_version(distil, tmp_path: Path):
    status, first, _ = distil("--name", "thumbs", "--version", "v3+7", "--size", "tiny")
    trusted = tmp_path / "signer.pub"
    words = ("--from", tmp_path / "s.tutelage", "--trust", trusted, "--out", tmp_path / "next.tutelage", "--steps", 1)
    assert status == 0
    status, second, _ = distil(*words)
    assert (status, second["name"], second["version"], second["parent"]) == (0, "thumbs", "v4", first["digest"])
    weights = [
        read_package(tmp_path / name, trusted=[read_public_key(trusted)]).weights
        for name in ("s.tutelage", "next.tutelage")
    ]
    assert weights[0] != weights[1]
    (tmp_path / "bare.safetensors").write_bytes(weights[0])
    status, third, _ = distil("--from", tmp_path / "bare.safetensors", "--steps", 1)
    bare = read_package(tmp_path / "s.tutelage", trusted=[read_public_key(trusted)])
    assert (status, third["name"], third["version"], third["parent"]) == (0, "student-tiny", "v1", None)
    assert bare.weights == weights[1]


def test_a_start_that_must_not_be_believed_ends_in_a_code(distil, tmp_path: Path):
    assert distil("--steps", 1)[0] == 0
    package, stranger = tmp_path / "s.tutelage", tmp_path / "stranger.pub"
    stranger.write_bytes(public_pem(Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()))
    damaged = tmp_path / "damaged"
    damaged.write_bytes(package.read_bytes()[:-50])
    (tmp_path / "text").write_bytes(b"no weights")
    (tmp_path / "wide").write_bytes(save_weights(Student(TINY)))
    trust = ("--trust", tmp_path / "signer.pub")
    before = package.read_bytes()
    for words, code in [
        (("--from", package), Code.USAGE),
        (("--from", package, "--trust", stranger), Code.PACKAGE_SIGNATURE),
        (("--from", package, "--size", "small", *trust), Code.USAGE),
        (("--from", damaged, *trust), Code.PACKAGE_CORRUPT),
        (("--from", tmp_path / "text"), Code.PACKAGE_CORRUPT),
        (("--from", tmp_path / "wide", "--size", "small"), Code.PACKAGE_INCOMPLETE),
        (("--from", tmp_path / "absent"), Code.STORAGE_FAILED),
        (("--from", package, "--trust", tmp_path / "absent"), Code.STORAGE_FAILED),
    ]:
        assert distil(*words)[0] == exit_code(code), words
        assert package.read_bytes() == before


def test_a_small_student_is_a_larger_one(distil, tmp_path: Path):
    status, document, _ = distil("--size", "small", "--steps", 1)
    package = read_package(tmp_path / "s.tutelage", trusted=[read_public_key(tmp_path / "signer.pub")])
    assert (status, document["name"], package.info.student["name"]) == (0, "student-small", "small")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--name", "no spaces"), Code.USAGE),
        (("--version", "3"), Code.USAGE),
        (("--created", "yesterday"), Code.USAGE),
        (("--size", "huge"), Code.USAGE),
        (("--batch", 1), Code.USAGE),
        (("--signer", "{}/s.tutelage"), Code.USAGE),
        (("--signer", "{}/absent/key"), Code.STORAGE_FAILED),
        (("--out", "{}"), Code.STORAGE_FAILED),
        (("--teacher", "{}/absent"), Code.STORAGE_FAILED),
        (("--teacher", "{}/few/manifest.csv"), Code.PACKAGE_CORRUPT),
    ],
    ids=str,
)
def test_bad_words_end_in_a_code_before_any_work(distil, tmp_path: Path, words: tuple[object, ...], code: Code):
    draw_manifest(tmp_path / "few", [1], 1)
    before = set(tmp_path.iterdir())
    status, _, err = distil(*(word.format(tmp_path) if isinstance(word, str) else word for word in words))
    assert status == exit_code(code)
    assert "asking the teacher" not in err
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("persons", "images", "split", "words"),
    [
        (3, 9, "cloud", "takes 4 persons or more, 3 can be used"),
        (8, 7, "distil", "give 49 comparisons, a calibration takes 100"),
        (8, 9, "teacher", "takes 4 persons or more, 0 can be used"),
    ],
)
def test_too_little_data_ends_in_a_code_before_any_training(distil, tmp_path: Path, persons, images, split, words):
    data = draw_manifest(tmp_path / "data", range(persons), images, split)
    status, _, err = distil(data=data)
    assert status == exit_code(Code.DATA_INSUFFICIENT)
    assert words in err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_unreadable_image_is_reported_and_skipped(distil, tmp_path: Path):
    data = draw_manifest(tmp_path / "data", range(10), 6)
    bad = tmp_path / "data" / "0-0.png"
    bad.write_bytes(b"GIF")
    status, document, err = distil("--steps", 1, data=data)
    assert status == 0
    assert document["captures"] + document["held_out"]["fused"]["captures"] == 59
    assert [item["path"] for item in document["skipped_images"]] == [str(bad)]
    assert err.startswith(f"skipped: {bad}")


@pytest.mark.needs("dlib")
def test_a_teacher_that_finds_no_face_is_data_insufficient(distil, tmp_path: Path):
    status, _, err = distil("--teacher", "face")
    assert status == exit_code(Code.DATA_INSUFFICIENT)
    assert "the teacher can use none of 60 captures (no face found: 60)" in err
    assert list(tmp_path.iterdir()) == []


def test_a_killed_distillation_goes_on_where_it_was(distil, manifest: Path, teacher: Path, tmp_path: Path):
    words = ("--steps", 12, "--checkpoint-every", 2)
    command = [sys.executable, "-m", "tutelage", "distil", manifest, "--teacher", teacher, "--out"]
    command = [*map(str, (*command, tmp_path / "s.tutelage", *WORDS, *words))]
    checkpoint = tmp_path / "s.tutelage.checkpoint"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=os.environ) as process:
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -9
    assert not (tmp_path / "s.tutelage").exists()
    state = checkpoint.read_bytes()
    assert distil(*words, "--seed", 1)[0] == exit_code(Code.CHECKPOINT_CORRUPT)
    assert distil(*words, "--from", _drawn(tmp_path))[0] == exit_code(Code.CHECKPOINT_CORRUPT)
    assert checkpoint.read_bytes() == state
    status, document, err = distil(*words)
    assert (status, document["resumed"]) == (0, True)
    assert f"goes on from checkpoint {checkpoint}\n" in err
    assert not checkpoint.exists()
    (tmp_path / "whole").mkdir()
    status, whole, _ = distil(*words, "--out", tmp_path / "whole" / "s.tutelage")
    assert (status, whole["resumed"]) == (0, False)
    assert document["space"] == whole["space"]  # from the digest of the weights
    assert document["held_out"] == whole["held_out"]


def test_sigterm_stops_a_distillation_after_a_last_checkpoint(distil, tmp_path: Path):
    words = ("--steps", 400, "--checkpoint-every", 2)
    checkpoint, mine = tmp_path / "s.tutelage.checkpoint", []
    before = signal.signal(signal.SIGTERM, lambda *_: mine.append("not taken over"))

    def once_it_trains() -> None:
        while not checkpoint.exists():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        thread = threading.Thread(target=once_it_trains, daemon=True)
        thread.start()
        status, _, err = distil(*words)
        thread.join()
        os.kill(os.getpid(), signal.SIGTERM)
        assert mine == ["not taken over"], "only while it trained"
    finally:
        signal.signal(signal.SIGTERM, before)
    assert status == exit_code(Code.TRAINING_STOPPED)
    (done,) = re.findall(r"error \[training-stopped\]: the training was told to stop after (\d+) of 400 steps", err)
    with safe_open(checkpoint, "pt") as state:
        assert json.loads(state.metadata()["training"])["step"] == int(done)


def _drawn(folder: Path) -> Path:
    """Weights of a student that nobody has seen."""
    torch.manual_seed(99)
    path = folder / "drawn.safetensors"
    path.write_bytes(save_weights(Student(TINY)))
    return path
