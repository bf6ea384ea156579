"""A teacher that is away: enrolling goes on, and whom it was not told of it is told later, restarts included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from device_sim.patient_labeller import PatientLabeller
from tutelage.captures import Pixels
from tutelage.errors import Code, InputError, PersonError, ServiceError, TutelageError
from tutelage.labelling import LabelAnswer

CAPTURE: Pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)


@dataclass
class Teacher:
    """Knows whom it was told of; fails as it is told to."""

    known: dict[str, int] = field(default_factory=dict)
    error: TutelageError | None = None
    space: str = "t"
    asked: int = 0

    def _answer(self) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error

    def enrol(self, person: str, captures: Sequence[Pixels]) -> None:
        self._answer()
        self.known[person] = len(captures)

    def remove(self, person: str) -> None:
        self._answer()
        if self.known.pop(person, None) is None:
            raise PersonError(person)

    def label(self, attempts: Sequence[Sequence[Pixels]]) -> list[LabelAnswer]:
        self._answer()
        return [LabelAnswer(None, 0.0, 0.0, {}, "nobody", self.space) for _ in attempts]


AWAY = ServiceError(Code.SERVICE_UNAVAILABLE, "away: try again")
CLOSED = ServiceError(Code.CALL_CANCELLED, "the connection was closed: open another one")
USELESS = InputError(Code.DATA_INSUFFICIENT, "no capture is usable: take another")


def tell(labeller: PatientLabeller, **enrolled: int) -> int:
    return labeller.tell(lambda: sorted(enrolled), lambda person: [CAPTURE] * enrolled.get(person, 0))


def test_a_teacher_that_answers_is_told_at_once(tmp_path: Path):
    teacher, marker = Teacher(), tmp_path / "untold"
    labeller = PatientLabeller(teacher, marker)
    labeller.enrol("anna", [CAPTURE])
    assert teacher.known == {"anna": 1}
    assert not labeller.untold
    assert not marker.exists()


def test_whom_it_was_not_told_of_it_is_told_when_it_is_back(tmp_path: Path):
    teacher, marker = Teacher(error=AWAY), tmp_path / "untold"
    labeller = PatientLabeller(teacher, marker)
    labeller.enrol("anna", [CAPTURE])
    labeller.enrol("bert", [CAPTURE])
    assert teacher.asked == 1  # nobody at the door waits for it twice
    assert marker.exists()
    assert marker.read_bytes() == b""  # names lie nowhere in plain
    with pytest.raises(ServiceError):
        tell(labeller, anna=2, bert=1)
    teacher.error = None
    assert tell(labeller, anna=2, bert=1, carl=1) == 2
    assert teacher.known == {"anna": 2, "bert": 1}
    assert not marker.exists()
    assert tell(labeller, anna=2) == 0
    labeller.enrol("dora", [CAPTURE])
    assert teacher.known["dora"] == 1


def test_after_a_restart_it_is_told_of_everybody_again(tmp_path: Path):
    teacher, marker = Teacher(error=AWAY), tmp_path / "untold"
    PatientLabeller(teacher, marker).enrol("anna", [CAPTURE])
    teacher.error = None
    labeller = PatientLabeller(teacher, marker)
    assert tell(labeller, anna=1, bert=3) == 2
    assert teacher.known == {"anna": 1, "bert": 3}
    assert not marker.exists()


def test_captures_that_it_cannot_use_are_refused_now_and_passed_over_later(tmp_path: Path):
    teacher, marker = Teacher(error=USELESS), tmp_path / "untold"
    labeller = PatientLabeller(teacher, marker)
    with pytest.raises(InputError):
        labeller.enrol("anna", [CAPTURE])
    assert not labeller.untold
    teacher.error = AWAY
    labeller.enrol("anna", [CAPTURE])
    teacher.error = USELESS
    assert tell(labeller, anna=1) == 1
    assert not marker.exists()


def test_a_connection_that_is_closed_meanwhile_forgets_nobody(tmp_path: Path):
    teacher, marker = Teacher(error=AWAY), tmp_path / "untold"
    labeller = PatientLabeller(teacher, marker)
    labeller.enrol("anna", [CAPTURE])
    teacher.error = CLOSED
    with pytest.raises(ServiceError):
        tell(labeller, anna=1)
    assert marker.exists()


def test_without_a_teacher_everybody_waits_for_one(tmp_path: Path):
    marker = tmp_path / "untold"
    labeller = PatientLabeller(None, marker)
    assert not labeller.has_teacher
    labeller.enrol("anna", [CAPTURE])
    assert marker.exists()
    with pytest.raises(PersonError):
        labeller.remove("anna")
    with pytest.raises(ServiceError):
        labeller.label([[CAPTURE]])
    teacher = Teacher()
    assert tell(PatientLabeller(teacher, marker), anna=1) == 1
    assert teacher.known == {"anna": 1}


def test_who_was_erased_before_the_teacher_knew_is_not_told_of(tmp_path: Path):
    teacher, marker = Teacher(error=AWAY), tmp_path / "untold"
    labeller = PatientLabeller(teacher, marker)
    labeller.enrol("anna", [CAPTURE])
    teacher.error = None
    tell(labeller)
    assert teacher.known == {}
    assert not marker.exists()


def test_another_teacher_is_told_of_everybody_once(tmp_path: Path):
    first, marker = Teacher(), tmp_path / "untold"
    labeller = PatientLabeller(first, marker)
    labeller.enrol("anna", [CAPTURE])
    labeller.enrol("ben", [CAPTURE, CAPTURE])
    assert labeller.meet()
    assert tell(labeller, anna=1, ben=2) == 2
    assert not labeller.meet()
    second = Teacher(space="another")
    labeller = PatientLabeller(second, marker)
    assert labeller.meet()
    labeller = PatientLabeller(second, marker)  # put down before it could tell
    assert labeller.untold
    assert not labeller.meet()
    assert tell(labeller, anna=1, ben=2) == 2
    assert second.known == {"anna": 1, "ben": 2}
    assert not labeller.untold


def test_a_teacher_that_is_away_is_not_met(tmp_path: Path):
    labeller = PatientLabeller(AwayTeacher(), tmp_path / "untold")
    with pytest.raises(ServiceError):
        labeller.meet()
    assert not labeller.untold


class AwayTeacher(Teacher):
    """Does not even say who it is."""

    @property
    def space(self) -> str:
        raise AWAY

    @space.setter
    def space(self, value: str) -> None: ...
