"""The running model: one capture, one answer; enrolment and swaps keep everybody; spaces never meet."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from time import sleep
from types import SimpleNamespace

import numpy as np
import pytest
from structlog.testing import capture_logs
from toy_device import FLEET_KEY, REFERENCES, PixelTeacher, finger, name_of, toy_model, toy_release
from toy_networks import TOY, toy_student

from device_sim.recognition import NEIGHBOURS, Enrolled, Neighbours, RunningModel
from device_sim.sampling import NO_NEIGHBOUR
from tutelage.biometrics.features import Features, cosines
from tutelage.biometrics.matching import Decision, DecisionRule
from tutelage.captures import to_input
from tutelage.errors import Code, InputError, SpaceMismatchError
from tutelage.impostors import open_impostors
from tutelage.nn.compiled import CompiledRecogniser
from tutelage.nn.packaging import Origin, Strangers, package_student
from tutelage.nn.students import Recogniser
from tutelage.package import read_package
from tutelage.signing import make_signer


def uncompiled(model: RunningModel) -> RunningModel:
    """The same student without ONNX Runtime."""
    fast = model.recogniser
    return replace(model, recogniser=Recogniser(fast.student, fast.readout, fast.space))


@pytest.fixture(scope="module")
def model() -> RunningModel:
    return toy_model()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> RunningModel:
    """Another student, with the same persons enrolled."""
    signer = make_signer(tmp_path_factory.mktemp("other") / "key")
    release = toy_release()
    strangers = Strangers(
        *open_impostors(read_package(release.package, trusted=[release.trusted]).impostors, FLEET_KEY)
    )
    origin = Origin("toy", "v2", PixelTeacher().space, "2026-01-02T00:00:00")
    data = package_student(toy_student(5), "exit4", strangers, origin, signer=signer, seal_key=FLEET_KEY)
    package = read_package(data, trusted=[signer.public_key()])
    return RunningModel.of(package, Enrolled.of(REFERENCES, TOY.side), DecisionRule())


def test_an_answer_is_the_nearest_person_with_the_calibrated_score_of_its_cosine(model: RunningModel):
    for person in range(6):
        answer = model.recognise(finger(person, 77))
        vector = model.recogniser.features(to_input([finger(person, 77)], TOY.side)).vectors[0]
        every = [float(vector @ reference) for reference in model.gallery.features.vectors]
        best = int(np.argmax(every))
        assert answer.match.person == REFERENCES[best][0] == name_of(person)
        assert answer.match.cosine == pytest.approx(every[best], abs=1e-5)
        assert answer.score == pytest.approx(float(model.calibration.score(answer.match.cosine)))
        assert answer.decision is DecisionRule().decide(answer.score)
        assert answer.extrapolated == (answer.score > model.calibration.limit_score)
        assert answer.features.space == model.recogniser.space


def test_a_compiled_student_answers_as_the_uncompiled_one(model: RunningModel):
    assert isinstance(model.recogniser, CompiledRecogniser)
    plain = uncompiled(model)
    for person, wear in ((p, w) for p in range(20) for w in (0.0, 0.4, 0.8)):  # from number 6 on, strangers
        fast, slow = (m.recognise(finger(person, 300 + person, wear)) for m in (model, plain))
        assert (fast.match.person, fast.match.runner_up) == (slow.match.person, slow.match.runner_up)
        assert fast.match.cosine == pytest.approx(slow.match.cosine, abs=1e-5)
        assert fast.score == pytest.approx(slow.score, abs=1e-2)
        assert fast.decision is slow.decision
        assert fast.features.space == slow.features.space


def test_where_nothing_can_be_compiled_the_uncompiled_student_answers(
    model: RunningModel, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tutelage.nn.compiled.student_graph", lambda *_: b"no graph")
    with capture_logs() as logs:
        plain = toy_model()
    assert [event["event"] for event in logs] == ["a student recognises uncompiled"]
    assert type(plain.recogniser) is Recogniser
    assert plain.recogniser.space == model.recogniser.space
    fast, slow = (m.recognise(finger(1, 77)) for m in (model, plain))
    assert (slow.match.person, slow.decision) == (fast.match.person, fast.decision)
    # What one of them has enrolled, the other may compare.
    assert model.gallery.identify(slow.features)[0].person == name_of(1)


def test_each_of_several_threads_gets_whole_answers_while_students_are_swapped(
    model: RunningModel, other: RunningModel
):
    captures = [finger(person, 77) for person in range(6)]
    expected = {m.recogniser.space: [m.recognise(capture) for capture in captures] for m in (model, other)}
    door, done = SimpleNamespace(model=model), Event()

    def recognise() -> Counter[str]:
        seen: Counter[str] = Counter()
        while not (done.is_set() and len(seen) == 2):
            turn = seen.total()
            answer = door.model.recognise(captures[turn % 6])
            known = expected[answer.features.space][turn % 6]
            assert (answer.match, answer.score, answer.decision) == (known.match, known.score, known.decision)
            seen[answer.features.space] += 1
        return seen

    with ThreadPoolExecutor(3) as pool:
        threads = [pool.submit(recognise) for _ in range(3)]
        for turn in range(200):
            door.model = (other, model)[turn % 2]
            sleep(0.001)
        done.set()
        while not all(thread.done() for thread in threads):
            door.model = other if door.model is model else model
            sleep(0.001)
    assert all(min(thread.result().values()) >= 1 for thread in threads)


def test_the_rule_decides_about_the_same_score():
    capture = finger(0, 77)
    score = toy_model().recognise(capture).score
    strict = toy_model(rule=DecisionRule(accept_score=score + 0.1, unknown_score=score + 0.05))
    lenient = toy_model(rule=DecisionRule(accept_score=score - 0.1))
    assert strict.recognise(capture).decision is Decision.UNKNOWN
    assert lenient.recognise(capture).decision is Decision.ACCEPT


def test_a_device_without_persons_knows_nobody_and_does_not_fail():
    empty = toy_model([])
    answer = empty.recognise(finger(0, 77))
    assert (answer.match.person, answer.score, answer.decision) == (None, float("-inf"), Decision.UNKNOWN)
    assert not answer.extrapolated
    first = empty.with_enrolled("anna", [finger(0, 0), finger(0, 1)])
    assert first.recognise(finger(0, 77)).match.person == "anna"
    assert empty.gallery.persons == ()


def test_enrolling_one_by_one_is_enrolling_all_at_once(model: RunningModel):
    grown = toy_model([])
    for person in range(6):
        grown = grown.with_enrolled(name_of(person), [finger(person, k) for k in range(2)])
    assert grown.gallery.persons == model.gallery.persons
    np.testing.assert_allclose(grown.gallery.features.vectors, model.gallery.features.vectors, atol=1e-5)


def test_verification_scores_against_the_claimed_person_alone(model: RunningModel):
    own, claimed = model.verify(name_of(2), finger(2, 77)), model.verify(name_of(3), finger(2, 77))
    assert own == pytest.approx(model.recognise(finger(2, 77)).score, abs=0.05)
    assert claimed < own
    with pytest.raises(InputError) as caught:
        model.verify("nobody", finger(2, 77))
    assert caught.value.code is Code.DATA_INSUFFICIENT


def test_in_another_students_space_everybody_is_still_enrolled(model: RunningModel, other: RunningModel):
    assert other.gallery.persons == model.gallery.persons
    assert other.gallery.features.space == other.recogniser.space != model.recogniser.space
    assert {other.recognise(c).match.person for _, c in REFERENCES} == {p for p, _ in REFERENCES}


def test_features_of_two_students_cannot_be_compared(model: RunningModel, other: RunningModel):
    theirs = other.recognise(finger(0, 77)).features
    with pytest.raises(SpaceMismatchError):
        model.gallery.identify(theirs)
    with pytest.raises(SpaceMismatchError):
        cosines(theirs, model.recognise(finger(0, 77)).features)
    neighbours = Neighbours(model.recogniser.space)
    with pytest.raises(SpaceMismatchError):
        neighbours.add("anna", theirs)
    neighbours.add("anna", model.recognise(finger(0, 77)).features)
    with pytest.raises(SpaceMismatchError):
        neighbours.nearest("anna", theirs)


def unit(*rows: tuple[float, ...]) -> Features:
    vectors = np.asarray(rows, np.float32)
    return Features(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), "s")


def test_the_nearest_neighbour_is_the_persons_own():
    neighbours = Neighbours("s")
    assert neighbours.nearest("anna", unit((1, 0))) == NO_NEIGHBOUR
    neighbours.add("anna", unit((0, 1), (1, 1)))
    neighbours.add("bert", unit((1, 0)))
    assert neighbours.nearest("anna", unit((1, 0))) == pytest.approx(0.5**0.5)
    assert neighbours.nearest("bert", unit((1, 0))) == pytest.approx(1.0)


def test_only_the_latest_neighbours_are_remembered():
    neighbours = Neighbours("s")
    neighbours.add("anna", unit((1, 0)))
    for _ in range(NEIGHBOURS - 1):
        neighbours.add("anna", unit((0, 1)))
    assert neighbours.nearest("anna", unit((1, 0))) == pytest.approx(1.0)
    neighbours.add("anna", unit((0, 1)))
    assert neighbours.nearest("anna", unit((1, 0))) == pytest.approx(0.0)


def test_negatives_are_numbered_after_every_person_and_are_nobody():
    enrolled = Enrolled.of(REFERENCES, TOY.side)
    with_them = enrolled.against(Strangers([finger(90, 0), finger(91, 0)], ["negative-000", "negative-001"]))
    assert with_them.persons[:12] == enrolled.persons
    assert sorted(set(with_them.persons))[:6] == sorted(set(enrolled.persons))
    assert with_them.inputs.shape == (14, 1, TOY.side, TOY.side)
    assert enrolled.against(Strangers([], [])) is enrolled
