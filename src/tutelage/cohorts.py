"""Cohorts: the persons that a teacher is trained on or a student distilled on, and those kept back to measure it.

A cohort is captures with the person in each. It comes from a manifest, or from a folder of persons that is split the
way `tutelage.manifest.split_folder` does it. Persons are held out as a whole: a model that has met a person, in
whatever capture, cannot be judged on that person.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tutelage.captures import Pixels
from tutelage.errors import Code, InputError
from tutelage.manifest import Manifest, Skipped, SkippedPerson, Split, load_captures, read_manifest, split_folder

__all__ = ["Cohort", "Intake", "check_persons", "held_out", "read_cohort", "read_data"]

FEWEST_HELD_OUT = 2
"""One person alone has nobody to be mistaken for."""

_DRAW = 15  # keeps the draw of persons apart from other uses of the same seed


@dataclass(frozen=True)
class Cohort:
    """Captures of some persons."""

    captures: tuple[Pixels, ...]
    persons: tuple[str, ...]
    """Person in each capture."""

    def __len__(self) -> int:
        return len(self.captures)

    @property
    def names(self) -> tuple[str, ...]:
        """Each person once, by name."""
        return tuple(sorted(frozenset(self.persons)))

    def rows(self, chosen: Sequence[int]) -> Cohort:
        """The captures of these row numbers, in the order given."""
        return Cohort(tuple(self.captures[row] for row in chosen), tuple(self.persons[row] for row in chosen))

    def rows_of(self, names: Collection[str]) -> list[int]:
        """Row numbers of all captures of these persons."""
        wanted = frozenset(names)
        return [row for row, person in enumerate(self.persons) if person in wanted]

    def first_rows(self, count: int) -> list[int]:
        """At most `count` row numbers: the first capture of every person, then the second of every person, and on."""
        met: dict[str, int] = {}
        turns = []
        for person in self.persons:
            turns.append(met.get(person, 0))
            met[person] = turns[-1] + 1
        return sorted(sorted(range(len(self)), key=lambda row: (turns[row], row))[:count])


@dataclass(frozen=True)
class Intake:
    """What of a data set became a cohort, and what did not."""

    cohort: Cohort
    skipped: tuple[Skipped, ...]
    """Images that could not be read."""
    skipped_persons: tuple[SkippedPerson, ...]
    """Persons of a folder who could not be used."""


def read_data(data: Path, seed: int) -> Manifest:
    """The manifest at `data`, or for a folder the one that `split_folder` makes of it with this `seed`.

    Raises:
        ManifestError: see `read_manifest` and `split_folder`.
    """
    return split_folder(data, seed=seed) if data.is_dir() else read_manifest(data)


def read_cohort(data: Path, split: Split, seed: int) -> Intake:
    """All captures that `data` has for `split`, which for `teacher` and `distil` includes `cloud`.

    Raises:
        ManifestError: the manifest breaks its rules, or not one image could be read.
    """
    manifest = read_data(data, seed)
    loaded = load_captures(manifest.select(split))
    cohort = Cohort(tuple(loaded.captures), tuple(row.person for row in loaded.rows))
    return Intake(cohort, tuple(loaded.skipped), manifest.skipped)


def check_persons(cohort: Cohort, needed: int, purpose: str) -> None:
    """Refuse a cohort of fewer than `needed` persons.

    Raises:
        InputError: `data-insufficient`.
    """
    found = len(cohort.names)
    if found < needed:
        raise InputError(
            Code.DATA_INSUFFICIENT, f"{purpose} takes {needed} persons or more, {found} can be used: add persons"
        )


def held_out(persons: Sequence[str], share: float, seed: int) -> frozenset[str]:
    """Persons to measure with: `share` of them, at least two, drawn by `seed`; two or more are always left.

    The same persons and seed give the same draw on every platform, in whatever order the persons come.
    """
    names = sorted(frozenset(persons))
    count = min(max(FEWEST_HELD_OUT, int(share * len(names) + 0.5)), max(0, len(names) - FEWEST_HELD_OUT))
    # Sorting raw draws instead of asking numpy for a permutation: only the raw draws are the same on every platform.
    order = np.argsort(np.random.default_rng([seed, _DRAW]).random(len(names)), kind="stable")
    return frozenset(names[place] for place in order[:count])
