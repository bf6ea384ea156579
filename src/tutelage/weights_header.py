"""What a file of weights in the safetensors format says of itself: which tensors it holds, of what type and shape.

Such a file is the length of its header (8 bytes, the lowest first), the header in JSON, and the tensors' bytes without
gaps (https://github.com/huggingface/safetensors#format). The library of that name hands out every tensor in a copy;
whoever only compares what is listed reads the header alone, here. What passes is what the library reads, less what no
network of ours needs: names given twice, types smaller than a byte, headers beyond `MAX_HEADER_BYTES`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

__all__ = ["MAX_HEADER_BYTES", "tensors_in"]

MAX_HEADER_BYTES = 1 << 20
"""A hundred times what the largest student takes."""

METADATA = "__metadata__"
"""In the place of a tensor: texts by name, which nobody here reads."""

_FIELDS = {"dtype", "shape", "data_offsets"}
_WIDTHS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
_LENGTH_BYTES = 8
_MOST_ELEMENTS = 1 << 60  # what a product of 64 bits holds, whatever the type


def tensors_in(weights: bytes | memoryview) -> dict[str, dict[str, Any]]:
    """`dtype` and `shape` of each tensor by its name; the tensors' own bytes are not looked at.

    Raises:
        ValueError: `weights` are no intact file of this format.
    """
    start = _LENGTH_BYTES + int.from_bytes(weights[:_LENGTH_BYTES], "little")
    if len(weights) < _LENGTH_BYTES or start > min(len(weights), _LENGTH_BYTES + MAX_HEADER_BYTES):
        raise ValueError("the header is longer than the file or the limit")
    header = _parsed(bytes(weights[_LENGTH_BYTES:start]))
    _check_metadata(header.pop(METADATA, {}))
    spans = [_span(name, tensor) for name, tensor in header.items()]
    _check_spans(spans, len(weights) - start)
    return {name: {"dtype": tensor["dtype"], "shape": tensor["shape"]} for name, tensor in header.items()}


def _parsed(header: bytes) -> dict[str, Any]:
    if header[:1] != b"{":
        raise ValueError("the header does not begin with a brace")
    try:
        fields: dict[str, Any] = json.loads(
            header.decode(),  # or other encodings would be guessed
            object_pairs_hook=_once,
            parse_int=_natural,
            parse_float=_refuse,
            parse_constant=_refuse,
        )
    except RecursionError as error:
        raise ValueError("the header is nested too deeply") from error
    return fields


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name is given twice")
    return fields


def _natural(text: str) -> int:
    return _refuse(text) if text.startswith("-") else int(text)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no count")


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, Mapping):
        raise ValueError(f"{METADATA} must be texts by name")
    for name, text in metadata.items():
        _check_text(name)
        _check_text(text)


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise ValueError("a text is missing")
    text.encode()  # halves of characters are refused here


def _span(name: str, tensor: object) -> tuple[int, int]:
    """Where the bytes of a tensor begin and end, after everything that is said of it was checked."""
    _check_text(name)
    if not isinstance(tensor, dict) or set(tensor) != _FIELDS:
        raise ValueError("a tensor is described by other fields")
    width, shape, offsets = _WIDTHS.get(str(tensor["dtype"])), tensor["shape"], tensor["data_offsets"]
    if width is None or not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise ValueError("a tensor's type, shape or place is none")
    if math.prod(filter(None, shape)) > _MOST_ELEMENTS or math.prod(shape) * width != offsets[1] - offsets[0]:
        raise ValueError("a tensor's place does not fit its shape")
    return offsets[0], offsets[1]


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and all(type(count) is int for count in value)


def _check_spans(spans: Sequence[tuple[int, int]], size: int) -> None:
    """Refuse tensors that overlap, leave gaps, or do not fill the `size` bytes there are."""
    reached = 0
    for start, end in sorted(spans):
        if start != reached:
            raise ValueError("tensors overlap or leave a gap")
        reached = end
    if reached != size:
        raise ValueError("the tensors are not as long as the file")
