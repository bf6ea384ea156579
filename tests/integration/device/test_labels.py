"""Labels that are asked for twice, and labels that the device does not believe."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from lived_device import WORN
from toy_device import ToyLife, finger, name_of

from device_sim.label_requests import CONTRADICTED
from device_sim.records import LabelSource, Sample, State
from device_sim.sampling import Kind
from tutelage.biometrics.matching import Decision
from tutelage.captures import Pixels
from tutelage.labelling import LabelAnswer


class Saying:
    """A teacher that says the same of every attempt."""

    def __init__(self, person: str | None, space: str = "old") -> None:
        self.person, self.space = person, space
        self.asked: list[int] = []

    def enrol(self, person: str, captures: Sequence[Pixels]) -> None: ...

    def remove(self, person: str) -> None: ...

    def label(self, attempts: Sequence[Sequence[Pixels]]) -> list[LabelAnswer]:
        self.asked.append(len(attempts))
        person, reason = self.person, "" if self.person else "nobody near enough"
        soft = {person: 1.0} if person else {}
        return [LabelAnswer(person, 1.0 if person else 0.0, 0.5, soft, reason, self.space) for _ in attempts]


@pytest.fixture
def failed(life: ToyLife) -> ToyLife:
    """A device at which somebody, person 1, failed once."""
    life.enrolled()
    answers = [life.device.recognise(finger(1, 300 + k, 1.0), "visit") for k in range(3)]
    assert all(answer.decision is not Decision.ACCEPT for answer in answers)
    return life


def second(life: ToyLife) -> list[Sample]:
    return [sample for sample in life.device.store.samples(*State) if sample.kind is Kind.SECOND]


def surely(life: ToyLife, person: int, attempt: str) -> None:
    """Let the device recognise somebody beyond doubt."""
    sure = next(
        capture
        for capture in (finger(person, 400 + k) for k in range(100))
        if life.device.model.recognise(capture).score >= life.settings.sampling.sample_low
    )
    assert life.device.recognise(sure, attempt).match.person == name_of(person)


def labelled(life: ToyLife, person: str) -> list[Sample]:
    life.device.labeller = Saying(person)
    assert life.device.fetch_labels() == ()
    assert {sample.label.person for sample in second(life)} == {person}
    return second(life)


def test_a_label_that_a_sure_recognition_contradicts_is_quarantined(failed: ToyLife):
    surely(failed, 1, "visit")
    samples = labelled(failed, name_of(2))
    assert {(sample.state, sample.note) for sample in samples} == {(State.QUARANTINED, CONTRADICTED)}


def test_a_label_that_a_sure_recognition_confirms_is_not(failed: ToyLife):
    surely(failed, 1, "visit")
    assert CONTRADICTED not in {sample.note for sample in labelled(failed, name_of(1))}


def test_a_sure_recognition_of_another_visit_contradicts_nothing(failed: ToyLife):
    surely(failed, 1, "next visit")
    assert CONTRADICTED not in {sample.note for sample in labelled(failed, name_of(2))}


@pytest.mark.parametrize(("after_s", "doubted"), [(2.0, True), (15.0, False)])
def test_where_visits_are_not_told_apart_only_what_follows_at_once_contradicts(
    life: ToyLife, after_s: float, doubted: bool
):
    life.enrolled()
    for k in range(3):
        assert life.device.recognise(finger(1, 300 + k, 1.0)).decision is not Decision.ACCEPT
    life.clock.now_s += after_s
    surely(life, 1, "")
    assert (CONTRADICTED in {sample.note for sample in labelled(life, name_of(2))}) == doubted


def test_an_abstention_is_asked_about_once_more_when_the_teacher_is_another(life: ToyLife):
    life.enrolled().live(1, WORN)
    waiting = len({sample.attempt_end for sample in second(life)})
    assert waiting > 1
    life.device.labeller = old = Saying(None, "old")
    assert life.device.fetch_labels() == ()
    assert life.device.fetch_labels() == ("no attempt waits for a label",)
    assert old.asked == [waiting]
    assert {sample.label.source for sample in second(life)} == {LabelSource.ABSTAINED}
    # The device hears of another teacher by its next answer.
    for k in range(3):
        life.device.recognise(finger(1, 300 + k, 1.0), "visit")
    life.device.labeller = new = Saying(None, "new")
    assert life.device.fetch_labels() == ()
    assert life.device.fetch_labels() == ()
    assert life.device.fetch_labels() == ("no attempt waits for a label",)
    assert new.asked == [1, waiting]
    assert {sample.state for sample in second(life)} == {State.FRESH}, "kept apart, and not lost"
    life.restart()
    life.device.labeller = newest = Saying(None, "newest")
    for k in range(3):
        life.device.recognise(finger(1, 300 + k, 1.0), "another visit")
    assert life.device.fetch_labels() == ()
    assert life.device.fetch_labels() == ()
    assert newest.asked == [1, 1], "only the one attempt that was asked about once"
