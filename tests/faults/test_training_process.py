"""Trainings in real processes: killed, starved, out of time and out of disk, and whole again afterwards."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from toy_device import STORE_KEY, finger, toy_job

from device_sim.activity import Activity
from device_sim.confinement import peak_bytes
from device_sim.job import CHECKPOINT, JOB, RESULT, open_result
from device_sim.training import LOG, Budget, Training
from device_sim.worker import EXIT_PARENT_GONE, work
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
    confinement = json.loads(process.stdout.readline())["confinement"]
    assert confinement == {"memory": "rlimit", "memory_bytes": 2**31, "threads": 1, "niceness": 19}
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


def test_the_kernel_refuses_a_worker_more_memory_than_its_budget(tmp_path: Path):
    training = prepared(tmp_path, Budget(seconds=120.0, memory_bytes=2**27))  # less than torch alone takes
    training.start()
    with pytest.raises(TrainingError, match="128 MiB are allowed") as caught:
        training.wait()
    assert caught.value.code is Code.TRAINING_BUDGET
    assert training.last.get("step", 0) == 0, "it was not the look at the first step that found it"
    assert (training.folder / JOB).exists()


def test_a_worker_computes_in_as_many_threads_as_it_may(tmp_path: Path):
    training = prepared(tmp_path, steps=100_000)
    training.start()
    wait_for(lambda: training.last.get("step", 0) >= 30)
    process = psutil.Process(training._process.pid)
    assert training.confinement["threads"] == 1
    busy = [thread for thread in process.threads() if thread.user_time + thread.system_time > 0.2]
    assert len(busy) == 1, process.threads()
    training.kill()


def test_a_second_worker_leaves_the_job_to_the_first(tmp_path: Path):
    training = prepared(tmp_path, steps=100_000)
    training.start()
    wait_for(lambda: training.last.get("step", 0) >= 1)
    second = Training.found(training.folder, STORE_KEY, BUDGET)
    second.start()
    with pytest.raises(TrainingError, match="another worker") as caught:
        second.wait()
    assert CATALOGUE[caught.value.code].retryable
    step = training.last["step"]
    wait_for(lambda: training.last["step"] > step)
    training.kill()
    third = Training.found(training.folder, STORE_KEY, BUDGET)
    third.start()
    wait_for(lambda: third.last.get("step", 0) > step)
    third.kill()


def test_a_worker_stands_still_while_somebody_is_recognised_and_its_time_with_it(tmp_path: Path):
    activity, training = Activity(), prepared(tmp_path, Budget(seconds=120.0, memory_bytes=2**31), steps=100_000)
    training.start(activity)
    process = psutil.Process(training._process.pid)
    wait_for(lambda: training.last.get("step", 0) >= 1)
    with activity.busy():
        assert process.status() == psutil.STATUS_STOPPED
        time.sleep(0.1)  # for what it had said already
        step = training.last["step"]
        time.sleep(0.5)
        assert training.last["step"] == step
        assert training._giving_way.stopped_s > 0.6
        training.clock = lambda: training._deadline + 0.5
        assert training.running(), "the time that it stood still is not its own"
        training.clock = time.monotonic
    assert process.status() == psutil.STATUS_STOPPED, "captures come in bursts"
    wait_for(lambda: training.last["step"] > step)
    with activity.busy():
        training.kill()
    assert not process.is_running()


DEVICE = """
import sys, time
from pathlib import Path
from device_sim.activity import Activity
from device_sim.training import Budget, Training
training = Training.found(Path(sys.argv[1]), bytes.fromhex(sys.argv[2]), Budget(seconds=120.0, memory_bytes=2**31))
activity = Activity()
training.start(activity)
while training.last.get("step", 0) < 1:
    time.sleep(0.01)
with activity.busy():
    print(training._process.pid, flush=True)
    time.sleep(600)
"""


def test_a_worker_that_stands_still_dies_with_its_device(tmp_path: Path):
    training = prepared(tmp_path, steps=100_000)
    words = [sys.executable, "-c", DEVICE, str(training.folder), STORE_KEY.hex()]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as device:
        told = iter(device.stdout.readline, b"")
        worker = psutil.Process(next(int(line) for line in told if line.strip().isdigit()))
        assert worker.status() == psutil.STATUS_STOPPED
        device.kill()
    wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, 10)
    training = Training.found(training.folder, STORE_KEY, BUDGET)
    training.start()
    wait_for(lambda: training.last.get("step", 0) >= 2)
    training.kill()


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
