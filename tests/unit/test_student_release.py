"""From captures and a teacher to a lesson, and from measured exits to a readout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from drawn_persons import draw_captures

from tutelage.biometrics.error_summary import ErrorSummary
from tutelage.biometrics.features import Features
from tutelage.captures import Pixels, to_input
from tutelage.cohorts import Cohort, held_out
from tutelage.errors import Code, InputError
from tutelage.labelling import Extraction
from tutelage.nn.student_release import MOST_NEGATIVES, MOST_STRANGERS, Taught, ask_teacher, best_readout, divide
from tutelage.nn.students import READOUTS


class Squint:
    """A teacher that sees the mean of each quarter, and no capture whose first row is dark."""

    name, space = "squint", "squint/1"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def extract(self, captures: Sequence[Pixels]) -> Extraction:
        self.asked.append(len(captures))
        usable = np.array([bool(capture[0].any()) for capture in captures])
        rows = np.array([[half.mean() + 1 for half in np.array_split(c.ravel(), 4)] for c in captures], np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        rows[~usable] = 0
        reasons = tuple("" if used else "too dark" for used in usable)
        return Extraction(Features(rows, self.space), usable, reasons, ("",) * len(captures))


def drawn(persons: int, each: int, dark: int = 0) -> Cohort:
    """A cohort whose first `dark` captures Squint cannot use."""
    captures = [capture for person in range(persons) for capture in draw_captures(person, each)]
    for capture in captures[:dark]:
        capture[0] = 0
    return Cohort(tuple(captures), tuple(f"p{person:02d}" for person in range(persons) for _ in range(each)))


def test_the_teacher_is_asked_once_for_each_capture_and_what_it_cannot_use_is_counted():
    teacher, cohort, told = Squint(), drawn(10, 5, dark=7), []
    taught = ask_teacher(teacher, cohort, lambda *words: told.append(words))
    assert teacher.asked == [32, 18]
    assert told == [(32, 50, {}), (50, 50, {})]
    assert taught.left_out == {"too dark": 7}
    assert taught.cohort.persons == cohort.persons[7:]
    assert all(a is b for a, b in zip(taught.cohort.captures, cohort.captures[7:], strict=True))
    np.testing.assert_array_equal(taught.features.vectors, Squint().extract(cohort.captures[7:]).features.vectors)


def test_a_teacher_that_can_use_nothing_is_an_error():
    with pytest.raises(InputError, match=r"none of 4 captures \(too dark: 4\)") as caught:
        ask_teacher(Squint(), drawn(2, 2, dark=4))
    assert caught.value.code is Code.DATA_INSUFFICIENT


def test_a_lesson_keeps_the_persons_held_out_apart():
    taught = ask_teacher(Squint(), drawn(12, 6))
    lesson = divide(taught, 0.25, seed=3, side=64)
    out = held_out(taught.cohort.names, 0.25, 3)
    assert set(lesson.unseen.cohort.names) == out
    assert set(lesson.taught.cohort.names) == set(taught.cohort.names) - out
    for part in (lesson.taught, lesson.unseen):
        again = Squint().extract(part.cohort.captures).features
        np.testing.assert_array_equal(part.features.vectors, again.vectors)
    assert list(lesson.strangers.unseen.persons) == [f"stranger-{number:03d}" for number in range(3) for _ in range(6)]


def test_devices_train_against_some_captures_of_every_person_who_taught():
    lesson = divide(ask_teacher(Squint(), drawn(12, 9)), 0.25, seed=3, side=64)
    negatives, taught = lesson.strangers.negatives, lesson.taught.cohort
    assert len(negatives.captures) == MOST_NEGATIVES < len(taught)
    each = Counter(negatives.persons)
    assert len(each) == len(taught.names)
    assert max(each.values()) - min(each.values()) <= 1
    own = {id(capture) for capture in taught.captures}
    assert all(id(capture) in own for capture in negatives.captures)
    assert not set(negatives.persons) & set(taught.names)


@pytest.mark.parametrize(
    ("persons", "each", "share", "words"),
    [
        (3, 9, 0.25, "distilling takes 4 persons or more, 3 can be used"),
        (8, 7, 0.25, "14 captures of 2 persons held out give 49 comparisons, a calibration takes 100"),
    ],
)
def test_too_few_persons_or_captures_are_refused_before_any_training(persons, each, share, words):
    with pytest.raises(InputError, match=words) as caught:
        divide(ask_teacher(Squint(), drawn(persons, each)), share, seed=0, side=64)
    assert caught.value.code is Code.DATA_INSUFFICIENT


def test_strangers_are_few_and_small_and_look_the_same_to_a_student(rng: np.random.Generator):
    coarse = [rng.integers(0, 256, (20, 25, 3), np.uint8) for _ in range(300)]
    captures = tuple(np.kron(c, np.ones((8, 4, 1), np.uint8)) for c in coarse)  # (160, 100, 3)
    cohort = Cohort(captures, tuple(f"p{row % 30:02d}" for row in range(300)))
    vectors = np.eye(300, dtype=np.float32)
    lesson = divide(Taught(cohort, Features(vectors, "s")), 0.9, seed=0, side=64)
    strangers = lesson.strangers.unseen
    assert len(lesson.unseen.cohort) == 270
    assert len(strangers.captures) == len(strangers.persons) == MOST_STRANGERS
    assert len(set(strangers.persons)) == 27
    assert {capture.shape for capture in strangers.captures} == {(64, 64)}
    whole = lesson.unseen.cohort.rows(lesson.unseen.cohort.first_rows(MOST_STRANGERS))
    np.testing.assert_allclose(to_input(strangers.captures), to_input(whole.captures), atol=0.03)


def test_small_strangers_stay_as_they_are():
    taught = ask_teacher(Squint(), drawn(12, 6))
    lesson = divide(taught, 0.25, seed=0, side=64)
    assert all(a is b for a, b in zip(lesson.strangers.unseen.captures, lesson.unseen.cohort.captures, strict=True))


def test_a_stranger_of_whom_nothing_is_left_at_a_students_size_is_left_out():
    taught = ask_teacher(Squint(), drawn(12, 8))
    chequered = np.indices((128, 128)).sum(0).astype(np.uint8) % 2 * 255
    captures = tuple(chequered if row % 8 == 0 else capture for row, capture in enumerate(taught.cohort.captures))
    lesson = divide(Taught(Cohort(captures, taught.cohort.persons), taught.features), 0.25, seed=0, side=64)
    assert len(lesson.unseen.cohort) == 3 * 8
    assert len(lesson.strangers.unseen.captures) == 3 * 7


def measured(persons: int, **rates: tuple[float, ...]) -> dict[str, ErrorSummary]:
    """Rates by readout: each of `rates` has one value a readout."""
    nothing = ErrorSummary(persons, 0, 0, 0, rank1=None, eer=None, tar_1e2=None, tar_1e3=None)
    return {
        readout: replace(nothing, **{name: values[place] for name, values in rates.items()})
        for place, readout in enumerate(READOUTS)
    }


RISING, FALLING, EQUAL = (0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 0.4, 0.3, 0.2, 0.1), (0.5,) * 5


@pytest.mark.parametrize(
    ("errors", "readout", "reason"),
    [
        (measured(142, tar_1e3=FALLING, tar_1e2=RISING, eer=EQUAL), "exit1", "highest TAR at FMR 1e-3"),
        (measured(141, tar_1e3=FALLING, tar_1e2=RISING, eer=EQUAL), "fused", "highest TAR at FMR 1e-2"),
        (measured(46, tar_1e2=FALLING, eer=RISING), "exit1", "highest TAR at FMR 1e-2"),
        (measured(45, tar_1e2=FALLING, eer=FALLING), "fused", "lowest EER"),
        (measured(99, tar_1e2=EQUAL, eer=(0.2, 0.1, 0.1, 0.3, 0.2)), "exit3", "highest TAR at FMR 1e-2"),
        (measured(99, eer=(0.1, 0.1, 0.3, 0.3, 0.2)), "exit2", "lowest EER"),
        (measured(200, tar_1e3=EQUAL, tar_1e2=EQUAL, eer=EQUAL), "fused", "highest TAR at FMR 1e-3"),
        (measured(200), "fused", "nothing could be measured"),
    ],
)
def test_the_readout_is_chosen_by_the_strictest_rate_that_persons_suffice_for(errors, readout: str, reason: str):
    assert best_readout(errors) == (readout, reason)
