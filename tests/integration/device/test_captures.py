"""What a device makes of captures: answers, what it keeps, whom it enrols, and the labels it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import structlog
from device_store import raw_change
from lived_device import STRANGERS, WORN, swapped
from toy_device import ToyLife, finger

from device_sim.device import Device
from device_sim.records import LabelSource, State
from device_sim.sampling import NO_NEIGHBOUR, Kind
from tutelage.captures import Pixels
from tutelage.errors import CaptureError, Code, StorageError
from tutelage.labelling import AbstentionPolicy, GalleryLabeller, LabelAnswer


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
        return device.reception.keeper.neighbours.nearest(person, device.model.features([capture]))

    assert nearest(device) == pytest.approx(1.0, abs=1e-4)
    assert nearest(lived.restart()) == pytest.approx(1.0, abs=1e-4)
    swapped(lived)
    assert nearest(lived.device) == pytest.approx(1.0, abs=1e-4)
    probe = lived.device.model.features([finger(0, 60)])
    assert lived.device.reception.keeper.neighbours.nearest("nobody", probe) == NO_NEIGHBOUR


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
