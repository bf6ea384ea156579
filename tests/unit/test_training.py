"""A training on disk and its process seen from the device, as far as no process is needed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from toy_device import STORE_KEY, toy_job

from device_sim.job import JOB, RESULT, seal_result
from device_sim.training import Budget, Training
from tutelage.errors import Code, StorageError, TutelageError

BUDGET = Budget(seconds=60.0)
SUMMARY = {"seconds": 1.0, "samples": 2}


def code_of(action) -> Code:
    with pytest.raises(TutelageError) as caught:
        action()
    return caught.value.code


def prepared(folder: Path, **changes: object) -> Training:
    return Training.prepare(folder / "jobs" / "v1+1", toy_job(**changes), STORE_KEY, BUDGET)


def test_a_prepared_job_is_found_again(tmp_path: Path):
    training = prepared(tmp_path)
    found = Training.found(training.folder, STORE_KEY, BUDGET)
    assert found.descent == training.descent == toy_job().descent
    assert not found.running()
    assert training.folder.stat().st_mode & 0o077 == 0


def test_nothing_of_an_earlier_job_is_left_where_a_new_one_is_prepared(tmp_path: Path):
    folder = tmp_path / "jobs" / "v1+1"
    folder.mkdir(parents=True)
    for name in ("checkpoint.sealed", "result.sealed", "worker.log", ".tutelage-00.tmp"):
        (folder / name).write_bytes(b"old")
    prepared(tmp_path)
    assert [path.name for path in folder.iterdir()] == [JOB]


def test_a_key_shows_in_no_text(tmp_path: Path):
    assert STORE_KEY.hex() not in repr(prepared(tmp_path))
    assert repr(STORE_KEY) not in repr(prepared(tmp_path))


def test_a_result_that_is_there_already_needs_no_process(tmp_path: Path):
    training = prepared(tmp_path)
    (training.folder / RESULT).write_bytes(seal_result(b"weights", SUMMARY, STORE_KEY))
    training.start()
    assert not training.running()
    trained = training.wait()
    assert (trained.weights, trained.summary) == (b"weights", SUMMARY)
    assert not (training.folder / "worker.log").exists()


def test_a_damaged_result_is_a_typed_failure(tmp_path: Path):
    training = prepared(tmp_path)
    (training.folder / RESULT).write_bytes(seal_result(b"weights", SUMMARY, STORE_KEY)[:-1] + b"x")
    training.start()
    assert code_of(training.wait) is Code.STORE_CORRUPT


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda folder: (folder / JOB).unlink(), Code.STORAGE_FAILED),
        (lambda folder: (folder / JOB).write_bytes(b""), Code.STORE_CORRUPT),
        (lambda folder: (folder / JOB).write_bytes(toy_job().sealed(bytes(32))), Code.KEY_WRONG),
    ],
)
def test_a_job_that_cannot_be_taken_up_says_why(tmp_path: Path, spoil, code: Code):
    folder = prepared(tmp_path).folder
    spoil(folder)
    assert code_of(lambda: Training.found(folder, STORE_KEY, BUDGET)) is code


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path):
    (tmp_path / "jobs").write_text("a file")
    with pytest.raises(StorageError) as caught:
        prepared(tmp_path)
    assert caught.value.code is Code.STORAGE_FAILED


def test_whatever_else_is_printed_is_no_progress(tmp_path: Path):
    training = prepared(tmp_path)
    training._read(
        io.BytesIO(b'hello\n{"step": 3, "steps": 9}\n[1]\n\xff\n"text"\n{"error": "usage", "message": "m"}\n')
    )
    assert training.last == {"step": 3, "steps": 9, "error": "usage", "message": "m"}


def test_ending_and_discarding_what_never_ran_does_no_harm(tmp_path: Path):
    training = prepared(tmp_path)
    training.kill()
    training.discard()
    assert not training.folder.exists()
    training.discard()
