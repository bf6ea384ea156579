"""A person who asks to be forgotten: gone from store, students, trainings and teacher, with a receipt that says so."""

from __future__ import annotations

import pytest
from lived_device import WORN, begun, reasons, states, swapped, trained_here
from toy_device import PERSONS, ToyLife, finger, name_of, toy_release

from device_sim.database import Database
from device_sim.erasure import REASON
from device_sim.events import EventKind
from device_sim.explain import explain_decision, explain_sample
from device_sim.forgetting import NOTE
from device_sim.pointer import Generation
from device_sim.pseudonyms import PREFIX
from device_sim.receipt import read_receipt
from device_sim.records import State
from device_sim.sampling import Kind
from device_sim.training_sets import UNLEARNT
from tutelage.biometrics.matching import Decision
from tutelage.errors import Code, PackageError, PersonError, ServiceError, StorageError, UsageError
from tutelage.labelling import LabelAnswer
from tutelage.signing import signer_id

GONE = name_of(2)


def key_of(life: ToyLife):
    return life._generations()._device_key


def test_a_person_who_was_learnt_from_is_gone_with_the_students_that_learnt(lived: ToyLife):
    swapped(lived)
    device = lived.device
    trained = device.generations.pointer.current.package
    fresh_before = states(lived)["fresh"]
    used = [s for s in device.store.samples(State.USED) if s.label.person != GONE]
    own = [
        s for s in device.store.samples(*State) if s.label and s.label.person == GONE and s.state is not State.DROPPED
    ]
    erased = device.erase(GONE)
    assert (erased.references, erased.deleted, erased.generation) == (2, ("v1+1",), "v1")
    assert erased.samples >= len(own) > 0
    assert erased.decisions > 0
    assert erased.teacher_knew
    assert device.model.version == str(device.generations.current) == "v1"
    assert GONE not in device.model.gallery.persons
    assert set(device.model.gallery.persons) == {name_of(p) for p in range(PERSONS)} - {GONE}
    assert [path.name for path in (lived.folder / "students").glob("*.tutelage")] == [
        device.generations.pointer.current.package.digest[7:] + ".tutelage"
    ]
    assert trained.digest != device.generations.pointer.current.package.digest
    assert GONE not in device.store.persons()
    assert GONE not in device.labeller.persons
    assert {r.person for r in device.store.references()}.isdisjoint({GONE})
    assert reasons(lived, EventKind.GENERATION_REVERTED) == [REASON]
    again = [s for s in device.store.samples(State.FRESH) if s.note == UNLEARNT]
    assert {s.id for s in again} == {s.id for s in used}
    assert states(lived)["fresh"] == fresh_before + len(used)
    assert device.recognise(finger(2, 60)).match.person != GONE
    assert lived.restart().model.version == "v1"
    assert lived.device.pending_removals() == 0


def test_the_next_training_learns_from_the_others_alone(lived: ToyLife):
    swapped(lived)
    lived.device.erase(GONE)
    training = begun(lived.device)
    assert training.descent.generation == "v1+2"  # a number is not given twice
    verdict = lived.device.finish_training(trained_here(training))
    assert not isinstance(verdict, Exception), verdict
    assert lived.device.erase(name_of(3)).deleted == (("v1+2",) if verdict.passed else ())


def test_a_student_that_never_learnt_from_the_person_stays(lived: ToyLife):
    swapped(lived)
    lived.device.enrol("late", [finger(40, 0), finger(40, 1)])
    running = lived.device.model.version
    erased = lived.device.erase("late")
    assert (erased.deleted, erased.generation) == ((), running) == ((), "v1+1")
    assert lived.device.model.version == "v1+1"
    assert "generation-reverted" not in lived.kinds()


def test_a_student_that_descends_from_one_that_learnt_goes_too(lived: ToyLife):
    swapped(lived)
    store, generations = lived.device.store, lived.device.generations
    first, second = Generation.parse("v1+1"), Generation.parse("v1+2")
    store.add_lessons(second, 2, [name_of(0)], parent=first, kept={first})
    lived.device.erase(GONE)
    assert str(generations.current) == "v1"


def test_a_training_that_learns_from_the_person_is_given_up(lived: ToyLife):
    training = begun(lived.device)
    erased = lived.device.erase(GONE)
    assert erased.contents.jobs == ("v1+1",)
    assert not list((lived.folder / "jobs").iterdir())
    assert lived.device.training is None
    outcome = lived.device.finish_training(training)
    assert outcome.code is Code.TRAINING_KILLED
    assert lived.device.resume_training() is None
    assert lived.device.model.version == "v1"


def test_the_receipt_says_what_was_removed_and_only_the_devices_key_vouches_for_it(lived: ToyLife):
    swapped(lived)
    erased = lived.device.erase(GONE)
    key = key_of(lived)
    receipt = read_receipt(erased.receipt, trusted=[key])
    assert receipt == erased.contents
    assert receipt.device == signer_id(key)
    assert receipt.teacher == "removed"
    assert [s.generation for s in receipt.students] == ["v1+1"]
    assert GONE.encode() not in erased.receipt
    with pytest.raises(UsageError, match="no trusted key"):
        read_receipt(erased.receipt, trusted=[toy_release().trusted])
    with pytest.raises(UsageError, match="no trusted key"):
        read_receipt(erased.receipt.replace(b'"decisions":', b'"decisions":1'), trusted=[key])
    with pytest.raises(UsageError, match="no receipt"):
        read_receipt(b"{}", trusted=[key])


def test_asked_again_the_device_gives_the_same_receipt(lived: ToyLife):
    first = lived.device.erase(GONE)
    assert lived.device.erase(GONE).receipt == first.receipt
    lived.restart()
    assert lived.device.erase(GONE).receipt == first.receipt
    with pytest.raises(PersonError):
        lived.device.erase("nobody of this name")


def test_who_comes_back_is_a_new_person(lived: ToyLife):
    first = lived.device.erase(GONE)
    lived.device.enrol(GONE, [finger(2, 0), finger(2, 1)])
    assert lived.device.store.kept_today(GONE, lived.clock()) == 0
    second = lived.device.erase(GONE)
    assert second.receipt != first.receipt
    assert (second.references, second.samples) == (2, 0)


def test_what_explains_others_stays_readable_and_names_the_erased_one_no_more(lived: ToyLife):
    swapped(lived)
    store = lived.device.store
    of_gone = [d.observation.id for d in store.decisions() if d.observation.person == GONE]
    own = [s.id for s in store.samples(*State) if s.label and s.label.person == GONE]
    lived.device.erase(GONE)
    for decision_id in of_gone:
        lines = explain_decision(store, decision_id)
        assert lines[-1] == "Made again from the recorded numbers, the rules give the same answer."
        assert not any(GONE in line for line in lines)
    for sample in store.samples(*State):
        lines = explain_sample(store, sample.id)
        assert lines[-1] == "Made again from the recorded numbers, the rules give the same answer."
        assert not any(GONE in line for line in lines)
    for sample_id in own:
        assert store.sample(sample_id).state is State.DROPPED
        assert store.sample(sample_id).note == NOTE
    soft = [s.label.answer["soft"] for s in store.samples(*State) if s.label and s.label.answer]
    assert soft
    assert not any(GONE in shares for shares in soft)
    assert not any(GONE in event.reason for event in store.events())


def test_attempts_that_nobody_named_go_where_the_person_was_the_nearest(life: ToyLife):
    life.enrolled().live(3, WORN)
    store = life.device.store
    waiting = [s for s in store.samples(State.FRESH) if s.kind is Kind.SECOND]
    nearest = {d.observation.id: d.observation.person for d in store.decisions()}
    seen = {s.id: {nearest[i] for i in store.decision(s.attempt_end).outcome.captures} for s in waiting}
    person = max(sorted(set().union(*seen.values())), key=lambda name: sum(name in names for names in seen.values()))
    assert 0 < sum(person in names for names in seen.values()) < len(waiting)
    life.device.erase(person)
    for sample_id, names in seen.items():
        assert (store.sample(sample_id).state is State.DROPPED) == (person in names)


def test_while_the_teacher_cannot_be_told_the_device_has_done_its_part(lived: ToyLife, monkeypatch: pytest.MonkeyPatch):
    device = lived.device
    remove = device.labeller.remove

    def away(person: str) -> None:
        raise ServiceError(Code.SERVICE_UNAVAILABLE, "the teacher does not answer: try again")

    monkeypatch.setattr(device.labeller, "remove", away)
    with pytest.raises(ServiceError):
        device.erase(GONE)
    assert GONE not in device.store.persons()
    assert device.pending_removals() == 1
    with pytest.raises(ServiceError):
        device.finish_removals()
    with pytest.raises(ServiceError):
        device.erase(GONE)
    # The teacher goes on naming the person, who comes back by no answer.
    lived.live(2, 1.0)
    assert device.fetch_labels() == ()
    named = [shares for s in device.store.samples(*State) if s.label and (shares := s.label.answer.get("soft"))]
    assert any(name.startswith(PREFIX) for shares in named for name in shares)
    assert GONE not in device.reception.keeper.neighbours._kept
    lived.live(1, 1.0)
    second = next(s for s in device.store.samples(State.FRESH) if s.kind is Kind.SECOND)
    device.store.label([second.id], LabelAnswer(GONE, 0.9, 0.5, {GONE: 0.9, name_of(0): 0.1}, "", "pixels/teacher"))
    assert device.store.sample(second.id).state is State.DROPPED
    assert device.store.sample(second.id).label.person != GONE
    assert not device.store.forgetting.knows(GONE)
    monkeypatch.setattr(device.labeller, "remove", remove)
    device.finish_removals()
    assert device.pending_removals() == 0
    assert device.erase(GONE).teacher_knew
    assert GONE not in device.labeller.persons


def test_whom_the_teacher_alone_knows_is_removed_there(lived: ToyLife):
    lived.device.labeller.enrol("half", [finger(50, 0)])
    erased = lived.device.erase("half")
    assert (erased.references, erased.samples, erased.teacher_knew) == (0, 0, True)
    assert "half" not in lived.device.labeller.persons


def test_an_answer_that_is_late_is_kept_without_the_name(lived: ToyLife):
    device = lived.device
    captures = [finger(2, 300 + k) for k in range(40)]
    accepted = next(c for c in captures if device.model.recognise(c).decision is Decision.ACCEPT)
    late = device.reception.keeper._judged(device.model.recognise(accepted), "v1", accepted, "late")
    assert late.observation.person == GONE
    device.erase(GONE)
    device.store.record(late, {late.observation.id: accepted} if late.outcome.kind is Kind.FIRST else {})
    kept = device.store.decision(late.observation.id)
    assert kept.observation.person not in (None, GONE)
    assert not device.store.forgetting.knows(GONE)
    assert not [s for s in device.store.samples(*State) if s.decision_id == late.observation.id]


def test_a_disk_without_room_to_scrub_leaves_no_student_at_work_that_learnt(
    lived: ToyLife, monkeypatch: pytest.MonkeyPatch
):
    swapped(lived)
    device = lived.device

    def full(_: Database) -> None:
        raise StorageError(Code.STORAGE_FULL, "the disk is full: free some space")

    with monkeypatch.context() as patched:
        patched.setattr(Database, "scrub", full)
        with pytest.raises(StorageError):
            device.erase(GONE)
        assert device.model.version == "v1"
        assert device.pending_removals() == 1
        assert GONE in device.labeller.persons  # a receipt says that all is done: so it is not begun
        training = begun(device)
        with pytest.raises(StorageError):
            device.finish_removals()
        assert device.training is training
        assert training.folder.exists()
    device.finish_removals()
    assert device.training is training
    assert device.erase(GONE).deleted == ("v1+1",)
    device.stop()


def test_a_student_that_could_not_be_replaced_in_memory_is_replaced_at_the_next_try(
    lived: ToyLife, monkeypatch: pytest.MonkeyPatch
):
    swapped(lived)
    device = lived.device

    def failing(*_: object) -> None:
        raise StorageError(Code.STORAGE_FAILED, "a reference cannot be read: check the disk")

    with monkeypatch.context() as patched:
        patched.setattr(device._succession, "fall_back", failing)
        with pytest.raises(StorageError):
            device.erase(GONE)
        assert (device.model.version, str(device.generations.current)) == ("v1+1", "v1")
    device.finish_removals()
    assert device.model.version == "v1"


def test_a_device_whose_released_version_is_damaged_keeps_its_student_and_says_so(lived: ToyLife):
    swapped(lived)
    device = lived.device
    released = device.generations.pointer.current.released.digest[7:]
    path = lived.folder / "students" / f"{released}.tutelage"
    whole = path.read_bytes()
    path.write_bytes(b"?" + whole[1:])
    with pytest.raises(PackageError):
        device.erase(GONE)
    assert device.model.version == "v1+1"
    assert GONE not in device.store.persons()
    assert GONE not in device.model.gallery.persons
    assert device.pending_removals() == 1
    path.write_bytes(whole)
    assert device.erase(GONE).generation == "v1"


def test_an_erasure_that_a_power_cut_left_is_finished_at_the_start(lived: ToyLife, monkeypatch: pytest.MonkeyPatch):
    swapped(lived)
    with monkeypatch.context() as patched:
        patched.setattr(lived.device._erasures, "settle", lambda: pytest.fail("the power went"))
        with pytest.raises(pytest.fail.Exception):
            lived.device.erase(GONE)
    device = lived.restart()
    assert (device.model.version, device.pending_removals()) == ("v1", 1)
    assert reasons(lived, EventKind.GENERATION_REVERTED) == [REASON]
    device.finish_removals()
    assert device.erase(GONE).contents.teacher == "absent"  # this labeller forgets at a restart
