"""The simulated sensor: knobs that each do what they say, on drawn fingers and on images of any kind."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from pressed_fingers import CLEAN, FADING, FIXED, SCRATCH, SEED, SOIL, likeness, sensed, texture

from device_sim.sensor import SIDE, Condition, Sensor, sensor_patterns

# Knobs


def test_knobs_come_in_the_order_of_the_fields():
    np.testing.assert_array_equal(Condition(0.1, 0.2, 0.3, 0.4, 0.5).as_array(), np.float32([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert CLEAN.as_array().tolist() == [0.0] * 5


def test_a_new_sensor_shows_what_lies_on_it_but_for_a_little_noise(rng: np.random.Generator):
    image = texture(rng, 48, 80) / 255
    marked = sensor_patterns(SEED, [3])[0]
    np.testing.assert_allclose(sensed(image, pattern=marked), image, atol=1e-6)
    noisy = sensed(image, pattern=marked, noise=2.0)
    np.testing.assert_allclose(noisy, np.clip(image + 2 * 0.025, 0, 1), atol=1e-6)


def test_patterns_belong_to_the_sensor_and_cannot_be_changed_for_others():
    both, alone = sensor_patterns(SEED, [1, 2]), sensor_patterns(SEED, [2])
    np.testing.assert_array_equal(both[1:], alone)
    assert not np.array_equal(both[0], both[1])
    assert not np.array_equal(sensor_patterns(SEED + 1, [2]), alone)
    wanted = alone.copy()
    alone[:] = 0
    np.testing.assert_array_equal(sensor_patterns(SEED, [2]), wanted)


@pytest.mark.parametrize("number", range(5))
def test_wear_only_ever_adds_scratches(number: int):
    pattern = sensor_patterns(SEED, [number])[0].copy()
    pattern[FIXED] = 0
    even = np.full((SIDE, SIDE), 0.4)  # no contrast to lose: what changes is scratched
    scratched = [sensed(even, pattern=pattern, wear=w) > 0.6 for w in np.linspace(0, 1, 11)]
    assert not scratched[0].any()
    for less, more in itertools.pairwise(scratched):
        assert not (less & ~more).any()
    counts = [int(s.sum()) for s in scratched]
    assert counts[5] > counts[1]
    assert 0.05 < scratched[-1].mean() < 0.6


def test_wear_takes_contrast_most_where_the_sensor_fades(rng: np.random.Generator):
    image = 0.3 + 0.3 * texture(rng, SIDE, SIDE) / 255
    pattern = np.zeros((4, SIDE, SIDE), np.float32)
    pattern[SCRATCH], pattern[FADING, :, 32:] = 9.0, 1.0
    light = image.mean()
    for wear in (0.2, 0.7, 1.0):
        worn = sensed(image, pattern=pattern, wear=wear)
        np.testing.assert_allclose(worn[:, :32], light + (image - light)[:, :32] * (1 - 0.35 * wear), atol=1e-5)
        np.testing.assert_allclose(worn[:, 32:], light + (image - light)[:, 32:] * (1 - 0.90 * wear), atol=1e-5)


def test_wear_adds_noise_of_the_sensor_and_of_the_capture():
    even = np.full((SIDE, SIDE), 0.5)
    pattern = sensor_patterns(SEED, [0])[0].copy()
    pattern[SCRATCH] = 9.0
    fixed_only = sensed(even, pattern=pattern, wear=1.0)
    np.testing.assert_allclose(fixed_only, np.clip(0.5 + 0.07 * pattern[FIXED], 0, 1), atol=1e-5)
    lifted = sensed(even, pattern=pattern, wear=1.0, noise=1.0)
    np.testing.assert_allclose(lifted, np.clip(0.5 + 0.07 * pattern[FIXED] + 0.095, 0, 1), atol=1e-5)


def test_dirt_darkens_where_its_pattern_is_and_nowhere_else(rng: np.random.Generator):
    image = texture(rng, SIDE, SIDE) / 255
    pattern = sensor_patterns(SEED, [4])[0]
    soiled = pattern[SOIL] > 0
    assert 0.02 < soiled.mean() < 0.98
    former = image
    for dirt in (0.3, 0.6, 1.0):
        dirty = sensed(image, pattern=pattern, dirt=dirt)
        np.testing.assert_allclose(dirty, image * (1 - 0.75 * dirt * pattern[SOIL]), atol=1e-5)
        visible = soiled & (image > 0)
        assert (dirty[visible] < former[visible]).all()
        former = dirty


def test_blur_takes_the_high_frequencies_and_keeps_the_light(rng: np.random.Generator):
    image = 0.2 + 0.6 * rng.random((SIDE, SIDE))
    coarse = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)) < 0.25
    energy, kept = [], []
    for blur in (0.0, 0.5, 1.0, 2.0):
        power = np.abs(np.fft.fft2(sensed(image, blur=blur))) ** 2
        energy.append(power[~coarse].sum())
        kept.append(power[0, 0] / SIDE**4)
    assert np.all(np.diff(energy) < 0)
    assert energy[-1] < 0.01 * energy[0]
    np.testing.assert_allclose(kept, image.mean() ** 2, rtol=0.02)


def test_blur_is_a_gaussian(rng: np.random.Generator):
    """Explicit loop over neighbours three pixels around, borders repeated."""
    image, sigma = rng.random((SIDE, SIDE)), 1.3
    blurred = sensed(image, blur=sigma)
    for row, column in [(0, 0), (30, 17), (63, 40), (5, 63)]:
        total = weight = 0.0
        for dy in range(-3, 4):
            for dx in range(-3, 4):
                share = math.exp(-(dy * dy + dx * dx) / (2 * sigma**2))
                total += share * image[min(max(row + dy, 0), SIDE - 1), min(max(column + dx, 0), SIDE - 1)]
                weight += share
        assert blurred[row, column] == pytest.approx(total / weight, abs=1e-5)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_blur_is_as_strong_on_large_images(scale: int):
    """The same edge, however many pixels show it, is as wide in units of the image."""
    edge = np.zeros((SIDE, SIDE * scale))
    edge[:, SIDE * scale // 2 :] = 1.0
    profile = sensed(edge, blur=1.5)[32]
    spread = np.diff(profile)
    positions = np.arange(len(spread)) / scale
    centre = np.average(positions, weights=spread)
    width = math.sqrt(np.average((positions - centre) ** 2, weights=spread))
    # A standard deviation of 1.5, cut off 3 pixels to each side; the last tap reaches half a pixel further, which
    # counts most on the smallest image.
    assert width == pytest.approx(1.36, abs=0.06)


def test_gain_multiplies_contrast_by_powers_of_two_and_shifts_the_light(rng: np.random.Generator):
    image = 0.45 + 0.2 * rng.random((SIDE, SIDE))
    for gain in (-1.0, -0.3, 0.4, 1.0):
        amplified = sensed(image, gain=gain)
        np.testing.assert_allclose(amplified, 0.55 + (image - 0.55) * 2**gain + 0.18 * gain, atol=1e-5)
        assert amplified.std() == pytest.approx(image.std() * 2**gain, rel=1e-3)


@pytest.mark.parametrize("knobs", [{"wear": 1.0}, {"dirt": 1.0}, {"blur": 2.0}, {"gain": 1.0}, {"gain": -1.0}])
def test_whatever_the_knobs_the_output_stays_in_range(knobs: dict[str, float], rng: np.random.Generator):
    pattern = sensor_patterns(SEED, [5])[0]
    for noise in (-5.0, 5.0):
        seen = sensed(rng.integers(0, 2, (33, 47)), pattern=pattern, noise=noise, **knobs)
        assert seen.shape == (33, 47)
        assert 0 <= seen.min() <= seen.max() <= 1


# Real images


@pytest.mark.parametrize("shape", [(8, 8), (9, 13), (64, 64), (112, 92), (101, 57), (256, 255), (31, 33, 3)])
def test_images_of_any_size_are_seen_in_their_size(shape: tuple[int, ...], rng: np.random.Generator):
    image = texture(rng, *shape)
    sensor = Sensor(SEED, 1)
    clean, worn = sensor.observe(image, CLEAN, 0), sensor.observe(image, Condition(wear=0.7, dirt=0.5, blur=0.6), 0)
    for seen in (clean, worn):
        assert seen.dtype == np.uint8
        assert seen.shape == shape
    assert likeness(clean, image) > 0.97 > likeness(worn, image)
    assert np.abs(clean.astype(int) - image).max() <= math.ceil(255 * 0.025 * 5)  # noise of five standard deviations


def test_a_moment_decides_the_noise(rng: np.random.Generator):
    image, sensor, worn = texture(rng, 70, 50), Sensor(SEED, 1), Condition(wear=0.4)
    first = sensor.observe(image, worn, 3)
    np.testing.assert_array_equal(first, sensor.observe(image, worn, 3))
    assert not np.array_equal(first, sensor.observe(image, worn, 4))
    assert not np.array_equal(first, Sensor(SEED, 2).observe(image, worn, 3))


def test_colours_are_seen_alike(rng: np.random.Generator):
    grey, worn = texture(rng, 40, 60), Condition(wear=0.5, dirt=0.5, blur=0.4, gain=0.2)
    sensor = Sensor(SEED, 1)
    colour = sensor.observe(np.repeat(grey[..., None], 3, axis=2), worn, 0)
    np.testing.assert_array_equal(colour, np.repeat(sensor.observe(grey, worn, 0)[..., None], 3, axis=2))
    red = grey.copy()[..., None] * np.uint8([1, 0, 0])
    assert sensor.observe(red, CLEAN, 0)[..., 1:].mean() < 10


def test_a_real_image_is_not_mirrored_and_has_no_moisture(rng: np.random.Generator):
    image, sensor = texture(rng, 90, 90), Sensor(SEED, 1)
    seen = sensor.observe(image, CLEAN, 0)
    for mirrored in (image[:, ::-1], image[::-1], image.T):
        assert likeness(seen, mirrored) < 0.6 < likeness(seen, image)
    np.testing.assert_array_equal(seen, sensor.observe(image, Condition(moisture=-0.8), 0))


def test_the_callers_image_is_left_alone(rng: np.random.Generator):
    image = texture(rng, 20, 30)
    image.setflags(write=False)
    before = image.copy()
    Sensor(SEED, 1).observe(image, Condition(wear=0.5), 0)
    np.testing.assert_array_equal(image, before)
