"""Batches of images before worn sensors: decided by the step, varied, standardised, labels kept."""

from __future__ import annotations

import torch

from device_sim.synthetic import Range
from device_sim.worn_batches import WornBatches

NONE = Range(wear=0, dirt=0, moisture=0, blur=0, gain=0)
HARD = Range(wear=0.8, dirt=0.5, moisture=0, blur=1.0, gain=0.5)


def batches(conditions: Range, seed: int = 3) -> WornBatches:
    images = torch.zeros(6, 1, 64, 64)
    for i in range(6):
        images[i, 0, :, 8 * i : 8 * i + 10] = 1.0
    return WornBatches(images, torch.arange(6) // 2, seed, conditions)


def test_a_batch_is_decided_by_its_step() -> None:
    first, again, next_one = batches(HARD).batch(5, 8), batches(HARD).batch(5, 8), batches(HARD).batch(6, 8)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], next_one[0])


def test_inputs_are_standardised_and_labels_are_persons() -> None:
    inputs, labels = batches(HARD).batch(0, 32)
    assert inputs.shape == (32, 1, 64, 64)
    assert torch.allclose(inputs.mean(dim=(1, 2, 3)), torch.zeros(32), atol=1e-4)
    assert torch.allclose(inputs.square().mean(dim=(1, 2, 3)), torch.ones(32), atol=1e-3)
    assert set(labels.tolist()) == {0, 1, 2}
    assert batches(HARD).persons == 3


def test_the_more_a_sensor_is_worn_the_less_is_left_of_the_image() -> None:
    clean, labels = batches(NONE).batch(1, 64)
    left = []
    for share in (0.25, 0.5, 1.0):
        worn, same = batches(Range(wear=0.8 * share, dirt=0.5 * share, moisture=0, blur=share, gain=0)).batch(1, 64)
        assert torch.equal(labels, same)
        left.append(float((worn * clean).mean()))  # both standardised: their correlation
    assert 1 > left[0] > left[1] > left[2] > 0
