"""Tensors as the Open Inference Protocol sends them, and as numpy holds them.

A server chooses how the elements of its answers travel: in typed fields, as MLServer does, or raw, as Triton does. What
was sent is read in both ways, in the types that a teacher's answer has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import zip_longest
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from teacher_inference.wire.open_inference_pb2 import InferTensorContents, ModelInferRequest, ModelInferResponse

__all__ = ["Tensor", "bytes_input", "read_outputs"]

Tensor: TypeAlias = npt.NDArray[Any]
"""float32 for FP32, bool for BOOL, object (bytes) for BYTES."""

_LENGTH_BYTES = 4


def bytes_input(name: str, elements: Sequence[bytes], rank: int) -> ModelInferRequest.InferInputTensor:
    """A tensor of BYTES, (N,) or (N, 1) by its `rank`."""
    shape = [len(elements), *[1] * (rank - 1)]
    contents = InferTensorContents(bytes_contents=elements)
    return ModelInferRequest.InferInputTensor(name=name, datatype="BYTES", shape=shape, contents=contents)


def read_outputs(response: ModelInferResponse, wanted: Collection[str]) -> dict[str, Tensor]:
    """Those tensors of a response that are `wanted`, by name.

    Raises:
        ValueError: one is of another type, or its elements are not as many as its shape says.
    """
    found = {}
    for output, raw in zip_longest(response.outputs, response.raw_output_contents):
        if output is None:
            raise ValueError("there are more raw contents than outputs")
        if output.name in wanted:
            elements = _typed(output) if raw is None else _raw(output.datatype, raw)
            found[output.name] = elements.reshape(tuple(output.shape))
    return found


def _typed(output: ModelInferResponse.InferOutputTensor) -> Tensor:
    match output.datatype:
        case "FP32":
            return np.array(output.contents.fp32_contents, dtype=np.float32)
        case "BOOL":
            return np.array(output.contents.bool_contents, dtype=np.bool_)
        case "BYTES":
            return _objects(output.contents.bytes_contents)
    raise ValueError(f"a teacher gives no {output.datatype}")


def _raw(datatype: str, raw: bytes) -> Tensor:
    match datatype:
        case "FP32":
            return np.frombuffer(raw, dtype="<f4").astype(np.float32)
        case "BOOL":
            return np.frombuffer(raw, dtype=np.uint8).astype(np.bool_)
        case "BYTES":
            return _objects(list(_split(raw)))
    raise ValueError(f"a teacher gives no {datatype}")


def _split(raw: bytes) -> Iterator[bytes]:
    """Elements that each follow their length, little-endian."""
    start = 0
    while start < len(raw):
        end = start + _LENGTH_BYTES + int.from_bytes(raw[start : start + _LENGTH_BYTES], "little")
        if end > len(raw):
            raise ValueError("an element is longer than the raw contents")
        yield raw[start + _LENGTH_BYTES : end]
        start = end


def _objects(elements: Sequence[bytes]) -> Tensor:
    """One object an element: as text, numpy would cut off zeros at its end."""
    array = np.empty(len(elements), dtype=np.object_)
    array[:] = elements
    return array
