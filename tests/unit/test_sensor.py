"""The simulated sensor: presses decided by seed, person and number, and what it captures of them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from pressed_fingers import CLEAN, CORNER, PERSONS, SEED, dark_parts, likeness, neutral, pressed
from torch.nn import functional

from device_sim.masters import MASTER_SIDE, grow_masters
from device_sim.sensor import SIDE, Condition, Presses, Sensor, press_fingers
from tutelage.captures import check_capture


@pytest.fixture(scope="module")
def masters() -> torch.Tensor:
    """(40, 128, 128)."""
    torch.set_num_threads(1)
    return grow_masters(SEED, range(PERSONS))


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
