"""Captures of noise, files of images, and files that only claim to be some."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tutelage.captures import (
    Pixels,
)
from tutelage.errors import CaptureError


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


def refusal(call: Callable[[], object]) -> CaptureError:
    with pytest.raises(CaptureError) as caught:
        call()
    return caught.value
