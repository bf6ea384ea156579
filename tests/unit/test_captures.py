"""Captures: what is one, how it becomes PNG and comes back, and what a student sees of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from capture_files import claims, encoded, noise, refusal
from PIL import Image

from tutelage.captures import (
    MAX_SIDE,
    MIN_SIDE,
    Pixels,
    check_capture,
    decode_png,
    encode_png,
    to_input,
)
from tutelage.errors import Code


def test_check_returns_a_capture_itself() -> None:
    pixels = noise(10, 12, 3)
    assert check_capture(pixels) is pixels


def test_check_makes_views_contiguous() -> None:
    pixels = noise(20, 20)
    found = check_capture(pixels[::2, ::-1])
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, pixels[::2, ::-1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_check_scales_floats(dtype: type[np.floating[Any]]) -> None:
    pixels = noise(16, 16)
    found = check_capture((pixels / 255).astype(dtype))
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - pixels).max() <= (1 if dtype is np.float16 else 0)


REFUSED_ARRAYS: dict[str, tuple[Any, Code]] = {
    "no dimension": (np.float32(0.5), Code.IMAGE_UNREADABLE),
    "one dimension": (noise(100), Code.IMAGE_UNREADABLE),
    "two channels": (noise(16, 16, 2), Code.IMAGE_UNREADABLE),
    "four channels": (noise(16, 16, 4), Code.IMAGE_UNREADABLE),
    "four dimensions": (noise(1, 16, 16, 3), Code.IMAGE_UNREADABLE),
    "wide integers": (noise(16, 16).astype(np.int64), Code.IMAGE_UNREADABLE),
    "booleans": (noise(16, 16) > 100, Code.IMAGE_UNREADABLE),
    "objects": (noise(16, 16).astype(object), Code.IMAGE_UNREADABLE),
    "above one": (noise(16, 16).astype(np.float32), Code.IMAGE_UNREADABLE),
    "below zero": (np.linspace(-0.1, 1, 256).reshape(16, 16), Code.IMAGE_UNREADABLE),
    "nothing": (noise(0, 0), Code.IMAGE_TOO_SMALL),
    "narrow": (noise(16, MIN_SIDE - 1), Code.IMAGE_TOO_SMALL),
    "wide": (noise(16, MAX_SIDE + 1), Code.IMAGE_TOO_LARGE),
    "constant": (np.full((16, 16), 7, dtype=np.uint8), Code.IMAGE_WITHOUT_CONTENT),
    "constant colour": (np.full((16, 16, 3), (1, 2, 3), dtype=np.uint8), Code.IMAGE_WITHOUT_CONTENT),
    "nearly constant floats": (np.linspace(0.5, 0.5001, 256).reshape(16, 16), Code.IMAGE_WITHOUT_CONTENT),
    "not a number": (np.where(np.eye(16) > 0, np.nan, 0.5), Code.IMAGE_WITHOUT_CONTENT),
    "infinite": (np.where(np.eye(16) > 0, np.inf, 0.5), Code.IMAGE_WITHOUT_CONTENT),
}


@pytest.mark.parametrize("name", REFUSED_ARRAYS)
def test_check_refuses_what_is_no_capture(name: str) -> None:
    pixels, code = REFUSED_ARRAYS[name]
    assert refusal(lambda: check_capture(pixels)).code is code


@pytest.mark.parametrize("shape", [(8, 8), (9, 17), (30, 20, 3), (256, 256, 3)])
def test_png_carries_a_capture_unchanged(shape: tuple[int, ...]) -> None:
    pixels = noise(*shape)
    data = encode_png(pixels)
    assert data == encode_png(pixels.copy())
    np.testing.assert_array_equal(decode_png(data), pixels)


def test_equal_channels_survive_the_png() -> None:
    pixels = np.repeat(noise(10, 10, 1), 3, axis=2)
    np.testing.assert_array_equal(decode_png(encode_png(pixels)), pixels)


def test_only_captures_are_encoded() -> None:
    assert refusal(lambda: encode_png(noise(4, 4))).code is Code.IMAGE_TOO_SMALL


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.IMAGE_UNREADABLE),
        (bytes(100), Code.IMAGE_UNREADABLE),
        (encode_png(noise(32, 32))[:-200], Code.IMAGE_UNREADABLE),
        (encoded(Image.fromarray(noise(16, 16)), "BMP"), Code.IMAGE_UNREADABLE),
        (encoded(Image.fromarray(noise(16, 16, 4)), "PNG"), Code.IMAGE_UNREADABLE),
        (encoded(Image.fromarray(noise(16, 16).astype(np.uint16)), "PNG"), Code.IMAGE_UNREADABLE),
        (claims("png", 30_000, 30_000), Code.IMAGE_TOO_LARGE),
        (claims("png", MAX_SIDE + 1, 16), Code.IMAGE_TOO_LARGE),
        (encoded(Image.fromarray(noise(1, 1)), "PNG"), Code.IMAGE_TOO_SMALL),
        (encoded(Image.fromarray(noise(16, 16) * 0), "PNG"), Code.IMAGE_WITHOUT_CONTENT),
    ],
    ids=["empty", "zeros", "truncated", "bmp", "alpha", "16 bit", "huge", "wide", "1x1", "constant"],
)
def test_other_bytes_are_not_decoded(data: bytes, code: Code) -> None:
    assert refusal(lambda: decode_png(data)).code is code


def test_input_has_one_standardised_plane_a_capture() -> None:
    found = to_input([noise(64, 64), noise(100, 80, 3), noise(9, 256)], side=32)
    assert found.shape == (3, 1, 32, 32)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(found.var(axis=(1, 2, 3)), 1, rtol=1e-5)


def test_input_of_the_right_size_is_only_standardised() -> None:
    pixels = noise(64, 64)
    values = pixels.astype(np.float64)
    expected = (values - values.mean()) / values.std()
    np.testing.assert_allclose(to_input([pixels])[0, 0], expected, rtol=1e-6)


def test_input_of_no_captures_is_empty() -> None:
    assert to_input([], side=16).shape == (0, 1, 16, 16)


def test_input_sees_colour_as_pillow_does() -> None:
    colour = noise(64, 64, 3)
    luma = np.array(Image.fromarray(colour).convert("L"))
    np.testing.assert_array_equal(to_input([colour]), to_input([luma]))
    expected = colour @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    assert np.abs(luma - expected).max() <= 0.51


def area_mean(pixels: Pixels, side: int) -> np.ndarray:
    """Every cell averages the area it covers, pixel by pixel."""
    height, width = pixels.shape
    cells = np.zeros((side, side))
    for i in range(side):
        for j in range(side):
            for y in range(height):
                for x in range(width):
                    rows = min((i + 1) * height / side, y + 1) - max(i * height / side, y)
                    columns = min((j + 1) * width / side, x + 1) - max(j * width / side, x)
                    if rows > 0 and columns > 0:
                        cells[i, j] += pixels[y, x] * rows * columns
    return cells / (height / side * width / side)


def linear(pixels: Pixels, side: int) -> np.ndarray:
    """Every cell mixes the pixels around its centre by nearness; pixels on the border go on outside."""
    height, width = pixels.shape
    cells = np.zeros((side, side))
    for i in range(side):
        for j in range(side):
            y = min(max((i + 0.5) * height / side - 0.5, 0), height - 1)
            x = min(max((j + 0.5) * width / side - 0.5, 0), width - 1)
            for row in range(height):
                for column in range(width):
                    weight = max(0.0, 1 - abs(row - y)) * max(0.0, 1 - abs(column - x))
                    cells[i, j] += weight * pixels[row, column]
    return cells


def standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


@pytest.mark.parametrize(("shape", "side"), [((20, 13), 8), ((16, 24), 8), ((11, 12), 11)])
def test_input_shrinks_by_exact_area(shape: tuple[int, int], side: int) -> None:
    pixels = noise(*shape)
    expected = standardised(area_mean(pixels, side))
    np.testing.assert_allclose(to_input([pixels], side=side)[0, 0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("shape", "side"), [((8, 9), 20), ((8, 8), 16)])
def test_input_grows_linearly(shape: tuple[int, int], side: int) -> None:
    pixels = noise(*shape)
    expected = standardised(linear(pixels, side))
    np.testing.assert_allclose(to_input([pixels], side=side)[0, 0], expected, rtol=1e-5, atol=1e-6)


def test_input_that_is_constant_once_squeezed_is_zero() -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    bright = np.full((64, 64), 251, dtype=np.uint8)
    found = to_input([board, bright, noise(64, 64)], side=16)
    assert not found[:2].any()
    assert found[2].any()


def test_input_of_a_capture_does_not_depend_on_the_others() -> None:
    captures = [noise(64, 64, seed=seed) if seed % 3 else noise(90, 70, seed=seed) for seed in range(300)]
    together = to_input(captures)
    for index in (0, 1, 255, 256, 299):
        np.testing.assert_array_equal(together[index], to_input([captures[index]])[0])


def test_input_does_not_depend_on_gain_or_offset() -> None:
    pixels = noise(80, 50) // 3
    np.testing.assert_allclose(to_input([pixels * 2 + 40]), to_input([pixels]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "pixels", [noise(16, 16) / 255, noise(16, 16, 4), noise(64)], ids=["floats", "channels", "dimensions"]
)
def test_input_refuses_what_is_no_capture(pixels: Any) -> None:
    assert refusal(lambda: to_input([noise(16, 16), pixels])).code is Code.IMAGE_UNREADABLE
