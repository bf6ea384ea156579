"""The simulated sensor: presses decided by seed, person and number; knobs that each do what they say; any image."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from device_sim.masters import MASTER_SIDE, grow_masters
from device_sim.sensor import SIDE, Condition, Presses, Sensor, press_fingers, sense, sensor_patterns
from tutelage.captures import Pixels, check_capture

SEED = 7
PERSONS = 40
CLEAN = Condition()
CORNER = (MASTER_SIDE - SIDE) // 2
SCRATCH, FADING, SOIL, FIXED = range(4)


@pytest.fixture(scope="module")
def masters() -> torch.Tensor:
    """(40, 128, 128)."""
    torch.set_num_threads(1)
    return grow_masters(SEED, range(PERSONS))


def neutral(count: int, **changes: object) -> Presses:
    """Straight, evenly pressed, wholly in contact, clean and without noise, but for `changes`."""
    zeros = Presses.draw(np.random.default_rng(0), count)
    zeros = Presses(*(np.zeros_like(value) for value in vars(zeros).values()))
    contact = np.tile(np.float32([0, 0, 50, 50]), (count, 1))
    smudge = np.tile(np.float32([0, 0, 1, 0]), (count, 1))
    given = {name: np.broadcast_to(np.float32(v), getattr(zeros, name).shape).copy() for name, v in changes.items()}
    return dataclasses.replace(zeros, **({"contact": contact, "smudge": smudge} | given))


def pressed(master: torch.Tensor, moisture: float = 0.0, **changes: object) -> np.ndarray:
    """One press of `master`, (64, 64) in 0..1."""
    return press_fingers(master[None], neutral(1, **changes), torch.tensor([moisture]))[0, 0].numpy()


def sensed(image: np.ndarray, *, pattern: np.ndarray | None = None, noise: float = 0.0, **knobs: float) -> np.ndarray:
    """What a sensor with these `knobs` makes of one `image` (H, W) in 0..1; without `pattern` an even, unmarked one."""
    if pattern is None:
        pattern = np.zeros((4, SIDE, SIDE), np.float32)
        pattern[SCRATCH] = 9.0
    dials = torch.from_numpy(Condition(**knobs).as_array())[None]
    grain = torch.full((1, SIDE, SIDE), noise)
    seen = sense(torch.from_numpy(np.float32(image))[None, None], dials, torch.from_numpy(pattern)[None], grain)
    return seen[0, 0].numpy()


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1])


def texture(rng: np.random.Generator, *shape: int) -> Pixels:
    """An image without symmetry, with all greys."""
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), (2.0, 2.0, 0)[: len(shape)])
    low, high = smooth.min(), smooth.max()
    return np.rint((smooth - low) / (high - low) * 255).astype(np.uint8)


def dark_parts(image: np.ndarray) -> int:
    """Number of connected dark areas: whole ridges, or the pieces they broke into."""
    return int(ndimage.label(image < 0.5)[1])


# Presses


def test_a_press_is_decided_by_seed_person_and_number_alone():
    many = Presses.of(SEED, 3, [5, 0, 9])
    alone = Presses.of(SEED, 3, [9])
    assert len(many) == 3
    for name, value in vars(many).items():
        np.testing.assert_array_equal(value[2:], getattr(alone, name), err_msg=name)


@pytest.mark.parametrize("other", [(SEED + 1, 3, [5]), (SEED, 4, [5]), (SEED, 3, [6])])
def test_another_seed_person_or_number_is_another_press(other: tuple[int, int, list[int]]):
    here, there = vars(Presses.of(SEED, 3, [5])), vars(Presses.of(*other))
    assert all(not np.array_equal(here[name], there[name]) for name in here)


def test_no_numbers_give_no_presses_and_no_captures(masters: torch.Tensor):
    none = Presses.of(SEED, 3, [])
    assert len(none) == 0
    assert none.noise.shape == (0, SIDE, SIDE)
    assert Sensor(SEED, 1).capture(masters[:0], none, CLEAN) == []


def test_presses_stay_within_their_ranges():
    presses = Presses.draw(np.random.default_rng(1), 5000)
    assert {value.dtype for value in vars(presses).values()} == {np.dtype(np.float32)}
    assert np.abs(presses.shift).max() == 10
    assert np.abs(presses.angle).max() == pytest.approx(0.4)
    assert np.abs(presses.pressure).max() <= 1
    assert presses.contact[:, 2:].min() >= np.float32(0.9)
    assert presses.contact[:, 2:].max() <= np.float32(1.35)
    assert 0 <= presses.smudge[:, 3].min() < presses.smudge[:, 3].max() <= 1
    for drawn, sd in ((presses.noise, 1.0), (presses.elastic, 0.9), (presses.angle, 0.12), (presses.pressure, 0.35)):
        assert drawn.std() == pytest.approx(sd, rel=0.05)
        assert abs(drawn.mean()) < 0.05 * sd


def test_a_neutral_press_shows_the_middle_of_the_master_as_it_is(masters: torch.Tensor):
    middle = masters[0, CORNER:-CORNER, CORNER:-CORNER].numpy()
    shown = pressed(masters[0])
    np.testing.assert_allclose(shown, 0.5 + 0.42 * np.tanh(1.8 * middle), atol=0.02)  # contact is not quite infinite
    for mirrored in (middle[:, ::-1], middle[::-1], middle.T):
        assert likeness(shown, mirrored) < 0.5


def test_shift_moves_the_finger_by_pixels_of_the_master(masters: torch.Tensor):
    moved = pressed(masters[0], shift=[[5.0, -3.0]])
    straight = pressed(masters[0])
    np.testing.assert_allclose(moved[3:, :-5], straight[:-3, 5:], atol=0.02)


def test_angle_turns_the_finger(masters: torch.Tensor):
    quarter = pressed(masters[0], angle=[math.pi / 2])
    np.testing.assert_allclose(quarter, np.rot90(pressed(masters[0])), atol=0.02)


def test_no_press_mirrors_the_finger():
    """The map from capture to master keeps its orientation everywhere: positive determinant of its derivative."""
    presses = Presses.draw(np.random.default_rng(2), 300)
    y, x = torch.meshgrid(torch.arange(MASTER_SIDE), torch.arange(MASTER_SIDE), indexing="ij")
    ramps = [0.45 * (axis.float() / (MASTER_SIDE - 1) * 2 - 1) for axis in (x, y)]
    flat = dataclasses.replace(neutral(300), shift=presses.shift, angle=presses.angle, elastic=presses.elastic)
    seen = [press_fingers(ramp.expand(300, -1, -1), flat, torch.zeros(300))[:, 0].numpy() for ramp in ramps]
    u, v = (np.arctanh((s - 0.5) / 0.42) for s in seen)  # back to coordinates of the master
    determinant = np.gradient(u, axis=2) * np.gradient(v, axis=1) - np.gradient(u, axis=1) * np.gradient(v, axis=2)
    assert determinant.min() > 0


def test_skin_distortion_is_bicubic(masters: torch.Tensor):
    elastic = np.random.default_rng(3).standard_normal((1, 2, 4, 4)).astype(np.float32)
    skin = functional.interpolate(torch.from_numpy(elastic), (SIDE, SIDE), mode="bicubic", align_corners=True)
    unit = torch.linspace(-1, 1, SIDE) * (SIDE - 1)
    grid = torch.stack(torch.meshgrid(unit, unit, indexing="xy"), -1)[None] + 2 * skin.permute(0, 2, 3, 1)
    ridges = functional.grid_sample(masters[:1, None], grid / (MASTER_SIDE - 1), align_corners=True)
    expected = 0.5 + 0.42 * np.tanh(1.8 * ridges[0, 0].numpy())
    straight = pressed(masters[0], contact=[[0, 0, 1e6, 1e6]])
    distorted = pressed(masters[0], contact=[[0, 0, 1e6, 1e6]], elastic=elastic)
    assert np.abs(distorted - straight).max() > 0.1
    # 0.95 of full contact is 1 / (1 + exp(-9)).
    touching = 1 / (1 + math.exp(-9))
    np.testing.assert_allclose(distorted, 0.95 + (expected - 0.95) * touching, atol=1e-4)


def test_pressure_thickens_ridges(masters: torch.Tensor):
    dark = [(pressed(masters[1], pressure=[p]) < 0.5).mean() for p in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    assert np.all(np.diff(dark) > 0.01)  # little, since most of a master is clearly ridge or clearly valley


def test_moisture_thickens_ridges_and_drought_breaks_them(masters: torch.Tensor):
    noise = Presses.of(SEED, 0, [0]).noise
    dry, normal, wet = (pressed(masters[1], moisture=m, noise=noise) for m in (-1.0, 0.0, 1.0))
    assert (dry < 0.5).mean() + 0.03 < (normal < 0.5).mean() < (wet < 0.5).mean() - 0.03
    assert dry.mean() - 0.03 > normal.mean() > wet.mean() + 0.03
    assert dark_parts(dry) > 2 * dark_parts(normal)
    assert dark_parts(wet) <= dark_parts(normal)


def test_grain_of_dry_skin_is_the_mean_of_neighbours(masters: torch.Tensor):
    noise = Presses.of(SEED, 0, [0]).noise
    neighbours = functional.avg_pool2d(torch.from_numpy(noise)[:, None], 3, 1, 1)[0, 0].numpy()
    ridges = masters[1, CORNER:-CORNER, CORNER:-CORNER].numpy()
    dry = pressed(masters[1], moisture=-0.5, noise=noise, contact=[[0, 0, 1e6, 1e6]])
    expected = 0.5 + 0.42 * np.tanh(1.8 * (ridges + 0.55 * 0.5 + 1.3 * 0.5 * neighbours))
    np.testing.assert_allclose(dry, expected, atol=2e-4)  # of contact, 1e-4 is missing


def test_outside_the_contact_there_is_only_bright_glass(masters: torch.Tensor):
    shown = pressed(masters[0], contact=[[0.0, 0.0, 0.5, 0.5]])
    unit = np.linspace(-1, 1, SIDE)
    radius = np.hypot(unit[:, None], unit)
    assert shown[radius > 1.2].min() > 0.93
    assert shown[radius < 0.3].std() > 0.25


def test_a_smudge_takes_the_contrast_where_it_lies(masters: torch.Tensor):
    plain, smudged = pressed(masters[0]), pressed(masters[0], smudge=[[-0.5, 0.5, 0.3, 0.9]])
    assert smudged[44:52, 12:20].std() < 0.4 * plain[44:52, 12:20].std()
    np.testing.assert_allclose(smudged[:16, 48:], plain[:16, 48:], atol=0.01)


# Captures


def test_captures_are_grey_bytes_and_the_same_in_any_company(masters: torch.Tensor):
    sensor, worn = Sensor(SEED, 2), Condition(0.5, 0.4, -0.3, 0.6, -0.2)
    together = sensor.capture(masters[:6], Presses.of(SEED, 0, range(6)), worn)
    assert {(c.dtype, c.shape) for c in together} == {(np.dtype(np.uint8), (SIDE, SIDE))}
    assert all(check_capture(c) is c for c in together)
    again = sensor.capture(masters[:6], Presses.of(SEED, 0, range(6)), worn)
    alone = sensor.capture(masters[4:5], Presses.of(SEED, 0, [4]), worn)[0]
    np.testing.assert_array_equal(together, again)
    # A matrix product may round differently for another number of rows: one grey level at most.
    assert np.abs(together[4].astype(int) - alone).max() <= 1


def test_persons_presses_and_sensors_all_differ(masters: torch.Tensor):
    worn = Condition(wear=0.5)
    one, two = Sensor(SEED, 1).capture(masters[[0, 0]], Presses.of(SEED, 0, [0, 1]), worn)
    (other,) = Sensor(SEED, 1).capture(masters[[1]], Presses.of(SEED, 0, [0]), worn)
    (elsewhere,) = Sensor(SEED, 2).capture(masters[[0]], Presses.of(SEED, 0, [0]), worn)
    (reseeded,) = Sensor(SEED + 1, 1).capture(masters[[0]], Presses.of(SEED, 0, [0]), worn)
    for different in (two, other, elsewhere, reseeded):
        assert likeness(one, different) < 0.95


def test_forty_fingers_are_told_apart_on_a_worn_sensor(masters: torch.Tensor):
    """Each capture is most like a clean press of its own master, done in the same way."""
    worn = Condition(wear=0.6, dirt=0.37, moisture=-0.15, blur=0.54, gain=-0.27)
    presses = Presses.stack([Presses.of(SEED, person, [0]) for person in range(PERSONS)])
    captures = np.stack(Sensor(SEED, 1).capture(masters, presses, worn)).reshape(PERSONS, -1).astype(float)
    placed = dataclasses.replace(presses, noise=np.zeros_like(presses.noise))
    for person in range(PERSONS):
        same_way = Presses(*(np.repeat(v[person : person + 1], PERSONS, 0) for v in vars(placed).values()))
        clean = press_fingers(masters, same_way, torch.zeros(PERSONS)).reshape(PERSONS, -1).numpy()
        found = [likeness(captures[person], candidate) for candidate in clean]
        assert int(np.argmax(found)) == person
        assert found[person] > max(found[:person] + found[person + 1 :]) + 0.2


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
