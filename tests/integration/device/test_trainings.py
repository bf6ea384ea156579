"""Trainings that do not start, that fail, that are killed and taken up again, and what becomes of their samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lived_device import WORN, begun, code_of, having, reasons, states, swapped, trained_here
from safetensors.numpy import load, save
from toy_device import SETTINGS, STORE_KEY, ToyLife, toy_release
from toy_networks import TOY, toy_student

from device_sim.events import EventKind
from device_sim.gate import GateRules, Verdict
from device_sim.job import RESULT, open_result, seal_result
from device_sim.learning import LearningRules
from device_sim.records import State
from device_sim.training import Training
from device_sim.training_sets import NOTES
from device_sim.trainings import MAX_RESUMPTIONS
from device_sim.trial import came_nearer, stranger_scores
from device_sim.watch import WatchRules
from tutelage.biometrics.calibration import Calibration
from tutelage.captures import to_input
from tutelage.errors import CATALOGUE, Code, InputError, TrainingError
from tutelage.nn.packaging import calibrate
from tutelage.nn.students import Recogniser, load_student, part_way, save_weights


def test_what_is_missing_for_a_training_is_said(life: ToyLife):
    life.enrolled().live(1, WORN)
    assert "of 16 labelled fresh samples" in life.device.start_training()[0]
    life.live(5, WORN)
    life.device.fetch_labels()
    for rules, said in (
        (GateRules(min_held_back=500), "of 500 samples to hold back for the gate"),
        (GateRules(min_strangers=81), "80 of 81 captures of strangers for the gate"),
    ):
        missing = having(life, gate=rules).device.start_training()
        assert isinstance(missing, tuple)
        assert missing[0].endswith(said)
    assert "training-started" not in life.kinds()
    assert states(life)["held-back"] == 0


def test_one_training_at_a_time(lived: ToyLife):
    training = begun(lived.device)
    assert "the training under way has to end" in lived.device.start_training()
    assert lived.device.resume_training() is None
    training.kill()


def test_a_student_the_gate_refuses_recognises_nobody(lived: ToyLife):
    having(lived, self_distillation=replace(SETTINGS.self_distillation, learning_rate=1e9))
    running = lived.device.model
    verdict = lived.device.finish_training(trained_here(begun(lived.device)))
    assert isinstance(verdict, Verdict)
    assert not verdict.passed
    assert lived.device.model is running
    (reason,) = reasons(lived, EventKind.GATE_FAILED)
    assert reason == "; ".join(verdict.reasons)
    assert lived.device.store.last_event(EventKind.GATE_FAILED).generation == "v1+1"
    assert "generation-swapped" not in lived.kinds()
    assert str(lived.device.generations.current) == "v1"
    assert str(lived.device.generations.next_generation) == "v1+1"
    assert {s.note for s in lived.device.store.samples(State.USED)} == {NOTES[1]}
    assert lived.device._sets.known(State.FRESH) == []
    assert not list((lived.folder / "jobs").iterdir())
    assert "of 16 labelled fresh samples" in lived.device.start_training()[0]  # not again with the same samples


@pytest.mark.parametrize(("shares", "passes"), [((1.0, 0.99), False), ((1.0, 0.99, 0.001), True)])
def test_where_the_gate_refuses_all_of_the_way_the_largest_part_that_passes_recognises(
    lived: ToyLife, shares: tuple[float, ...], passes: bool
):
    """The training ends at another toy, which knows nobody here; a thousandth of the way to it harms nobody."""
    having(lived, learning=LearningRules(shares=shares))
    training = trained_here(begun(lived.device))
    path = training.folder / RESULT
    _, summary = open_result(path.read_bytes(), STORE_KEY)
    path.write_bytes(seal_result(save_weights(toy_student(3)), summary, STORE_KEY))
    before = load_student(TOY, lived.device.package.weights)
    verdict = lived.device.finish_training(training)
    assert isinstance(verdict, Verdict)
    assert verdict.passed is passes
    told = lived.device.store.last_event(EventKind.GATE_PASSED if passes else EventKind.GATE_FAILED)
    assert told.numbers["share"] == (0.001 if passes else 1.0)
    assert lived.kinds().count("gate-passed" if passes else "gate-failed") == 1
    assert lived.device.model.version == ("v1+1" if passes else "v1")
    if passes:
        assert told.reason.startswith("0.1% of the way, more of it was refused; all checks hold")
        assert lived.device.package.weights == save_weights(part_way(before, toy_student(3), 0.001))


@pytest.mark.parametrize("anchor_share", [0.2, 0.0])
def test_a_student_to_whom_strangers_come_nearer_answers_with_scores_lowered_by_as_much(
    lived: ToyLife, anchor_share: float
):
    """A tenth of the way to another toy: everybody is known still, and strangers are a little nearer."""
    gate = GateRules(max_latency_ratio=100.0, reference_slack=10.0, anchor_share=anchor_share, nominal=False)
    having(lived, learning=LearningRules(shares=(0.1,)), gate=gate)
    training = trained_here(begun(lived.device))
    path = training.folder / RESULT
    _, summary = open_result(path.read_bytes(), STORE_KEY)
    path.write_bytes(seal_result(save_weights(toy_student(9)), summary, STORE_KEY))
    released = lived.device.model
    strangers = lived.device._succession.strangers.unseen.captures
    verdict = lived.device.finish_training(training)
    assert isinstance(verdict, Verdict)
    assert verdict.passed, verdict.reasons
    told, package = lived.device.store.last_event(EventKind.GATE_PASSED), lived.device.package
    features = Recogniser.of_package(package).features(to_input(strangers, TOY.side))
    alone = calibrate(features, [str(number) for number in range(len(strangers))])
    nearer = told.numbers["lowered"]
    if anchor_share:
        unchanged = replace(lived.device.model, calibration=alone)
        scores = (stranger_scores(model, strangers) for model in (released, unchanged))
        assert nearer == pytest.approx(came_nearer(*scores, anchor_share))
        assert nearer > 0.1
        assert f"scores lowered by {nearer:.1f}, by which strangers had come nearer" in told.reason
        assert package.info.training["lowered"] == nearer
    else:
        assert nearer == 0.0
        assert "lowered" not in told.reason
    cosines = np.linspace(-1.0, 1.0, 201)
    own = Calibration.from_json(package.calibration).score(cosines)
    np.testing.assert_allclose(own, alone.lowered(nearer).score(cosines), atol=1e-6)


def test_the_released_version_is_a_ceiling_for_strangers_in_every_generation(lived: ToyLife):
    swapped(having(lived, watch=WatchRules(window_captures=10_000, min_captures=10_000)))
    first = lived.device.store.last_event(EventKind.GATE_PASSED).numbers
    assert first["strangers.released_accepted"] == first["strangers.running_accepted"]
    lived.live(6, WORN)
    lived.device.fetch_labels()
    verdict = lived.device.finish_training(trained_here(begun(lived.device)))
    assert isinstance(verdict, Verdict)
    numbers = verdict.numbers
    assert numbers["strangers.allowed"] <= max(
        numbers["strangers.released_allowed"], numbers["strangers.running_accepted"]
    )
    assert "strangers-near.released_allowed" in numbers


def test_a_killed_training_leaves_its_job_and_the_running_student(lived: ToyLife):
    training = begun(lived.device)
    training.kill()
    assert code_of(lived.device.finish_training(training)) is Code.TRAINING_KILLED
    assert lived.device.model.version == "v1"
    assert [path.name for path in (lived.folder / "jobs").iterdir()] == ["v1+1"]
    resumed = lived.device.resume_training()
    assert resumed is not None
    verdict = lived.device.finish_training(trained_here(resumed))
    assert isinstance(verdict, Verdict)
    kinds = lived.kinds()
    places = [kinds.index(k) for k in ("training-started", "training-failed", "training-resumed", "training-finished")]
    assert places == sorted(places)
    assert states(lived)["fresh"] == 0


def test_a_training_outlives_its_device(lived: ToyLife):
    number = begun(lived.device).descent.training_set
    device = lived.restart()
    held = [s.id for s in device.store.samples(State.HELD_BACK)]
    assert held
    training = device.resume_training()
    assert training is not None
    assert (training.descent.generation, training.descent.training_set) == ("v1+1", number)
    verdict = device.finish_training(trained_here(training))
    assert isinstance(verdict, Verdict)
    assert [s.id for s in device.store.samples(State.HELD_BACK)] == held
    assert device.resume_training() is None


def test_a_result_that_was_never_judged_is_judged_after_a_restart(lived: ToyLife):
    trained_here(begun(lived.device))
    device = lived.restart()
    training = device.resume_training()
    assert training is not None
    assert not training.running()
    verdict = device.finish_training(training)
    assert isinstance(verdict, Verdict)
    assert verdict.passed
    assert device.model.version == "v1+1"


def test_a_job_for_a_generation_that_is_no_longer_next_is_discarded(lived: ToyLife):
    begun(lived.device)
    lived.device.stop()
    lived._generations().install(toy_release("v2").package)
    device = lived.restart()
    assert device.model.version == "v2"
    assert device.resume_training() is None
    assert not list((lived.folder / "jobs").iterdir())
    assert reasons(lived, EventKind.TRAINING_FAILED) == ["another student recognises by now"]
    assert isinstance(device.start_training(), Training)  # with the same samples, from the new student
    device.stop()


@pytest.mark.parametrize("damage", [b"half", None])
def test_a_job_that_cannot_be_read_is_discarded(lived: ToyLife, damage: bytes | None):
    training = begun(lived.device)
    lived.device.stop()
    path = training.folder / "job.sealed"
    path.unlink() if damage is None else path.write_bytes(damage)
    assert lived.restart().resume_training() is None
    assert not training.folder.exists()
    assert len(reasons(lived, EventKind.TRAINING_FAILED)) == 1


def test_a_training_is_not_resumed_for_ever(lived: ToyLife):
    begun(lived.device)
    for _ in range(MAX_RESUMPTIONS):
        assert lived.restart().resume_training() is not None
    assert lived.restart().resume_training() is None
    assert lived.kinds().count("training-resumed") == MAX_RESUMPTIONS
    assert reasons(lived, EventKind.TRAINING_FAILED) == ["it was resumed 3 times"]
    assert {s.note for s in lived.device.store.samples(State.USED)} == {NOTES[1]}
    assert isinstance(lived.device.start_training(), tuple)


def test_an_unfinished_training_gives_way_to_a_new_one(lived: ToyLife):
    begun(lived.device)
    lived.restart()
    lived.live(4, WORN)
    lived.device.fetch_labels()
    training = begun(lived.device)
    assert training.descent.training_set == 2
    assert reasons(lived, EventKind.TRAINING_FAILED) == ["a new training takes its place"]
    assert isinstance(lived.device.finish_training(trained_here(training)), Verdict)


def test_a_diverged_training_is_not_tried_again_with_the_same_samples(lived: ToyLife):
    having(lived, self_distillation=replace(SETTINGS.self_distillation, learning_rate=1e30))
    training = begun(lived.device)
    outcome = lived.device.finish_training(training)
    assert code_of(outcome) is Code.TRAINING_DIVERGED
    assert training._process.returncode == CATALOGUE[Code.TRAINING_DIVERGED].exit_code
    assert not CATALOGUE[Code.TRAINING_DIVERGED].retryable
    assert not training.folder.exists()
    assert lived.device.resume_training() is None
    assert {s.note for s in lived.device.store.samples(State.USED)} == {NOTES[1]}
    assert lived.device.model.version == "v1"


def test_a_student_of_no_numbers_is_refused_before_the_gate(lived: ToyLife):
    training = trained_here(begun(lived.device))
    path = training.folder / RESULT
    weights, summary = open_result(path.read_bytes(), STORE_KEY)
    tensors = load(weights)
    tensors["stem.weight"] = np.full_like(tensors["stem.weight"], np.nan)
    path.write_bytes(seal_result(save(tensors), summary, STORE_KEY))
    outcome = lived.device.finish_training(training)
    assert isinstance(outcome, InputError)
    assert lived.device.model.version == "v1"
    assert "training-failed" in lived.kinds()


def test_a_student_whose_parent_was_taken_back_is_never_promoted(lived: ToyLife):
    # The sensor gets much worse: the watch is not to take the parent back before the test does.
    swapped(having(lived, watch=WatchRules(window_captures=10_000, min_captures=10_000)))
    lived.live(6, 0.8)
    lived.device.fetch_labels()
    training = begun(lived.device)
    assert training.descent.generation == "v1+2"
    lived.device.revert("by hand")
    outcome = lived.device.finish_training(trained_here(training))
    assert isinstance(outcome, TrainingError)
    assert lived.device.model.version == str(lived.device.generations.current) == "v1"
    assert lived.device.resume_training() is None
    assert not list((lived.folder / "jobs").iterdir())
