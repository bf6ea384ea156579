"""What recognition is measured on: a device's persons, its students and captures of a new and a worn sensor."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from _times import Call

from device_sim.evaluation.early_exit import EarlyExit
from device_sim.learning import Labelled, LearningRules, training_set
from device_sim.models import Models, shipped
from device_sim.recognition import Enrolled, RunningModel
from device_sim.site import Site, SiteSize, Taken, synthetic_site
from tutelage.biometrics.matching import DecisionRule, Gallery
from tutelage.captures import Pixels, to_input
from tutelage.nn.compiled import compiled
from tutelage.nn.packaging import calibrate
from tutelage.nn.self_distil import SelfDistillation, TrainingSet, self_distil
from tutelage.nn.students import Recogniser, Student
from tutelage.package import StudentPackage, read_package

PERSONS, REFERENCES, PROBES, STRANGERS = 16, 3, 24, 300
LEARNT = 6
"""Captures of each person that a generation learns from."""


@dataclass(frozen=True)
class Ground:
    """A device's persons, students and captures."""

    models: Models
    package: StudentPackage
    site: Site
    enrolled: Enrolled

    @staticmethod
    def of(seed: int) -> Ground:
        models = shipped()
        size = SiteSize(PERSONS, REFERENCES, PROBES, STRANGERS, wear=0.5)
        site = synthetic_site(seed, 0, size, models.impostors)
        references = list(zip(site.references.persons, site.references.captures, strict=True))
        package = read_package(models.release.package, trusted=[models.release.trusted])
        return Ground(models, package, site, Enrolled.of(references, models.student.spec.side))

    @property
    def captures(self) -> Sequence[Pixels]:
        return self.site.probes_new.captures

    def taught(self) -> TrainingSet:
        """What a device on the worn sensor learns from."""
        rows = self.rows(self.site.probes_worn, range(LEARNT))
        labelled = [Labelled(c, p, taught=True) for p, c in zip(rows.persons, rows.captures, strict=True)]
        return training_set(labelled, self.enrolled.against(self.models.impostors.negatives), LearningRules())

    def rows(self, taken: Taken, wanted: range) -> Taken:
        """Captures number `wanted` of each person."""
        pairs = enumerate(zip(taken.persons, taken.captures, strict=True))
        return Taken.of(pair for i, pair in pairs if i % PROBES in wanted)


def generation(ground: Ground, seed: int) -> Student:
    """The released student after one self-distillation with a device's default settings."""
    student = copy.deepcopy(ground.models.student)
    self_distil(student, ground.taught(), SelfDistillation(seed=seed))
    return student.eval()


def model_of(student: Student, ground: Ground, name: str) -> RunningModel:
    """`student` at work for the ground's persons, calibrated as in a package."""
    recogniser = compiled(Recogniser.of(student, ground.package.info.readout))
    unseen = ground.models.impostors.unseen
    calibration = calibrate(recogniser.features(to_input(unseen.captures)), unseen.persons)
    gallery = Gallery(ground.enrolled.persons, recogniser.features(ground.enrolled.inputs))
    return RunningModel(name, "", recogniser, calibration, gallery, DecisionRule())


def over(model: RunningModel | EarlyExit, captures: Sequence[Pixels]) -> Call:
    """Answers `captures`, again and again."""
    return lambda i: model.recognise(captures[i % len(captures)])
