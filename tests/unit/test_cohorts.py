"""Cohorts: who is held out, and what a data set becomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_persons import draw_manifest
from PIL import Image

from tutelage.cohorts import Cohort, check_persons, held_out, read_cohort
from tutelage.errors import Code, InputError, ManifestError
from tutelage.manifest import Split


def cohort(persons: str) -> Cohort:
    """One capture a letter; each capture is told by its first value."""
    return Cohort(tuple(np.full((8, 8), row, np.uint8) for row in range(len(persons))), tuple(persons))


def test_rows_keep_captures_and_persons_together():
    chosen = cohort("abcab").rows([4, 0])
    assert ([int(capture[0, 0]) for capture in chosen.captures], chosen.persons) == ([4, 0], ("b", "a"))
    assert cohort("cabab").names == ("a", "b", "c")
    assert cohort("abcab").rows_of(["b", "c", "nobody"]) == [1, 2, 4]


@pytest.mark.parametrize(
    ("persons", "count", "rows"),
    [("aaabbc", 3, [0, 3, 5]), ("aaabbc", 5, [0, 1, 3, 4, 5]), ("aaabbc", 6, [0, 1, 2, 3, 4, 5]), ("aab", 0, [])],
)
def test_a_few_captures_are_taken_from_everybody_in_turn(persons: str, count: int, rows: list[int]):
    assert cohort(persons).first_rows(count) == rows


@pytest.mark.parametrize(
    ("persons", "share", "count"), [(20, 0.2, 4), (20, 0.25, 5), (10, 0.25, 3), (6, 0.01, 2), (5, 0.9, 3), (3, 0.5, 1)]
)
def test_a_share_of_the_persons_is_held_out_two_at_least_and_two_are_left(persons: int, share: float, count: int):
    names = [f"p{number}" for number in range(persons)]
    out = held_out(names, share, seed=0)
    assert len(out) == count
    assert out < set(names)


def test_who_is_held_out_depends_on_the_seed_and_not_on_the_order():
    names = [f"p{number}" for number in range(30)]
    assert held_out(names, 0.2, 1) == held_out(names[::-1] * 2, 0.2, 1)
    assert len({held_out(names, 0.2, seed) for seed in range(5)}) == 5
    # Whoever measures the teacher also measures a student that holds out more.
    assert held_out(names, 0.2, 1) < held_out(names, 0.25, 1)


def test_a_cohort_of_too_few_persons_is_refused():
    check_persons(cohort("abab"), 2, "this")
    with pytest.raises(InputError, match="this takes 3 persons or more, 2 can be used") as caught:
        check_persons(cohort("abab"), 3, "this")
    assert caught.value.code is Code.DATA_INSUFFICIENT


def test_a_cohort_has_the_rows_of_its_split_that_can_be_read(tmp_path: Path):
    path = draw_manifest(tmp_path, range(2), 3)
    lines = path.read_text().splitlines()
    lines[4:] = [line.replace(",cloud,", ",distil,") for line in lines[4:]]
    path.write_text("\n".join(lines))
    (tmp_path / "0-1.png").write_bytes(b"")
    teacher, student = read_cohort(path, Split.TEACHER, 0), read_cohort(path, Split.DISTIL, 0)
    assert (teacher.cohort.persons, student.cohort.persons) == (("p00",) * 2, ("p00",) * 2 + ("p01",) * 3)
    assert [item.row.path.name for item in student.skipped] == ["0-1.png"]
    assert len(student.cohort.captures) == 5


def test_a_folder_gives_the_half_of_its_persons_that_is_for_the_cloud(tmp_path: Path):
    for person in "abcdef":
        (tmp_path / person).mkdir()
        for number in range(1 if person == "f" else 3):
            Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / person / f"{number}.png")
    intake = read_cohort(tmp_path, Split.TEACHER, 0)
    assert (len(intake.cohort.names), len(intake.cohort)) == (2, 6)
    assert [item.person for item in intake.skipped_persons] == ["f"]
    assert len({read_cohort(tmp_path, Split.TEACHER, seed).cohort.names for seed in range(6)}) > 1


def test_what_is_neither_manifest_nor_folder_is_refused(tmp_path: Path):
    with pytest.raises(ManifestError) as caught:
        read_cohort(tmp_path / "absent", Split.TEACHER, 0)
    assert caught.value.code is Code.MANIFEST_INVALID
