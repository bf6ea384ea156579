"""The rules that requests keep: names, counts, and captures; each violation names its field and place.

What can be seen in a file's header is checked before anything else happens. Whether the rest of the file is intact
shows where it is decoded, which is once: by the backend. What a backend reports as not usable is decoded here too, and
a file that turns out to be no capture is the caller's mistake, not the teacher's verdict.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tutelage.captures import decode_png
from tutelage.errors import CaptureError, RequestError
from tutelage.sent_captures import check_captures, check_person

__all__ = [
    "ENROL_CAPTURES",
    "EXTRACT_CAPTURES",
    "LABEL_ATTEMPTS",
    "SUBMIT_ATTEMPTS",
    "check_attempts",
    "check_batch_id",
    "check_captures",
    "check_decodable",
    "check_idempotency_key",
    "check_person",
    "check_site",
    "places",
]

ENROL_CAPTURES = 16
"""Reference captures of one person, and captures of one attempt, at most."""

LABEL_ATTEMPTS = 256
"""Attempts, and captures in all, of one Label."""

SUBMIT_ATTEMPTS = 1024
"""Attempts, and captures in all, of one batch."""

EXTRACT_CAPTURES = 256
"""Captures of one ExtractFeatures."""

_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BATCH = re.compile(r"[A-Za-z0-9-]{1,64}")


def check_site(site: str) -> str:
    """`site` itself, if it can name one.

    Raises:
        RequestError: It cannot.
    """
    if not _SITE.fullmatch(site):
        raise RequestError(
            "site must be 1 to 64 letters, digits, dots, dashes and underscores, the first one a letter or digit"
        )
    return site


def check_idempotency_key(key: str) -> str:
    """`key` itself, if it can be one.

    Raises:
        RequestError: It cannot.
    """
    if not _KEY.fullmatch(key):
        raise RequestError("idempotency_key must be 1 to 64 letters, digits, dots, dashes and underscores")
    return key


def check_batch_id(batch_id: str) -> str:
    """`batch_id` itself, if a batch can have it.

    Raises:
        RequestError: None can.
    """
    if not _BATCH.fullmatch(batch_id):
        raise RequestError("batch_id must be 1 to 64 letters, digits and dashes: use the one that was answered")
    return batch_id


def check_attempts(attempts: Sequence[Sequence[bytes]], most: int) -> Sequence[Sequence[bytes]]:
    """`attempts` themselves, if there are 1 to `most`, with as many captures in all at most, and each is one.

    Raises:
        RequestError, CaptureError: As `check_captures`.
    """
    if not 1 <= len(attempts) <= most:
        raise RequestError(f"attempts must be 1 to {most}: {len(attempts)} were sent")
    for place, captures in enumerate(attempts):
        check_captures(captures, ENROL_CAPTURES, f"attempts[{place}].captures")
    total = sum(map(len, attempts))
    if total > most:
        raise RequestError(f"attempts must have at most {most} captures in all: {total} were sent")
    return attempts


def places(attempts: Sequence[Sequence[bytes]]) -> list[str]:
    """What each capture of `attempts` is called in a request, in order."""
    return [f"attempts[{a}].captures[{c}]" for a, captures in enumerate(attempts) for c in range(len(captures))]


def check_decodable(captures: Iterable[bytes], names: Iterable[str]) -> None:
    """Return if each of the `captures` is one, to the last pixel.

    Raises:
        CaptureError: The first that is none, by its name among `names`.
    """
    for capture, name in zip(captures, names, strict=True):
        try:
            decode_png(capture)
        except CaptureError as error:
            raise CaptureError(error.code, f"{name}: {error.message}") from error
