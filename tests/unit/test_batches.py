"""Batches are decided by seed and step alone, balanced by person, and never show a mirrored image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_networks import toy_batches, toy_images

from tutelage.captures import to_input
from tutelage.nn.batches import Augmentation, InputBatches, label_numbers, standardise

STILL = Augmentation(shift=0, degrees=0, zoom=0, contrast=0, noise=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lopsided(side: int = 48) -> Tensor:
    """A smooth pattern, (1, 1, side, side), that looks like none of its mirror images or quarter turns."""
    coarse = torch.randn(1, 1, 5, 5, generator=generator(10))
    return standardise(torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic", align_corners=True))


def dot_at(x: float, y: float, side: int = 64) -> Tensor:
    """A soft dot at (x, y) in pixels, (1, 1, side, side)."""
    grid = torch.arange(side) + 0.5
    return torch.exp(-((grid[None, :] - x) ** 2 + (grid[:, None] - y) ** 2) / 18)[None, None]


def centre_of_dot(image: Tensor) -> tuple[float, float]:
    """Centre (x, y) in pixels of the one dot in (1, H, W)."""
    weight = (image[0] - image.min()) ** 4
    grid = torch.arange(len(weight)) + 0.5
    return (
        float((weight.sum(0) * grid).sum() / weight.sum()),
        float((weight.sum(1) * grid).sum() / weight.sum()),
    )


class TestStandardise:
    def test_mean_zero_variance_one(self):
        found = standardise(3 + 20 * torch.randn(4, 1, 9, 9, generator=generator()))
        np.testing.assert_allclose(found.mean(dim=(1, 2, 3)).numpy(), 0, atol=1e-5)
        np.testing.assert_allclose(found.square().mean(dim=(1, 2, 3)).numpy(), 1, rtol=1e-5)

    def test_it_agrees_with_the_captures_way(self, rng: np.random.Generator):
        captures = [rng.integers(0, 256, (32, 32), dtype=np.uint8) for _ in range(3)]
        images = torch.from_numpy(np.stack(captures)[:, None].astype(np.float32))
        np.testing.assert_allclose(standardise(images).numpy(), to_input(captures, 32), atol=1e-5)

    def test_a_constant_image_becomes_zeros(self):
        assert standardise(torch.full((1, 1, 4, 4), 7.0)).eq(0).all()


class TestAugmentation:
    def test_none_at_all_is_the_image_itself(self):
        images, _ = toy_images(3, 2)
        np.testing.assert_allclose(STILL.apply(images, generator()).numpy(), images.numpy(), atol=1e-5)

    def test_it_is_decided_by_its_generator(self):
        images, _ = toy_images(3, 2)
        found = [Augmentation().apply(images, generator(seed)) for seed in (1, 1, 2)]
        assert torch.equal(found[0], found[1])
        assert not torch.allclose(found[0], found[2], atol=0.1)

    def test_images_stay_standardised_and_the_originals_as_they_were(self):
        images, _ = toy_images(3, 2)
        before = images.clone()
        found = Augmentation().apply(images, generator())
        np.testing.assert_allclose(found.square().mean(dim=(1, 2, 3)).numpy(), 1, rtol=1e-4)
        assert torch.equal(images, before)

    def test_no_image_is_ever_mirrored_or_turned_over(self):
        original = lopsided()[0, 0]
        others = {
            "left to right": original.flip(1),
            "upside down": original.flip(0),
            "half a turn": original.flip(0, 1),
            "transposed": original.T,
            "quarter turn": original.rot90(1),
            "three quarters": original.rot90(3),
        }
        changed = Augmentation().apply(lopsided().expand(300, -1, -1, -1), generator())[:, 0]
        own = (changed * original).mean(dim=(1, 2))
        for name, other in others.items():
            assert (own > (changed * other).mean(dim=(1, 2))).all(), name

    def test_a_mirrored_image_would_have_been_noticed(self):
        mirrored = Augmentation().apply(lopsided().flip(3).expand(50, -1, -1, -1), generator())[:, 0]
        original = lopsided()[0, 0]
        assert ((mirrored * original).mean(dim=(1, 2)) < (mirrored * original.flip(1)).mean(dim=(1, 2))).all()

    def test_shift_is_a_share_of_the_side(self):
        moving = Augmentation(shift=0.1, degrees=0, zoom=0, contrast=0, noise=0)
        found = moving.apply(dot_at(32, 32).expand(200, -1, -1, -1), generator())
        offsets = np.array([centre_of_dot(image) for image in found]) - 32
        assert np.abs(offsets).max() <= 6.4 + 0.1
        assert (np.abs(offsets).max(0) > 5.8).all(), "both axes use the whole range"
        assert (offsets.max(0) > 5).all()
        assert (offsets.min(0) < -5).all()

    def test_degrees_are_degrees_either_way(self):
        turning = Augmentation(shift=0, degrees=8, zoom=0, contrast=0, noise=0)
        found = turning.apply(dot_at(52, 32).expand(200, -1, -1, -1), generator())
        angles = [np.degrees(np.arctan2(y - 32, x - 32)) for x, y in map(centre_of_dot, found)]
        assert -8.2 < min(angles) < -7
        assert 7 < max(angles) < 8.2

    def test_zoom_is_relative(self):
        zooming = Augmentation(shift=0, degrees=0, zoom=0.1, contrast=0, noise=0)
        found = zooming.apply(dot_at(52, 32).expand(200, -1, -1, -1), generator())
        radii = [x - 32 for x, _ in map(centre_of_dot, found)]
        assert 20 / 1.1 - 0.2 < min(radii) < 20 / 1.08
        assert 20 / 0.92 < max(radii) < 20 / 0.9 + 0.2

    def test_noise_is_at_most_its_share(self):
        image = lopsided().expand(100, -1, -1, -1)
        noisy = Augmentation(shift=0, degrees=0, zoom=0, contrast=0, noise=0.5).apply(image, generator())
        apart = (noisy - image).square().mean(dim=(1, 2, 3)).sqrt()
        assert 0.4 < float(apart.max()) < 0.52
        assert float(apart.min()) < 0.05


class TestInputBatches:
    def test_a_batch_follows_from_the_step_however_often_and_late_it_is_asked_for(self):
        forward, backward = toy_batches(), toy_batches()
        first = {step: forward.batch(step, 8) for step in range(6)}
        for step in reversed(range(6)):
            inputs, labels = backward.batch(step, 8)
            assert torch.equal(inputs, first[step][0])
            assert torch.equal(labels, first[step][1])

    @pytest.mark.parametrize("rows", [slice(0, 5), slice(5, 6), slice(6, 13)], ids=str)
    def test_a_row_is_the_same_whatever_other_rows_are_asked_for(self, rows: slice):
        source = toy_batches()
        images, labels = source.batch(7, 13)
        some, their = source.batch(7, 13, rows)
        torch.testing.assert_close(some, images[rows], rtol=0, atol=1e-5)
        assert torch.equal(their, labels[rows])

    def test_the_largest_seed_of_a_job_gives_batches_as_any_other(self):
        images, labels = toy_images(4, 3)
        first, same, other = (InputBatches(images, labels, seed).batch(3, 8)[0] for seed in (2**53 - 1, 2**53 - 1, 1))
        assert torch.equal(first, same)
        assert not torch.equal(first, other)

    def test_steps_and_seeds_differ(self):
        inputs = toy_batches().batch(0, 8)[0]
        assert not torch.equal(inputs, toy_batches().batch(1, 8)[0])
        assert not torch.equal(inputs, toy_batches(seed=4).batch(0, 8)[0])

    def test_global_random_numbers_have_no_say(self):
        torch.manual_seed(1)
        first = toy_batches().batch(3, 8)[0]
        torch.manual_seed(2)
        np.random.default_rng().random()
        assert torch.equal(first, toy_batches().batch(3, 8)[0])

    def test_inputs_are_the_chosen_rows_with_their_labels(self):
        images, labels = toy_images(6, 4)
        batches = InputBatches(images, labels, seed=3, augmentation=STILL)
        rows = batches.chosen(5, 16)
        found, numbers = batches.batch(5, 16)
        assert torch.equal(numbers, labels[rows])
        np.testing.assert_allclose(found.numpy(), images[rows].numpy(), atol=1e-5)

    def test_orientation_is_preserved_in_batches(self):
        batches = InputBatches(lopsided().expand(3, -1, -1, -1), torch.arange(3), seed=0)
        original = lopsided()[0, 0]
        for step in range(5):
            found = batches.batch(step, 16)[0][:, 0]
            assert ((found * original).mean(dim=(1, 2)) > (found * original.flip(1)).mean(dim=(1, 2))).all()

    def test_persons_with_many_images_do_not_outweigh(self):
        labels = torch.tensor([0] * 90 + [1] * 9 + [2])
        batches = InputBatches(torch.zeros(100, 1, 4, 4), labels, seed=0)
        drawn = np.concatenate([batches.chosen(step, 100).numpy() for step in range(30)])
        counts = np.bincount(labels.numpy()[drawn])
        assert counts.min() > 900
        assert set(drawn) == set(range(100)), "every image has its turn"

    def test_labels_need_no_order(self):
        labels = torch.tensor([2, 0, 1, 0, 2, 2])
        batches = InputBatches(torch.zeros(6, 1, 4, 4), labels, seed=0)
        drawn = labels[batches.chosen(0, 600)]
        assert torch.bincount(drawn).min() > 150

    def test_classes_are_counted_to_the_highest(self):
        assert InputBatches(torch.zeros(2, 1, 4, 4), torch.tensor([0, 4]), seed=0).persons == 5


@pytest.mark.parametrize(
    ("persons", "numbers", "names"),
    [
        (["bob", "ann", "bob", "zoe"], [1, 0, 1, 2], ("ann", "bob", "zoe")),
        (["10", "9", "10"], [0, 1, 0], ("10", "9")),
        (["ann"], [0], ("ann",)),
    ],
)
def test_persons_get_numbers_in_the_order_of_their_names(persons, numbers, names):
    found, order = label_numbers(persons)
    assert found.tolist() == numbers
    assert found.dtype == np.int64
    assert order == names
    assert [order[n] for n in found] == persons
