"""The whole loop of a device: enrolled, worn, taught, trained, judged, swapped, watched, and every way to fail."""

from __future__ import annotations

import hashlib
import io
import shutil
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import structlog
import torch
from device_store import raw_change
from safetensors.numpy import load, save
from toy_device import PERSONS, SETTINGS, STORE_KEY, Clock, ToyLife, finger, name_of, toy_release

from device_sim.device import MAX_RESUMPTIONS, Device
from device_sim.events import EventKind
from device_sim.explain import explain_sample
from device_sim.gate import GateRules, Verdict
from device_sim.job import JOB, RESULT, TrainingJob, open_result, seal_result
from device_sim.records import LabelSource, State
from device_sim.sampling import NO_NEIGHBOUR, Kind
from device_sim.training import Training
from device_sim.training_sets import NOTES
from device_sim.watch import WatchRules
from device_sim.worker import work
from tutelage.biometrics.matching import Decision
from tutelage.captures import Pixels
from tutelage.errors import CaptureError, Code, InputError, PackageError, StorageError, TrainingError, TutelageError
from tutelage.labelling import AbstentionPolicy, GalleryLabeller, LabelAnswer

WORN = 0.4
STRANGERS = range(7000, 7100)


@pytest.fixture(autouse=True)
def _torch_as_before():
    """Trainings in this process leave torch as a worker wants it."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def life(tmp_path: Path):
    life = ToyLife(tmp_path)
    yield life
    life.close()


@pytest.fixture(scope="module")
def lived_once(tmp_path_factory: pytest.TempPathFactory) -> ToyLife:
    """A device that was enrolled and worn, whose attempts are labelled: put down, ready to train."""
    life = ToyLife(tmp_path_factory.mktemp("lived")).enrolled().live(6, WORN)
    assert life.device.fetch_labels() == ()
    life.close()
    return life


@pytest.fixture
def lived(lived_once: ToyLife, tmp_path: Path):
    """That device, started again in a copy of its folder."""
    shutil.copytree(lived_once.folder, tmp_path / "copy")
    life = ToyLife(tmp_path / "copy", clock=Clock(lived_once.clock.now_s), presses=lived_once.presses)
    yield life
    life.close()


def begun(device: Device) -> Training:
    training = device.start_training()
    assert isinstance(training, Training), training
    return training


DONE: dict[str, tuple[bytes, dict]] = {}
"""Results by what was trained: tests that need the same student do not train it anew."""


def trained_here(training: Training) -> Training:
    """The same job done in this process, which has torch loaded already: the result lies there as a worker's does."""
    training.kill()
    job = TrainingJob.open((training.folder / JOB).read_bytes(), STORE_KEY)
    same = f"{job.settings} {job.training_set.digest()} {hashlib.sha256(job.weights).hexdigest()}"
    if same not in DONE:
        # This process holds all that other tests loaded: the worker's budget is not meant for it.
        (training.folder / JOB).write_bytes(replace(job, memory_bytes=2**36).sealed(STORE_KEY))
        work(training.folder, STORE_KEY, io.StringIO())
        DONE[same] = open_result((training.folder / RESULT).read_bytes(), STORE_KEY)
    (training.folder / RESULT).write_bytes(seal_result(*DONE[same], STORE_KEY))
    training.start()
    return training


def swapped(life: ToyLife) -> Verdict:
    verdict = life.device.finish_training(trained_here(begun(life.device)))
    assert isinstance(verdict, Verdict), verdict
    assert verdict.passed, verdict.reasons
    return verdict


def having(life: ToyLife, **changes: object) -> ToyLife:
    """The same device with other settings from now on."""
    life.restart(replace(life.settings, **changes))
    return life


def accepted(device: Device, wear: float) -> int:
    """Of 60 captures, those accepted as who they are; nothing is kept."""
    answers = [
        (name_of(p), device.model.recognise(finger(p, 900 + k, wear))) for p in range(PERSONS) for k in range(10)
    ]
    return sum(a.decision is Decision.ACCEPT and a.match.person == p for p, a in answers)


def states(life: ToyLife) -> Counter[str]:
    return Counter(s.state.value for s in life.device.store.samples(*State))


def reasons(life: ToyLife, kind: EventKind) -> list[str]:
    return [event.reason for event in life.device.store.events() if event.kind is kind]


def code_of(outcome: Verdict | TutelageError) -> Code:
    assert isinstance(outcome, TutelageError), outcome
    return outcome.code


# The way it should go


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
    assert accepted(life.device, WORN) > before  # by how much is for test_recovery: a toy's gain varies with rounding
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


# Recognition and what is kept


def test_bad_captures_are_refused_and_nothing_of_them_is_recorded(life: ToyLife):
    life.enrolled(2)
    before = life.kinds()
    for bad, code in (
        (np.full((16, 16), 7, np.uint8), Code.IMAGE_WITHOUT_CONTENT),
        (np.full((16, 16), np.nan, np.float32), Code.IMAGE_WITHOUT_CONTENT),
        (np.ones((1, 1), np.uint8), Code.IMAGE_TOO_SMALL),
    ):
        with pytest.raises(CaptureError) as caught:
            life.device.recognise(bad)
        assert caught.value.code is code
        with pytest.raises(CaptureError):
            life.device.enrol("p01", [finger(1, 5), bad])
    assert life.kinds() == before
    assert life.device.store.decisions() == ()
    assert life.device.model.gallery.persons.count("p01") == 2


def test_a_person_at_the_door_is_answered_whatever_the_disk_does(life: ToyLife):
    life.enrolled(2)
    life.device.store.close()
    with structlog.testing.capture_logs() as logs:
        answer = life.device.recognise(finger(0, 60))
    assert answer.match.person == "p00"
    assert {entry["code"] for entry in logs} == {"storage-failed"}
    assert not any("p00" in str(entry) for entry in logs)


def test_a_duplicate_is_known_across_restarts_and_swaps(lived: ToyLife):
    device = lived.device
    sample = next(s for s in device.store.samples(State.FRESH) if s.label is not None)
    capture, person = device.store.sample_capture(sample.id), sample.label.person

    def nearest(device: Device) -> float:
        return device._keeper.neighbours.nearest(person, device.model.features([capture]))

    assert nearest(device) == pytest.approx(1.0, abs=1e-4)
    assert nearest(lived.restart()) == pytest.approx(1.0, abs=1e-4)
    swapped(lived)
    assert nearest(lived.device) == pytest.approx(1.0, abs=1e-4)
    probe = lived.device.model.features([finger(0, 60)])
    assert lived.device._keeper.neighbours.nearest("nobody", probe) == NO_NEIGHBOUR


def test_further_references_are_added_here_and_with_the_teacher(life: ToyLife):
    life.enrolled(2)
    life.device.enrol("p01", [finger(1, 30)])
    assert life.device.model.gallery.persons.count("p01") == 3
    labeller = life.device.labeller
    assert isinstance(labeller, GalleryLabeller)
    assert len(labeller._references["p01"]) == 3
    assert life.restart().model.gallery.persons.count("p01") == 3


def test_an_enrolment_that_cannot_be_stored_is_none_anywhere(life: ToyLife):
    life.enrolled(2)
    labeller = life.device.labeller
    assert isinstance(labeller, GalleryLabeller)
    life.device.store.close()
    with pytest.raises(StorageError):
        life.device.enrol("p05", [finger(5, 0)])
    assert labeller.persons == ("p00", "p01")
    assert life.device.model.gallery.persons.count("p05") == 0


# Labels


def test_an_attempt_nobody_can_name_stays_unlabelled_and_is_not_asked_about_again(life: ToyLife):
    life.policy = AbstentionPolicy(0.5, 2.0)
    life.restart()
    life.enrolled().live(2, 1.0)
    assert life.device.fetch_labels() == ()
    labels = [s.label for s in life.device.store.samples(State.FRESH) if s.kind is Kind.SECOND]
    assert {label.source for label in labels} == {LabelSource.ABSTAINED}
    assert "label-abstained" in life.kinds()
    assert "label-stored" not in life.kinds()
    assert life.device.fetch_labels() == ("no attempt waits for a label",)
    assert isinstance(life.device.start_training(), tuple)


def test_strangers_are_named_by_nobody(life: ToyLife):
    life.enrolled()
    for stranger in STRANGERS[:8]:
        life.attempt(stranger)
    life.device.fetch_labels()
    second = [s for s in life.device.store.samples(*State) if s.kind is Kind.SECOND]
    assert len({s.attempt_end for s in second}) >= 6
    assert sum(s.label.source is LabelSource.ABSTAINED for s in second) >= 0.6 * len(second)


class Liar(GalleryLabeller):
    """Names the person after the right one."""

    def label(self, attempts: Sequence[Sequence[Pixels]]) -> list[LabelAnswer]:
        names = sorted(self.persons)
        after = {name: names[(i + 1) % len(names)] for i, name in enumerate(names)}
        return [replace(a, person=after[a.person]) if a.person else a for a in super().label(attempts)]


def test_labels_that_the_running_student_cannot_believe_are_quarantined_with_the_reason(life: ToyLife):
    honest = life.device.labeller
    life.device.labeller = Liar(honest.teacher, honest.policy)
    life.enrolled().live(6, WORN)
    life.device.fetch_labels()
    second = [s for s in life.device.store.samples(*State) if s.kind is Kind.SECOND]
    doubted = [s for s in second if s.state is State.QUARANTINED]
    assert len(doubted) > len(second) / 3
    assert {s.note for s in doubted} == {"the running student finds this label implausible"}
    assert life.kinds().count("sample-quarantined") == len(doubted)
    learnt = life.device._sets.known(State.FRESH)
    assert not {s.id for s in learnt} & {s.id for s in doubted}


def test_somebody_whom_only_the_teacher_knows_is_not_learnt(life: ToyLife):
    life.enrolled()
    life.device.labeller.enrol("elsewhere", [finger(STRANGERS[0], 0), finger(STRANGERS[0], 1)])
    for _ in range(3):
        life.attempt(STRANGERS[0], WORN)
    life.device.fetch_labels()
    named = [s for s in life.device.store.samples(*State) if s.label and s.label.person == "elsewhere"]
    assert named
    assert {s.state for s in named} == {State.QUARANTINED}


# When there is no training


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


# Trainings that fail


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


# After a swap


def test_a_student_that_people_are_worse_off_with_is_reverted(lived: ToyLife):
    having(lived, watch=WatchRules(window_captures=60, min_captures=10))
    lived.live(8, 0.0)
    swapped(lived)
    frozen = lived.device.generations.previous
    for stranger in STRANGERS:
        lived.attempt(stranger)
        if lived.device.model.version == "v1":
            break
    assert str(frozen) == lived.device.model.version == "v1"
    event = lived.device.store.last_event(EventKind.GENERATION_REVERTED)
    assert "attempts failed" in event.reason
    assert event.numbers["failed_since"] > event.numbers["failed_before"]
    assert lived.device.model.gallery.persons.count("p00") == 2
    assert accepted(lived.restart(), 0.0) >= 45
    assert lived.device.model.version == "v1"
    lived.live(1, 0.0)


def test_a_release_is_told_of_once(life: ToyLife):
    life.restart()
    told = [e.generation for e in life.device.store.events() if e.kind is EventKind.RELEASE_INSTALLED]
    assert told == ["v1"]


def test_a_student_that_nobody_is_worse_off_with_stays_also_after_a_restart(lived: ToyLife):
    having(lived, watch=WatchRules(window_captures=40, min_captures=10))
    lived.live(5, 0.0)
    swapped(lived)
    lived.live(2, 0.0)
    lived.restart()
    lived.live(8, 0.0)
    assert lived.device.model.version == "v1+1"
    assert lived.kinds().count("watch-passed") == 1
    lived.restart()
    lived.live(8, 0.0)
    assert lived.kinds().count("watch-passed") == 1


def test_with_nothing_to_go_back_to_the_present_student_stays(lived: ToyLife):
    with pytest.raises(PackageError):
        lived.device.revert("by hand")
    assert lived.device.model.version == "v1"
    assert "generation-reverted" not in lived.kinds()
    assert lived.device.recognise(finger(0, 60)).match.person is not None


def test_a_revert_with_nothing_to_go_back_to_is_told_once(lived: ToyLife):
    having(lived, watch=WatchRules(window_captures=60, min_captures=10))
    lived.live(8, 0.0)
    swapped(lived)
    running = lived.device.model.digest.partition(":")[2]
    for path in (lived.folder / "students").glob("*.tutelage"):
        if path.stem != running:
            path.write_bytes(b"")
    for stranger in STRANGERS:
        lived.attempt(stranger)
    assert lived.device.model.version == "v1+1"
    (reason,) = reasons(lived, EventKind.REVERT_FAILED)
    assert "attempts failed" in reason
    assert "holds no student to use" in reason
    lived.restart()
    for stranger in STRANGERS:
        lived.attempt(stranger)
    assert lived.kinds().count("revert-failed") == 1


# Damage


def test_a_damaged_student_is_stepped_over_and_that_is_told(lived: ToyLife):
    swapped(lived)
    digest = lived.device.model.digest.partition(":")[2]
    path = lived.folder / "students" / f"{digest}.tutelage"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    device = lived.restart()
    assert device.model.version == "v1"
    assert accepted(device, 0.0) >= 45
    (reason,) = reasons(lived, EventKind.GENERATION_REVERTED)
    assert reason.startswith("at the start; v1+1: ")


def test_a_damaged_sample_costs_only_itself(lived: ToyLife):
    samples = [s for s in lived.device.store.samples(State.FRESH) if s.label is not None]
    lived.device.store.close()
    raw_change(
        lived.folder / "store.sqlite",
        f"UPDATE samples SET capture = zeroblob(length(capture)) WHERE id = {samples[0].id}",
    )
    device = lived.restart()
    assert device.store.sample(samples[0].id).state is State.DROPPED
    assert device.store.sample(samples[0].id).note == "its capture is damaged"
    assert len(device._sets.known(State.FRESH)) == len(samples) - 1
    swapped(lived)


def test_a_device_without_a_student_does_not_start(tmp_path: Path):
    life = ToyLife(tmp_path)
    life.close()
    for path in (tmp_path / "students").glob("*.tutelage"):
        path.write_bytes(b"")
    with pytest.raises(PackageError):
        life.restart()
