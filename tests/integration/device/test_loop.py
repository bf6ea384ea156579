"""A device from its enrolment to a better student: worn, taught, trained, judged, swapped."""

from __future__ import annotations

import threading

import pytest
from lived_device import WORN, accepted, begun, states, swapped, trained_here
from toy_device import PERSONS, SETTINGS, ToyLife, finger, name_of

from device_sim.events import EventKind
from device_sim.explain import explain_sample
from device_sim.gate import Verdict
from device_sim.records import State
from device_sim.sampling import Kind
from device_sim.training_sets import NOTES


def test_a_worn_device_learns_and_recognises_again(life: ToyLife):
    life.enrolled()
    frozen = life.device.model
    before = accepted(life.device, WORN)
    life.live(6, WORN)
    life.device.fetch_labels()
    verdict = life.device.finish_training(begun(life.device))
    assert isinstance(verdict, Verdict), verdict
    assert verdict.passed, verdict.reasons
    told = list(dict.fromkeys(life.kinds()))
    order = [
        "release-installed",
        "enrolled",
        "sample-kept",
        "labels-asked",
        "label-stored",
        "training-started",
        "training-finished",
    ]
    assert [kind for kind in told if kind != "sample-quarantined"] == [*order, "gate-passed", "generation-swapped"]
    assert life.device.model.version == str(life.device.generations.current) == "v1+1"
    assert life.device.model.gallery.persons == frozen.gallery.persons
    assert life.device.model.recogniser.space == life.device.model.gallery.features.space != frozen.recogniser.space
    assert accepted(life.device, WORN) >= before + 10  # of 60
    assert accepted(life.device, 0.0) >= 45
    assert states(life)["used"] >= 24
    assert states(life)["held-back"] >= 6
    assert not list((life.folder / "jobs").iterdir())
    assert not [e.reason for e in life.device.store.events() for p in range(PERSONS) if name_of(p) in e.reason]
    finished = life.device.store.last_event(EventKind.TRAINING_FINISHED)
    assert set(finished.numbers) == {"seconds", "peak_bytes", "steps_run", "samples"}
    assert finished.numbers["steps_run"] == SETTINGS.self_distillation.steps
    life.live(1, WORN)  # in the new space


def test_every_kept_sample_can_be_explained(lived: ToyLife):
    swapped(lived)
    store = lived.device.store
    by_state = {sample.state: sample for sample in store.samples(*State) if sample.kind is Kind.SECOND}
    used = explain_sample(store, by_state[State.USED].id)
    assert any("said by the teacher of space pixels/teacher with confidence" in line for line in used)
    assert "It belongs to training set 1." in used
    assert f"Reason given: {NOTES[0]}." in used
    assert used[-1] == "Made again from the recorded numbers, the rules give the same answer."
    held = explain_sample(store, by_state[State.HELD_BACK].id)
    assert "It is held back from training, for the gate to judge with." in held


def test_the_verdict_can_be_read_with_its_numbers(lived: ToyLife):
    verdict = swapped(lived)
    event = lived.device.store.last_event(EventKind.GATE_PASSED)
    assert event.generation == "v1+1"
    for check in verdict.checks:
        assert event.numbers[check.name] == 1.0
        for name, value in check.numbers.items():
            assert event.numbers[f"{check.name}.{name}"] == pytest.approx(value)


def test_no_capture_is_answered_by_a_half_swapped_model(lived: ToyLife):
    device, capture = lived.device, finger(0, 950)
    seen: set[tuple[str, str, str, str]] = set()
    failures: list[BaseException] = []
    over = threading.Event()

    def look() -> None:
        try:
            while not over.is_set():
                model = device.model
                answer = model.recognise(capture)
                spaces = (answer.features.space, model.gallery.features.space, model.calibration.space)
                seen.add((model.version, *spaces))
                assert len(model.gallery.persons) == 2 * PERSONS
        except BaseException as error:  # whatever it is, the test has to fail
            failures.append(error)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        swapped(lived)
    finally:
        over.set()
        watcher.join()
    assert failures == []
    assert {version for version, *_ in seen} <= {"v1", "v1+1"}
    assert all(len(set(spaces)) == 1 for _, *spaces in seen)
    assert len(seen) == len({version for version, *_ in seen})


def test_samples_kept_while_it_trained_are_for_the_next_training(lived: ToyLife):
    training = begun(lived.device)
    before = {s.id for s in lived.device.store.samples(*State)}
    lived.live(4, WORN)
    lived.device.fetch_labels()
    verdict = lived.device.finish_training(trained_here(training))
    assert isinstance(verdict, Verdict)
    later = [s for s in lived.device._sets.known(*State) if s.id not in before]
    assert later
    assert {s.state for s in later} <= {State.FRESH, State.QUARANTINED}
