"""An early exit: computes what the student's exits compute, and is believed only where that changed nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from toy_device import FLEET_KEY, PERSONS, REFERENCES, finger, name_of, toy_model, toy_release
from toy_networks import TOY, toy_student

from device_sim.evaluation.early_exit import Answered, EarlyExit
from device_sim.recognition import Enrolled, RunningModel
from device_sim.sampling import SampleRules
from device_sim.site import Taken
from tutelage.biometrics.matching import Decision, Gallery
from tutelage.captures import Pixels
from tutelage.errors import UsageError
from tutelage.impostors import open_impostors
from tutelage.nn.compiled import TOLERANCE, compiled
from tutelage.nn.cut_student import CutStudent
from tutelage.nn.packaging import Strangers, calibrate
from tutelage.nn.students import EXITS, READOUTS, TINY, Recogniser, StudentSpec
from tutelage.package import read_package


@pytest.mark.parametrize("spec", [TOY, TINY], ids=lambda spec: spec.name)
@pytest.mark.parametrize(("early", "late"), [(0, 3), (1, 3), (2, 3), (0, 1)])
def test_both_parts_give_what_the_whole_student_gives(spec: StudentSpec, early: int, late: int):
    student = toy_student(spec=spec)
    x = np.random.default_rng(2).standard_normal((3, 1, spec.side, spec.side), np.float32)
    every, cut = Recogniser.of(student, "fused").every_readout(x), CutStudent.of(student, early, late)
    vectors, last = cut.begin(x)
    np.testing.assert_allclose(vectors, every[READOUTS[early]], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(cut.finish(last), every[READOUTS[late]], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("early", "late"), [(-1, 3), (3, 3), (2, 1), (0, EXITS)])
def test_a_student_is_cut_only_between_two_of_its_exits(early: int, late: int):
    with pytest.raises(UsageError, match="between"):
        CutStudent.of(toy_student(), early, late)


@pytest.fixture(scope="module")
def strangers() -> Strangers:
    release = toy_release()
    return Strangers(*open_impostors(read_package(release.package, trusted=[release.trusted]).impostors, FLEET_KEY))


@pytest.fixture(scope="module")
def full(strangers: Strangers) -> RunningModel:
    """The toy student read out at its last exit."""
    model = toy_model()
    recogniser = compiled(Recogniser.of(model.recogniser.student, "exit4"))
    enrolled = Enrolled.of(REFERENCES, TOY.side)
    calibration = calibrate(
        recogniser.features(Enrolled.of([("", c) for c in strangers.captures], TOY.side).inputs), strangers.persons
    )
    gallery = Gallery(enrolled.persons, recogniser.features(enrolled.inputs))
    return replace(model, recogniser=recogniser, calibration=calibration, gallery=gallery)


@pytest.fixture(scope="module", params=["exit1", "exit2", "exit3"])
def never(request: pytest.FixtureRequest, full: RunningModel, strangers: Strangers) -> EarlyExit:
    return EarlyExit.of(full, request.param, Enrolled.of(REFERENCES, TOY.side), strangers)


def taken(first: int, presses: int) -> Taken:
    """Captures of every person on a new and on a worn sensor."""
    every = [(p, first + k, wear) for p in range(PERSONS) for k in range(presses) for wear in (0.0, 0.3)]
    return Taken.of((name_of(p), finger(p, press, wear)) for p, press, wear in every)


def others(first: int, count: int) -> list[Pixels]:
    return [finger(first + i, 0, wear) for i in range(count) for wear in (0.0, 0.3)]


def test_where_it_is_never_believed_the_full_student_answers(never: EarlyExit, full: RunningModel):
    for capture in [*taken(500, 1).captures, *others(3000, 3)]:
        one, whole = never.recognise(capture), full.recognise(capture)
        assert not never.is_early(one)
        assert (one.match.person, one.decision) == (whole.match.person, whole.decision)
        assert one.score == pytest.approx(whole.score, abs=0.01)
        assert one.features.space == whole.features.space


def test_an_early_answer_is_of_the_early_exits_space_and_score(never: EarlyExit):
    always = replace(never, accept_score=-math.inf)
    answer = always.recognise(finger(2, 77))
    assert always.is_early(answer)
    assert answer.features.space == never.gallery.features.space != never.model.gallery.features.space
    assert answer.score == pytest.approx(float(never.calibration.score(answer.match.cosine)))
    assert answer.decision is never.model.rule.decide(answer.score)


def test_on_the_captures_that_chose_it_more_genuine_and_no_other_ones_are_accepted(never: EarlyExit):
    genuine, strange = taken(600, 3), others(4000, 40)
    cascade = never.believed_from(genuine, strange)
    assert cascade.accept_score >= never.model.rule.accept_score
    found = Answered.of(cascade, genuine, strange, SampleRules())
    assert found.tar >= found.tar_alone
    assert found.strangers <= found.strangers_alone
    for person, capture in zip(genuine.persons, genuine.captures, strict=True):
        one, whole = cascade.recognise(capture), never.model.recognise(capture)
        if whole.decision is Decision.ACCEPT and whole.match.person == person:
            assert (one.decision, one.match.person) == (Decision.ACCEPT, person)


@pytest.mark.parametrize("truth", [None, name_of(1)], ids=["a stranger", "another person"])
def test_whom_only_the_early_exit_accepts_raises_its_threshold(never: EarlyExit, truth: str | None):
    blind = replace(never.model, gallery=Gallery((), never.model.gallery.features[:0]))  # refuses everybody
    cascade, capture = replace(never, model=blind), finger(0, 0)  # a reference of person 0, surely accepted early
    score = cascade.early(capture).score
    genuine, strange = (Taken.of([]), [capture]) if truth is None else (Taken.of([(truth, capture)]), [])
    believed = cascade.believed_from(genuine, strange)
    assert believed.accept_score > score >= blind.rule.accept_score
    assert not believed.is_early(believed.recognise(capture))
    rightly = cascade.believed_from(Taken.of([(name_of(0), capture)]), [])
    assert rightly.accept_score == blind.rule.accept_score
    assert rightly.recognise(capture).match.person == name_of(0)


def test_first_samples_that_are_answered_early_are_counted(never: EarlyExit):
    genuine, rules = taken(700, 2), SampleRules(accept_score=0.0, sample_low=0.0, sample_high=120.1)
    none = Answered.of(never, genuine, others(5000, 1), rules)
    every = Answered.of(replace(never, accept_score=-math.inf), genuine, others(5000, 1), rules)
    assert (none.early, none.first_lost) == (0.0, 0.0)
    assert (every.early, every.first_lost) == (1.0, 1.0)
    assert none.tar == none.tar_alone == every.tar_alone
