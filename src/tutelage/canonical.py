"""One byte form for every JSON value, so that a digest of the bytes is a digest of the value.

UTF-8, keys sorted, no spaces, numbers as Python writes them, no NaN or infinity.
"""

from __future__ import annotations

import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """The one byte form of `value`.

    Raises:
        ValueError: it holds a number JSON has no word for, or text that is no Unicode.
        TypeError: it holds what JSON cannot carry.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse_canonical(data: bytes) -> Any:
    """The value whose canonical form is `data`; repeated keys, spare spaces and the like do not pass.

    Raises:
        ValueError: `data` is no JSON, or not in the canonical form.
    """
    try:
        value = json.loads(data)
        same = canonical_json(value) == data
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error
    if not same:
        raise ValueError("JSON in another than the canonical form")
    return value
