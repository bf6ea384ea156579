"""Pages: sizes within bounds, and tokens that only the question they were given for accepts."""

from __future__ import annotations

import base64

import pytest

from tutelage.errors import RequestError
from tutelage.paging import DEFAULT_PAGE, MAX_PAGE, page_size, page_token, place_in


def test_a_token_leads_back_to_its_place():
    token = page_token("2026-11-24 sha256:ä", "name", None, ["x"])
    assert place_in(token, "name", None, ["x"]) == "2026-11-24 sha256:ä"
    assert token.isascii()


def test_the_last_page_has_an_empty_token_which_begins_anew():
    assert page_token("", "name") == ""
    assert place_in("", "anything") == ""


def test_another_question_refuses_the_token():
    with pytest.raises(RequestError, match="other filters"):
        place_in(page_token("a", "name"), "other")


@pytest.mark.parametrize(
    "token",
    ["!", "ä", "a" * 5000, "YQ", "../../etc/passwd", base64.urlsafe_b64encode(b'["a"]').decode(), "W10", "e30"],
)
def test_what_is_no_token_is_refused(token: str):
    with pytest.raises(RequestError, match="page_token"):
        place_in(token, "name")


def test_a_place_that_is_not_text_is_refused():
    token = base64.urlsafe_b64encode(b'[1,"x"]').decode().rstrip("=")
    with pytest.raises(RequestError, match="page_token"):
        place_in(token)


def test_sizes():
    assert (page_size(0), page_size(1), page_size(MAX_PAGE)) == (DEFAULT_PAGE, 1, MAX_PAGE)
    for bad in (-1, MAX_PAGE + 1):
        with pytest.raises(RequestError, match="page_size"):
            page_size(bad)
