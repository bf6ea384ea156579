"""The sealed impostor set: captures of people who are strangers to every device, to calibrate a student with.

A student package carries one, so that a device can re-fit its score in each new space and check that no stranger
became easier to accept. The captures are biometric: they are sealed with a key of the fleet, and persons bear
anonymous ids.

Layout before sealing: 4 bytes big-endian length of a canonical JSON header, the header, PNG images. The captures of
one shape (H, W) or (H, W, 3) are stacked into one tall PNG: they share one header and one compression history.
Where all its grey values are multiples of a `step` above 1 they are stored divided by it. The header:

    {"blocks": [{"bytes": length of the PNG, "rows": [place of each capture], "shape": [H, W], "step": 1}],
     "format": 1, "persons": [id of each capture]}

240 grey captures of 64 x 64 take 660 kB for real faces and 841 kB for simulated fingerprints, which is 3 to 4 % less
than one PNG each; LZMA over LOCO-I residuals took 2 % less for the faces and 2 % more for the fingerprints. What is
left is sensor noise: captures whose two lowest bits the caller cleared first take 441 and 611 kB.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from tutelage.canonical import canonical_json, parse_canonical
from tutelage.captures import MAX_FILE_PIXELS, MIN_SIDE, Pixels, check_capture
from tutelage.errors import Code, InputError, PackageError
from tutelage.sealing import open_sealed, seal

PURPOSE = "impostor set"
"""Bound to the sealed bytes: nothing sealed for another use passes for an impostor set."""

_FORMAT = 1
# What reading JSON and a PNG of another layout can come to.
_OTHER_LAYOUT = (ValueError, LookupError, TypeError, ArithmeticError, OSError, SyntaxError, struct.error, zlib.error)
_LENGTH = struct.Struct(">I")


def seal_impostors(captures: Sequence[Pixels], persons: Sequence[str], key: bytes) -> bytes:
    """All `captures` with the anonymous id of the person in each, lossless, sealed with `key` (32 bytes).

    Raises:
        InputError: `data-insufficient`, there is not one person a capture, or more pixels than one set may hold.
        CaptureError: one of them is no capture, see `check_capture`.
        StorageError: `key-wrong`, the key has not 32 bytes.
    """
    checked = [check_capture(capture) for capture in captures]
    if len(checked) != len(persons):
        raise InputError(Code.DATA_INSUFFICIENT, f"{len(persons)} persons were given for {len(checked)} captures")
    if sum(capture.size for capture in checked) > MAX_FILE_PIXELS:
        raise InputError(
            Code.DATA_INSUFFICIENT, f"an impostor set holds at most {MAX_FILE_PIXELS:,} samples: use fewer"
        )
    places: dict[tuple[int, ...], list[int]] = {}
    for place, capture in enumerate(checked):
        places.setdefault(capture.shape, []).append(place)
    stacks = [_packed(np.concatenate([checked[row] for row in rows])) for rows in places.values()]
    blocks = [
        {"bytes": len(png), "rows": rows, "shape": list(shape), "step": step}
        for (shape, rows), (png, step) in zip(places.items(), stacks, strict=True)
    ]
    header = canonical_json({"blocks": blocks, "format": _FORMAT, "persons": list(persons)})
    return seal(b"".join([_LENGTH.pack(len(header)), header, *(png for png, _ in stacks)]), key, purpose=PURPOSE)


def open_impostors(data: bytes, key: bytes) -> tuple[list[Pixels], list[str]]:
    """Captures and the id of the person in each, in the order they were sealed.

    Raises:
        StorageError: `key-wrong`, sealed with another key; `store-corrupt`, damaged or no sealed impostor set.
        PackageError: `package-corrupt`, sealed with this key but in an unknown layout.
    """
    plain = open_sealed(data, key, purpose=PURPOSE)
    try:
        return _parse(plain)
    except _OTHER_LAYOUT as error:
        # The seal holds, so this was written by something that follows another layout.
        raise PackageError(
            Code.PACKAGE_CORRUPT, "the impostor set has an unknown layout: use the release that wrote it"
        ) from error


def _packed(stack: Pixels) -> tuple[bytes, int]:
    """PNG of an array, and the step its values were divided by."""
    step = int(np.gcd.reduce(np.unique(stack))) or 1
    buffer = io.BytesIO()
    Image.fromarray(stack // np.uint8(step)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue(), step


def _parse(plain: bytes) -> tuple[list[Pixels], list[str]]:
    (length,) = _LENGTH.unpack_from(plain)
    offset = _LENGTH.size + length
    header = parse_canonical(plain[_LENGTH.size : offset])
    if header["format"] != _FORMAT:
        raise ValueError(f"format {header['format']}")
    found: dict[int, Pixels] = {}
    for block in header["blocks"]:
        found.update(zip(block["rows"], _unpacked(plain[offset : offset + block["bytes"]], block), strict=True))
        offset += block["bytes"]
    persons = [str(person) for person in header["persons"]]
    if sorted(found) != list(range(len(persons))):
        raise ValueError("captures and persons do not fit")
    return [found[row] for row in range(len(persons))], persons


def _unpacked(png: bytes, block: Any) -> Pixels:
    """(N, *shape) captures of one block; the size is compared before anything is decoded."""
    shape, count, step = tuple(block["shape"]), len(block["rows"]), block["step"]
    height, width = shape[:2]
    if min(height, width) < MIN_SIDE or count * math.prod(shape) > MAX_FILE_PIXELS:
        raise ValueError(f"{count} captures of shape {shape}")
    with PngImageFile(io.BytesIO(png)) as image:
        if image.size != (width, count * height):
            raise ValueError(f"a PNG of {image.size}")
        values = np.array(image)
    return values.reshape(count, *shape) * np.uint8(step)
