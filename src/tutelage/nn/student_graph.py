"""A student as an ONNX graph, written down node by node for recognition alone.

`torch.onnx` would trace it: four to ten seconds and a hundred MiB on the machine that answers at a door, each time a
generation is swapped. A student has six kinds of layers, so its graph is written here, in some milliseconds, and with
what only recognition may do: every batch norm is folded into the convolution or linear map before it, adapters that
nobody reads are left out, and pooling is a matrix product (ONNX has no adaptive pooling).

The graph: input `inputs` (N, 1, side, side), output `vectors` (N, D), or (N, K * D) of all exits; both float32, N free.
It is in one long-standing version of ONNX, so that any later runtime takes it.
"""

from __future__ import annotations

import math
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

INPUTS, VECTORS = "inputs", "vectors"
"""Names of the graph's input and output."""
_OPSET, _IR_VERSION = 17, 8  # of ONNX 1.12, 2022


def student_graph(student: Student, readout: str) -> bytes:
    """The graph that gives the unit vectors of `readout`, one of `READOUTS`, of `student` in evaluation mode."""
    writer = _Writer()
    exits = range(EXITS) if readout == "fused" else [READOUTS.index(readout)]
    y = writer.add("Relu", writer.convolution(INPUTS, student.stem, student.norm))
    side, found = _halved(student.spec.side), []
    for k in range(max(exits) + 1):
        for block in cast(nn.Sequential, student.stages[k]):
            y = writer.block(y, cast(ResidualBlock, block))
        side = side if k == 0 else _halved(side)
        if k in exits:
            found.append(writer.adapter(y, cast(Adapter, student.adapters[k]), side))
    if len(found) > 1:
        together = writer.add("Concat", *found, axis=1)
        found = [writer.add("Mul", together, writer.constant(np.float32(1 / math.sqrt(len(found)))))]
    return writer.graph(found[0], student.spec.side, len(exits) * student.spec.dimension)


def _halved(side: int) -> int:
    """Side of a map after a convolution of stride 2 whose padding keeps its middle."""
    return (side + 1) // 2


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

    def graph(self, output: str, side: int, length: int) -> bytes:
        """The whole, as a checked ONNX file."""
        self._nodes.append(helper.make_node("Identity", [output], [VECTORS], name=VECTORS))
        graph = helper.make_graph(
            self._nodes,
            "student",
            [helper.make_tensor_value_info(INPUTS, onnx.TensorProto.FLOAT, ["N", 1, side, side])],
            [helper.make_tensor_value_info(VECTORS, onnx.TensorProto.FLOAT, ["N", length])],
            self._constants,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="tutelage"
        )
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())


def _pooling(side: int) -> Tensor:
    """(side * side, 9): what each pixel of a map adds to each cell of its 3x3 average pooling."""
    pixels = torch.eye(side * side).reshape(side * side, 1, side, side)
    return functional.adaptive_avg_pool2d(pixels, 3).reshape(side * side, 9)
