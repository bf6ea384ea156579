"""Whom a capture shows: the best reference of each person, the runner-up, and the decision on the score.

A person is as similar as the nearest of their references. The runner-up is the nearest *other* person, and the margin
between the two is the best sign of a label that can be trusted. A gallery groups its references by person once, so
naming a capture is one matrix product and two searches for the largest cosine, the second without the nearest person.
Where references are very many, a coarse comparison may first leave out those that can be neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tutelage.biometrics.features import Features, Vectors, cosines
from tutelage.errors import Code, InputError, SpaceMismatchError, UsageError

__all__ = ["Coarse", "Decision", "DecisionRule", "Gallery", "Match"]

MAX_COSINES = 1 << 22
"""Cosines held at once, 16 MiB: a large batch of probes is compared in parts."""
COARSE_FROM = 4096
"""References from which on a coarse comparison saves more than it costs."""


class Decision(StrEnum):
    """What a device does with a capture."""

    ACCEPT = "accept"
    REJECT = "reject"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Match:
    """Nearest and second nearest person of one probe."""

    person: str | None
    """Nearest person; none in an empty gallery."""
    cosine: float
    """Best cosine over that person's references; -1 without a person."""
    runner_up: str | None
    """Nearest other person; none in a gallery of one."""
    runner_up_cosine: float
    """Best cosine over the runner-up's references; -1 without one."""

    @property
    def margin(self) -> float:
        """Lead of the person over the runner-up, 0 to 2; without a runner-up the lead over a cosine of -1."""
        return self.cosine - self.runner_up_cosine


NOBODY = Match(None, -1.0, None, -1.0)


class Coarse(Protocol):
    """A quick comparison with all references of a gallery, a little off."""

    def cosines(self, probe: Vectors) -> tuple[Vectors, float]:
        """Cosines (M,) of a unit row (D,) with M references, and by how much any of them may be off at most."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """References of the enrolled persons, one row each; a person may have several, in any order.

    Raises:
        InputError: `data-insufficient`, when there is not one person per reference.
    """

    persons: tuple[str, ...]
    """Person of each reference row."""
    features: Features
    """References, as many rows as `persons`."""
    coarsely: Callable[[Vectors], Coarse | None] | None = None
    """What makes a coarse comparison with very many references (M, D), if anything does: answers stay what they are."""

    def __post_init__(self) -> None:
        """Refuse references that nobody owns."""
        if len(self.persons) != len(self.features):
            raise InputError(
                Code.DATA_INSUFFICIENT, f"{len(self.persons)} persons were given for {len(self.features)} references"
            )

    @cached_property
    def _names(self) -> npt.NDArray[np.str_]:
        return np.unique(np.asarray(self.persons, dtype=np.str_))

    @cached_property
    def _grouped(self) -> tuple[Features, npt.NDArray[np.intp]]:
        """References sorted by person, and the row at which each person of `_names` begins, with the end behind."""
        owners = np.asarray(self.persons, dtype=np.str_)
        order = np.argsort(owners, kind="stable")
        return self.features[order], np.append(np.searchsorted(owners[order], self._names), len(owners))

    @cached_property
    def _coarse(self) -> Coarse | None:
        """Over the references of `_grouped`; None where there are not enough of them for it."""
        if self.coarsely is None or len(self.persons) < COARSE_FROM:
            return None
        return self.coarsely(self._grouped[0].vectors)

    def identify(self, probes: Features) -> list[Match]:
        """Nearest person and runner-up of each of B probes; of equally near persons the first by name.

        Raises:
            SpaceMismatchError: the probes live in another space than the references.
        """
        if probes.space != self.features.space:
            raise SpaceMismatchError(probes.space, self.features.space)
        if not self.persons:
            return [NOBODY] * len(probes)
        step = max(1, MAX_COSINES // len(self.persons))
        return [match for start in range(0, len(probes), step) for match in self._nearest(probes[start : start + step])]

    def _nearest(self, probes: Features) -> Iterator[Match]:
        references, bounds = self._grouped
        coarse = self._coarse if len(probes) == 1 else None  # a product with a batch is quick as it is
        rows = cosines(probes, references) if coarse is None else self._near(probes, coarse)
        for row in rows:  # (references,): sorted by person, so equals go to the first by name
            first, cosine = self._strike_nearest(row, bounds)
            second, runner_up_cosine = self._strike_nearest(row, bounds)
            alone = runner_up_cosine == -math.inf
            yield Match(first, cosine, None if alone else second, -1.0 if alone else runner_up_cosine)

    def _near(self, probe: Features, coarse: Coarse) -> Vectors:
        """Cosines (1, M); minus infinity for references that can be neither the nearest person's nor the runner-up's.

        Two persons have a cosine of at least the coarse runner-up's less what that is off. Whoever has more than that
        can be short of it by no more than twice as much in the coarse comparison.
        """
        references, bounds = self._grouped
        rough, off = coarse.cosines(probe.vectors[0])
        rest = rough.copy()
        self._strike_nearest(rest, bounds)
        _, runner_up = self._strike_nearest(rest, bounds)
        left = np.flatnonzero(rough >= runner_up - 2.0 * off)
        row = np.full((1, len(rough)), -np.inf, np.float32)
        row[0, left] = cosines(probe, references[left])[0]
        return row

    def _strike_nearest(self, row: npt.NDArray[np.float32], bounds: npt.NDArray[np.intp]) -> tuple[str, float]:
        """The person with the largest cosine of `row`, whose references are then struck out of it, and that cosine."""
        best = int(row.argmax())
        cosine, place = float(row[best]), int(np.searchsorted(bounds, best, side="right")) - 1
        row[bounds[place] : bounds[place + 1]] = -np.inf
        return str(self._names[place]), cosine

    def verify(self, person: str, probes: Features) -> npt.NDArray[np.float32]:
        """Best cosine of each probe over the references of `person`, `(B,)`.

        Raises:
            InputError: `data-insufficient`, when `person` has no reference here.
            SpaceMismatchError: the probes live in another space than the references.
        """
        references, bounds = self._grouped
        place = int(np.searchsorted(self._names, person))
        if place == len(self._names) or self._names[place] != person:
            raise InputError(Code.DATA_INSUFFICIENT, f"{person!r} has no reference: enrol the person first")
        own = references[slice(int(bounds[place]), int(bounds[place + 1]))]
        best: npt.NDArray[np.float32] = cosines(probes, own).max(axis=1)  # (B, own references) -> (B,)
        return best


@dataclass(frozen=True)
class DecisionRule:
    """Thresholds on the score of the nearest (1:N) or the claimed (1:1) person.

    The defaults are for calibrated scores, where 30 is one false match in 1,000 comparisons; a linear score needs its
    own.

    Raises:
        UsageError: a threshold is not a finite number, or `unknown_score` lies above `accept_score`.
    """

    accept_score: float = 30.0
    """Lowest score that is accepted."""
    unknown_score: float = 10.0
    """Score below which nobody counts as near; 10 is what one stranger in ten reaches with any one reference."""

    def __post_init__(self) -> None:
        """Refuse thresholds between which no rejection could lie."""
        finite = math.isfinite(self.accept_score) and math.isfinite(self.unknown_score)
        if not finite or self.unknown_score > self.accept_score:
            raise UsageError(
                f"unknown_score {self.unknown_score} must be a number not above accept_score {self.accept_score}"
            )

    def decide(self, score: float) -> Decision:
        """Accept at `accept_score` and above, unknown below `unknown_score`, else reject; NaN is rejected."""
        if score >= self.accept_score:
            return Decision.ACCEPT
        return Decision.UNKNOWN if score < self.unknown_score else Decision.REJECT
