from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tutelage.canonical import canonical_json
from tutelage.captures import Pixels, encode_png
from tutelage.errors import CaptureError, Code, InputError, PackageError, StorageError
from tutelage.impostors import PURPOSE, open_impostors, seal_impostors
from tutelage.sealing import open_sealed, seal

KEY = bytes(range(32))


def ridges(rng: np.random.Generator, shape: tuple[int, ...] = (64, 64), noise: float = 4.0) -> Pixels:
    """A wave of random direction with sensor noise: compresses about as badly as a fingerprint."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 6)
    wave = 128 + 90 * np.sin((x * np.cos(angle) + y * np.sin(angle)) * 0.8 + phase)
    values = wave.reshape(wave.shape + (1,) * (len(shape) - 2)) + rng.normal(0, noise, shape)
    return np.clip(values, 0, 255).astype(np.uint8)


def sealed_layout(header: Any, body: bytes = b"") -> bytes:
    text = canonical_json(header)
    return seal(struct.pack(">I", len(text)) + text + body, KEY, purpose=PURPOSE)


def test_opens_to_the_same_captures_in_the_same_order(rng: np.random.Generator) -> None:
    shapes = [(64, 64), (96, 80), (64, 64, 3), (64, 64), (8, 256), (96, 80), (64, 64, 3)]
    captures = [ridges(rng, shape) for shape in shapes]
    persons = ["p1", "p2", "p2", "p1", "p3", "é", "p1"]
    opened, of_whom = open_impostors(seal_impostors(captures, persons, KEY), KEY)
    assert of_whom == persons
    assert [capture.shape for capture in opened] == shapes
    assert all(capture.dtype == np.uint8 for capture in opened)
    assert all((a == b).all() for a, b in zip(captures, opened, strict=True))


@pytest.mark.parametrize("step", [1, 2, 3, 4, 85, 255])
def test_coarse_grey_values_come_back_unchanged(rng: np.random.Generator, step: int) -> None:
    captures = [ridges(rng) // step * step for _ in range(3)]
    for capture in captures:  # not constant at any step
        capture[0, :2] = 0, 255 // step * step
    opened, _ = open_impostors(seal_impostors(captures, ["a", "b", "c"], KEY), KEY)
    assert all((a == b).all() for a, b in zip(captures, opened, strict=True))


def test_an_empty_set() -> None:
    assert open_impostors(seal_impostors([], [], KEY), KEY) == ([], [])


def test_is_smaller_than_images_one_by_one(rng: np.random.Generator) -> None:
    captures = [ridges(rng) for _ in range(60)]
    fine = len(seal_impostors(captures, ["p"] * 60, KEY))
    coarse = len(seal_impostors([capture & 0xFC for capture in captures], ["p"] * 60, KEY))
    assert fine < sum(len(encode_png(capture)) for capture in captures)
    assert coarse < 0.8 * fine


def test_shows_no_image_and_no_person(rng: np.random.Generator) -> None:
    sealed = seal_impostors([ridges(rng)], ["person-one"], KEY)
    assert b"PNG" not in sealed
    assert b"person-one" not in sealed


def test_the_key_decides(rng: np.random.Generator) -> None:
    sealed = seal_impostors([ridges(rng)], ["p"], KEY)
    with pytest.raises(StorageError) as caught:
        open_impostors(sealed, bytes(32))
    assert caught.value.code is Code.KEY_WRONG
    with pytest.raises(StorageError) as caught:
        seal_impostors([ridges(rng)], ["p"], b"short")
    assert caught.value.code is Code.KEY_WRONG


def test_the_purpose_is_bound(rng: np.random.Generator) -> None:
    plain = open_sealed(seal_impostors([ridges(rng)], ["p"], KEY), KEY, purpose=PURPOSE)
    with pytest.raises(StorageError) as caught:
        open_impostors(seal(plain, KEY, purpose="captures"), KEY)
    assert caught.value.code is Code.STORE_CORRUPT


@pytest.mark.parametrize("data", [b"", b"no sealed set", bytes(1000)])
def test_what_is_no_sealed_set(data: bytes) -> None:
    with pytest.raises(StorageError) as caught:
        open_impostors(data, KEY)
    assert caught.value.code is Code.STORE_CORRUPT


def test_flipped_bytes_are_noticed(rng: np.random.Generator) -> None:
    sealed = seal_impostors([ridges(rng, (16, 16))], ["p"], KEY)
    for position in range(len(sealed)):
        flipped = bytearray(sealed)
        flipped[position] ^= 0x40
        with pytest.raises(StorageError):
            open_impostors(bytes(flipped), KEY)


def test_persons_and_captures_must_pair(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="2 persons were given for 1 captures") as caught:
        seal_impostors([ridges(rng)], ["a", "b"], KEY)
    assert caught.value.code is Code.DATA_INSUFFICIENT


def test_what_is_no_capture_is_refused() -> None:
    with pytest.raises(CaptureError):
        seal_impostors([np.zeros((64, 64), dtype=np.uint8)], ["a"], KEY)


def tall_png(side: int, count: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(side * side * count, dtype=np.uint8).reshape(-1, side)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"persons": ["a"]},
        {"persons": ["a", "b", "c"]},
        {"blocks": []},
        {"blocks": 1},
        {"shape": [16, 8]},
        {"shape": [8, 8, 3]},
        {"shape": [8, 8, 4]},
        {"shape": [4, 16]},
        {"shape": [40_000, 40_000]},
        {"shape": 8},
        {"rows": [0]},
        {"rows": [0, 0]},
        {"rows": [0, 5]},
        {"bytes": 3},
        {"step": 300},
        {"step": "x"},
    ],
)
def test_another_layout_under_the_right_seal(change: dict[str, Any]) -> None:
    png = tall_png(8, 2)
    block = {"bytes": len(png), "rows": [0, 1], "shape": [8, 8], "step": 1}
    header: dict[str, Any] = {"blocks": [block], "format": 1, "persons": ["a", "b"]}
    assert len(open_impostors(sealed_layout(header, png), KEY)[0]) == 2
    (header if set(change) <= set(header) else block).update(change)
    with pytest.raises(PackageError) as caught:
        open_impostors(sealed_layout(header, png), KEY)
    assert caught.value.code is Code.PACKAGE_CORRUPT


@pytest.mark.parametrize("plain", [b"", b"\x00\x00", b"\xff\xff\xff\xff", struct.pack(">I", 2) + b"[]", bytes(4)])
def test_no_header_under_the_right_seal(plain: bytes) -> None:
    with pytest.raises(PackageError) as caught:
        open_impostors(seal(plain, KEY, purpose=PURPOSE), KEY)
    assert caught.value.code is Code.PACKAGE_CORRUPT


def test_an_image_larger_than_announced_is_refused_before_it_is_decoded() -> None:
    png = bytearray(tall_png(8, 2))
    png[16:24] = struct.pack(">II", 30_000, 30_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    block = {"bytes": len(png), "rows": [0, 1], "shape": [8, 8], "step": 1}
    with pytest.raises(PackageError) as caught:
        open_impostors(sealed_layout({"blocks": [block], "format": 1, "persons": ["a", "b"]}, bytes(png)), KEY)
    assert str(caught.value.__cause__) == "a PNG of (30000, 30000)"


@pytest.mark.parametrize("cut", [0, 8, 20, 40, 50])
def test_a_damaged_image_under_the_right_seal(cut: int) -> None:
    png = tall_png(8, 2)[:cut]
    header = {
        "blocks": [{"bytes": len(png), "rows": [0, 1], "shape": [8, 8], "step": 1}],
        "format": 1,
        "persons": ["a", "b"],
    }
    with pytest.raises(PackageError) as caught:
        open_impostors(sealed_layout(header, png), KEY)
    assert caught.value.code is Code.PACKAGE_CORRUPT
