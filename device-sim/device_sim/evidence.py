"""What one student scored on everything the gate may look at: scores and seconds, no captures and no features.

The gate compares two students, each in its own space with its own calibration, so all that can be compared is scores.
`Evidence.measured` makes them from cosines: the best over a person's references, as recognition does it, and the best
over everybody else's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tutelage.biometrics.calibration import Score
from tutelage.errors import Code, InputError, PersonError, UsageError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScoredCapture:
    """One capture of an enrolled person, compared with all references but itself."""

    person: str
    """Whose capture it is, by its label."""
    own: float | None
    """Best score over the person's references; `None` where the only one is this capture itself."""
    other: float | None
    """Best score over the references of all other persons; `None` where nobody else is enrolled."""

    def recognised(self, accept_score: float) -> bool:
        """Whether a device would answer with the person: accepted, and nobody else as near.

        A reference that is its person's only one is recognised: there is nothing to compare it with but itself.
        """
        if self.own is None:
            return True
        return self.own >= accept_score and (self.other is None or self.own > self.other)

    def mistaken(self, accept_score: float) -> bool:
        """Whether the capture would be accepted as somebody else's."""
        return self.other is not None and self.other >= accept_score


@dataclass(frozen=True)
class Evidence:
    """All scores of one student, running or candidate, each in its own space by its own calibration.

    Raises:
        InputError: `data-insufficient`, a score is not a number, or a time is none above 0.
        PersonError: a held-back sample is of a person without a reference.
    """

    held_back: tuple[ScoredCapture, ...]
    """Samples kept from training, as many and in the same order for both students."""
    references: tuple[ScoredCapture, ...]
    """Each reference compared with all others: leave one out."""
    strangers: tuple[float, ...]
    """Best score of each capture of the sealed impostor set over all references of this device."""
    latency_s: tuple[float, ...]
    """Seconds per recognition, measured in turns with the other student's so that both meet the same disturbances."""

    def __post_init__(self) -> None:
        """Refuse what no gate could judge by."""
        captures = (*self.held_back, *self.references)
        scores = [score for c in captures for score in (c.own, c.other) if score is not None]
        if any(math.isnan(score) for score in (*scores, *self.strangers)):
            raise InputError(Code.DATA_INSUFFICIENT, "scores hold values that are not numbers: check the student")
        if not all(0.0 < seconds < math.inf for seconds in self.latency_s):
            raise InputError(
                Code.DATA_INSUFFICIENT, "a recognition took no measurable time: measure with another clock"
            )
        enrolled = {reference.person for reference in self.references}
        for capture in self.held_back:
            if capture.own is None or capture.person not in enrolled:
                raise PersonError(capture.person)

    @staticmethod
    def measured(
        score: Score,
        reference_persons: Sequence[str],
        references: npt.ArrayLike,
        *,
        held_back_persons: Sequence[str],
        held_back: npt.ArrayLike,
        strangers: npt.ArrayLike,
        latency_s: Sequence[float],
    ) -> Evidence:
        """Evidence from one student's cosines with the M references of this device.

        Args:
            score: The student's own calibration.
            reference_persons: Person of each reference, M names.
            references: References against references, `(M, M)`; the diagonal is not looked at.
            held_back_persons: Person of each held-back sample by its label, N names.
            held_back: Held-back samples against references, `(N, M)`.
            strangers: Captures of the impostor set against references, `(S, M)`.
            latency_s: Seconds of single recognitions.

        Raises:
            UsageError: the sizes do not agree.
            InputError: `data-insufficient`, a score is not a number.
            PersonError: a held-back sample is of a person without a reference.
        """
        count = len(reference_persons)
        itself = np.eye(count, dtype=np.bool_)
        mutual = _table(references, count, count)
        of_samples = _table(held_back, len(held_back_persons), count)
        return Evidence(
            held_back=_scored(score, held_back_persons, reference_persons, of_samples),
            references=_scored(score, reference_persons, reference_persons, mutual, itself),
            strangers=best_scores(score, _table(strangers, len(np.asarray(strangers)), count)),
            latency_s=tuple(latency_s),
        )


def best_scores(score: Score, cosines: npt.ArrayLike) -> tuple[float, ...]:
    """Best score of each of S captures over all M references, from their cosines `(S, M)`; the least where M is 0."""
    return tuple(score.score(np.asarray(cosines, dtype=np.float64).max(axis=1, initial=-1.0)).tolist())


def _table(cosines: npt.ArrayLike, captures: int, references: int) -> Floats:
    """Cosines as a table of one row a capture and one column a reference."""
    table = np.asarray(cosines, dtype=np.float64)
    if table.shape != (captures, references):
        raise UsageError(f"cosines of {captures} captures with {references} references are needed, got {table.shape}")
    return table


def _scored(
    score: Score,
    persons: Sequence[str],
    owners: Sequence[str],
    cosines: Floats,
    left_out: npt.NDArray[np.bool_] | None = None,
) -> tuple[ScoredCapture, ...]:
    """The captures of `persons`, whose `cosines` (N, M) with the references of `owners` these are."""
    same = np.asarray(persons, dtype=np.str_)[:, None] == np.asarray(owners, dtype=np.str_)[None, :]  # (N, M)
    mine = same if left_out is None else same & ~left_out
    pairs = zip(persons, _best(score, cosines, mine), _best(score, cosines, ~same), strict=True)
    return tuple(ScoredCapture(person, own, other) for person, own, other in pairs)


def _best(score: Score, cosines: Floats, compared: npt.NDArray[np.bool_]) -> list[float | None]:
    """Score of each row's best cosine among the columns `compared`; `None` where there are none."""
    best = np.where(compared, cosines, -np.inf).max(axis=1, initial=-np.inf)
    found: list[float] = score.score(best).tolist()
    possible: list[bool] = np.asarray(compared.any(axis=1)).tolist()
    return [value if is_possible else None for value, is_possible in zip(found, possible, strict=True)]
