"""Endless batches: decided by their step, standardised, within their range of conditions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from device_sim import synthetic
from device_sim.masters import grow_masters
from device_sim.synthetic import FULL_RANGE, GOOD_SENSORS, FingerprintBatches, FingerprintTeaching, Range
from tutelage.nn.teachers import ResidualTeacher, TeacherNetwork, TeacherSpec

SEED = 5
PERSONS = 4
TINY = TeacherSpec(channels=(2, 2), blocks=(1, 1), dimension=6)


@pytest.fixture(scope="module", autouse=True)
def _few_sensors():
    """Sixteen sensors instead of 512: drawing the marks of all takes longer than all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "_SENSORS", 16)
        yield


def batches(**changes: object) -> FingerprintBatches:
    return FingerprintBatches(**({"seed": SEED, "persons": PERSONS, "conditions": FULL_RANGE} | changes))


@pytest.fixture(scope="module")
def source(_few_sensors: None) -> FingerprintBatches:
    torch.set_num_threads(1)
    return batches()


@pytest.fixture(scope="module")
def teacher() -> ResidualTeacher:
    torch.manual_seed(0)
    return ResidualTeacher(TeacherNetwork(TINY), name="tiny", space="tiny", made={})


@pytest.mark.parametrize("limits", [FULL_RANGE, GOOD_SENSORS], ids=["full", "good"])
def test_conditions_fill_their_range_and_stay_in_it(limits: Range, rng: np.random.Generator):
    wear, dirt, moisture, blur, gain = limits.draw(rng, 4000).T
    for knob, bound in ((wear, limits.wear), (dirt, limits.dirt), (blur, limits.blur)):
        assert 0 <= knob.min() < 0.01 * bound
        assert 0.95 * bound < knob.max() <= np.float32(bound)
    for knob, bound in ((moisture, limits.moisture), (gain, limits.gain)):
        assert -np.float32(bound) <= knob.min() < -0.95 * bound
        assert 0.95 * bound < knob.max() <= np.float32(bound)
        assert abs(knob.mean()) < 0.05 * bound


def test_wear_is_spread_evenly_and_the_other_knobs_grow_with_it(rng: np.random.Generator):
    wear, dirt, _, blur, _ = FULL_RANGE.draw(rng, 4000).T
    counts = np.histogram(wear, bins=10, range=(0, FULL_RANGE.wear))[0]
    assert np.abs(counts - 400).max() < 4 * np.sqrt(400 * 0.9)
    for knob, bound in ((dirt, FULL_RANGE.dirt), (blur, FULL_RANGE.blur)):
        assert (knob <= np.float32(bound) * wear / FULL_RANGE.wear + 1e-6).all()


def test_a_released_student_has_not_seen_worn_sensors():
    for name, bound in vars(GOOD_SENSORS).items():
        assert bound < 0.5 * getattr(FULL_RANGE, name)


def test_inputs_are_standardised_and_labels_name_the_persons(source: FingerprintBatches):
    inputs, labels = source.batch(0, 64)
    assert inputs.shape == (64, 1, 64, 64)
    assert inputs.dtype == torch.float32
    assert set(labels.tolist()) == set(range(PERSONS))
    torch.testing.assert_close(inputs.mean(dim=(1, 2, 3)), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(inputs.square().mean(dim=(1, 2, 3)), torch.ones(64), atol=1e-4, rtol=0)


def test_a_step_decides_its_batch_whenever_and_however_often_it_is_asked(source: FingerprintBatches):
    wanted = [source.batch(step, 6) for step in (0, 1, 2)]
    again = source.batch(1, 6)
    other = batches().batch(1, 6)
    for inputs, labels in (again, other):
        torch.testing.assert_close(inputs, wanted[1][0], atol=0, rtol=0)
        assert labels.tolist() == wanted[1][1].tolist()
    assert not torch.equal(wanted[0][0], wanted[1][0])
    assert not torch.equal(batches(seed=SEED + 1).batch(1, 6)[0], wanted[1][0])


def test_the_first_person_says_whose_masters_are_shown():
    alone = batches(first=2, persons=2, conditions=Range(0, 0, 0, 0, 0))
    inputs, labels = alone.batch(0, 8)
    torch.testing.assert_close(alone._masters, grow_masters(SEED, [2, 3]))
    assert set(labels.tolist()) == {0, 1}
    same = np.corrcoef(inputs.flatten(1).numpy())
    assert np.isfinite(same).all()


def test_good_sensors_change_a_finger_less_than_the_full_range():
    """The same presses, seen by sensors of both ranges: the mean likeness to a perfect sensor tells them apart."""
    perfect, good, full = (
        batches(conditions=c).batch(3, 32)[0] for c in (Range(0, 0, 0, 0, 0), GOOD_SENSORS, FULL_RANGE)
    )
    near, far = ((perfect * seen).mean(dim=(1, 2, 3)) for seen in (good, full))
    assert near.mean() > 0.9
    assert far.mean() < near.mean() - 0.1


def test_the_teacher_sees_what_the_student_sees(source: FingerprintBatches, teacher: ResidualTeacher):
    teaching = FingerprintTeaching(source, teacher, torch.zeros(PERSONS, TINY.dimension))
    inputs, labels, features = teaching.taught(4, 8)
    expected, expected_labels = source.batch(4, 8)
    torch.testing.assert_close(inputs, expected, atol=0, rtol=0)
    assert labels.tolist() == expected_labels.tolist()
    torch.testing.assert_close(features, teacher.vectors(expected))
    assert teaching.persons == PERSONS


def test_centres_are_unit_means_of_each_persons_features(source: FingerprintBatches, teacher: ResidualTeacher):
    centres = FingerprintTeaching.of(source, teacher, captures_each=8).centres
    inputs, labels = source.batch(1_000_000, 256)
    features = teacher.vectors(inputs)
    for person in range(PERSONS):
        mean = features[labels == person].mean(dim=0)
        torch.testing.assert_close(centres[person], mean / mean.norm(), atol=1e-5, rtol=0)
