"""A compiled student in two parts: up to an early exit, and from its map to a later one.

Whoever believes the early exit need not compute the rest; whoever does not loses nothing but a second call.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnxruntime

from tutelage.errors import UsageError
from tutelage.nn.compiled import open_graph
from tutelage.nn.student_graph import INPUTS, MAP, VECTORS, cut_graphs
from tutelage.nn.students import EXITS, Floats, Student


@dataclass(frozen=True)
class CutStudent:
    """Both parts; may be used by several threads at once."""

    head: onnxruntime.InferenceSession = field(repr=False)
    tail: onnxruntime.InferenceSession = field(repr=False)

    @staticmethod
    def of(student: Student, early: int, late: int = EXITS - 1) -> CutStudent:
        """`student` as it is now, cut behind exit `early`; exits are numbered from 0.

        Raises:
            UsageError: `early` does not lie before `late`, or a student has no such exits.
        """
        if not 0 <= early < late < EXITS:
            raise UsageError(
                f"a student is cut between two of its exits 0 to {EXITS - 1}, not between {early} and {late}"
            )
        head, tail = cut_graphs(student, early, late)
        return CutStudent(open_graph(head), open_graph(tail))

    def begin(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Unit vectors (N, D) of the early exit of inputs (N, 1, side, side), and the map for `finish`."""
        vectors, last = self.head.run([VECTORS, MAP], {INPUTS: inputs})
        return vectors, last

    def finish(self, last: Floats) -> Floats:
        """Unit vectors (N, D) of the later exit."""
        found: list[Floats] = self.tail.run([VECTORS], {MAP: last})
        return found[0]
