"""A student as an ONNX graph, written down node by node for recognition alone.

`torch.onnx` would trace it: four to ten seconds and a hundred MiB on the machine that answers at a door, each time a
generation is swapped. A student has six kinds of layers, so its graph is written here, in some milliseconds, and with
what only recognition may do: every batch norm is folded into the convolution or linear map before it, adapters that
nobody reads are left out, and pooling is a matrix product (ONNX has no adaptive pooling).

The graph: input `inputs` (N, 1, side, side), output `vectors` (N, D), or (N, K * D) of all exits; all float32, N free.
It is in one long-standing version of ONNX, so that any later runtime takes it. Where it is cut in two behind an exit,
the first part gives the map as well, `map` (N, C, H, W), from which the second goes on.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from tutelage.nn.students import EXITS, READOUTS, Adapter, ResidualBlock, Student

INPUTS, VECTORS, MAP = "inputs", "vectors", "map"
"""Names of a graph's inputs and outputs."""
OPSET, IR_VERSION = 17, 8
"""Of ONNX 1.12, 2022."""
_Shape = tuple[int | str, ...]


def student_graph(student: Student, readout: str) -> bytes:
    """The graph that gives the unit vectors of `readout`, one of `READOUTS`, of `student` in evaluation mode."""
    exits = range(EXITS) if readout == "fused" else [READOUTS.index(readout)]
    writer, spec = _Writer(), student.spec
    found, _ = writer.stages(writer.stem(student), student, range(max(exits) + 1), exits)
    if len(found) > 1:
        together = writer.add("Concat", *found, axis=1)
        found = [writer.add("Mul", together, writer.constant(np.float32(1 / math.sqrt(len(found)))))]
    vectors = {VECTORS: (found[0], ("N", len(exits) * spec.dimension))}
    return writer.graph(INPUTS, ("N", 1, spec.side, spec.side), vectors)


def cut_graphs(student: Student, early: int, late: int) -> tuple[bytes, bytes]:
    """The graph up to exit `early`, and the one from there to exit `late`; exits are numbered from 0."""
    head, tail, spec = _Writer(), _Writer(), student.spec
    side = _sides(spec.side)[early]
    shape = ("N", spec.channels[early], side, side)
    found, last = head.stages(head.stem(student), student, range(early + 1), [early])
    outputs = {VECTORS: (found[0], ("N", spec.dimension)), MAP: (last, shape)}
    rest, _ = tail.stages(MAP, student, range(early + 1, late + 1), [late])
    return (
        head.graph(INPUTS, ("N", 1, spec.side, spec.side), outputs),
        tail.graph(MAP, shape, {VECTORS: (rest[0], ("N", spec.dimension))}),
    )


def _sides(side: int) -> list[int]:
    """Side of each stage's map: stem and later stages halve it, rounding up; the first stage keeps it."""
    return [-(-side // 2 ** (k + 1)) for k in range(EXITS)]


class _Writer:
    """Collects nodes and constants; each method returns the name of its result."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node of the ONNX `operator`."""
        name = f"{operator}{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, value: npt.ArrayLike | Tensor) -> str:
        """Numbers that are part of the graph."""
        name = f"constant{len(self._constants)}"
        array = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def convolution(self, x: str, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> str:
        """A convolution with the batch norm that follows it."""
        return self.add(
            "Conv",
            x,
            *self._weight_and_bias(fuse_conv_bn_eval(conv, norm)),
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            pads=[int(p) for p in conv.padding] * 2,
        )

    def _weight_and_bias(self, module: nn.Conv2d | nn.Linear) -> tuple[str, str]:
        """Both of a module into which a batch norm was folded: then there is a bias."""
        return self.constant(module.weight), self.constant(cast(Tensor, module.bias))

    def stem(self, student: Student) -> str:
        """The map before the first stage."""
        return self.add("Relu", self.convolution(INPUTS, student.stem, student.norm))

    def stages(self, x: str, student: Student, stages: Iterable[int], exits: Container[int]) -> tuple[list[str], str]:
        """Some stages in a row from the map `x` on: unit vectors of those that are `exits`, and the last map."""
        found, sides = [], _sides(student.spec.side)
        for k in stages:
            for block in cast(nn.Sequential, student.stages[k]):
                x = self.block(x, cast(ResidualBlock, block))
            if k in exits:
                found.append(self.adapter(x, cast(Adapter, student.adapters[k]), sides[k]))
        return found, x

    def block(self, x: str, block: ResidualBlock) -> str:
        """As `ResidualBlock.forward`."""
        y = self.add("Relu", self.convolution(x, block.conv1, block.norm1))
        y = self.convolution(y, block.conv2, block.norm2)
        if isinstance(block.shortcut, nn.Sequential):
            x = self.convolution(x, *block.shortcut)
        return self.add("Relu", self.add("Add", y, x))

    def adapter(self, x: str, adapter: Adapter, side: int) -> str:
        """As `Adapter.forward` of a map (N, C, side, side), then normalised: (N, D)."""
        squeeze = adapter.conv.out_channels
        y = self.add("Relu", self.convolution(x, adapter.conv, adapter.norm))
        y = self.add("Reshape", y, self.constant(np.array([-1, squeeze, side * side])))
        y = self.add("MatMul", y, self.constant(_pooling(side)))  # (N, squeeze, 9)
        y = self.add("Reshape", y, self.constant(np.array([-1, squeeze * 9])))
        y = self.add("Gemm", y, *self._weight_and_bias(fuse_linear_bn_eval(adapter.linear, adapter.out)), transB=1)
        return self.add("LpNormalization", y, axis=1, p=2)

    def graph(self, name: str, shape: _Shape, outputs: Mapping[str, tuple[str, _Shape]]) -> bytes:
        """The whole as a checked ONNX file: input `name`, and `outputs` by name, each a result and its shape."""
        for output, (result, _) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [result], [output], name=output))
        graph = helper.make_graph(
            self._nodes,
            "student",
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)],
            [
                helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, own)
                for output, (_, own) in outputs.items()
            ],
            self._constants,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="tutelage"
        )
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())


def _pooling(side: int) -> Tensor:
    """(side * side, 9): what each pixel of a map adds to each cell of its 3x3 average pooling."""
    pixels = torch.eye(side * side).reshape(side * side, 1, side, side)
    return functional.adaptive_avg_pool2d(pixels, 3).reshape(side * side, 9)
