"""Labels for what a device could not recognise: a teacher names the person, or abstains and says why.

A device that failed several times in a row holds captures of one person whose name it does not know (second samples).
A `Labeller` answers each such attempt. It keeps the teacher's features of enrolled persons, never their images, and it
abstains rather than guesses: a wrong label teaches a device to accept somebody else, a missing one costs nothing but
patience. `GalleryLabeller` answers within the process; a service can answer through the same interface. Both leave the
verdict to a `Judge`, which takes what a teacher saw and does not care who ran it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

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

_Capture = TypeVar("_Capture")
_Rows: TypeAlias = npt.NDArray[np.intp]


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
        judge = Judge(self.policy, self.space)
        looked_at = [judge.looked_at(attempt) for attempt in attempts]
        captures = [capture for attempt in looked_at for capture in attempt]
        extraction = self.teacher.extract(captures) if captures else nothing_seen(self.space)
        judged = judge.judge(extraction, [len(attempt) for attempt in looked_at], Gallery.of(self._references))
        return [answer.answer for answer in judged]


class Abstention(StrEnum):
    """Why nobody was named: the closed set behind the reasons that people read."""

    NO_CAPTURE = "no-capture"
    """The attempt has none."""
    NOT_USABLE = "not-usable"
    """The teacher can use no capture of the attempt."""
    NOBODY_ENROLLED = "nobody-enrolled"
    """There is nobody to compare with."""
    CONTRADICTION = "contradiction"
    """The captures of the attempt cancel each other out."""
    NOBODY_NEAR = "nobody-near"
    """The nearest person is too far away."""
    TOO_ALIKE = "too-alike"
    """Two persons are nearly as near."""
    OTHER_TEACHER = "other-teacher"
    """Persons were enrolled with another teacher and cannot be compared."""


@dataclass(frozen=True)
class Judged:
    """An answer and, for an abstention, its kind."""

    answer: LabelAnswer
    abstention: Abstention | None = None


@dataclass(frozen=True)
class Gallery:
    """All references of all persons in one matrix, so that one product compares everybody with everybody."""

    persons: tuple[str, ...]
    """P names in the order of their characters."""
    starts: npt.NDArray[np.intp]
    """(P,): first row of each person."""
    features: Features | None
    """(M, D), the rows of a person side by side; `None` where there is nobody."""

    @staticmethod
    def of(references: Mapping[str, Features]) -> Gallery:
        """The gallery of these persons, each with one reference or more.

        Raises:
            SpaceMismatchError: references lie in different spaces.
        """
        persons = tuple(sorted(references))
        if not persons:
            return Gallery((), np.zeros(0, dtype=np.intp), None)
        held = [references[person] for person in persons]
        starts = np.concatenate([[0], np.cumsum([len(features) for features in held])[:-1]]).astype(np.intp)
        return Gallery(persons, starts, Features.concat(held))

    def nearest(self, probes: Features) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Numbers of the `SOFT_PERSONS` nearest persons of each of A probes, and their best cosines: (A, <= 5) each.

        Equally near ones come by name.

        Raises:
            SpaceMismatchError: probes and references lie in different spaces.
        """
        assert self.features is not None  # noqa: S101 - whoever asks has looked
        best = np.maximum.reduceat(cosines(probes, self.features), self.starts, axis=1)  # (A, P)
        order = np.argsort(-best, axis=1, kind="stable")[:, :SOFT_PERSONS]
        return order, np.take_along_axis(best, order, axis=1).astype(np.float64)


@dataclass(frozen=True)
class Judge:
    """Names the nearest person of each attempt, or abstains, given what a teacher saw; whoever ran the teacher."""

    policy: AbstentionPolicy
    space: str
    """Id of the teacher's space."""

    def looked_at(self, attempt: Sequence[_Capture]) -> Sequence[_Capture]:
        """The captures of an attempt that the teacher has to see."""
        return attempt if self.policy.group else attempt[-1:]

    def judge(self, extraction: Extraction, sizes: Sequence[int], gallery: Gallery) -> list[Judged]:
        """One answer an attempt; `sizes` says how many of the extraction's captures belong to each, in order.

        Raises:
            SpaceMismatchError: the gallery lies in another space than the extraction.
        """
        ends = np.cumsum(sizes, dtype=np.intp)
        rows = [np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        usable = [of_attempt[extraction.usable[of_attempt]] for of_attempt in rows]
        open_ = [number for number, of_attempt in enumerate(usable) if of_attempt.size and gallery.persons]
        compared = self._compared(extraction, [usable[number] for number in open_], gallery)
        by_number = dict(zip(open_, compared, strict=True))
        return [
            by_number.get(number) or self._unheard(extraction, of_attempt, usable[number])
            for number, of_attempt in enumerate(rows)
        ]

    def _unheard(self, extraction: Extraction, rows: _Rows, usable: _Rows) -> Judged:
        """The abstention from an attempt of which nothing can be compared."""
        if not rows.size:
            return self._abstain(Abstention.NO_CAPTURE, "the attempt has no capture")
        if not usable.size:
            return self._abstain(Abstention.NOT_USABLE, _latest([extraction.reasons[row] for row in rows]))
        return self._abstain(Abstention.NOBODY_ENROLLED, "nobody is enrolled")

    def _compared(self, extraction: Extraction, attempts: Sequence[_Rows], gallery: Gallery) -> list[Judged]:
        """Judge attempts of one usable row or more each against a gallery of one person or more, all at once."""
        if not attempts:
            return []
        probes, clear = _means(extraction.features, attempts)
        order, near = gallery.nearest(probes)
        weights = np.exp((near - near[:, :1]) / self.policy.soft_temperature)
        shares = weights / weights.sum(axis=1, keepdims=True)
        judged = []
        for number, rows in enumerate(attempts):
            if not clear[number]:
                reason = "the captures of the attempt contradict each other"
                judged.append(self._abstain(Abstention.CONTRADICTION, reason))
                continue
            persons = [gallery.persons[person] for person in order[number].tolist()]
            soft = dict(zip(persons, shares[number].tolist(), strict=True))
            judged.append(self._named(near[number].tolist(), soft, _joined(extraction.notes[row] for row in rows)))
        return judged

    def _named(self, near: Sequence[float], soft: Mapping[str, float], notes: str) -> Judged:
        """Name the first person of `soft`, unless the policy forbids it for these cosines, nearest first."""
        best, second = near[0], near[1] if len(near) > 1 else NO_RUNNER_UP
        margin, policy = best - second, self.policy
        # Asked as "not at least", so that a value that is no number abstains.
        if not best >= policy.min_cosine:
            reason = f"nobody near enough: {_below(best, policy.min_cosine)}"
            return self._abstain(Abstention.NOBODY_NEAR, reason, margin, soft)
        if not margin >= policy.min_margin:
            reason = f"two persons too alike: margin {_below(margin, policy.min_margin)}"
            return self._abstain(Abstention.TOO_ALIKE, reason, margin, soft)
        person = next(iter(soft))
        return Judged(LabelAnswer(person, soft[person], margin, soft, notes, self.space))

    def _abstain(
        self, kind: Abstention, reason: str, margin: float = 0.0, soft: Mapping[str, float] | None = None
    ) -> Judged:
        return Judged(LabelAnswer(None, 0.0, margin, soft or {}, reason, self.space), kind)


def nothing_seen(space: str) -> Extraction:
    """What a teacher of this `space` sees in no captures at all."""
    return Extraction(Features(np.zeros((0, 1), dtype=np.float32), space), np.zeros(0, dtype=np.bool_), (), ())


def _means(features: Features, attempts: Sequence[_Rows]) -> tuple[Features, npt.NDArray[np.bool_]]:
    """The unit feature in the middle of each attempt's rows, zero where they cancel out; and where they do not."""
    starts = np.concatenate([[0], np.cumsum([len(rows) for rows in attempts])[:-1]])
    sums = np.add.reduceat(features.vectors[np.concatenate(attempts)].astype(np.float64), starts, axis=0)
    lengths = np.linalg.norm(sums, axis=1)
    clear = lengths / [len(rows) for rows in attempts] > _ZERO_LENGTH
    means = np.where(clear[:, None], sums / np.where(clear, lengths, 1.0)[:, None], 0.0)
    return Features(means.astype(np.float32), features.space), clear


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
