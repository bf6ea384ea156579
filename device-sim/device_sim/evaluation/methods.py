"""The ways to learn that are compared; each turns a frozen student and labelled samples into what recognises next."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from device_sim.evaluation.measure import Rates, SiteInputs, Vectors, measure, student_vectors
from device_sim.learning import Labelled, LearningRules, training_set
from device_sim.recognition import Enrolled
from device_sim.site import Site
from tutelage.captures import to_input
from tutelage.nn.losses import PRESETS
from tutelage.nn.self_distil import SelfDistillation, self_distil
from tutelage.nn.students import Student

METHODS = ("frozen", "template", *PRESETS)
"""Names in the order of tables: no learning, adapted references, then the presets of self-distillation."""

Measured = dict[str, dict[str, Rates]]


@dataclass(frozen=True)
class Comparison:
    """What all methods share at one site."""

    site: Site
    inputs: SiteInputs
    student: Student
    """The frozen one; never changed."""
    settings: SelfDistillation
    learning: LearningRules
    negatives: bool = True
    """Whether a student is trained against the negatives of the impostor set."""

    def run(self, method: str, samples: Sequence[Labelled], seed: int) -> Measured:
        """Rates after `method` has learnt from `samples`."""
        if method == "frozen" or not samples:
            return measure(self.site, self.inputs, self.student)
        if method == "template":
            return measure(self.site, self.inputs, self.student, self._templates(samples))
        return measure(self.site, self.inputs, self.trained(method, samples, seed))

    def trained(
        self,
        preset: str,
        samples: Sequence[Labelled],
        seed: int,
        progress: Callable[[int, int, dict[str, float]], None] = lambda *_: None,
    ) -> Student:
        """A copy of the student after self-distillation with `preset`."""
        enrolled = Enrolled(self.site.references.persons, self.inputs.references)
        if self.negatives:
            enrolled = enrolled.against(self.site.impostors.negatives)
        taught = training_set(samples, enrolled, self.learning)
        settings = replace(self.settings, preset=preset, seed=seed)
        return self_distil(copy.deepcopy(self.student), taught, settings, progress=progress).student

    def _templates(self, samples: Sequence[Labelled]) -> Vectors:
        """References drawn half way to the mean of the person's samples (Pisani et al. 2019, averaging)."""
        before = student_vectors(self.student, self.inputs.references)
        inputs = to_input([s.capture for s in samples], self.student.spec.side)
        new, owners = student_vectors(self.student, inputs), np.asarray([s.person for s in samples])
        moved = {readout: vectors.copy() for readout, vectors in before.items()}
        for row, person in enumerate(self.site.references.persons):
            if (owners == person).any():
                for readout, vectors in moved.items():
                    mean = vectors[row] + new[readout][owners == person].mean(0)
                    vectors[row] = mean / np.linalg.norm(mean)
        return moved
