"""The rivals of a learning device: the frozen student, and template adaptation, on the very captures it meets.

The frozen student is the released version alone, as the cloud last brought it. Template adaptation recognises by the
same student, but draws each person's references half way to the mean of what it lately took for that person (averaging,
Pisani et al. 2019): of captures it accepted inside the sample interval, as the device's first samples, and of failed
attempts that the teacher named and its student finds plausible, as the device's second samples. So both rivals know all
that the device could know, and differ from it by how they learn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from device_sim.learning import Labelled, LearningRules, plausible
from device_sim.recognition import Enrolled, RunningModel
from device_sim.sampling import SampleRules
from tutelage.biometrics.calibration import Calibration
from tutelage.biometrics.features import Features
from tutelage.biometrics.matching import DecisionRule, Gallery
from tutelage.captures import Pixels
from tutelage.labelling import Labeller
from tutelage.package import StudentPackage

LATEST = 32
"""Captures of a person that template adaptation remembers."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Taken:
    """Whom a recogniser takes a capture for."""

    person: str | None
    score: float
    accepted: bool


@dataclass(frozen=True)
class Eyes:
    """What it takes to recognise: references in a space, their calibration and the accept score."""

    gallery: Gallery
    calibration: Calibration
    accept_score: float

    def take(self, features: Features) -> list[Taken]:
        """Whom each row of `features` is taken for."""
        matches = self.gallery.identify(features)
        scores = np.asarray(self.calibration.score(np.array([m.cosine for m in matches])), np.float64)
        return [
            Taken(m.person, float(s), m.person is not None and bool(s >= self.accept_score))
            for m, s in zip(matches, scores, strict=True)
        ]

    @staticmethod
    def of(model: RunningModel) -> Eyes:
        """Those of a running model."""
        return Eyes(model.gallery, model.calibration, model.rule.accept_score)


class Rival(Protocol):
    """Whoever recognises what the device recognises, by the released student's features."""

    eyes: Eyes

    def renewed(self, released: RunningModel) -> None:
        """Recognise by another release, or with other persons enrolled: those of `released`."""

    def accepted(self, taken: Taken, features: Features, capture: Pixels) -> None:
        """A capture was accepted."""

    def failed(self, captures: Sequence[Pixels]) -> None:
        """An attempt failed."""

    def asked(self, labeller: Labeller) -> None:
        """The teacher can be asked about failed attempts.

        Raises:
            ServiceError: it cannot; nothing is lost.
        """


@dataclass
class FrozenStudent:
    """The released student, which learns nothing."""

    eyes: Eyes

    def renewed(self, released: RunningModel) -> None:
        """See `Rival.renewed`."""
        self.eyes = Eyes.of(released)

    def accepted(self, taken: Taken, features: Features, capture: Pixels) -> None:
        """See `Rival.accepted`: it stays as it is."""

    def failed(self, captures: Sequence[Pixels]) -> None:
        """See `Rival.failed`: it stays as it is."""

    def asked(self, labeller: Labeller) -> None:
        """See `Rival.asked`: it has nothing to ask."""


@dataclass
class AdaptedTemplates:
    """The released student with references that follow what is taken for each person."""

    released: RunningModel
    rules: SampleRules
    learning: LearningRules
    anchored: bool = True
    """Whether what it learns must reach the sample interval against the original references too, as on a device."""
    eyes: Eyes = field(init=False)
    _captures: dict[str, deque[Pixels]] = field(init=False, default_factory=dict)
    _vectors: dict[str, deque[Floats]] = field(init=False, default_factory=dict)
    """Features of `_captures` in the released student's space."""
    _waiting: list[Sequence[Pixels]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Start with the references as they are."""
        self.eyes = Eyes.of(self.released)

    def renewed(self, released: RunningModel) -> None:
        """See `Rival.renewed`: what was learnt is brought into the new space."""
        same = released.gallery.features.space == self.released.gallery.features.space
        self.released = released
        here = set(released.gallery.persons)
        self._captures = {person: kept for person, kept in self._captures.items() if person in here}
        self._vectors = {
            person: self._vectors[person] if same else deque(released.features(list(kept)).vectors, LATEST)
            for person, kept in self._captures.items()
        }
        self._draw()

    def accepted(self, taken: Taken, features: Features, capture: Pixels) -> None:
        """See `Rival.accepted`: inside the sample interval it is learnt from."""
        if taken.person is not None and self.learns(taken, features):
            self._learn(taken.person, [capture], features.vectors)
            self._draw()

    def learns(self, taken: Taken, features: Features) -> bool:
        """Whether an accepted capture is learnt from: inside the sample interval, and near the person's references."""
        inside = self.rules.sample_low <= taken.score < self.rules.sample_high
        return taken.person is not None and inside and self._near_references(taken.person, features)

    def failed(self, captures: Sequence[Pixels]) -> None:
        """See `Rival.failed`: it waits for the teacher."""
        self._waiting.append(captures)

    def asked(self, labeller: Labeller) -> None:
        """See `Rival.asked`: what the teacher names, and the released student finds plausible, is learnt from."""
        if not self._waiting:
            return
        answers = labeller.label(self._waiting)
        waiting, self._waiting = self._waiting, []
        for captures, answer in zip(waiting, answers, strict=True):
            if answer.person is not None:
                self._believe(answer.person, captures)
        self._draw()

    def _near_references(self, person: str, features: Features) -> bool:
        """Whether `features` (1, D) are near enough to the original references of `person`."""
        best = float(self.released.gallery.verify(person, features)[0])
        return not self.anchored or float(self.released.calibration.score(best)) >= self.rules.sample_low

    def _believe(self, person: str, captures: Sequence[Pixels]) -> None:
        """Learn those of `captures` that may be of `person`."""
        labelled = [Labelled(capture, person) for capture in captures]
        likely = plausible(self.released, labelled, self.learning.plausible_rank)
        believed = [capture for capture, ok in zip(captures, likely, strict=True) if ok]
        if believed:
            self._learn(person, believed, self.released.features(believed).vectors)

    def _learn(self, person: str, captures: Iterable[Pixels], vectors: Floats) -> None:
        self._captures.setdefault(person, deque(maxlen=LATEST)).extend(captures)
        self._vectors.setdefault(person, deque(maxlen=LATEST)).extend(vectors)

    def _draw(self) -> None:
        """Draw the references half way to the mean of what was learnt."""
        gallery, space = self.released.gallery, self.released.gallery.features.space
        moved = gallery.features.vectors.copy()
        means = {person: np.mean(kept, axis=0) for person, kept in self._vectors.items()}
        for row, person in enumerate(gallery.persons):
            if person in means:
                drawn = moved[row] + means[person]
                moved[row] = drawn / np.linalg.norm(drawn)
        self.eyes = replace(Eyes.of(self.released), gallery=Gallery(gallery.persons, Features(moved, space)))


def released_model(
    package: StudentPackage, references: Sequence[tuple[str, Pixels]], rules: SampleRules
) -> RunningModel:
    """The student of a released `package` with `references` enrolled, as a device has it before it learns."""
    enrolled = Enrolled.of(references, package.info.student["side"])
    return RunningModel.of(package, enrolled, DecisionRule(accept_score=rules.accept_score))
