"""The rivals of a learning device: one stays as it is, the other's references follow what it takes for each person."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from toy_device import PERSONS, PixelTeacher, finger, name_of, toy_model

from device_sim.learning import LearningRules
from device_sim.recognition import RunningModel
from device_sim.sampling import SampleRules
from device_sim.year.place import Visit, Who
from device_sim.year.rivals import LATEST, AdaptedTemplates, Eyes, FrozenStudent, Taken
from device_sim.year.uplink import Uplink
from device_sim.year.visits import Beside, Course
from tutelage.biometrics.features import Features, cosines
from tutelage.errors import Code, ServiceError
from tutelage.labelling import AbstentionPolicy, GalleryLabeller

RULES = SampleRules(sample_low=33.0, sample_high=60.0)


@pytest.fixture
def model() -> RunningModel:
    return toy_model()


@pytest.fixture
def templates(model: RunningModel) -> AdaptedTemplates:
    return AdaptedTemplates(model, RULES, LearningRules(), anchored=False)


def of(model: RunningModel, person: int, press: int = 700, wear: float = 0.0) -> tuple[Features, object]:
    capture = finger(person, press, wear)
    return model.features([capture]), capture


def test_eyes_take_a_capture_for_whom_the_running_model_does(model: RunningModel):
    for person in range(PERSONS):
        features, capture = of(model, person, wear=0.3)
        (taken,), answer = Eyes.of(model).take(features), model.recognise(capture)
        assert (taken.person, taken.score) == (answer.match.person, pytest.approx(answer.score))
        assert taken.accepted is (answer.decision.value == "accept")


@pytest.mark.parametrize(("score", "learnt"), [(32.9, False), (33.0, True), (59.9, True), (60.0, False)])
def test_templates_learn_inside_the_sample_interval_alone(templates, model, score: float, learnt: bool):
    features, capture = of(model, 0)
    before = templates.eyes.gallery.features.vectors
    templates.accepted(Taken(name_of(0), score, True), features, capture)
    assert (templates.eyes.gallery.features.vectors != before).any() == learnt


@pytest.mark.parametrize("anchored", [True, False])
def test_anchored_templates_learn_nothing_that_is_far_from_the_references(model, anchored: bool):
    templates = AdaptedTemplates(model, RULES, LearningRules(), anchored=anchored)
    for press, learnt in ((0, True), (1, True)):  # the references themselves
        features, _ = of(model, 0, press)
        assert templates.learns(Taken(name_of(0), 40.0, True), features) is learnt
    features, _ = of(model, 3)
    assert templates.learns(Taken(name_of(0), 40.0, True), features) is not anchored


def test_templates_are_drawn_half_way_to_the_mean_of_what_was_learnt(templates, model):
    first, second = of(model, 0, 700), of(model, 0, 701)
    for features, capture in (first, second):
        templates.accepted(Taken(name_of(0), 40.0, True), features, capture)
    mean = (first[0].vectors[0] + second[0].vectors[0]) / 2
    for row, person in enumerate(model.gallery.persons):
        before, after = model.gallery.features.vectors[row], templates.eyes.gallery.features.vectors[row]
        wanted = (before + mean) / np.linalg.norm(before + mean) if person == name_of(0) else before
        assert after == pytest.approx(wanted, abs=1e-6)


def test_templates_forget_what_is_old_and_who_left(templates, model):
    for press in range(LATEST + 5):
        features, capture = of(model, 0, 700 + press)
        templates.accepted(Taken(name_of(0), 40.0, True), features, capture)
    assert len(templates._vectors[name_of(0)]) == LATEST
    others = [(name_of(p), finger(p, 0)) for p in range(1, PERSONS)]
    templates.renewed(toy_model(tuple(others)))
    assert set(templates.eyes.gallery.persons) == {name for name, _ in others}
    assert not templates._vectors


def test_templates_learn_from_failed_attempts_once_the_teacher_can_be_asked(templates, model):
    uplink = Uplink(GalleryLabeller(PixelTeacher(), AbstentionPolicy(0.5, 0.05)))
    for person in range(PERSONS):
        uplink.enrol(name_of(person), [finger(person, k) for k in range(2)])
    templates.failed([finger(0, 710 + k, 0.3) for k in range(3)])
    uplink.online = False
    with pytest.raises(ServiceError) as refused:
        templates.asked(uplink)
    assert refused.value.code is Code.SERVICE_UNAVAILABLE
    before = templates.eyes.gallery.features.vectors
    uplink.online = True
    templates.asked(uplink)
    changed = (templates.eyes.gallery.features.vectors != before).any(1)
    assert {p for p, moved in zip(model.gallery.persons, changed, strict=True) if moved} == {name_of(0)}
    templates.asked(uplink)  # nothing is left to ask


def test_the_frozen_student_learns_nothing_and_gets_releases(model):
    frozen = FrozenStudent(Eyes.of(model))
    features, capture = of(model, 0)
    frozen.accepted(Taken(name_of(0), 40.0, True), features, capture)
    frozen.failed([capture])
    frozen.asked(Uplink(GalleryLabeller(PixelTeacher(), AbstentionPolicy(0.5, 0.05)), online=False))
    assert (frozen.eyes.gallery.features.vectors == model.gallery.features.vectors).all()
    fewer = toy_model(((name_of(0), finger(0, 0)),))
    frozen.renewed(fewer)
    assert frozen.eyes.gallery.persons == (name_of(0),)


# Visits


@dataclass
class Scripted:
    """Accepts what it is told to."""

    accepts: list[bool]
    eyes: Scripted = field(init=False)
    learnt: int = 0
    lost: int = 0

    def __post_init__(self) -> None:
        self.eyes = self

    def take(self, features: Features) -> list[Taken]:
        return [Taken("p00", 40.0, self.accepts.pop(0))]

    def accepted(self, taken: Taken, features: Features, capture: object) -> None:
        self.learnt += 1

    def failed(self, captures: list) -> None:
        self.lost += len(captures)


def test_each_recogniser_looks_until_it_accepts(model):
    beside = Beside(model, {"one": Scripted([False, True]), "other": Scripted([False, False, False])})
    courses = {name: Course(Visit(Who.GENUINE, "p00", lambda k: finger(0, 720 + k))) for name in ("one", "other")}
    for k in range(3):
        beside.look(finger(0, 720 + k), courses, None)
    beside.end(courses)
    assert [courses["one"].ending.first, courses["one"].ending.ever] == [False, True]
    assert [courses["other"].ending.first, courses["other"].ending.ever] == [False, False]
    assert (beside.rivals["one"].learnt, beside.rivals["one"].lost) == (1, 0)
    assert (beside.rivals["other"].learnt, beside.rivals["other"].lost) == (0, 3)


def test_features_of_the_device_serve_rivals_in_the_same_space_alone(model):
    own = model.features([finger(0, 0)])
    foreign = Features(own.vectors, "another space")
    probe = Scripted([True, True])
    seen: list[str] = []
    probe.take = lambda features: seen.append(features.space) or [Taken("p00", 40.0, False)]
    beside = Beside(model, {"one": probe})
    course = {"one": Course(Visit(Who.GENUINE, "p00", lambda k: finger(0, k)))}
    for known in (own, foreign, None):
        beside.look(finger(0, 0), course, known)
    assert set(seen) == {model.gallery.features.space}
    assert float(cosines(own, model.gallery.features).max()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("who", "taken", "counts"),
    [
        (Who.GENUINE, Taken("p00", 40.0, True), True),
        (Who.GENUINE, Taken("p01", 40.0, True), False),
        (Who.GENUINE, Taken("p00", 20.0, False), False),
        (Who.IMPOSTOR, Taken("p01", 40.0, True), True),
        (Who.HOSTILE, Taken("p01", 20.0, False), False),
    ],
)
def test_a_capture_counts_if_the_right_person_or_a_stranger_is_accepted(who: Who, taken: Taken, counts: bool):
    course = Course(Visit(who, "p00" if who is Who.GENUINE else "", lambda k: finger(0, k)))
    course.took(taken, finger(0, 0))
    assert course.ending.first is course.ending.ever is counts
    assert course.over is taken.accepted
