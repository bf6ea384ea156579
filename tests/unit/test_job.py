"""Jobs and results on a device's disk: what goes in comes out, sealed; nothing else opens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy_device import STORE_KEY, finger, toy_job
from toy_networks import TOY

from device_sim.job import JOB, RESULT, Descent, TrainingJob, open_result, seal_result
from tutelage.captures import encode_png
from tutelage.errors import Code, StorageError
from tutelage.sealing import open_sealed, seal

OTHER_KEY = bytes(32)
ARRAYS = ("inputs", "targets", "weights", "references", "reference_labels")


def refusal(action) -> Code:
    with pytest.raises(StorageError) as caught:
        action()
    return caught.value.code


def test_a_job_comes_back_as_it_was():
    job = toy_job(preset="byot", steps=7)
    again = TrainingJob.open(job.sealed(STORE_KEY), STORE_KEY)
    assert (again.descent, again.spec, again.weights, again.settings) == (job.descent, TOY, job.weights, job.settings)
    assert (again.threads, again.memory_bytes) == (1, job.memory_bytes)
    for name in ARRAYS:
        ours, theirs = getattr(job.training_set, name), getattr(again.training_set, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert again.training_set.digest() == job.training_set.digest()


def test_arrays_that_may_not_be_written_to_or_are_no_rows_of_memory_are_taken_too():
    job = toy_job()
    turned = np.asfortranarray(job.training_set.inputs)
    turned.setflags(write=False)
    odd = replace(job, training_set=replace(job.training_set, inputs=turned))
    again = TrainingJob.open(odd.sealed(STORE_KEY), STORE_KEY)
    np.testing.assert_array_equal(again.training_set.inputs, job.training_set.inputs)


def test_a_result_comes_back_as_it_was():
    weights, summary = bytes(range(256)), {"losses": {"loss": 0.5}, "steps_run": 3, "seconds": 1.25}
    assert open_result(seal_result(weights, summary, STORE_KEY), STORE_KEY) == (weights, summary)


@pytest.mark.parametrize("make", [lambda: toy_job().sealed(STORE_KEY), lambda: seal_result(b"w", {}, STORE_KEY)])
def test_another_key_a_flipped_bit_and_a_cut_are_told_apart(make):
    data = make()
    reader = TrainingJob.open if len(data) > 1000 else open_result
    assert refusal(lambda: reader(data, OTHER_KEY)) is Code.KEY_WRONG
    for place in (40, len(data) // 2, len(data) - 1):
        broken = bytearray(data)
        broken[place] ^= 1
        assert refusal(lambda broken=broken: reader(bytes(broken), STORE_KEY)) is Code.STORE_CORRUPT
    for length in (0, 10, len(data) - 1):
        assert refusal(lambda length=length: reader(data[:length], STORE_KEY)) is Code.STORE_CORRUPT


def test_a_job_does_not_pass_for_a_result_nor_a_result_for_a_job():
    job, result = toy_job().sealed(STORE_KEY), seal_result(b"w", {}, STORE_KEY)
    assert refusal(lambda: open_result(job, STORE_KEY)) is Code.STORE_CORRUPT
    assert refusal(lambda: TrainingJob.open(result, STORE_KEY)) is Code.STORE_CORRUPT


@pytest.mark.parametrize(
    "plain",
    [b"", b"no tensors", b"\x08\0\0\0\0\0\0\0{}      ", seal_result(b"w", {"spec": {}}, STORE_KEY)],
    ids=["empty", "text", "no about", "sealed twice"],
)
def test_what_is_sealed_rightly_but_laid_out_otherwise_is_refused(plain: bytes):
    assert refusal(lambda: TrainingJob.open(seal(plain, STORE_KEY, purpose=JOB), STORE_KEY)) is Code.STORE_CORRUPT
    assert refusal(lambda: open_result(seal(plain, STORE_KEY, purpose=RESULT), STORE_KEY)) is Code.STORE_CORRUPT


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"preset": "patent"', b'"preset": "pa-ent"'),
        (b'"steps":', b'"stepz":'),
        (b'"parent":', b'"pirent":'),
        (b'"threads":', b'"thriads":'),
        (b'"squeeze": 4', b'"squeeze": 0'),
    ],
)
def test_a_job_of_another_release_is_refused_and_not_half_understood(old: bytes, new: bytes):
    plain = open_sealed(toy_job().sealed(STORE_KEY), STORE_KEY, purpose=JOB)
    assert plain.count(old) == 1
    changed = seal(plain.replace(old, new), STORE_KEY, purpose=JOB)
    assert refusal(lambda: TrainingJob.open(changed, STORE_KEY)) is Code.STORE_CORRUPT


def test_neither_inputs_nor_names_nor_pictures_can_be_read_from_a_sealed_job():
    job = toy_job(descent=Descent("v7+3", "sha256:" + "a" * 64, 5))
    data = job.sealed(STORE_KEY)
    for row in job.training_set.inputs[:3]:
        assert row.tobytes()[:64] not in data
    assert encode_png(finger(0, 50, 0.4))[8:40] not in data
    assert job.weights[200:264] not in data
    assert b"v7+3" not in data
    assert data != job.sealed(STORE_KEY)
