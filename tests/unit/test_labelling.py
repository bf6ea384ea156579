from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from tutelage.biometrics.features import Features
from tutelage.captures import Pixels
from tutelage.errors import Code, InputError, PersonError, SpaceMismatchError, UsageError
from tutelage.labelling import AbstentionPolicy, Extraction, GalleryLabeller, Labeller, Teacher

AXES = np.eye(8)
OPEN = AbstentionPolicy(min_cosine=-1, min_margin=0)


class MeanTeacher:
    """A real, if simple, teacher: the feature of a capture is the direction of its row means.

    A capture whose first pixel is 255 is not usable, one whose last pixel is 255 carries a note.
    """

    name = "mean"

    def __init__(self, space: str = "mean-space") -> None:
        self.space = space
        self.calls = 0

    def extract(self, captures: Sequence[Pixels]) -> Extraction:
        self.calls += 1
        rows = np.stack([capture[:, 1:-1].astype(np.float64).mean(axis=1) - 127 for capture in captures])
        usable = np.array([capture[0, 0] != 255 for capture in captures])
        vectors = np.where(usable[:, None], rows / np.linalg.norm(rows, axis=1, keepdims=True), 0)
        return Extraction(
            Features(vectors.astype(np.float32), self.space),
            usable,
            tuple("" if ok else f"no pattern found in capture of height {len(captures[0])}" for ok in usable),
            tuple("placement borrowed" if capture[-1, -1] == 255 else "" for capture in captures),
        )


def capture(direction: Sequence[float], *, usable: bool = True, noted: bool = False) -> Pixels:
    """A capture (8, 16) whose feature in the eyes of `MeanTeacher` is `direction` (8,), to about 1 %."""
    unit = np.asarray(direction, dtype=np.float64) / np.linalg.norm(direction)
    pixels = np.repeat(np.rint(127 + 100 * unit)[:, None], 16, axis=1).astype(np.uint8)
    pixels[0, 0] = 0 if usable else 255
    pixels[-1, -1] = 255 if noted else 0
    return pixels


def near(cosine: float, axis: int, other: int = 7) -> np.ndarray:
    """A direction at `cosine` to one axis and in the plane of another."""
    return cosine * AXES[axis] + math.sqrt(1 - cosine**2) * AXES[other]


@pytest.fixture
def teacher() -> MeanTeacher:
    return MeanTeacher()


def labeller(teacher: MeanTeacher, policy: AbstentionPolicy = OPEN, persons: int = 3) -> GalleryLabeller:
    made = GalleryLabeller(teacher, policy)
    for number in range(persons):
        made.enrol(f"p{number}", [capture(AXES[number])])
    return made


def test_keeps_the_interfaces(teacher: MeanTeacher) -> None:
    as_teacher: Teacher = teacher
    as_labeller: Labeller = GalleryLabeller(as_teacher, OPEN)
    assert as_labeller.space == "mean-space"


def test_names_the_nearest_person(teacher: MeanTeacher) -> None:
    answers = labeller(teacher).label([[capture(near(0.9, axis))] for axis in (2, 0, 1)])
    assert [answer.person for answer in answers] == ["p2", "p0", "p1"]
    assert {answer.space for answer in answers} == {"mean-space"}
    assert {answer.reason for answer in answers} == {""}


def test_margin_confidence_and_soft_label_by_hand(teacher: MeanTeacher) -> None:
    probe = 0.8 * AXES[0] + 0.5 * AXES[1] + 0.2 * AXES[2]
    (answer,) = labeller(teacher).label([[capture(probe)]])
    seen = teacher.extract([capture(probe)]).features.vectors[0].astype(float)
    cosines = {
        f"p{number}": sum(
            float(a) * float(b)
            for a, b in zip(seen, teacher.extract([capture(AXES[number])]).features.vectors[0], strict=True)
        )
        for number in range(3)
    }
    total = sum(math.exp(cosine / 0.1) for cosine in cosines.values())
    assert answer.person == "p0"
    assert answer.margin == pytest.approx(cosines["p0"] - cosines["p1"], abs=1e-6)
    assert list(answer.soft) == ["p0", "p1", "p2"]
    for person, cosine in cosines.items():
        assert answer.soft[person] == pytest.approx(math.exp(cosine / 0.1) / total, rel=1e-4)
    assert answer.confidence == answer.soft["p0"]
    assert sum(answer.soft.values()) == pytest.approx(1)


def test_temperature_sharpens_or_flattens(teacher: MeanTeacher) -> None:
    def confidence(temperature: float) -> float:
        policy = AbstentionPolicy(-1, 0, soft_temperature=temperature)
        return labeller(teacher, policy).label([[capture(near(0.6, 0, other=1))]])[0].confidence

    assert confidence(1e-3) == pytest.approx(1)  # where a plain exponential overflows
    assert confidence(1e6) == pytest.approx(1 / 3, abs=1e-3)
    assert confidence(0.1) < confidence(0.01) <= 1


def test_soft_labels_speak_of_at_most_five_persons(teacher: MeanTeacher) -> None:
    (answer,) = labeller(teacher, persons=7).label([[capture(np.arange(8, 0, -1))]])
    assert list(answer.soft) == ["p0", "p1", "p2", "p3", "p4"]
    assert sum(answer.soft.values()) == pytest.approx(1)


def test_a_person_is_as_near_as_the_nearest_reference(teacher: MeanTeacher) -> None:
    made = GalleryLabeller(teacher, OPEN)
    made.enrol("many", [capture(AXES[5]), capture(AXES[0]), capture(AXES[6])])
    made.enrol("one", [capture(near(0.8, 0))])
    (answer,) = made.label([[capture(near(0.97, 0, other=1))]])
    assert answer.person == "many"


def test_equally_near_persons_come_by_name(teacher: MeanTeacher) -> None:
    made = GalleryLabeller(teacher, OPEN)
    for person in ("b", "a", "c"):
        made.enrol(person, [capture(AXES[0])])
    (answer,) = made.label([[capture(AXES[0])]])
    assert (answer.person, answer.margin) == ("a", 0)
    assert list(answer.soft) == ["a", "b", "c"]


def test_the_captures_of_an_attempt_are_judged_together(teacher: MeanTeacher) -> None:
    """The last capture alone would name somebody else."""
    attempt = [capture(near(0.9, 0)), capture(near(0.9, 0)), capture(near(0.6, 1, other=0))]
    (grouped,) = labeller(teacher, AbstentionPolicy(0, 0, group=True)).label([attempt])
    (last,) = labeller(teacher, AbstentionPolicy(0, 0, group=False)).label([[*attempt[:2], capture(near(0.9, 1))]])
    assert (grouped.person, last.person) == ("p0", "p1")
    rows = teacher.extract(attempt).features.vectors.astype(np.float64)
    mean = rows.sum(axis=0) / np.linalg.norm(rows.sum(axis=0))
    axes = [teacher.extract([capture(AXES[number])]).features.vectors[0] for number in (0, 1)]
    assert grouped.margin == pytest.approx(mean @ axes[0] - mean @ axes[1], abs=1e-6)


def test_captures_that_are_not_usable_are_left_out(teacher: MeanTeacher) -> None:
    good, bad = capture(near(0.9, 0)), capture(AXES[1], usable=False)
    alone, mixed = labeller(teacher).label([[good], [bad, good, bad]])
    assert mixed == alone


def test_without_grouping_an_unusable_last_capture_abstains(teacher: MeanTeacher) -> None:
    made = labeller(teacher, AbstentionPolicy(-1, 0, group=False))
    (answer,) = made.label([[capture(AXES[0]), capture(AXES[0], usable=False)]])
    assert answer.person is None
    assert answer.reason == "no pattern found in capture of height 8"


def test_abstains_with_the_teachers_reason(teacher: MeanTeacher) -> None:
    (answer,) = labeller(teacher).label([[capture(AXES[0], usable=False)] * 2])
    assert (answer.person, answer.confidence, answer.margin, dict(answer.soft)) == (None, 0, 0, {})
    assert answer.reason == "no pattern found in capture of height 8"
    assert answer.space == "mean-space"


def test_abstains_without_anybody_enrolled(teacher: MeanTeacher) -> None:
    (answer,) = GalleryLabeller(teacher, OPEN).label([[capture(AXES[0])]])
    assert (answer.person, answer.reason) == (None, "nobody is enrolled")


def test_abstains_where_nobody_is_near(teacher: MeanTeacher) -> None:
    made = labeller(teacher, AbstentionPolicy(min_cosine=0.4, min_margin=0))
    far, close = made.label([[capture(near(0.31, 0))], [capture(near(0.45, 0))]])
    assert far.person is None
    assert far.reason == "nobody near enough: 0.31 < 0.40"
    assert far.confidence == 0
    assert next(iter(far.soft)) == "p0"
    assert close.person == "p0"


def test_abstains_where_two_persons_are_too_alike(teacher: MeanTeacher) -> None:
    made = labeller(teacher, AbstentionPolicy(min_cosine=0.4, min_margin=0.05))
    alike, clear = made.label([[capture([0.71, 0.69, 0, 0, 0, 0, 0, 0])], [capture([0.8, 0.6, 0, 0, 0, 0, 0, 0])]])
    assert alike.person is None
    assert alike.reason == "two persons too alike: margin 0.02 < 0.05"
    assert alike.confidence == 0
    assert alike.margin == pytest.approx(0.02, abs=0.01)
    assert list(alike.soft) == ["p0", "p1", "p2"]
    assert clear.person == "p0"


def test_the_least_cosine_is_inclusive(teacher: MeanTeacher) -> None:
    made = labeller(teacher, AbstentionPolicy(min_cosine=1, min_margin=0))
    assert made.label([[capture(AXES[0])]])[0].person == "p0"


def test_limits_are_inclusive_and_told_apart(teacher: MeanTeacher) -> None:
    made = labeller(teacher)
    (free,) = made.label([[capture(near(0.5, 0, other=1))]])
    made.policy = AbstentionPolicy(min_cosine=-1, min_margin=free.margin)
    assert made.label([[capture(near(0.5, 0, other=1))]])[0].person == free.person
    made.policy = AbstentionPolicy(min_cosine=-1, min_margin=free.margin + 1e-4)
    (short,) = made.label([[capture(near(0.5, 0, other=1))]])
    assert short.person is None
    shown, limit = short.reason.removeprefix("two persons too alike: margin ").split(" < ")
    assert float(shown) < float(limit)


def test_one_person_has_no_rival(teacher: MeanTeacher) -> None:
    made = labeller(teacher, AbstentionPolicy(min_cosine=0.4, min_margin=0.2), persons=1)
    (answer,) = made.label([[capture(near(0.9, 0))]])
    assert (answer.person, answer.confidence) == ("p0", 1)
    assert answer.margin == pytest.approx(1.9, abs=0.02)


def test_captures_that_cancel_out_abstain(teacher: MeanTeacher) -> None:
    (answer,) = labeller(teacher).label([[capture(AXES[0]), capture(-AXES[0])]])
    assert answer.person is None
    assert answer.reason == "the captures of the attempt contradict each other"


def test_notes_of_the_teacher_come_with_the_label(teacher: MeanTeacher) -> None:
    noted = capture(AXES[0], noted=True)
    (answer,) = labeller(teacher).label([[noted, capture(AXES[0]), noted]])
    assert (answer.person, answer.reason) == ("p0", "placement borrowed")


def test_the_teacher_is_asked_once_for_all_attempts(teacher: MeanTeacher) -> None:
    made = labeller(teacher)
    teacher.calls = 0
    attempts = [[], [capture(near(0.9, 1))], [], [capture(near(0.9, 2)), capture(near(0.9, 2))], []]
    answers = made.label(attempts)
    assert teacher.calls == 1
    assert [answer.person for answer in answers] == [None, "p1", None, "p2", None]
    assert answers[0].reason == "the attempt has no capture"


def test_without_any_capture_the_teacher_is_not_asked(teacher: MeanTeacher) -> None:
    made = labeller(teacher)
    teacher.calls = 0
    assert made.label([]) == []
    assert [answer.person for answer in made.label([[], []])] == [None, None]
    assert teacher.calls == 0


def test_answers_do_not_depend_on_what_else_is_asked(teacher: MeanTeacher) -> None:
    made = labeller(teacher)
    attempts = [[capture(near(0.5 + 0.1 * axis, axis))] for axis in range(3)]
    together = made.label(attempts)
    alone = [made.label([attempt])[0] for attempt in attempts]
    for a, b in zip(together, alone, strict=True):
        assert a.person == b.person
        assert a.margin == pytest.approx(b.margin, abs=1e-6)


def test_enrolling_again_replaces(teacher: MeanTeacher) -> None:
    made = labeller(teacher)
    made.enrol("p0", [capture(AXES[5])])
    answers = made.label([[capture(near(0.9, 5))], [capture(near(0.99, 0))]])
    assert answers[0].person == "p0"
    assert answers[1].soft["p0"] == pytest.approx(1 / 3, abs=0.01)  # as far from it as from the others
    assert made.persons == ("p0", "p1", "p2")


def test_enrolment_uses_the_usable_captures(teacher: MeanTeacher) -> None:
    made = GalleryLabeller(teacher, OPEN)
    made.enrol("a", [capture(AXES[1], usable=False), capture(AXES[0])])
    made.enrol("b", [capture(AXES[2])])
    (answer,) = made.label([[capture(near(0.9, 0))]])
    assert answer.person == "a"
    assert answer.soft["a"] > 0.99


@pytest.mark.parametrize("captures", [[], [capture(AXES[0], usable=False)]])
def test_enrolment_without_a_usable_capture_changes_nothing(teacher: MeanTeacher, captures: list[Pixels]) -> None:
    made = labeller(teacher)
    before = made.label([[capture(AXES[0])]])
    for person in ("p0", "new"):
        with pytest.raises(InputError, match=f"no reference capture of person '{person}' is usable") as caught:
            made.enrol(person, captures)
        assert caught.value.code is Code.DATA_INSUFFICIENT
    assert made.label([[capture(AXES[0])]]) == before
    assert made.persons == ("p0", "p1", "p2")


def test_a_person_needs_a_name(teacher: MeanTeacher) -> None:
    with pytest.raises(UsageError):
        GalleryLabeller(teacher, OPEN).enrol("", [capture(AXES[0])])


def test_only_features_are_kept(teacher: MeanTeacher) -> None:
    made = GalleryLabeller(teacher, OPEN)
    image = capture(AXES[0])
    made.enrol("a", [image])
    first = made.label([[capture(AXES[0])]])
    image[:] = 0
    assert made.label([[capture(AXES[0])]]) == first
    assert "vectors" not in repr(made)
    assert "'a'" not in repr(made)


def test_removal_forgets(teacher: MeanTeacher) -> None:
    made = labeller(teacher, AbstentionPolicy(min_cosine=0.5, min_margin=0))
    made.remove("p1")
    assert made.persons == ("p0", "p2")
    (answer,) = made.label([[capture(near(0.9, 1))]])
    assert answer.person is None
    assert "p1" not in answer.soft


def test_removal_of_a_stranger(teacher: MeanTeacher) -> None:
    made = labeller(teacher)
    made.remove("p1")
    for person in ("p1", "nobody"):
        with pytest.raises(PersonError, match=f"person '{person}' is not enrolled") as caught:
            made.remove(person)
        assert caught.value.code is Code.PERSON_UNKNOWN
        assert caught.value.exit_code == 22


def test_a_teacher_that_changed_its_space(teacher: MeanTeacher) -> None:
    made = labeller(teacher)
    teacher.space = "another"
    with pytest.raises(SpaceMismatchError):
        made.label([[capture(AXES[0])]])


@pytest.mark.parametrize(
    "values",
    [
        {"min_cosine": 1.1},
        {"min_cosine": -1.1},
        {"min_cosine": math.nan},
        {"min_margin": -0.1},
        {"min_margin": 2.1},
        {"min_margin": math.nan},
        {"soft_temperature": 0},
        {"soft_temperature": -1},
        {"soft_temperature": math.inf},
        {"soft_temperature": math.nan},
    ],
)
def test_policies_out_of_range(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(values))):
        AbstentionPolicy(**({"min_cosine": 0.4, "min_margin": 0.05} | values))


def test_extractions_speak_of_the_same_captures() -> None:
    features = Features(np.eye(2, dtype=np.float32), "s")
    for usable, reasons, notes in ((1, 2, 2), (2, 1, 2), (2, 2, 3)):
        with pytest.raises(InputError) as caught:
            Extraction(features, np.ones(usable, dtype=bool), ("",) * reasons, ("",) * notes)
        assert caught.value.code is Code.DATA_INSUFFICIENT
