"""The running model: everything needed to answer one capture, held together and replaced together.

A `RunningModel` joins a student, the calibration of its space and the enrolled persons' features in that space. It
never changes; a device swaps one for another by assigning a single attribute, so that no capture is answered by a
half-swapped model. Building one re-extracts every reference into the new space: nobody has to be enrolled again.
`Neighbours` are the samples kept so far in the same space, by which near duplicates are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from device_sim.sampling import NO_NEIGHBOUR
from tutelage.biometrics.calibration import Calibration
from tutelage.biometrics.features import Features, cosines
from tutelage.biometrics.matching import Decision, DecisionRule, Gallery, Match
from tutelage.captures import Pixels, to_input
from tutelage.errors import SpaceMismatchError
from tutelage.nn.compiled import compiled
from tutelage.nn.packaging import Strangers
from tutelage.nn.quantised import quantised
from tutelage.nn.students import Recogniser
from tutelage.package import StudentPackage

Floats = npt.NDArray[np.float32]

NEIGHBOURS = 64
"""Latest samples of a person among which duplicates are looked for: they are of moments, not of months."""


LAST = "\uffff"
"""Put before a negative's id: it sorts after every person's name and is nobody's."""


@dataclass(frozen=True)
class Enrolled:
    """The references of a device, as captures."""

    persons: tuple[str, ...]
    """Person of each reference."""
    inputs: Floats
    """(R, 1, side, side)."""

    @staticmethod
    def of(references: Sequence[tuple[str, Pixels]], side: int) -> Enrolled:
        """Prepare `references`, pairs of person and capture."""
        return Enrolled(tuple(p for p, _ in references), to_input([c for _, c in references], side))

    def against(self, negatives: Strangers) -> Enrolled:
        """These and, numbered after them, people to train against, each a class of their own.

        Without them a student learns what tells its few persons apart and lets all others drift together, so that the
        threshold for the same FMR rises (ADR 4).
        """
        if not negatives.persons:
            return self
        inputs = to_input(negatives.captures, self.inputs.shape[-1])
        names = tuple(LAST + person for person in negatives.persons)
        return Enrolled((*self.persons, *names), np.concatenate([self.inputs, inputs]))


@dataclass(frozen=True)
class Recognition:
    """What a model says of one capture."""

    match: Match
    score: float
    """-10 log10(FMR) of the nearest person; minus infinity where nobody is enrolled."""
    extrapolated: bool
    """Whether the score lies beyond what the calibration could measure."""
    decision: Decision
    features: Features
    """(1, D) of the capture."""


@dataclass(frozen=True)
class RunningModel:
    """One student at work in one space."""

    version: str
    """Like `v3+7`."""
    digest: str
    """Of its package."""
    recogniser: Recogniser
    calibration: Calibration
    gallery: Gallery
    rule: DecisionRule

    def __post_init__(self) -> None:
        """Have the gallery sort its references now, so that the first capture does not wait for it."""
        self.gallery.identify(self.gallery.features[:1])

    @staticmethod
    def of(package: StudentPackage, enrolled: Enrolled, rule: DecisionRule) -> RunningModel:
        """Load the student, compile it, and bring all references into its space."""
        recogniser = compiled(Recogniser.of_package(package))
        features = recogniser.features(enrolled.inputs)
        return RunningModel(
            version=package.info.version,
            digest=package.digest,
            recogniser=recogniser,
            calibration=Calibration.from_json(package.calibration),
            gallery=Gallery(enrolled.persons, features, quantised),
            rule=rule,
        )

    def features(self, captures: Sequence[Pixels]) -> Features:
        """Features of captures in this model's space, one row each."""
        return self.recogniser.features(to_input(captures, self.recogniser.student.spec.side))

    def with_enrolled(self, person: str, captures: Sequence[Pixels]) -> RunningModel:
        """The same student with one more person, or more references of one."""
        features = self.features(captures)
        persons = (*self.gallery.persons, *([person] * len(captures)))
        everybodys = Features.concat([self.gallery.features, features])
        return replace(self, gallery=replace(self.gallery, persons=persons, features=everybodys))

    def recognise(self, capture: Pixels) -> Recognition:
        """Answer one capture, 1:N."""
        features = self.features([capture])
        match = self.gallery.identify(features)[0]
        if match.person is None:
            return Recognition(match, float("-inf"), False, Decision.UNKNOWN, features)
        score = float(self.calibration.score(match.cosine))
        extrapolated = bool(self.calibration.extrapolated(score))
        return Recognition(match, score, extrapolated, self.rule.decide(score), features)

    def verify(self, person: str, capture: Pixels) -> float:
        """Score of one capture against the claimed `person`, 1:1.

        Raises:
            InputError: `data-insufficient`, `person` is not enrolled.
        """
        features = self.features([capture])
        return float(self.calibration.score(self.gallery.verify(person, features)[0]))


class Neighbours:
    """Features of the samples kept of each person, all in one space; not safe for several threads."""

    def __init__(self, space: str) -> None:
        """Nobody's samples yet, in `space`."""
        self.space = space
        self._kept: dict[str, Features] = {}

    def add(self, person: str, features: Features) -> None:
        """Remember samples kept of `person`; beyond `NEIGHBOURS` of them the oldest are forgotten.

        Raises:
            SpaceMismatchError: they are of another space.
        """
        if features.space != self.space:
            raise SpaceMismatchError(features.space, self.space)
        kept = self._kept.get(person)
        everything = features if kept is None else Features.concat([kept, features])
        self._kept[person] = everything[-NEIGHBOURS:]

    def nearest(self, person: str, features: Features) -> float:
        """Cosine of a capture's `features` (1, D) to the nearest sample kept of `person`; `NO_NEIGHBOUR` without one.

        Raises:
            SpaceMismatchError: the capture's features are of another space.
        """
        kept = self._kept.get(person)
        return NO_NEIGHBOUR if kept is None else float(cosines(features, kept).max())
