from __future__ import annotations

import pytest

from tutelage.canonical import canonical_json, parse_canonical


def test_one_form_whatever_the_order() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": {"é": True}}) == '{"a":{"é":true},"b":[1,2.5,null]}'.encode()
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})


@pytest.mark.parametrize("value", [{}, [], "", 0, -1.5e-300, 0.1 + 0.2, {"a": {"b": [None, False, "\u2028"]}}, 10**30])
def test_parses_what_it_wrote(value: object) -> None:
    assert parse_canonical(canonical_json(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": float("-inf")}, "\ud800"])
def test_refuses_what_json_has_no_word_for(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the wording is the json module's own
        canonical_json(value)


def test_refuses_what_json_cannot_carry() -> None:
    with pytest.raises(TypeError):
        canonical_json({"a": b"bytes"})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"a": 1}',
        b'{"a":1}\n',
        b'{"b":1,"a":2}',
        b'{"a":1,"a":2}',
        b'{"a":1.0e0}',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":"\\u00e9"}',
        b'{"a":"\\ud800"}',
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000 + b"]" * 100_000,
        b"1" * 10_000,
    ],
)
def test_refuses_any_other_form(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the wording is the json module's own
        parse_canonical(data)
