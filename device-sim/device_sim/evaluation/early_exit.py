"""What recognising at an early exit saves and costs: measured beside the device, which does not do it (docs/speed.md).

An early exit's features are a space of their own, so an early answer needs its own references and its own calibration,
both made like the full student's. It is believed from a threshold on that calibrated score, which is chosen on captures
held back for it: above every score that would have let the early exit accept somebody whom the full student refuses, or
as somebody else. So on those captures as many genuine ones are accepted as before, or more, and no other ones; what it
does on captures that chose nothing is the measurement. A `Recognition` tells by the space of its features which exit
answered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from device_sim.recognition import Enrolled, Recognition, RunningModel
from device_sim.sampling import SampleRules
from device_sim.site import Taken
from tutelage.biometrics.calibration import Calibration
from tutelage.biometrics.features import Features
from tutelage.biometrics.matching import Decision, Gallery
from tutelage.captures import Pixels, to_input
from tutelage.nn.cut_student import CutStudent
from tutelage.nn.packaging import Strangers, calibrate
from tutelage.nn.students import READOUTS, Floats, Recogniser


class Cut(Protocol):
    """A student in two parts, like `CutStudent`."""

    def begin(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Unit vectors of the early exit, and what `finish` goes on from."""

    def finish(self, last: Floats) -> Floats:
        """Unit vectors of the later exit."""


@dataclass(frozen=True)
class EarlyExit:
    """A running model that answers at an early exit where that is sure enough, and goes on where it is not."""

    model: RunningModel
    """The full student, read out at one exit."""
    student: Cut = field(repr=False)
    calibration: Calibration
    """Of the early exit's space."""
    gallery: Gallery
    """The persons of `model` in that space."""
    accept_score: float = math.inf
    """Least score that is accepted early; infinity accepts nobody early."""

    @staticmethod
    def of(model: RunningModel, readout: str, enrolled: Enrolled, strangers: Strangers) -> EarlyExit:
        """`model`, of the persons `enrolled`, with the early exit `readout` calibrated on `strangers`."""
        network, side = model.recogniser.student, model.recogniser.student.spec.side
        early = Recogniser.of(network, readout)
        return EarlyExit(
            model,
            CutStudent.of(network, READOUTS.index(readout), READOUTS.index(model.recogniser.readout)),
            calibrate(early.features(to_input(strangers.unseen.captures, side)), strangers.unseen.persons),
            Gallery(enrolled.persons, early.features(enrolled.inputs)),
        )

    def believed_from(self, held_back: Taken, strangers: Sequence[Pixels]) -> EarlyExit:
        """The same, accepting early from the least score that is wrong about none of these captures.

        Args:
            held_back: captures of enrolled persons that no training has seen.
            strangers: captures of nobody who is enrolled or calibrated with.
        """
        wrong = [-math.inf]
        for person, capture in [
            *zip(held_back.persons, held_back.captures, strict=True),
            *((None, c) for c in strangers),
        ]:
            early, full = self.early(capture), self.model.recognise(capture)
            agreed = full.decision is Decision.ACCEPT and full.match.person == early.match.person
            if early.match.person != person and not agreed:
                wrong.append(early.score)
        return replace(self, accept_score=max(self.model.rule.accept_score, np.nextafter(max(wrong), math.inf)))

    def early(self, capture: Pixels) -> Recognition:
        """What the early exit says of one capture, whether it is sure or not."""
        return self._answer(self.student.begin(self._input(capture))[0], early=True)

    def recognise(self, capture: Pixels) -> Recognition:
        """Answer one capture, 1:N, at the early exit or at the full student's."""
        vectors, last = self.student.begin(self._input(capture))
        answer = self._answer(vectors, early=True)
        if answer.score >= self.accept_score:
            return answer
        return self._answer(self.student.finish(last), early=False)

    def is_early(self, answer: Recognition) -> bool:
        """Whether the early exit gave `answer`."""
        return answer.features.space == self.gallery.features.space

    def _input(self, capture: Pixels) -> Floats:
        return to_input([capture], self.model.recogniser.student.spec.side)

    def _answer(self, vectors: Floats, *, early: bool) -> Recognition:
        gallery = self.gallery if early else self.model.gallery
        calibration = self.calibration if early else self.model.calibration
        features = Features(vectors, gallery.features.space)
        match = gallery.identify(features)[0]
        score = float(calibration.score(match.cosine)) if match.person is not None else -math.inf
        decision = self.model.rule.decide(score)
        return Recognition(match, score, bool(calibration.extrapolated(score)), decision, features)


@dataclass(frozen=True)
class Answered:
    """How an early exit and the full student alone answered the same captures; shares are 0..1."""

    early: float
    """Share of the genuine captures that were answered early."""
    tar: float
    """Share of the genuine captures accepted as their person."""
    tar_alone: float
    """The same by the full student alone."""
    strangers: float
    """Share of the strangers' captures that were accepted."""
    strangers_alone: float
    first_lost: float
    """Share of the first samples, by the full student's score, that were answered early: their score is another's."""

    @staticmethod
    def of(cascade: EarlyExit, genuine: Taken, strangers: Sequence[Pixels], rules: SampleRules) -> Answered:
        """Answer captures that chose no threshold."""
        both = [(cascade.recognise(c), cascade.model.recognise(c)) for c in genuine.captures]
        pairs = list(zip(genuine.persons, both, strict=True))
        firsts = [cascade.is_early(one) for one, full in both if rules.sample_low <= full.score < rules.sample_high]
        return Answered(
            early=float(np.mean([cascade.is_early(one) for one, _ in both])),
            tar=float(np.mean([_accepted(one, person) for person, (one, _) in pairs])),
            tar_alone=float(np.mean([_accepted(full, person) for person, (_, full) in pairs])),
            strangers=float(np.mean([cascade.recognise(c).decision is Decision.ACCEPT for c in strangers])),
            strangers_alone=float(np.mean([cascade.model.recognise(c).decision is Decision.ACCEPT for c in strangers])),
            first_lost=float(np.mean(firsts)) if firsts else 0.0,
        )


def _accepted(answer: Recognition, person: str) -> bool:
    return answer.decision is Decision.ACCEPT and answer.match.person == person
