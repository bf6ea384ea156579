"""Captures: biometric images as they are kept, sent and shown to a model.

A capture in memory is a uint8 array, `(H, W)` grey or `(H, W, 3)` RGB, with 8 to 256 pixels a side and at least two
different pixel values. Files come in at any size and depth (`read_capture`), travel and rest as lossless PNG
(`encode_png`, `decode_png`), and become a student's input at the very end (`to_input`), so that a teacher may still see
all pixels the sensor gave. Nothing here assumes faces or fingers, or that a mirror image is valid.

Pillow decodes. Its plugins are called directly, chosen by a file's first bytes: the size a header claims is then
checked here, before any pixel is decoded, and Pillow's own size warnings never reach the caller.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile

from tutelage.errors import CaptureError, Code

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""One capture: `(H, W)` grey or `(H, W, 3)` RGB."""

MIN_SIDE: Final = 8
"""Fewest pixels a side: below it there is no pattern left to recognise."""
MAX_SIDE: Final = 256
"""Most pixels a side that are kept; larger files are shrunk to it."""
MAX_FILE_PIXELS: Final = 50_000_000
"""Most pixels a file's header may claim: above any sensor, and one grey byte each still fits a small device."""


class _QuietJpeg(JpegImageFile):
    """A JPEG of which Pillow sees no EXIF data: it looks for a resolution there and warns where they are damaged."""

    def getexif(self) -> Image.Exif:
        """Nothing; `_orientation` reads the raw data."""
        return Image.Exif()


_PLUGINS: Final[dict[bytes, type[ImageFile.ImageFile]]] = {
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"\xff\xd8\xff": _QuietJpeg,
    b"BM": BmpImageFile,
    b"P": PpmImageFile,
}
# What Pillow raises on damaged bytes, found by flipping and cutting bytes of all four kinds. `Warning` is here for
# callers that turn warnings into exceptions.
_DAMAGE: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Warning,
)
# EXIF 2.32 §4.6.4 A, tag 274: how the stored rows and columns become upright.
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BLOCK: Final = 256  # captures standardised at a time: bounds the memory for 64-bit intermediates


def read_capture(path: Path) -> Pixels:
    """Return the image in a PNG, PGM/PPM, JPEG or BMP file, upright and at most `MAX_SIDE` pixels a side.

    The content decides the kind, not the name. Larger images are shrunk, keeping their aspect, with antialiasing;
    EXIF orientation is applied; of 16-bit samples the high byte is kept; transparent parts become white, unless all
    is transparent, when transparency is ignored; colour files whose three channels are equal become grey.

    Raises:
        CaptureError: `image-unreadable` for a file that is absent, empty, truncated, damaged or no image;
            `image-too-large` for a header that claims more than `MAX_FILE_PIXELS`, before decoding;
            `image-too-small`, also where shrinking leaves a side too short; `image-without-content` for constant
            images and samples that are not numbers. The message starts with the path.
    """
    try:
        return _decode_file(path)
    except CaptureError as error:
        raise CaptureError(error.code, f"{path}: {error.message}") from error
    except _DAMAGE as error:
        raise CaptureError(Code.IMAGE_UNREADABLE, f"{path}: {_reason(error)}") from error


def check_capture(pixels: npt.NDArray[Any]) -> Pixels:
    """Return `pixels` as a capture: contiguous uint8, `(H, W)` or `(H, W, 3)`, floats in [0, 1] scaled to 0..255.

    A contiguous uint8 array is returned itself, not copied.

    Raises:
        CaptureError: `image-unreadable` for another shape, type or range; `image-too-small` and `image-too-large`
            for a side outside `MIN_SIDE`..`MAX_SIDE`; `image-without-content` for constant images, NaN and infinity.
    """
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise CaptureError(
            Code.IMAGE_UNREADABLE, f"an array of shape {pixels.shape} is no capture: give (H, W) grey or (H, W, 3) RGB"
        )
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise _too_small(f"{width}x{height} pixels")
    if max(height, width) > MAX_SIDE:
        raise CaptureError(
            Code.IMAGE_TOO_LARGE, f"{width}x{height} pixels, a capture has at most {MAX_SIDE} a side: shrink it first"
        )
    samples = np.ascontiguousarray(_as_bytes(pixels))
    if (samples == samples[0, 0]).all():
        raise CaptureError(
            Code.IMAGE_WITHOUT_CONTENT, "all pixels are equal: check that the sensor is uncovered and exposed"
        )
    return samples


def encode_png(pixels: Pixels) -> bytes:
    """Return `pixels` as a PNG that `decode_png` turns back into the same array; no metadata is written.

    Raises:
        CaptureError: `pixels` is no capture, see `check_capture`.
    """
    buffer = io.BytesIO()
    Image.fromarray(check_capture(pixels)).save(buffer, format="PNG")
    return buffer.getvalue()


def decode_png(data: bytes) -> Pixels:
    """Return the capture that `encode_png` encoded: nothing is shrunk, turned or converted.

    The bytes may come from anywhere: sizes above `MAX_SIDE` are refused before decoding.

    Raises:
        CaptureError: `image-unreadable` for bytes that are damaged or no grey or RGB PNG; `image-too-large`,
            `image-too-small` and `image-without-content` as in `check_capture`.
    """
    try:
        with PngImageFile(io.BytesIO(data)) as image:
            if image.mode not in ("L", "RGB"):
                raise CaptureError(Code.IMAGE_UNREADABLE, "the PNG is neither grey nor RGB: encode it with encode_png")
            if max(image.size) > MAX_SIDE:
                raise CaptureError(Code.IMAGE_TOO_LARGE, f"the PNG has more than {MAX_SIDE} pixels a side")
            samples = np.array(image)
    except _DAMAGE as error:
        raise CaptureError(Code.IMAGE_UNREADABLE, "the bytes are no intact PNG: encode and send it again") from error
    return check_capture(samples)


def to_input(captures: Sequence[Pixels], side: int = 64) -> npt.NDArray[np.float32]:
    """Return `captures` as a student sees them: `(N, 1, side, side)`, each with mean 0 and variance 1.

    Colour becomes grey by ITU-R BT.601 luma, in the fixed-point arithmetic of Pillow's mode `L`. Each axis is then
    squeezed to `side` on its own: by exact area shares where it shrinks (a pixel on a border counts in part, so fine
    ridges do not alias), by linear interpolation where it grows. A capture that is constant once squeezed becomes
    zeros. The result for a capture depends on that capture alone, not on the others or on the number of cores.

    Raises:
        CaptureError: `image-unreadable` for an array that is not uint8 or not of a capture's shape.
    """
    inputs = np.empty((len(captures), 1, side, side), dtype=np.float32)
    for start in range(0, len(captures), _BLOCK):
        block = [_squeezed(_grey(capture), side) for capture in captures[start : start + _BLOCK]]
        inputs[start : start + _BLOCK, 0] = _standardised(np.stack(block))
    return inputs


def _decode_file(path: Path) -> Pixels:
    """The file's capture; damage may still surface as any of `_DAMAGE`."""
    if not path.is_file():  # opening a pipe would wait for ever
        raise CaptureError(Code.IMAGE_UNREADABLE, "there is no such file")
    with path.open("rb") as stream:
        plugin = _plugin(stream.read(8))
        stream.seek(0)
        image = plugin(stream)
        size = _fitting(*image.size)
        image.draft(image.mode, (2 * MAX_SIDE, 2 * MAX_SIDE))  # lets a large JPEG decode at a fraction of its size
        image.load()
        flat = _flat(image)
    if flat.size != size:
        flat = flat.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    turn = _UPRIGHT.get(_orientation(image.info.get("exif", b"")))
    return check_capture(_without_equal_channels(np.array(flat if turn is None else flat.transpose(turn))))


def _plugin(start: bytes) -> type[ImageFile.ImageFile]:
    if not start:
        raise CaptureError(Code.IMAGE_UNREADABLE, "the file is empty: copy it again or leave it out")
    for signature, plugin in _PLUGINS.items():
        if start.startswith(signature):
            return plugin
    raise CaptureError(Code.IMAGE_UNREADABLE, "this is no PNG, PGM, JPEG or BMP image: convert it or leave it out")


def _reason(error: Exception) -> str:
    """What the system says of a file; Pillow's own words are left out, since they may quote samples."""
    said = error.strerror if isinstance(error, OSError) else None
    return said or "the image is truncated or damaged: copy it again or leave it out"


def _fitting(width: int, height: int) -> tuple[int, int]:
    """Size within `MAX_SIDE` at the same aspect; refuses what a header should not claim."""
    if width * height > MAX_FILE_PIXELS:
        raise CaptureError(
            Code.IMAGE_TOO_LARGE,
            f"the header claims {width}x{height} pixels, more than {MAX_FILE_PIXELS:,}: shrink it first",
        )
    longest = max(width, height, MAX_SIDE)
    fitting = (round(width * MAX_SIDE / longest), round(height * MAX_SIDE / longest))
    if min(fitting) < MIN_SIDE:
        shrunk = "" if longest == MAX_SIDE else f" ({fitting[0]}x{fitting[1]} once the longer side is {MAX_SIDE})"
        raise _too_small(f"{width}x{height} pixels{shrunk}")
    return fitting


def _too_small(found: str) -> CaptureError:
    return CaptureError(
        Code.IMAGE_TOO_SMALL, f"{found}, a capture needs at least {MIN_SIDE} a side: capture it at a higher resolution"
    )


def _flat(image: Image.Image) -> Image.Image:
    """The same picture in mode `L` or `RGB`: no palette, no alpha, 8 bits a sample."""
    if image.mode == "F":
        return Image.fromarray(_as_bytes(np.array(image)))
    if image.mode.startswith("I"):  # 16-bit samples; older Pillows widen them to 32 bits
        return Image.fromarray((np.array(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _on_white(image: Image.Image) -> Image.Image:
    if image.getchannel("A").getextrema() == (0, 0):  # some 32-bit BMP writers leave the unused fourth byte at zero
        return image.convert("RGB")
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(image)
    return canvas.convert("RGB")


def _without_equal_channels(samples: Pixels) -> Pixels:
    if samples.ndim == 3 and (samples == samples[..., :1]).all():
        return samples[..., 0]
    return samples


def _as_bytes(samples: npt.NDArray[Any]) -> Pixels:
    """Samples as uint8: kept if they are, scaled if they are floats in [0, 1]."""
    if samples.dtype == np.uint8:
        return samples
    if not np.issubdtype(samples.dtype, np.floating):
        raise CaptureError(
            Code.IMAGE_UNREADABLE, f"samples of type {samples.dtype} are no capture: give uint8, or floats in [0, 1]"
        )
    if not np.isfinite(samples).all():
        raise CaptureError(Code.IMAGE_WITHOUT_CONTENT, "some samples are not numbers: capture it again")
    if samples.min() < 0 or samples.max() > 1:
        raise CaptureError(Code.IMAGE_UNREADABLE, "floats must lie in [0, 1]: divide them by their full scale")
    scaled: Pixels = np.rint(samples * 255).astype(np.uint8)
    return scaled


def _orientation(exif: bytes) -> int:
    """EXIF orientation 1..8; 1 (upright) where the data hold none or are damaged. Layout: TIFF 6.0 §2."""
    tiff = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2], "")
    try:
        (first,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, first)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, first + 2 + 12 * entry)
            if tag == 0x0112:
                return int(value)
    except struct.error:
        return 1
    return 1


def _grey(capture: Pixels) -> Pixels:
    """Luma `(H, W)`; ITU-R BT.601 weights in 16-bit fixed point, rounded, exactly as Pillow's `L`."""
    if capture.dtype != np.uint8 or capture.ndim not in (2, 3) or capture.shape[2:] not in ((), (3,)):
        raise CaptureError(Code.IMAGE_UNREADABLE, "an input is no capture: pass what check_capture returns")
    if capture.ndim == 2:
        return capture
    weighted = capture.astype(np.uint32) @ np.array([19595, 38470, 7471], dtype=np.uint32)
    return ((weighted + 0x8000) >> 16).astype(np.uint8)


def _squeezed(grey: Pixels, side: int) -> npt.NDArray[np.float64]:
    """Weighted sums `(side, side)` of `(H, W)`, with the same total weight in every cell.

    Samples and shares are integers and their products stay far below 2^53, so 64-bit floats hold every sum exactly
    and no order of summation can change a bit of it. They are summed in this thread: a matrix product would be spread
    over all cores, and whoever stands at the door would wait for the busiest of them.
    """
    if grey.shape == (side, side):
        return grey.astype(np.float64)
    return np.ascontiguousarray(_cells(_cells(grey, side).T, side).T)


def _cells(samples: npt.NDArray[Any], side: int) -> npt.NDArray[np.float64]:
    """Cells `(side, W)` of samples `(size, W)`: a few weighted samples each, one after the other."""
    places, weights = _taps(len(samples), side)
    cells: npt.NDArray[np.float64] = weights[0] * samples[places[0]]
    for place, weight in zip(places[1:], weights[1:], strict=True):
        cells += weight * samples[place]
    return cells


@lru_cache(maxsize=64)
def _taps(size: int, side: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """The T samples that make each of `side` cells, `(T, side)`, and their weights of `_shares`, `(T, side, 1)`."""
    shares = _shares(size, side)
    first, count = (shares > 0).argmax(axis=1), int((shares > 0).sum(axis=1).max())
    places = first + np.arange(count)[:, None]  # (T, side); those of a cell lie side by side
    within = np.minimum(places, size - 1)
    weights = np.where(places < size, shares[np.arange(side), within], 0.0)[..., None]
    within.setflags(write=False)
    weights.setflags(write=False)
    return within, weights


def _shares(size: int, side: int) -> npt.NDArray[np.float64]:
    """Integer weights `(side, size)` by which `size` samples make `side` cells; all rows have the same sum."""
    cells, samples = np.arange(side)[:, None], np.arange(size)[None]
    if size >= side:  # overlap of cell [c, c+1)·size/side with sample [s, s+1), in units of 1/side sample
        ends = np.minimum((cells + 1) * size, (samples + 1) * side)
        shares = np.maximum(ends - np.maximum(cells * size, samples * side), 0)
    else:  # linear weights by distance from the cell's centre, in units of 1/(2·side) sample; borders are extended
        centres = np.clip((2 * cells + 1) * size - side, 0, 2 * side * (size - 1))
        shares = np.maximum(2 * side - np.abs(centres - 2 * side * samples), 0)
    weights: npt.NDArray[np.float64] = shares.astype(np.float64)
    return weights


def _standardised(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Each image of `(N, side, side)` shifted to mean 0 and divided by its standard deviation, if it has any."""
    flat = values.reshape(len(values), -1)
    centred = flat - flat.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True))
    deviation[deviation == 0] = 1
    standardised: npt.NDArray[np.float64] = (centred / deviation).reshape(values.shape)
    return standardised
