"""Labels for what a device could not recognise: a teacher names the person, or abstains and says why.

A device that failed several times in a row holds captures of one person whose name it does not know (second samples).
A `Labeller` answers each such attempt. It keeps the teacher's features of enrolled persons, never their images, and it
abstains rather than guesses: a wrong label teaches a device to accept somebody else, a missing one costs nothing but
patience. `GalleryLabeller` answers within the process; a service can answer through the same interface.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tutelage.biometrics.features import Features, cosines
from tutelage.captures import Pixels
from tutelage.errors import Code, InputError, PersonError, UsageError

SOFT_PERSONS = 5
"""Persons a soft label speaks of: further ones have no weight at any sensible temperature and would bloat answers."""

NO_RUNNER_UP = -1.0
"""Cosine that stands in for a second person where only one is enrolled: the lowest there is."""

_ZERO_LENGTH = 1e-6


@dataclass(frozen=True)
class Extraction:
    """What a teacher saw in N captures, one entry each and in their order."""

    features: Features
    """(N, D) unit rows in the teacher's space; a row means nothing where its capture is not usable."""
    usable: npt.NDArray[np.bool_]
    """(N,): whether the teacher could extract a feature."""
    reasons: tuple[str, ...]
    """(N,): why a capture is not usable, as a person would say it; empty where it is."""
    notes: tuple[str, ...]
    """(N,): what was assumed to extract a usable capture (say, a borrowed placement); empty where nothing was."""

    def __post_init__(self) -> None:
        """Refuse entries that do not speak of the same captures."""
        if not len(self.features) == len(self.usable) == len(self.reasons) == len(self.notes):
            raise InputError(
                Code.DATA_INSUFFICIENT,
                "a teacher must give one feature, one verdict, one reason and one note a capture",
            )


class Teacher(Protocol):
    """A large model with its own preprocessing and its own embedding space."""

    @property
    def name(self) -> str:
        """What people call this teacher."""

    @property
    def space(self) -> str:
        """Id of the embedding space of every feature it extracts."""

    def extract(self, captures: Sequence[Pixels]) -> Extraction:
        """One entry a capture, whatever its size; a capture it cannot use is reported, never raised."""


@runtime_checkable
class SiteTeacher(Teacher, Protocol):
    """A teacher that can learn from captures of one place how the others of that place are cut."""

    def for_site(self, captures: Sequence[Pixels]) -> Teacher:
        """The teacher of that place, in the same space; `captures` are all cut as the place's captures are."""


@dataclass(frozen=True)
class LabelAnswer:
    """The teacher's word on one attempt."""

    person: str | None
    """Who it is; `None` is an abstention."""
    confidence: float
    """In [0, 1]: the probability of `person` in `soft`; 0 for an abstention."""
    margin: float
    """Cosine of the nearest person minus that of the second nearest, in [0, 2]; 0 where nobody was compared."""
    soft: Mapping[str, float]
    """Probabilities of the nearest persons, nearest first, summing to 1. Also given with an abstention, as evidence
    of what was weighed; empty where nobody was compared."""
    reason: str
    """Why it abstained; for a label what had to be assumed, empty where nothing was."""
    space: str
    """The teacher's space, in which all of this was measured."""


@dataclass(frozen=True)
class AbstentionPolicy:
    """When a labeller must not answer, and how it weighs the captures of one attempt."""

    min_cosine: float
    """In [-1, 1]: the nearest person must be at least as near as this."""
    min_margin: float
    """In [0, 2]: the nearest person must be nearer than the second nearest by at least this."""
    group: bool = True
    """Whether the captures of an attempt, being of one person, are judged by their mean feature; else by the last
    capture alone."""
    soft_temperature: float = 0.1
    """Cosines are divided by this before the softmax of a soft label; above 0."""

    def __post_init__(self) -> None:
        """Refuse limits outside their range."""
        if not -1 <= self.min_cosine <= 1:
            raise UsageError(f"min_cosine is a cosine, between -1 and 1: {self.min_cosine}")
        if not 0 <= self.min_margin <= 2:
            raise UsageError(f"min_margin is a difference of cosines, between 0 and 2: {self.min_margin}")
        if not 0 < self.soft_temperature < math.inf:
            raise UsageError(f"soft_temperature must be above 0: {self.soft_temperature}")


class Labeller(Protocol):
    """Whoever can name the person of an attempt."""

    @property
    def space(self) -> str:
        """Id of the teacher's embedding space."""

    def enrol(self, person: str, captures: Sequence[Pixels]) -> None:
        """Make `person` known by these reference captures; for a known person they replace the former ones.

        Raises:
            InputError: `data-insufficient`, no capture is usable; nothing has changed.
        """

    def remove(self, person: str) -> None:
        """Forget everything about `person`.

        Raises:
            PersonError: nobody of that name is enrolled.
        """

    def label(self, attempts: Sequence[Sequence[Pixels]]) -> list[LabelAnswer]:
        """One answer an attempt, in order; an attempt is a sequence of captures of one person, oldest first."""


@dataclass
class GalleryLabeller:
    """Names the nearest enrolled person in a teacher's space, within this process; not safe for several threads."""

    teacher: Teacher
    policy: AbstentionPolicy
    _references: dict[str, Features] = field(default_factory=dict, init=False, repr=False)

    @property
    def space(self) -> str:
        """Id of the teacher's embedding space."""
        return self.teacher.space

    @property
    def persons(self) -> tuple[str, ...]:
        """Enrolled persons, in the order of their first enrolment."""
        return tuple(self._references)

    def enrol(self, person: str, captures: Sequence[Pixels]) -> None:
        """Keep the teacher's features of the usable captures; for a known person they replace the former ones.

        Raises:
            UsageError: `person` is empty.
            InputError: `data-insufficient`, no capture is usable; nothing has changed.
        """
        if not person:
            raise UsageError("a person needs a name to be enrolled")
        extraction = self.teacher.extract(captures) if captures else None
        if extraction is None or not extraction.usable.any():
            reason = _latest(extraction.reasons) if extraction else "there is none"
            raise InputError(
                Code.DATA_INSUFFICIENT, f"no reference capture of person {person!r} is usable ({reason}): take another"
            )
        self._references[person] = extraction.features[np.flatnonzero(extraction.usable)]

    def remove(self, person: str) -> None:
        """Forget the features of `person`; nothing else about a person is kept.

        Raises:
            PersonError: nobody of that name is enrolled.
        """
        if self._references.pop(person, None) is None:
            raise PersonError(person)

    def label(self, attempts: Sequence[Sequence[Pixels]]) -> list[LabelAnswer]:
        """One answer an attempt, in order; the teacher is asked once for all of them.

        Raises:
            SpaceMismatchError: the teacher's space is no longer the one persons were enrolled in.
        """
        judged = [list(attempt if self.policy.group else attempt[-1:]) for attempt in attempts]
        captures = [capture for attempt in judged for capture in attempt]
        if not captures:
            return [self._abstain("the attempt has no capture") for _ in judged]
        extraction, gallery = self.teacher.extract(captures), _stacked(self._references)
        ends = np.cumsum([len(attempt) for attempt in judged])
        rows = [np.arange(end - len(attempt), end) for attempt, end in zip(judged, ends, strict=True)]
        return [self._answer(extraction, of_attempt, gallery) for of_attempt in rows]

    def _answer(self, extraction: Extraction, rows: npt.NDArray[np.intp], gallery: _Gallery | None) -> LabelAnswer:
        """Judge one attempt: the `rows` of an extraction."""
        usable = rows[extraction.usable[rows]]
        if not rows.size:
            return self._abstain("the attempt has no capture")
        if not usable.size:
            return self._abstain(_latest([extraction.reasons[row] for row in rows]))
        if gallery is None:
            return self._abstain("nobody is enrolled")
        probe = _mean(extraction.features[usable])
        if probe is None:
            return self._abstain("the captures of the attempt contradict each other")
        return self._judge(gallery.nearest(probe), _joined(extraction.notes[row] for row in usable))

    def _judge(self, nearest: Sequence[tuple[str, float]], notes: str) -> LabelAnswer:
        """Name the first of the `nearest` persons, given with their cosines, unless the policy forbids."""
        best, second = nearest[0][1], nearest[1][1] if len(nearest) > 1 else NO_RUNNER_UP
        margin, soft = best - second, self._soft(nearest)
        # Asked as "not at least", so that a value that is no number abstains.
        if not best >= self.policy.min_cosine:
            return self._abstain(f"nobody near enough: {_below(best, self.policy.min_cosine)}", margin, soft)
        if not margin >= self.policy.min_margin:
            return self._abstain(
                f"two persons too alike: margin {_below(margin, self.policy.min_margin)}", margin, soft
            )
        person = nearest[0][0]
        return LabelAnswer(person, soft[person], margin, soft, notes, self.space)

    def _soft(self, nearest: Sequence[tuple[str, float]]) -> dict[str, float]:
        """Softmax of cosine / temperature over the persons given."""
        scaled = np.array([cosine for _, cosine in nearest]) / self.policy.soft_temperature
        weights = np.exp(scaled - scaled.max())
        return {person: float(p) for (person, _), p in zip(nearest, weights / weights.sum(), strict=True)}

    def _abstain(self, reason: str, margin: float = 0.0, soft: Mapping[str, float] | None = None) -> LabelAnswer:
        return LabelAnswer(None, 0.0, margin, soft or {}, reason, self.space)


@dataclass(frozen=True)
class _Gallery:
    """All references of all persons in one matrix, so that one product compares a probe with everybody."""

    persons: tuple[str, ...]
    starts: npt.NDArray[np.intp]
    """(P,): first row of each person."""
    features: Features
    """(M, D), the rows of a person side by side."""

    def nearest(self, probe: Features) -> list[tuple[str, float]]:
        """The `SOFT_PERSONS` nearest persons with their best cosines; equal ones by name."""
        best = np.maximum.reduceat(cosines(probe, self.features)[0], self.starts)
        order = np.argsort(-best, kind="stable")[:SOFT_PERSONS]
        return [(self.persons[row], float(best[row])) for row in order]


def _stacked(references: Mapping[str, Features]) -> _Gallery | None:
    """The gallery of these persons; `None` where there is nobody."""
    if not references:
        return None
    persons = tuple(sorted(references))
    held = [references[person] for person in persons]
    starts = np.concatenate([[0], np.cumsum([len(features) for features in held])[:-1]]).astype(np.intp)
    return _Gallery(persons, starts, Features.concat(held))


def _mean(features: Features) -> Features | None:
    """The one unit feature in the middle of several; `None` where they cancel out."""
    mean = features.vectors.mean(axis=0, keepdims=True, dtype=np.float64)
    length = float(np.linalg.norm(mean))
    if not length > _ZERO_LENGTH:
        return None
    return Features((mean / length).astype(np.float32), features.space)


def _below(value: float, limit: float) -> str:
    """`0.31 < 0.40`, with as many digits as it takes to tell the two apart."""
    for digits in (2, 4, 6):
        if f"{value:.{digits}f}" != f"{limit:.{digits}f}":
            break
    return f"{value:.{digits}f} < {limit:.{digits}f}"


def _latest(reasons: Sequence[str]) -> str:
    """The last reason given: the latest capture is the one a person in front of the device would ask about."""
    return next((reason for reason in reversed(reasons) if reason), "no capture is usable")


def _joined(notes: Iterable[str]) -> str:
    """Each different note once, in the order they came."""
    return "; ".join(dict.fromkeys(note for note in notes if note))
