"""Processes that torchrun starts give the student of one process, stop together, and end when one of them is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_persons import draw_manifest
from safetensors import safe_open
from safetensors.torch import load_file
from shared_training import SAID, SETTINGS, STOP_AFTER, drawn_teaching, in_double, in_single, resumed, stopped
from toy_networks import toy_images, toy_student

from tutelage.captures import to_input
from tutelage.cli import main
from tutelage.cohorts import read_cohort
from tutelage.errors import Code
from tutelage.manifest import Split
from tutelage.nn.distil import distil
from tutelage.nn.students import Recogniser, Student
from tutelage.nn.teachers import TeacherNetwork, TeacherSpec, teacher_file
from tutelage.package import read_package
from tutelage.signing import read_public_key

TESTS = Path(__file__).parents[1]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def torchrun(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Two processes; both together, and torchrun itself, must end within two minutes."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*TORCHRUN, *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        cwd=cwd,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left of all scenarios of `shared_training`."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "checkpoints").mkdir()
    stopped(folder / "checkpoints" / "of-one")
    ended = torchrun(TESTS / "shared_training.py", folder, cwd=folder)
    assert ended.returncode == 1, ended.stderr
    assert "SIGKILL" in ended.stderr
    return folder


@pytest.fixture(scope="module")
def said(folder: Path) -> dict[str, Any]:
    """What the process that leads said; the other one was killed."""
    assert not (folder / SAID.format(1)).exists()
    return json.loads((folder / SAID.format(0)).read_text())


def weights(folder: Path, name: str, rank: int = 0) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}-{rank}.safetensors")


def furthest(one: Student, two: dict[str, torch.Tensor]) -> float:
    """Largest difference of any two weights or statistics."""
    return max(float((value - two[name]).abs().max()) for name, value in one.state_dict().items())


def test_in_double_precision_two_processes_are_one(folder: Path):
    """The losses, and so the gradients, are taken in single precision all the same: hence not 1e-12."""
    one = in_double()
    assert furthest(one, weights(folder, "double")) < 1e-6
    assert furthest(toy_student().double(), weights(folder, "double")) > 1e-2


def test_in_single_precision_they_are_one_within_rounding(folder: Path, said: dict[str, Any]):
    losses: dict[str, float] = {}
    one, two = in_single(told=losses.update), toy_student()
    two.load_state_dict(weights(folder, "single"))
    assert furthest(one, two.state_dict()) < 1e-3
    images = toy_images(8, 3, seed=9)[0]
    with torch.no_grad():
        for features, others in zip(one(images), two(images), strict=True):
            assert (features * others).sum(1).min() > 0.9999
    for name, value in losses.items():
        assert said[name] == pytest.approx(value, rel=1e-3), name
    assert set(losses) == {"classification", "soft", "direction", "loss"}


@pytest.mark.parametrize("name", ["double", "single", "resumed"])
def test_both_processes_have_the_same_student_to_the_last_bit(folder: Path, name: str):
    first, second = weights(folder, name, 0), weights(folder, name, 1)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_two_processes_go_on_from_the_checkpoint_of_one(folder: Path):
    assert furthest(in_single(), weights(folder, "resumed")) < 1e-3
    assert not (folder / "nobody-looks-here").exists()


def test_one_process_goes_on_from_the_checkpoint_of_two(folder: Path, said: dict[str, Any]):
    checkpoint = folder / "checkpoints" / "of-two"
    assert step_of(checkpoint) == STOP_AFTER
    assert (said["size"], said["stopped"]) == (2, Code.TRAINING_STOPPED)  # although only the other one wanted it
    assert furthest(in_single(), resumed(checkpoint).state_dict()) < 1e-3


def test_a_killed_process_ends_the_other_with_a_typed_error_and_leaves_a_checkpoint(folder: Path, said: dict[str, Any]):
    checkpoint = folder / "checkpoints" / "of-killed"
    assert said["killed"] == Code.TRAINING_KILLED
    assert step_of(checkpoint) == 2
    rest = distil(toy_student(), drawn_teaching(), replace(SETTINGS, checkpoint_every=2), checkpoint=checkpoint)
    assert furthest(in_single(), rest.state_dict()) < 1e-3


def step_of(checkpoint: Path) -> int:
    with safe_open(checkpoint, "pt") as state:
        return json.loads(state.metadata()["training"])["step"]


def test_the_command_started_by_torchrun_makes_one_package_and_says_everything_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    manifest = draw_manifest(tmp_path / "data", range(10), 6)
    torch.manual_seed(0)
    spec = TeacherSpec(channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1), dimension=16)
    (tmp_path / "t.safetensors").write_bytes(teacher_file(TeacherNetwork(spec), "small", {}))
    words = ["distil", manifest, "--teacher", tmp_path / "t.safetensors", "--steps", 3, "--batch", 9, "--device", "cpu"]
    words += ["--signer", tmp_path / "signer.pem", "--seal-key", tmp_path / "impostors.key", "--json", "--out"]
    ended = torchrun("-m", "tutelage", *words, tmp_path / "two.tutelage", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("distilling the student: 3 of 3 steps") == 1
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in (*words, tmp_path / "one.tutelage")])
    assert not done.value.code
    two, one = json.loads(ended.stdout), json.loads(capfd.readouterr().out)
    assert (two["persons"], two["captures"], two["resumed"]) == (one["persons"], one["captures"], False)
    inputs = to_input(read_cohort(manifest, Split.DISTIL, 0).cohort.captures, 64)
    trusted = [read_public_key(tmp_path / "signer.pub")]
    packages = [read_package(tmp_path / f"{name}.tutelage", trusted=trusted) for name in ("one", "two")]
    first, second = (Recogniser.of_package(package).every_readout(inputs) for package in packages)
    for readout in first.keys() & second.keys():
        assert (first[readout] * second[readout]).sum(1).min() > 0.999, readout
    assert "exit1" in first.keys() & second.keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("data", "impostors.key", "one.tutelage", "signer.pem", "signer.pub", "t.safetensors", "two.tutelage")
    ]
