"""Captures that are read from files of images, and files that are refused."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from capture_files import claims, encoded, noise, ramp, refusal
from PIL import Image, ImageOps

from tutelage.captures import (
    MAX_FILE_PIXELS,
    MAX_SIDE,
    MIN_SIDE,
    Pixels,
    read_capture,
)
from tutelage.errors import CaptureError, Code


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Pixels]:
    def read_bytes(data: bytes) -> Pixels:
        path = tmp_path / "capture.bin"
        path.write_bytes(data)
        return read_capture(path)

    return read_bytes


@pytest.mark.parametrize("kind", ["PNG", "PPM", "BMP"])
@pytest.mark.parametrize("shape", [(20, 13), (20, 13, 3), (MIN_SIDE, MIN_SIDE), (MAX_SIDE, MAX_SIDE)])
def test_lossless_kinds_come_back_unchanged_whatever_the_name(
    read: Callable[[bytes], Pixels], kind: str, shape: tuple[int, ...]
) -> None:
    pixels = noise(*shape)
    found = read(encoded(Image.fromarray(pixels), kind))
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found.flags.writeable
    np.testing.assert_array_equal(found, pixels)


def test_jpeg_comes_back_nearly_unchanged(read: Callable[[bytes], Pixels]) -> None:
    pixels = ramp(40, 30)
    assert np.abs(read(encoded(Image.fromarray(pixels), "JPEG", quality=95)).astype(int) - pixels).max() <= 4


def test_cmyk_jpeg_becomes_rgb(read: Callable[[bytes], Pixels]) -> None:
    assert read(encoded(Image.fromarray(noise(24, 16, 3)).convert("CMYK"), "JPEG")).shape == (24, 16, 3)


def test_plain_and_bitonal_netpbm_are_read(read: Callable[[bytes], Pixels]) -> None:
    values = np.arange(64).reshape(8, 8)
    plain = b"P2\n# a comment\n8 8\n255\n" + b" ".join(b"%d" % value for value in values.ravel())
    np.testing.assert_array_equal(read(plain), values)
    bitonal = Image.fromarray(noise(9, 10) > 127)
    np.testing.assert_array_equal(read(encoded(bitonal, "PPM")), np.array(bitonal.convert("L")))


UNREADABLE = {
    "empty": b"",
    "zeros": bytes(1000),
    "text": b"this is no image, however long one looks at it",
    "gif": encoded(Image.fromarray(noise(9, 9)), "GIF"),
    "only a signature": b"\x89PNG\r\n\x1a\n",
    "truncated png": encoded(Image.fromarray(noise(32, 32)), "PNG")[:-300],
    "truncated pgm": encoded(Image.fromarray(noise(32, 32)), "PPM")[:-1],
    "truncated jpg": encoded(Image.fromarray(noise(32, 32)), "JPEG")[:-300],
    "truncated bmp": encoded(Image.fromarray(noise(32, 32)), "BMP")[:-1],
    "zero pixels": b"P5\n0 0\n255\n",
    "negative size": b"P5\n-9 -9\n255\n" + bytes(81),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_files_that_are_no_intact_image_are_refused_by_path(
    read: Callable[[bytes], Pixels], tmp_path: Path, name: str
) -> None:
    error = refusal(lambda: read(UNREADABLE[name]))
    assert error.code is Code.IMAGE_UNREADABLE
    assert error.message.startswith(f"{tmp_path / 'capture.bin'}: ")
    assert error.message.endswith("leave it out")


def test_an_empty_file_is_called_empty(read: Callable[[bytes], Pixels]) -> None:
    assert "is empty" in refusal(lambda: read(b"")).message


def test_paths_without_a_file_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "absent.png", tmp_path, tmp_path / "pipe", tmp_path / ("long" * 100), Path("nul\0.png")):
        error = refusal(lambda path=path: read_capture(path))
        assert error.code is Code.IMAGE_UNREADABLE
        assert str(path) in error.message


@pytest.mark.parametrize("kind", ["PNG", "PPM", "BMP", "JPEG"])
def test_damage_anywhere_ends_in_a_typed_error_or_a_capture(read: Callable[[bytes], Pixels], kind: str) -> None:
    rng = np.random.default_rng(5)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    whole = encoded(Image.fromarray(noise(12, 12, 3)), kind, **({"exif": exif} if kind in ("PNG", "JPEG") else {}))
    outcomes = {"captures": 0, "errors": 0}
    for _ in range(100):
        data = bytearray(whole)
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
        del data[int(rng.integers(len(data) // 2, 2 * len(data))) :]
        try:
            read(bytes(data))
            outcomes["captures"] += 1
        except CaptureError:
            outcomes["errors"] += 1
    assert outcomes["captures"] > 0
    assert outcomes["errors"] > 10


@pytest.mark.parametrize("kind", ["pgm", "png"])
@pytest.mark.parametrize(
    ("width", "height"),
    [(30_000, 30_000), (10_000, 10_000), (5_001, 10_000)],  # above both limits of Pillow, between them, below them
)
def test_a_header_that_claims_too_much_is_refused_before_decoding(
    read: Callable[[bytes], Pixels], recwarn: pytest.WarningsRecorder, kind: str, width: int, height: int
) -> None:
    error = refusal(lambda: read(claims(kind, width, height)))
    assert error.code is Code.IMAGE_TOO_LARGE  # decoding would have found the file truncated
    assert f"{width}x{height}" in error.message
    assert not recwarn.list


def test_a_header_may_claim_exactly_the_limit(read: Callable[[bytes], Pixels]) -> None:
    assert MAX_FILE_PIXELS == 5_000 * 10_000
    assert refusal(lambda: read(claims("png", 5_000, 10_000))).code is Code.IMAGE_UNREADABLE  # decoded, and truncated


@pytest.mark.parametrize("shape", [(1, 1), (MIN_SIDE - 1, 100), (100, MIN_SIDE - 1), (7, 4000)])
def test_images_with_too_few_pixels_are_refused(read: Callable[[bytes], Pixels], shape: tuple[int, int]) -> None:
    error = refusal(lambda: read(encoded(Image.fromarray(noise(*shape)), "PNG")))
    assert error.code is Code.IMAGE_TOO_SMALL
    assert f"{shape[1]}x{shape[0]} pixels" in error.message


def test_images_too_narrow_once_shrunk_say_so(read: Callable[[bytes], Pixels]) -> None:
    error = refusal(lambda: read(encoded(Image.fromarray(noise(12, 1024)), "PNG")))
    assert error.code is Code.IMAGE_TOO_SMALL
    assert "1024x12 pixels (256x3 once the longer side is 256)" in error.message


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 3), (400, 300)])
def test_constant_images_are_refused(read: Callable[[bytes], Pixels], shape: tuple[int, ...]) -> None:
    pixels = np.empty(shape, dtype=np.uint8)
    pixels[...] = 90 if len(shape) == 2 else (10, 200, 90)
    assert refusal(lambda: read(encoded(Image.fromarray(pixels), "PNG"))).code is Code.IMAGE_WITHOUT_CONTENT


def test_floating_files_are_read_unless_a_sample_is_no_number(read: Callable[[bytes], Pixels]) -> None:
    samples = (np.arange(100, dtype=np.float32) / 255).reshape(10, 10)
    np.testing.assert_array_equal(read(encoded(Image.fromarray(samples), "PPM")), np.arange(100).reshape(10, 10))
    samples[3, 4] = np.nan
    error = refusal(lambda: read(encoded(Image.fromarray(samples), "PPM")))
    assert error.code is Code.IMAGE_WITHOUT_CONTENT


def test_of_16_bit_samples_the_high_byte_is_kept(read: Callable[[bytes], Pixels]) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (15, 11), dtype=np.uint16)
    for data in (
        encoded(Image.fromarray(deep), "PNG"),
        b"P5\n11 15\n65535\n" + deep.astype(">u2").tobytes(),
    ):
        np.testing.assert_array_equal(read(data), deep >> 8)


def test_samples_of_other_depths_fill_the_range(read: Callable[[bytes], Pixels]) -> None:
    values = np.linspace(0, 4095, 64).astype(">u2")
    found = read(b"P5\n8 8\n4095\n" + values.tobytes())
    assert np.abs(found.ravel() - values / 4095 * 255).max() <= 1
    assert (found.min(), found.max()) == (0, 255)


def test_palette_files_show_their_colours(read: Callable[[bytes], Pixels]) -> None:
    image = Image.fromarray(noise(20, 20, 3)).quantize(16)
    for kind in ("PNG", "BMP"):
        np.testing.assert_array_equal(read(encoded(image, kind)), np.array(image.convert("RGB")))


def test_colour_files_without_colour_become_grey(read: Callable[[bytes], Pixels]) -> None:
    grey = noise(20, 14)
    for image in (Image.fromarray(grey).convert("RGB"), Image.fromarray(np.dstack([grey] * 3 + [grey * 0 + 255]))):
        np.testing.assert_array_equal(read(encoded(image, "PNG")), grey)


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_transparent_parts_become_white(read: Callable[[bytes], Pixels], kind: str) -> None:
    samples = noise(16, 16, 4)
    samples[..., 3] = 255
    samples[:5, :, 3] = 0
    data = encoded(Image.fromarray(samples), kind) if kind == "PNG" else bitfields_bmp(samples)
    expected = samples[..., :3].copy()
    expected[:5] = 255
    np.testing.assert_array_equal(read(data), expected)


def test_transparent_palette_entries_become_white(read: Callable[[bytes], Pixels]) -> None:
    image = Image.fromarray(noise(16, 16) // 64)
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    found = read(encoded(image, "PNG", transparency=bytes([255, 0, 255, 255])))
    indices = np.array(image)
    assert (found[indices == 1] == 255).all()
    assert (found[indices == 2] == (70, 80, 90)).all()


def test_an_alpha_channel_that_hides_everything_is_ignored(read: Callable[[bytes], Pixels]) -> None:
    samples = noise(16, 16, 4)
    samples[..., 3] = 0
    np.testing.assert_array_equal(read(bitfields_bmp(samples)), samples[..., :3])


def bitfields_bmp(samples: Pixels) -> bytes:
    """A bottom-up 32-bit BMP with the usual masks for blue, green, red and alpha (BITMAPV4HEADER)."""
    height, width = samples.shape[:2]
    body = samples[::-1, :, [2, 1, 0, 3]].tobytes()
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(body), 2835, 2835, 0, 0)
    header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52)
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(body), 0, 0, 14 + len(header)) + header + body


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_orientation_is_applied(read: Callable[[bytes], Pixels], kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", orientation
    data = encoded(Image.fromarray(ramp(24, 16)), kind, exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(BytesIO(data))))
    assert expected.shape == ((16, 24) if orientation > 4 else (24, 16))
    np.testing.assert_array_equal(read(data), expected)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\x00\x00",
        b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08",
        b"Exif\x00\x00II\x2a\x00\xff\xff\xff\xff",
        b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00\x02\x01\x1a\x00\x05\x00\x00\x00\x01\x00\x00\xff\xff",
        b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x63\x00\x00",
    ],
    ids=["nothing", "no directory", "far away", "cut", "no such orientation"],
)
def test_damaged_exif_data_leave_the_image_as_it_lies(
    read: Callable[[bytes], Pixels], recwarn: pytest.WarningsRecorder, exif: bytes
) -> None:
    image = Image.fromarray(ramp(24, 16))
    np.testing.assert_array_equal(
        read(encoded(image, "JPEG", exif=exif)), np.array(Image.open(BytesIO(encoded(image, "JPEG"))))
    )
    assert not recwarn.list


@pytest.mark.parametrize(
    ("shape", "expected"), [((512, 1024), (128, 256)), ((300, 257), (256, 219)), ((256, 256), (256, 256))]
)
def test_large_images_are_shrunk_keeping_their_aspect(
    read: Callable[[bytes], Pixels], shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    found = read(encoded(Image.fromarray(ramp(*shape)), "PNG"))
    assert found.shape == expected
    assert np.abs(found.astype(int) - ramp(*expected)).max() <= 3


def test_shrinking_does_not_alias(read: Callable[[bytes], Pixels]) -> None:
    fine = np.indices((1023, 1023)).sum(axis=0) % 2 * 200
    fine[:, :500] //= 2
    found = read(encoded(Image.fromarray(fine.astype(np.uint8)), "PNG")).astype(int)
    assert np.abs(found[:, :120] - 50).max() <= 2
    assert np.abs(found[:, 130:] - 100).max() <= 2


def test_large_jpegs_are_shrunk_alike(read: Callable[[bytes], Pixels]) -> None:
    found = read(encoded(Image.fromarray(ramp(2100, 1400)), "JPEG"))
    assert found.shape == (256, 171)
    assert np.abs(found.astype(int) - ramp(256, 171)).max() <= 3
