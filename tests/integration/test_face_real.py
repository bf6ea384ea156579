"""The face teacher on a few real images, where a folder of them is at hand.

The folder holds one folder of images a person. It is named by the environment variable `TUTELAGE_TEST_FACES`, or is the
set of faces beside the repository; without either this is skipped, since no image of a person is part of the
repository.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tutelage.biometrics.error_rates import rank1
from tutelage.biometrics.features import cosines
from tutelage.captures import read_capture
from tutelage.errors import MissingExtraError
from tutelage.face import FaceTeacher
from tutelage.labelling import AbstentionPolicy, GalleryLabeller

PERSONS, PROBES = 5, 3


@pytest.fixture(scope="module")
def folder() -> Path:
    named = os.environ.get("TUTELAGE_TEST_FACES")
    found = Path(named) if named else Path(__file__).parents[3] / "shared" / "data" / "orl-faces"
    if not found.is_dir():
        pytest.skip("no folder of faces: name one by TUTELAGE_TEST_FACES")
    return found


@pytest.fixture(scope="module")
def teacher() -> FaceTeacher:
    pytest.importorskip("dlib", reason="the extra `face` is not installed")
    try:
        return FaceTeacher()
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def captures(folder: Path) -> dict[str, list[np.ndarray]]:
    persons = sorted(person for person in folder.iterdir() if person.is_dir())[:PERSONS]
    return {p.name: [read_capture(path) for path in sorted(p.iterdir())[: 1 + PROBES]] for p in persons}


def test_five_persons_are_told_apart_from_one_reference_each(
    teacher: FaceTeacher, captures: dict[str, list[np.ndarray]]
) -> None:
    references = teacher.extract([images[0] for images in captures.values()])
    probes = teacher.extract([image for images in captures.values() for image in images[1:]])
    assert references.usable.all()
    assert probes.usable.mean() >= 0.8
    truth = [person for person, images in captures.items() for _ in images[1:]]
    usable = np.flatnonzero(probes.usable)
    table = cosines(probes.features[usable], references.features)
    assert rank1(table, [truth[row] for row in usable], list(captures)) == 1.0


def test_attempts_are_labelled_with_the_right_person(
    teacher: FaceTeacher, captures: dict[str, list[np.ndarray]]
) -> None:
    labeller = GalleryLabeller(teacher, AbstentionPolicy(min_cosine=0.8, min_margin=0.01))
    for person, images in list(captures.items())[:3]:
        labeller.enrol(person, images[:1])
    answers = labeller.label([images[1:3] for images in list(captures.values())[:3]])
    assert [answer.person for answer in answers] == list(captures)[:3]
