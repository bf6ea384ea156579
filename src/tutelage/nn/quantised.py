"""References in small integers: which of very many can be the nearest, found some times sooner.

Tens of thousands of references are more than a core's cache holds, and a comparison with each of them in single
precision is as slow as they come out of memory. In integers of 7 bits they are a quarter of the size, and processors
multiply them faster (ONNX Runtime's `MatMulInteger`). A cosine of these is a little off, and by how much at most is
known: what cannot be the nearest by then needs no other look, and the few that are left are compared as ever
(`tutelage.biometrics.matching.Gallery`). So an answer is the same to the last bit.

**Bound.** For a probe q and a reference r, both of unit length, and what is left of them in integers, q' and r':
|q·r - q'·r'| <= |q - q'|·|r| + |q'|·|r - r'| (Cauchy & Schwarz). Each reference has steps of its own. 7 bits, not 8:
where a processor has no instruction for this, sums of two products are kept in 16 bits, which 255 · 63 · 2 fits into.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import structlog
from onnx import helper, numpy_helper

from tutelage.biometrics.features import Vectors
from tutelage.nn.compiled import open_graph
from tutelage.nn.student_graph import IR_VERSION, OPSET

__all__ = ["QuantisedReferences", "quantised"]

REFERENCE_STEPS = 63
"""Steps from zero to the largest number of a reference."""
PROBE_STEPS = 127
"""The same of a probe, whose zero is at `_ZERO`."""
_ZERO = 128
_ROUNDING = 1e-5
"""Far more than single precision adds to the bound."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class QuantisedReferences:
    """A `Coarse` comparison with M references; may be used by several threads at once."""

    steps: Vectors
    """Size of one step of each reference (M,)."""
    off: float
    """Largest distance of a reference from what is left of it."""
    session: onnxruntime.InferenceSession = field(repr=False)

    def cosines(self, probe: Vectors) -> tuple[Vectors, float]:
        """See `Coarse.cosines`."""
        step = max(float(np.abs(probe).max()), 1e-30) / PROBE_STEPS
        rounded = np.rint(probe / step)
        (sums,) = self.session.run(None, {"probe": (rounded + _ZERO).astype(np.uint8)[None]})
        found: Vectors = sums[0].astype(np.float32) * (self.steps * np.float32(step))
        left = rounded * step
        off = float(np.linalg.norm(probe - left) + np.linalg.norm(left) * self.off)
        return found, off + _ROUNDING


def quantised(references: Vectors) -> QuantisedReferences | None:
    """`references` (M, D), unit rows or zero, in integers; None, with a warning in the log, where that fails."""
    try:
        return _quantised(references)
    except Exception as error:  # what ONNX Runtime raises has no other base, and there is another way to the answer
        _log.warning("references are compared in single precision", reason=type(error).__name__)
        return None


def _quantised(references: Vectors) -> QuantisedReferences:
    steps = np.maximum(np.abs(references).max(axis=1), np.float32(1e-30)) / np.float32(REFERENCE_STEPS)
    rounded = np.rint(references / steps[:, None])
    off = float(np.linalg.norm(references - rounded * steps[:, None], axis=1).max())
    return QuantisedReferences(steps, off, open_graph(_products(rounded.astype(np.int8))))


def _products(references: npt.NDArray[np.int8]) -> bytes:
    """The graph from a probe (1, D) to its inner products (1, M) with `references`, both in steps."""
    count, dimension = references.shape
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(references.T), "references"),
        numpy_helper.from_array(np.array(_ZERO, np.uint8), "zero"),
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["probe", "references", "zero"], ["sums"])],
        "references",
        [helper.make_tensor_value_info("probe", onnx.TensorProto.UINT8, (1, dimension))],
        [helper.make_tensor_value_info("sums", onnx.TensorProto.INT32, (1, count))],
        constants,
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="tutelage")
    return bytes(model.SerializeToString())
