"""What requests to teacher-inference must keep to, told by field and place."""

from __future__ import annotations

import struct
import zlib

import pytest
from labelling_service import png

from teacher_inference import request_rules as rules
from tutelage.errors import CaptureError, Code, RequestError
from tutelage.sent_captures import MAX_CAPTURE_BYTES


def header_with(*, width: int = 32, height: int = 32, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG file whose header says so, whatever follows."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("site", ["a", "gate-7", "A.b_c-9", "7" * 64, "a..b"])
def test_sites_that_pass(site):
    assert rules.check_site(site) == site


@pytest.mark.parametrize("site", ["", ".", "..", "../a", "a/b", "a\\b", "-a", "_a", " a", "a\n", "ä", "a" * 65, "a\0"])
def test_sites_that_do_not(site):
    with pytest.raises(RequestError, match=r"^site must be"):
        rules.check_site(site)


@pytest.mark.parametrize("person", ["a", "Anna Ü. Müller", "人", "../../etc/passwd", "x" * 128])
def test_persons_that_pass(person):
    assert rules.check_person(person) == person


@pytest.mark.parametrize("person", ["", "a\n", "\x00", "a\x7f", "\x85", "x" * 129])
def test_persons_that_do_not(person):
    with pytest.raises(RequestError, match=r"^person must be") as caught:
        rules.check_person(person)
    assert person not in caught.value.message or not person


@pytest.mark.parametrize("check", [rules.check_idempotency_key, rules.check_batch_id])
def test_keys_and_ids(check):
    assert check("a-1") == "a-1"
    for bad in ("", "a/b", "a" * 65, "a\n", "ä"):
        with pytest.raises(RequestError):
            check(bad)


@pytest.mark.parametrize(
    ("capture", "code"),
    [
        (b"", Code.IMAGE_UNREADABLE),
        (b"\x89PNG\r\n\x1a\n", Code.IMAGE_UNREADABLE),
        (b"\xff\xd8\xff" + bytes(100), Code.IMAGE_UNREADABLE),
        (header_with(depth=16), Code.IMAGE_UNREADABLE),
        (header_with(colour=3), Code.IMAGE_UNREADABLE),
        (header_with(colour=6), Code.IMAGE_UNREADABLE),
        (header_with(width=7), Code.IMAGE_TOO_SMALL),
        (header_with(height=0), Code.IMAGE_TOO_SMALL),
        (header_with(width=257), Code.IMAGE_TOO_LARGE),
        (header_with(height=2**32 - 1), Code.IMAGE_TOO_LARGE),
        (header_with() + bytes(MAX_CAPTURE_BYTES), Code.IMAGE_TOO_LARGE),
    ],
)
def test_a_file_that_begins_like_no_capture_is_refused_by_its_place(capture, code):
    with pytest.raises(CaptureError, match=r"^captures\[1\]: ") as caught:
        rules.check_captures([png(1), capture], 16)
    assert caught.value.code is code


@pytest.mark.parametrize("side", [8, 256])
@pytest.mark.parametrize("colour", [0, 2])
def test_a_header_at_the_limits_passes(side, colour):
    captures = [header_with(width=side, height=side, colour=colour)]
    assert rules.check_captures(captures, 1) is captures


def test_what_only_decoding_shows_is_told_by_name():
    with pytest.raises(CaptureError, match=r"^second: ") as caught:
        rules.check_decodable([png(1), header_with()], ["first", "second"])
    assert caught.value.code is Code.IMAGE_UNREADABLE
    rules.check_decodable([], [])


def test_counts_of_attempts_and_captures():
    one = [png(1)]
    assert rules.check_attempts([one] * 4, 4) == [one] * 4
    for attempts, said in (
        ([], "attempts must be 1 to 4: 0"),
        ([one] * 5, "attempts must be 1 to 4: 5"),
        ([one * 3, one * 2], "at most 4 captures in all: 5"),
        ([one, []], r"attempts\[1\].captures must be 1 to 16 PNG files: 0"),
        ([one * 17], r"attempts\[0\].captures must be 1 to 16 PNG files: 17"),
    ):
        with pytest.raises(RequestError, match=said):
            rules.check_attempts(attempts, 4)


def test_every_capture_has_its_name():
    assert rules.places([[b"", b""], [b""]]) == [
        "attempts[0].captures[0]",
        "attempts[0].captures[1]",
        "attempts[1].captures[0]",
    ]
