"""Captures and names as they come in requests: what can be seen without decoding, checked before anything else happens.

A capture is one PNG file, grey or RGB with 8 bits a channel. Whether the rest of the file is intact shows where it is
decoded (`tutelage.captures.decode_png`). Each violation names its field and place.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Sequence

from tutelage.captures import MAX_SIDE, MIN_SIDE
from tutelage.errors import CaptureError, Code, RequestError

__all__ = ["MAX_CAPTURE_BYTES", "MAX_PERSON_CHARACTERS", "check_capture", "check_captures", "check_person"]

MAX_CAPTURE_BYTES = 262_144
"""256 x 256 pixels of three channels that no PNG can shrink are 197 KB."""

MAX_PERSON_CHARACTERS = 128
"""Of a person's name."""

# Signature, then the chunk IHDR: length, type, width, height, bits a sample, colour type (PNG, third edition, 11.2.1).
_HEADER = struct.Struct(">8s4s4sIIBB")
_PNG, _IHDR_LENGTH, _IHDR = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x0d", b"IHDR"
_GREY, _RGB = 0, 2


def check_person(person: str) -> str:
    """`person` itself, if it can name one.

    Raises:
        RequestError: It cannot.
    """
    if not 1 <= len(person) <= MAX_PERSON_CHARACTERS or any(unicodedata.category(c) == "Cc" for c in person):
        raise RequestError(f"person must be 1 to {MAX_PERSON_CHARACTERS} characters, none of them a control character")
    return person


def check_captures(captures: Sequence[bytes], most: int, field: str = "captures") -> Sequence[bytes]:
    """`captures` themselves, if there are 1 to `most` and each begins like a capture.

    Raises:
        RequestError: There are none or too many.
        CaptureError: One has too many bytes, is no grey or RGB PNG of 8 bits, or has too few or too many pixels a side.
    """
    if not 1 <= len(captures) <= most:
        raise RequestError(f"{field} must be 1 to {most} PNG files: {len(captures)} were sent")
    for place, capture in enumerate(captures):
        check_capture(capture, f"{field}[{place}]")
    return captures


def check_capture(capture: bytes, name: str = "capture") -> bytes:
    """`capture` itself, if it begins like one; `name` is what the request calls it.

    Raises:
        CaptureError: As `check_captures`.
    """
    if len(capture) > MAX_CAPTURE_BYTES:
        raise CaptureError(
            Code.IMAGE_TOO_LARGE,
            f"{name}: {len(capture)} bytes, at most {MAX_CAPTURE_BYTES} are accepted: shrink it",
        )
    if len(capture) < _HEADER.size:
        raise CaptureError(Code.IMAGE_UNREADABLE, f"{name}: this is no PNG file: encode it as one")
    png, length, chunk, width, height, depth, colour = _HEADER.unpack_from(capture)
    if (png, length, chunk) != (_PNG, _IHDR_LENGTH, _IHDR):
        raise CaptureError(Code.IMAGE_UNREADABLE, f"{name}: this is no PNG file: encode it as one")
    if depth != 8 or colour not in (_GREY, _RGB):
        raise CaptureError(Code.IMAGE_UNREADABLE, f"{name}: the PNG is neither grey nor RGB with 8 bits a channel")
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_SIDE:
        code = Code.IMAGE_TOO_SMALL if min(width, height) < MIN_SIDE else Code.IMAGE_TOO_LARGE
        raise CaptureError(code, f"{name}: {width}x{height} pixels, a capture has {MIN_SIDE} to {MAX_SIDE} a side")
    return capture
