"""Students compiled for recognition: the same features some times sooner, on one core.

A student that recognises is run by ONNX Runtime from a graph with folded batch norms and blocked memory layouts
(`student_graph`; docs/adr/0006-onnx-runtime-recognises.md weighs it against torch's own means). Compiling takes some
milliseconds, so it is done at each swap, from the student as it was verified. Nobody has to believe in it: a compiled
student has to give the features of the uncompiled one on a trial, and where anything fails the uncompiled one goes on
recognising, in the same space, only slower.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnxruntime
import structlog

from tutelage.biometrics.features import Features
from tutelage.nn.student_graph import INPUTS, VECTORS, student_graph
from tutelage.nn.students import Floats, Recogniser

TOLERANCE = 1e-5
"""Most that a number of a unit feature may differ from the uncompiled student's: some hundred roundings of single
precision. A cosine differs by less than 2e-4 then, and by some 1e-7 in practice."""
BATCH = 64
"""Most inputs computed at once; more gain nothing and take memory."""
_TRIAL = 4  # inputs on which a compiled student is compared

_log = structlog.get_logger()


@dataclass(frozen=True)
class CompiledRecogniser(Recogniser):
    """A recogniser whose features are computed by ONNX Runtime; may be used by several threads at once."""

    session: onnxruntime.InferenceSession = field(repr=False)

    def features(self, inputs: Floats, batch: int = BATCH) -> Features:
        """Features of inputs (N, 1, side, side), within `TOLERANCE` of the uncompiled student's."""
        if not len(inputs):
            return super().features(inputs)
        parts = (inputs[start : start + batch] for start in range(0, len(inputs), batch))
        rows = [self._vectors(part) for part in parts]
        return Features(rows[0] if len(rows) == 1 else np.concatenate(rows), self.space)

    def _vectors(self, inputs: Floats) -> Floats:
        """Unit vectors of inputs (N, 1, side, side); rows of more than one exit are fused."""
        found: list[Floats] = self.session.run([VECTORS], {INPUTS: np.require(inputs, np.float32, "C")})
        return found[0]


def compiled(recogniser: Recogniser) -> Recogniser:
    """`recogniser` compiled; itself, with a warning in the log, where that fails or gives other features."""
    try:
        found = _compiled(recogniser)
        worst = _difference(recogniser, found)
    except Exception as error:  # what ONNX Runtime raises has no other base, and a device needs a student in any case
        _log.warning("a student recognises uncompiled", space=recogniser.space, reason=type(error).__name__)
        return recogniser
    if not worst <= TOLERANCE:
        _log.warning(
            "a student recognises uncompiled", space=recogniser.space, reason=f"features differ by {worst:.1g}"
        )
        return recogniser
    return found


def _compiled(recogniser: Recogniser) -> CompiledRecogniser:
    session = open_graph(student_graph(recogniser.student, recogniser.readout))
    return CompiledRecogniser(recogniser.student, recogniser.readout, recogniser.space, session)


def open_graph(graph: bytes) -> onnxruntime.InferenceSession:
    """An ONNX graph, made ready to run on one thread: the caller's."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors: they are raised as well, and what is less concerns its makers
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _difference(one: Recogniser, other: Recogniser) -> float:
    """Largest difference of any number of two recognisers' features on a trial."""
    side = one.student.spec.side
    trial = np.random.default_rng(0).standard_normal((_TRIAL, 1, side, side), np.float32)
    return float(np.abs(one.features(trial).vectors - other.features(trial).vectors).max())
