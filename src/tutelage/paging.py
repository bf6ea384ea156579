"""Pages of a listing: how many entries one answer has, and the token that says where the next one begins.

A token holds a place and stands for the question it was given for: with other filters it is refused, for its place
would mean something else. It is not secret and not signed; a made-up place finds what any caller may list.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from tutelage.canonical import canonical_json, parse_canonical
from tutelage.errors import RequestError

__all__ = ["DEFAULT_PAGE", "MAX_PAGE", "page_size", "page_token", "place_in"]

DEFAULT_PAGE = 50
"""Entries in an answer where the caller leaves it open."""

MAX_PAGE = 500
"""Entries in one answer, at most."""

_MAX_TOKEN_CHARACTERS = 1_000


def page_size(asked: int) -> int:
    """How many entries to send to a caller who asked for so many.

    Raises:
        RequestError: It is negative or more than `MAX_PAGE`.
    """
    if not 0 <= asked <= MAX_PAGE:
        raise RequestError(f"page_size must be 0 to {MAX_PAGE}: {asked}")
    return asked or DEFAULT_PAGE


def page_token(place: str, *question: object) -> str:
    """The token for a page that begins at `place`, of the listing that `question` (plain JSON) asks for."""
    return base64.urlsafe_b64encode(canonical_json([place, _mark(question)])).decode().rstrip("=") if place else ""


def place_in(token: str, *question: object) -> str:
    """Where the page of this token begins; empty for the empty token of a first page.

    Raises:
        RequestError: It is no token of ours, or of another question.
    """
    if not token:
        return ""
    try:
        place, mark = parse_canonical(_decoded(token))
        fits = isinstance(place, str) and bool(place) and mark == _mark(question)
    except (ValueError, TypeError) as error:
        raise RequestError("page_token is not one that this service gave: begin with an empty one") from error
    if not fits:
        raise RequestError("page_token belongs to a listing with other filters: begin with an empty one")
    return str(place)


def _decoded(token: str) -> bytes:
    if len(token) > _MAX_TOKEN_CHARACTERS:
        raise ValueError("too long")
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not base64") from error


def _mark(question: tuple[object, ...]) -> str:
    return hashlib.sha256(canonical_json(list(question))).hexdigest()[:16]
