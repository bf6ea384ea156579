"""Captures: what is read from files, what is refused, and what a student sees of it."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tutelage.captures import (
    MAX_FILE_PIXELS,
    MAX_SIDE,
    MIN_SIDE,
    Pixels,
    check_capture,
    decode_png,
    encode_png,
    read_capture,
    to_input,
)
from tutelage.errors import CaptureError, Code


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def ramp(height: int, width: int) -> Pixels:
    """Smooth and without symmetry, so that lossy kinds stay close and every turn shows."""
    rows, columns = np.mgrid[0:height, 0:width]
    return (rows * 150 / height + columns * 90 / width).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def claims(kind: str, width: int, height: int) -> bytes:
    """A file that claims a size and holds nearly no pixels."""
    if kind == "pgm":
        return b"P5\n%d %d\n255\n" % (width, height) + bytes(100)
    return png_header(width, height) + png_chunk(b"IDAT", zlib.compress(bytes(100))) + png_chunk(b"IEND", b"")


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Pixels]:
    def read_bytes(data: bytes) -> Pixels:
        path = tmp_path / "capture.bin"
        path.write_bytes(data)
        return read_capture(path)

    return read_bytes


def refusal(call: Callable[[], object]) -> CaptureError:
    with pytest.raises(CaptureError) as caught:
        call()
    return caught.value


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
