"""`tutelage teacher`: a training that can be stopped anywhere, and what a teacher file says."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from drawn_persons import draw_manifest
from safetensors.torch import save

from tutelage.biometrics.error_summary import summarise
from tutelage.cohorts import Cohort, held_out, read_cohort
from tutelage.errors import CATALOGUE, Code
from tutelage.manifest import Split
from tutelage.nn.teacher_release import release_teacher
from tutelage.nn.teachers import ResidualTeacher, TeacherNetwork, TeacherSpec, teacher_file
from tutelage.nn.train_teacher import TeacherTraining

WORDS = ("--steps", 3, "--batch", 8, "--device", "cpu", "--created", "2026-11-23T12:00:00+00:00")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight persons of the cloud with five captures each."""
    return draw_manifest(tmp_path_factory.mktemp("cloud"), range(8), 5)


def exit_code(code: Code) -> int:
    return CATALOGUE[code].exit_code


def test_a_teacher_is_trained_measured_on_others_and_can_be_opened(run, manifest: Path, tmp_path: Path):
    out = tmp_path / "mine.safetensors"
    status, text, err = run("teacher", "train", manifest, "--out", out, *WORDS, "--json")
    document = json.loads(text)
    assert status == 0
    first, last = err.splitlines()
    assert first.startswith("training the teacher: 1 of 3 steps, loss ")
    assert last.startswith("training the teacher: 3 of 3 steps, loss ")
    assert list(tmp_path.iterdir()) == [out]
    teacher = ResidualTeacher.load(out)
    assert (document["space"], teacher.name) == (teacher.space, "mine")
    assert (document["persons"], document["captures"], document["resumed"]) == (6, 30, False)
    assert (document["held_out"]["persons"], document["held_out"]["captures"]) == (2, 10)
    assert document["held_out"]["rank1"] is not None
    assert teacher.made["held_out"] == document["held_out"]
    assert (teacher.made["steps"], teacher.made["persons"]) == (3, 6)


def test_the_measured_teacher_is_the_one_in_the_file(run, manifest: Path, tmp_path: Path):
    out = tmp_path / "t"
    document = json.loads(run("teacher", "train", manifest, "--out", out, *WORDS, "--json")[1])
    cohort = read_cohort(manifest, Split.TEACHER, 0).cohort
    unseen = cohort.rows(cohort.rows_of(held_out(cohort.names, 0.2, 0)))
    again = summarise(ResidualTeacher.load(out).extract(unseen.captures).features, unseen.persons)
    assert document["held_out"] == {name: getattr(again, name) for name in document["held_out"]}


def test_the_same_words_give_the_same_bytes_and_another_seed_others(run, manifest: Path, tmp_path: Path):
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / name / "t"
        out.parent.mkdir()
        assert run("teacher", "train", manifest, "--out", out, *WORDS, "--seed", seed)[0] == 0
        files.append(out.read_bytes())
    assert files[0] == files[1] != files[2]


def test_people_get_a_table_and_what_to_do_next(run, manifest: Path, tmp_path: Path):
    out = tmp_path / "t.safetensors"
    status, text, _ = run("teacher", "train", manifest, "--out", out, *WORDS)
    assert status == 0
    assert all(word in text for word in ("rank-1", "EER", "TAR at FMR 1e-2", "10 captures of 2 persons held out"))
    assert text.splitlines()[-1].strip() == f"tutelage distil {manifest} --teacher {out} --out student.tutelage"


@pytest.mark.parametrize(("persons", "share"), [(5, 0.2), (8, 0)])
def test_where_nobody_is_held_out_it_says_so(run, tmp_path: Path, persons: int, share: float):
    data = draw_manifest(tmp_path / "few", range(persons), 2)
    words = ("teacher", "train", data, "--out", tmp_path / "t", *WORDS, "--steps", 1, "--held-out", share)
    status, text, _ = run(*words)
    assert status == 0
    assert "nobody was held out, so nothing was measured" in text
    document = json.loads(run(*words, "--json")[1])
    assert (document["persons"], document["held_out"]) == (persons, None)


def test_a_folder_of_persons_and_an_unreadable_image(run, tmp_path: Path):
    draw_manifest(tmp_path / "flat", range(6), 2)
    for image in (tmp_path / "flat").glob("*.png"):
        person = tmp_path / "folder" / image.name.partition("-")[0]
        person.mkdir(parents=True, exist_ok=True)
        image.rename(person / image.name)
    person = read_cohort(tmp_path / "folder", Split.TEACHER, 0).cohort.names[0]
    bad = tmp_path / "folder" / person / f"{person}-0.png"
    bad.write_bytes(b"GIF")
    status, text, err = run("teacher", "train", tmp_path / "folder", "--out", tmp_path / "t", *WORDS, "--json")
    document = json.loads(text)
    assert (status, document["persons"], document["captures"]) == (0, 3, 5)
    assert [item["path"] for item in document["skipped_images"]] == [str(bad)]
    assert err.startswith(f"skipped: {bad}")


@contextlib.contextmanager
def interrupted_once_there_is(path: Path):
    """Ctrl-C comes as soon as `path` is there, as long as the block lasts."""
    over = threading.Event()

    def interrupt() -> None:
        while not path.exists() and not over.is_set():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    def raised(*_: object) -> None:
        if not over.is_set():
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, raised)
    waiting = threading.Thread(target=interrupt)
    waiting.start()
    try:
        yield
    finally:
        over.set()
        waiting.join()
        signal.signal(signal.SIGINT, before)


def test_a_stopped_training_says_how_to_go_on_and_then_does(run, manifest: Path, tmp_path: Path):
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    words = ["teacher", "train", manifest, *WORDS, "--steps", 9, "--checkpoint-every", 2, "--name", "t"]
    checkpoint = tmp_path / "stopped.checkpoint"
    with interrupted_once_there_is(checkpoint):
        status, _, err = run(*words, "--out", stopped)
    assert status == 130
    assert err.splitlines()[-2:] == [
        f"stopped: the same command goes on from checkpoint {checkpoint}",
        "interrupted",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["stopped.checkpoint"]
    status, text, err = run(*words, "--out", stopped, "--json")
    assert (status, json.loads(text)["resumed"]) == (0, True)
    assert err.startswith(f"goes on from checkpoint {checkpoint}\n")
    assert not checkpoint.exists()
    assert run(*words, "--out", whole)[0] == 0
    assert stopped.read_bytes() == whole.read_bytes()


def test_a_checkpoint_of_other_settings_or_other_captures_is_refused(run, manifest: Path, tmp_path: Path):
    cohort, checkpoint = read_cohort(manifest, Split.TEACHER, 0).cohort, tmp_path / "kept"
    training = TeacherTraining(steps=3, batch=8, checkpoint_every=1)
    taught = cohort.rows(cohort.rows_of(frozenset(cohort.names) - held_out(cohort.names, 0.2, 0)))
    words = {"name": "t", "created": "", "device": "cpu", "checkpoint": checkpoint, "progress": lambda *_: None}
    release_teacher(taught, Cohort((), ()), training, **words)
    before = checkpoint.read_bytes()
    other = draw_manifest(tmp_path / "other", range(20, 28), 5)
    shared = ("--out", tmp_path / "t", *WORDS, "--checkpoint", checkpoint, "--checkpoint-every", 1)
    for data, more in ((manifest, ("--steps", 4)), (other, ())):
        status, _, err = run("teacher", "train", data, *shared, *more)
        assert status == exit_code(Code.CHECKPOINT_CORRUPT)
        assert str(checkpoint) in err
        assert checkpoint.read_bytes() == before
        assert not (tmp_path / "t").exists()
    assert run("teacher", "train", manifest, *shared)[0] == 0
    checkpoint.write_bytes(before[:1000])
    assert run("teacher", "train", manifest, *shared)[0] == exit_code(Code.CHECKPOINT_CORRUPT)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("absent.csv", "--out", "t"), Code.MANIFEST_INVALID),
        (("one.csv", "--out", "t"), Code.DATA_INSUFFICIENT),
        (("strangers.csv", "--out", "t"), Code.DATA_INSUFFICIENT),
        (("unreadable.csv", "--out", "t"), Code.DATA_INSUFFICIENT),
        (("one.csv", "--out", "absent/t"), Code.STORAGE_FAILED),
        (("one.csv", "--out", "."), Code.STORAGE_FAILED),
        (("one.csv", "--out", "t", "--checkpoint", "absent/c"), Code.STORAGE_FAILED),
        (("one.csv", "--out", "t", "--checkpoint", "t"), Code.USAGE),
        (("one.csv", "--out", "t", "--batch", 1), Code.USAGE),
        (("one.csv", "--out", "t", "--steps", 0), Code.USAGE),
        (("one.csv", "--out", "t", "--seed", -1), Code.USAGE),
        (("one.csv", "--out", "t", "--seed", 2**31), Code.USAGE),
        (("one.csv", "--out", "t", "--device", "tpu"), Code.USAGE),
        (("one.csv", "--out", "t", "--created", "yesterday"), Code.USAGE),
        (("one.csv",), Code.USAGE),
    ],
    ids=str,
)
def test_bad_words_and_bad_data_end_in_a_code_and_leave_nothing(run, tmp_path: Path, monkeypatch, words, code: Code):
    monkeypatch.chdir(tmp_path)
    head = "path,person,split,condition\n"
    draw_manifest(tmp_path, [1], 4).rename("one.csv")
    Path("strangers.csv").write_text(head + "1-0.png,a,stranger,\n1-1.png,b,stranger,\n")
    Path("bad.png").write_bytes(b"")
    Path("unreadable.csv").write_text(head + "bad.png,a,cloud,\n")
    before = set(tmp_path.iterdir())
    status, out, err = run("teacher", "train", *words)
    assert (status, out) == (exit_code(code), "")
    assert err
    assert set(tmp_path.iterdir()) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there_ends_in_the_code_for_usage(run, manifest: Path, tmp_path: Path):
    status, _, err = run("teacher", "train", manifest, "--out", tmp_path / "t", "--device", "cuda")
    assert status == exit_code(Code.USAGE)
    assert "--device cpu" in err


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A teacher file of somebody who plays tricks."""
    spec = TeacherSpec(channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1), dimension=16)
    path = tmp_path / "small"
    path.write_bytes(teacher_file(TeacherNetwork(spec), "\x1b[2Jgone", {"steps": 7, "from": "[red]\x1b]0;title"}))
    return path


def test_show_prints_what_a_file_says(run, small: Path):
    status, text, _ = run("teacher", "show", small, "--json")
    document = json.loads(text)
    network = ResidualTeacher.load(small).network
    assert status == 0
    assert document["parameters"] == sum(p.numel() for p in network.parameters())
    assert document["bytes"] == small.stat().st_size
    assert document["architecture"]["channels"] == [8, 8, 8, 8]
    assert document["made"]["steps"] == 7
    status, text, _ = run("teacher", "show", small)
    lines = dict(line.split("  ", 1) for line in text.splitlines())
    assert status == 0
    assert lines["space"].strip() == document["space"]
    assert lines["made.steps"].strip() == "7"


def test_show_lets_no_control_character_through(run, small: Path):
    for words in ((), ("--json",)):
        status, text, _ = run("teacher", "show", small, *words)
        assert status == 0
        assert "\x1b" not in text
        assert "[red]" in text


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (None, Code.STORAGE_FAILED),
        (b"", Code.PACKAGE_CORRUPT),
        (b"no teacher", Code.PACKAGE_CORRUPT),
        (save({"w": torch.zeros(2)}), Code.PACKAGE_CORRUPT),
    ],
    ids=["absent", "empty", "text", "another file"],
)
def test_show_of_what_is_no_teacher_ends_in_a_code(run, tmp_path: Path, data: bytes | None, code: Code):
    file = tmp_path / "file"
    if data is not None:
        file.write_bytes(data)
    status, out, err = run("teacher", "show", file)
    assert (status, out) == (exit_code(code), "")
    assert str(file) in err


def test_show_of_a_truncated_teacher_ends_in_a_code(run, small: Path):
    small.write_bytes(small.read_bytes()[:-10])
    assert run("teacher", "show", small)[0] == exit_code(Code.PACKAGE_CORRUPT)


ABSENT = """
import sys
class Absent:
    def find_spec(name, path, target=None):
        if name.split('.')[0] == 'torch': raise ModuleNotFoundError('no torch', name='torch')
sys.meta_path.insert(0, Absent)
from tutelage.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("words", [("teacher", "train", "x", "--out", "y"), ("distil", "x", "--teacher", "y")])
def test_without_torch_it_says_what_to_install(words: tuple[str, ...], tmp_path: Path):
    more = ("--out", str(tmp_path / "z")) if words[0] == "distil" else ()
    finished = subprocess.run(
        [sys.executable, "-c", ABSENT, *words, *more], capture_output=True, text=True, check=False
    )
    assert finished.returncode == exit_code(Code.EXTRA_MISSING)
    assert "pip install 'tutelage[torch]'" in finished.stderr
    assert finished.stderr.count("\n") == 1


def test_help_needs_no_torch(tmp_path: Path):
    finished = subprocess.run(
        [sys.executable, "-c", ABSENT, "teacher", "train", "--help"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0
    assert "--held-out" in finished.stdout
    assert "--created" not in finished.stdout
