"""Trainings in real processes: killed, starved, out of time and out of disk, and whole again afterwards."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from toy_device import STORE_KEY, finger, toy_job

from device_sim.job import CHECKPOINT, JOB, RESULT, open_result
from device_sim.training import LOG, Budget, Training
from device_sim.worker import EXIT_PARENT_GONE, peak_bytes, work
from tutelage.captures import encode_png
from tutelage.errors import CATALOGUE, Code, StorageError, TrainingError

BUDGET = Budget(seconds=120.0, memory_bytes=2**31)
OTHER_KEY = bytes(32)


@pytest.fixture(autouse=True)
def _torch_as_before():
    """`work` is made for a process of its own: it changes how all of torch computes."""
    yield
    torch.use_deterministic_algorithms(False)


def prepared(folder: Path, budget: Budget = BUDGET, **changes: object) -> Training:
    return Training.prepare(folder / "v1+1", toy_job(memory_bytes=budget.memory_bytes, **changes), STORE_KEY, budget)


def worked(training: Training) -> tuple[bytes, dict]:
    """The job done in this process, undisturbed."""
    work(training.folder, STORE_KEY, io.StringIO())
    return open_result((training.folder / RESULT).read_bytes(), STORE_KEY)


def code_of(action: Callable[[], object], kind: type[Exception]) -> Code:
    with pytest.raises(kind) as caught:
        action()
    return caught.value.code


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.002)


def test_a_training_killed_at_random_moments_ends_with_the_weights_of_an_undisturbed_one(tmp_path: Path):
    expected, whole = worked(prepared(tmp_path / "undisturbed", steps=80))
    training, chance = prepared(tmp_path / "disturbed", steps=80), random.Random(os.urandom(8))
    folder, wanted = training.folder, chance.randint(2, 40)
    training.start()
    time.sleep(chance.random() * 0.3)  # before it has even read the job
    training.kill()
    assert code_of(training.result, TrainingError) is Code.TRAINING_KILLED
    training = Training.found(folder, STORE_KEY, BUDGET)
    training.start()
    wait_for(lambda: training.last.get("step", 0) >= wanted)
    os.kill(training._process.pid, signal.SIGKILL)
    with pytest.raises(TrainingError, match="status -9 after step") as caught:
        training.wait()
    assert caught.value.code is Code.TRAINING_KILLED
    assert CATALOGUE[Code.TRAINING_KILLED].retryable
    assert (folder / CHECKPOINT).exists()
    training = Training.found(folder, STORE_KEY, BUDGET)
    training.start()
    trained = training.wait()
    assert trained.weights == expected, f"killed after step {wanted}"
    assert 0 < trained.summary["steps_run"] < whole["steps_run"] == 80
    assert trained.summary["losses"] == whole["losses"]
    assert trained.summary["samples"] == 24


def test_nothing_in_a_jobs_folder_can_be_read_without_the_key(tmp_path: Path):
    training = prepared(tmp_path, steps=3)
    (training.folder / LOG).write_bytes(b"")
    weights, _ = worked(training)
    job = toy_job()
    assert {path.name for path in training.folder.iterdir()} == {JOB, CHECKPOINT, RESULT, LOG}
    secrets = [row.tobytes()[k : k + 24] for row in job.training_set.inputs for k in (0, 512)]
    secrets += [row.tobytes()[:24] for row in job.training_set.references]
    secrets += [encode_png(finger(0, 50, 0.4))[33:60], finger(0, 50, 0.4).tobytes()[:24]]
    secrets += [job.weights[-200:-176], weights[-200:-176], b"safetensors", b"descent", b"v1+1", b"\x89PNG"]
    for path in training.folder.iterdir():
        data = path.read_bytes()
        assert not [secret for secret in secrets if secret in data], path.name
    assert STORE_KEY.hex().encode() not in b"".join(path.read_bytes() for path in training.folder.iterdir())


def test_a_worker_whose_time_is_up_is_killed_and_its_job_kept(tmp_path: Path):
    now = [0.0]
    training = prepared(tmp_path, Budget(seconds=30.0, memory_bytes=2**31), steps=100_000)
    training.clock = lambda: now[0]
    training.start()
    process = psutil.Process(training._process.pid)
    wait_for(lambda: training.last.get("step", 0) >= 1)
    assert STORE_KEY.hex() not in " ".join(process.cmdline())
    assert process.nice() == 19
    now[0] = 29.9
    assert training.running()
    now[0] = 30.1
    assert not training.running()
    with pytest.raises(TrainingError, match="more than 30 s") as caught:
        training.wait()
    assert caught.value.code is Code.TRAINING_BUDGET
    assert not process.is_running()
    assert Training.found(training.folder, STORE_KEY, BUDGET).descent == training.descent


def test_a_worker_ends_when_nobody_listens_any_more(tmp_path: Path):
    training = prepared(tmp_path, steps=100_000)
    process = training._worker()
    process.stdin.write(STORE_KEY)
    process.stdin.close()
    first = json.loads(process.stdout.readline())
    assert (first["step"], first["steps"]) == (1, 100_000)
    assert set(first) >= {"bytes", "loss", "classification"}
    process.stdout.close()
    assert process.wait(60) == EXIT_PARENT_GONE
    assert (training.folder / JOB).exists()


def test_too_little_memory_is_a_typed_failure_and_the_job_stays(tmp_path: Path):
    training = prepared(tmp_path, Budget(memory_bytes=2**20))
    with pytest.raises(TrainingError, match="1 MiB are allowed") as caught:
        worked(training)
    assert caught.value.code is Code.TRAINING_BUDGET
    assert {path.name for path in training.folder.iterdir()} == {JOB}


def test_the_peak_is_that_of_this_process_and_only_grows():
    before = peak_bytes()
    assert psutil.Process().memory_info().rss * 0.9 <= before < 2**36
    held = bytearray(96 * 2**20)
    grown = peak_bytes()
    del held
    assert grown >= before
    assert peak_bytes() >= grown - 2**21  # the kernel counts in batches


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda folder: (folder / CHECKPOINT).write_bytes(b"half"), Code.CHECKPOINT_CORRUPT),
        (lambda folder: (folder / JOB).write_bytes(toy_job(seed=3).sealed(STORE_KEY)), Code.CHECKPOINT_CORRUPT),
        (lambda folder: (folder / JOB).write_bytes(b"half"), Code.STORE_CORRUPT),
        (lambda folder: (folder / JOB).unlink(), Code.STORAGE_FAILED),
    ],
    ids=["checkpoint", "another job's checkpoint", "job", "no job"],
)
def test_a_damaged_folder_is_refused_with_what_is_wrong(tmp_path: Path, spoil, code: Code):
    training = prepared(tmp_path, steps=2)
    worked(training)
    (training.folder / RESULT).unlink()
    spoil(training.folder)
    assert code_of(lambda: worked(training), StorageError) is code
    assert not (training.folder / RESULT).exists()


def test_the_key_of_another_store_opens_nothing(tmp_path: Path):
    training = prepared(tmp_path, steps=2)
    assert code_of(lambda: work(training.folder, OTHER_KEY, io.StringIO()), StorageError) is Code.KEY_WRONG
    worked(training)
    training.key = OTHER_KEY
    assert code_of(training.result, StorageError) is Code.KEY_WRONG


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 512 KiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    options = ["-t", "tmpfs", "-o", "size=512k", "tmpfs"]
    try:
        subprocess.run(["mount", *options, str(mount)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk is not permitted here")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_disk_that_fills_up_costs_no_checkpoint(small_disk: Path, tmp_path: Path):
    expected, _ = worked(prepared(tmp_path / "elsewhere"))
    training = prepared(small_disk)
    checkpoint, ballast = training.folder / CHECKPOINT, small_disk / "ballast"
    filled: list[bytes] = []

    class Filling(io.StringIO):
        """Fills the disk at the fifth step, when four checkpoints were written."""

        def write(self, text: str) -> int:
            if json.loads(text)["step"] == 5:
                filled.append(checkpoint.read_bytes())
                with pytest.raises(OSError, match="No space"):
                    ballast.write_bytes(bytes(2**20))
            return super().write(text)

    told = Filling()
    assert code_of(lambda: work(training.folder, STORE_KEY, told), StorageError) is Code.STORAGE_FULL
    assert len(told.getvalue().splitlines()) == 5
    assert checkpoint.read_bytes() == filled[0]
    assert {path.name for path in training.folder.iterdir()} == {JOB, CHECKPOINT}
    ballast.unlink()
    weights, summary = worked(training)
    assert (weights, summary["steps_run"]) == (expected, 8)
