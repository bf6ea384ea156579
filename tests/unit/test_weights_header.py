from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from tutelage.weights_header import MAX_HEADER_BYTES, tensors_in

TENSORS = {
    "stem": np.ones((2, 1, 3, 3), np.float32),
    "norm.mean": np.zeros(2, np.float16),
    "norm.count": np.array(7),
    "none": np.zeros((3, 0), np.float64),
    "größe": np.zeros(3, np.bool_),
}
GOOD = save(TENSORS, {"made by": "a test"})
ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def file_of(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def as_the_library_reads(weights: bytes) -> dict[str, Any]:
    return {name: {"dtype": t["dtype"], "shape": list(t["shape"])} for name, t in deserialize(weights)}


@pytest.mark.parametrize("view", [bytes, memoryview])
@pytest.mark.parametrize("weights", [GOOD, save(TENSORS), save({}), save({"w": np.zeros(100_000)})])
def test_lists_what_the_library_reads(weights: bytes, view: Any):
    assert tensors_in(view(weights)) == as_the_library_reads(weights)


@pytest.mark.parametrize("kind", ["bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))])
def test_types_of_whole_numbers(kind: str):
    weights = save({"w": np.zeros((2, 3), kind)})
    assert tensors_in(weights) == as_the_library_reads(weights)


def test_a_header_may_end_in_spaces_and_tensors_come_in_any_order():
    header = {"b": {**ONE, "data_offsets": [4, 8]}, "a": ONE}
    weights = file_of(json.dumps(header).encode() + b"   ", bytes(8))
    assert set(tensors_in(weights)) == {"a", "b"}
    assert tensors_in(weights) == as_the_library_reads(weights)


REFUSED = {
    "nothing": b"",
    "half a length": b"1234567",
    "a header beyond the end": struct.pack("<Q", 1 << 40) + b"{}",
    "no header": file_of(b""),
    "no braces": file_of(b"[]"),
    "no JSON": file_of(b"{"),
    "no Unicode": file_of(b'{"\xff":1}'),
    "another encoding": file_of("{}".encode("utf-16-le")),
    "a byte too many": file_of({"a": ONE}, bytes(5)),
    "a byte too few": file_of({"a": ONE}, bytes(3)),
    "a gap": file_of({"a": ONE, "b": {**ONE, "data_offsets": [5, 9]}}, bytes(9)),
    "an overlap": file_of({"a": ONE, "b": ONE}, bytes(4)),
    "a gap at the start": file_of({"a": {**ONE, "data_offsets": [1, 5]}}, bytes(5)),
    "an end before its start": file_of({"a": {**ONE, "data_offsets": [4, 0]}}, bytes(4)),
    "another size than the shape's": file_of({"a": {**ONE, "shape": [2]}}, bytes(4)),
    "an unknown type": file_of({"a": {**ONE, "dtype": "F33"}}, bytes(4)),
    "a type that is none": file_of({"a": {**ONE, "dtype": ["F32"]}}, bytes(4)),
    "a negative size": file_of({"a": {**ONE, "shape": [-1, -1]}}, bytes(4)),
    "minus nothing": file_of(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-0,4]}}', bytes(4)),
    "a fraction": file_of({"a": {**ONE, "shape": [1.0]}}, bytes(4)),
    "a truth": file_of({"a": {**ONE, "shape": [True]}}, bytes(4)),
    "no number": file_of(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', bytes(4)),
    "more than 64 bits": file_of({"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40, 0], "data_offsets": [0, 0]}}),
    "digits without end": file_of(b'{"a":' + b"9" * 10_000 + b"}"),
    "three offsets": file_of({"a": {**ONE, "data_offsets": [0, 4, 4]}}, bytes(4)),
    "no offsets": file_of({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
    "half a character": file_of(b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "metadata that are none": file_of({"__metadata__": 1}),
    "metadata that are no texts": file_of({"__metadata__": {"a": 1}}),
    "half a character of metadata": file_of(b'{"__metadata__":{"a":"\\ud800"}}'),
}
OURS_ALONE = {
    "a space before it": file_of(b" {}"),
    "an unknown field": file_of({"a": {**ONE, "more": 1}}, bytes(4)),
    "a name given twice": file_of(b'{"a":%b,"a":%b}' % ((json.dumps(ONE).encode(),) * 2), bytes(4)),
    "a type of half a byte": file_of({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, bytes(1)),
    "too long a header": file_of(b"{}" + b" " * (MAX_HEADER_BYTES - 1)),
    "fields without names": file_of({"a": ["F32", [1], [0, 4]]}, bytes(4)),
    "nested without end": file_of(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
}


@pytest.mark.parametrize("fault", [*REFUSED, *OURS_ALONE])
def test_refuses(fault: str):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever the fault, the package's reader has one word for it
        tensors_in({**REFUSED, **OURS_ALONE}[fault])


@pytest.mark.parametrize("fault", REFUSED)
def test_the_library_refuses_it_too(fault: str):
    with pytest.raises(SafetensorError):
        deserialize(REFUSED[fault])


def test_the_longest_header_that_passes():
    assert tensors_in(file_of(b"{}" + b" " * (MAX_HEADER_BYTES - 2))) == {}


def test_what_passes_is_what_the_library_reads(rng: np.random.Generator):
    """Headers with a byte or two changed: none passes here that the library refuses."""
    passed = 0
    for _ in range(20_000):
        changed = bytearray(GOOD)
        length = int.from_bytes(GOOD[:8], "little")
        for _ in range(rng.integers(1, 3)):
            changed[rng.integers(8 + length)] = rng.choice(np.frombuffer(b'0123456789-.,:[]{}" eEabF\\u\x00\xff', "u1"))
        try:
            found = tensors_in(bytes(changed))
        except ValueError:
            continue
        passed += 1
        try:
            assert found == as_the_library_reads(bytes(changed))
        except SafetensorError:
            pytest.fail(f"the library refuses {bytes(changed)!r}")
    assert passed > 100
