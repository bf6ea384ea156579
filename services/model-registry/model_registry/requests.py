"""What a request to the registry may hold: each rule of the contract once, with the field's name in its refusal."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from tutelage.errors import RequestError
from tutelage.package import MAX_PACKAGE_BYTES

__all__ = [
    "digest",
    "generation",
    "job_id",
    "name",
    "offset",
    "optional",
    "reason",
    "size_bytes",
    "space",
    "version",
]

T = TypeVar("T")

MAX_REASON_CHARACTERS = 500
MAX_SPACE_CHARACTERS = 200

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_JOB = re.compile(r"[A-Za-z0-9-]{1,64}")
_VERSION = re.compile(r"v(0|[1-9][0-9]{0,8})")
_GENERATION = re.compile(r"v(0|[1-9][0-9]{0,8})(\+[1-9][0-9]{0,8})?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def optional(given: bool, value: T, check: Callable[[T, str], T], field: str) -> T | None:
    """`value` after its check where it was `given`, else None."""
    return check(value, field) if given else None


def digest(value: str, field: str) -> str:
    """A digest.

    Raises:
        RequestError: It is none, as for each function here.
    """
    return _matched(_DIGEST, value, field, "sha256: and 64 lower-case hexadecimal digits")


def name(value: str, field: str) -> str:
    """A name of a student, a channel or a device."""
    return _matched(
        _NAME, value, field, "1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first"
    )


def job_id(value: str, field: str) -> str:
    """Id of a job."""
    return _matched(_JOB, value, field, "1 to 64 letters, digits and dashes")


def version(value: str, field: str) -> str:
    """A released version."""
    return _matched(_VERSION, value, field, "v0 to v999999999")


def generation(value: str, field: str) -> str:
    """A released version or a local generation of one."""
    return _matched(_GENERATION, value, field, "a version like v3, or a generation like v3+7")


def space(value: str, field: str) -> str:
    """Id of an embedding space."""
    if not 0 < len(value) <= MAX_SPACE_CHARACTERS or not value.isprintable():
        raise RequestError(f"{field} must be 1 to {MAX_SPACE_CHARACTERS} printable characters")
    return value


def reason(value: str, field: str) -> str:
    """Why, for people."""
    if not value.strip() or len(value) > MAX_REASON_CHARACTERS:
        raise RequestError(f"{field} must say why, in 1 to {MAX_REASON_CHARACTERS} characters")
    return value


def size_bytes(value: int, field: str) -> int:
    """Length of a package's file."""
    if not 1 <= value <= MAX_PACKAGE_BYTES:
        raise RequestError(f"{field} must be 1 to {MAX_PACKAGE_BYTES}: {value}")
    return value


def offset(value: int, field: str) -> int:
    """A place in a file; whether the file is so long is not judged here."""
    if value < 0:
        raise RequestError(f"{field} must be 0 or more: {value}")
    return value


def _matched(pattern: re.Pattern[str], value: str, field: str, wanted: str) -> str:
    if not pattern.fullmatch(value):
        raise RequestError(f"{field} must be {wanted}: {value[:80]!r}")
    return value
