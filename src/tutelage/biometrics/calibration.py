"""A score says how rarely a stranger comes as near: -10·log10(FMR), where 30 is one false match in 1,000.

Cosines of two students are not comparable, scores are: a calibration maps cosine to score by the survival function of
impostor cosines, so a threshold outlives the student it was chosen for.

**Measured part.** The r-th largest of n impostor cosines gets the false match rate r / (n + 1), the mean of that order
statistic's exceedance. Measurement ends where fewer than `MEASURED_BY` = 10 *independent* comparisons lie above: ten
pin a rate down to about half to double (exact 95 % Poisson interval 4.8 to 18.4), that is the score to about 3, midway
between the rule of 3 (no error seen) and the rule of 30 (30 errors for ±30 %) of ISO/IEC 19795-1. Comparisons that
share two persons are not independent, and P persons have P·(P - 1)/2 pairs, so that is the most that is counted
however many captures there are. Ten pairs beyond score 30 take 142 persons.

**Tail.** Beyond the limit stands a generalised Pareto tail, the limit law of exceedances over a high threshold
(Pickands 1975; extreme values are also how ISO/IEC 5152:2024 extrapolates an FMR). It is fitted to the top 5 % by
probability-weighted moments (Hosking & Wallis 1987), in closed form and steady for few exceedances, and joined to the
measured part without a step. In simulated populations of 40 to 200 persons (four kinds, one to five captures
each, mean of 60 draws) the score at a true 40 came out 1 to 9 too low, that of an exponential tail 3 to 12; and at a
true 30 at most 0.7 too high, while following repeated captures beyond the limit gave up to 1.7. One set of 60 persons
still differs from the next by 2.6 (standard deviation) at 30: more persons cure that, more captures do not.

**Bounds.** The shape may fall only to where a cosine of 1 scores `SCORE_CAP`: a cosine cannot exceed 1, and no data
set refutes a rate of one in 10¹². It may rise to 0.5, up to which the moments have a variance. So the score is finite,
continuous and strictly increasing over [-1, 1], whatever the data.

The curve is stored as knots, straight between them: score and inverse are the same few numbers on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tutelage.errors import Code, InputError, PackageError, UsageError

__all__ = ["Calibration", "LinearScore", "Score", "Tail"]

Floats = npt.NDArray[np.float64]

MIN_COMPARISONS = 100
"""Fewer impostor comparisons leave no ten beyond the first tenth, and nothing to fit a tail to."""
MEASURED_BY = 10
"""Independent impostor comparisons that must lie above a cosine for its FMR to count as measured."""
TAIL_SHARE = 0.05
"""Share of the highest impostor cosines that the tail is fitted to."""
SCORE_CAP = 120.0
"""Highest score, that of cosine 1."""
MAX_SHAPE = 0.5
"""Largest magnitude of the tail's shape for which probability-weighted moments are sound (Hosking & Wallis 1987)."""
MIN_MEAN_EXCESS = 3e-3
"""Mean excess assumed where the highest impostor cosines are all alike, in cosine."""
IDENTICAL = 1.0 - 1e-6
"""Cosine from which two features count as identical: single precision does not always give exactly 1."""
MIN_FMR = 1e-6
"""Lowest FMR that is measured rather than fitted; keeps `SCORE_CAP` within reach of every allowed shape."""
RAMP = 10.0
"""Score from which on lowered scores are lower by the whole of it."""
MOST_LOWERED = 9.0
"""Most that scores are lowered by: with less than `RAMP` they still rise everywhere."""
BODY_KNOTS, TAIL_KNOTS = 129, 65
"""Knots of the measured part and of the tail: about 0.25 and at most 2 in score apart."""


class Score(Protocol):
    """A strictly increasing map from cosine to score; what rules and reports depend on."""

    def score(self, cosine: npt.ArrayLike) -> Floats:
        """Scores of `cosine`, elementwise; values beyond [-1, 1] count as the end they passed."""

    def cosine_at(self, score: float) -> float:
        """Smallest cosine in [-1, 1] that scores `score` or more; infinity where none does."""

    def extrapolated(self, score: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether each score claims more than was measured."""


@dataclass(frozen=True)
class Tail:
    """Generalised Pareto law of impostor cosines above `threshold`."""

    threshold: float
    """Cosine above which the law was fitted."""
    scale: float
    """Scale σ at the threshold, in cosine."""
    shape: float
    """Shape ξ: negative ends at a finite cosine, 0 is exponential, positive is heavier."""

    def decay(self, cosine: float) -> float:
        """Score gained from the threshold up to `cosine`, -10·log10 of the conditional survival."""
        # Imported where a tail is fitted: it takes a second, and most who score never fit.
        from scipy.stats import genpareto  # noqa: PLC0415

        return float(-10.0 / math.log(10.0) * genpareto.logsf(cosine - self.threshold, self.shape, scale=self.scale))

    def cosine_after(self, decay: Floats) -> Floats:
        """Cosines at which `decay` in score is reached, the inverse of `decay`."""
        from scipy.stats import genpareto  # noqa: PLC0415 - as above

        survival = 10.0 ** (-decay / 10.0)
        return np.asarray(self.threshold + genpareto.isf(survival, self.shape, scale=self.scale), dtype=np.float64)


@dataclass(frozen=True)
class Calibration:
    """Score -10·log10(FMR(cosine)) of one space, with the limit of what was measured.

    Continuous and strictly increasing over [-1, 1], from 0 or just above to at most `SCORE_CAP` (to 1e-6).

    Raises:
        PackageError: `package-corrupt`, when the knots are no such curve.
    """

    space: str
    """Space of the features whose cosines may be scored."""
    cosines: tuple[float, ...]
    """Cosines of the knots, strictly increasing from -1 to 1."""
    scores: tuple[float, ...]
    """Scores of the knots, strictly increasing."""
    tail: Tail
    """Law that the knots beyond measurement follow."""
    limit_score: float
    """Score at which measurement ends; above it a score is extrapolated."""
    impostor_pairs: int
    """Impostor comparisons the curve was fitted to."""
    persons: int
    """Persons those comparisons were made between."""

    def __post_init__(self) -> None:
        """Refuse a curve on which a threshold would not be unique."""
        xs, ys = self._knots
        fits = xs.shape == ys.shape and xs.ndim == 1 and xs.size >= 2
        if not (fits and xs[0] == -1.0 and xs[-1] == 1.0 and _rises(xs) and _rises(ys) and self.limit_score >= 0.0):
            raise PackageError(
                Code.PACKAGE_CORRUPT, "a calibration must rise strictly from cosine -1 to 1: fit it again"
            )

    @cached_property
    def _knots(self) -> tuple[Floats, Floats]:
        return np.asarray(self.cosines, dtype=np.float64), np.asarray(self.scores, dtype=np.float64)

    def score(self, cosine: npt.ArrayLike) -> Floats:
        """Scores of `cosine`, elementwise and in its shape; NaN stays NaN."""
        xs, ys = self._knots
        return np.asarray(np.interp(np.asarray(cosine, dtype=np.float64), xs, ys))

    def cosine_at(self, score: float) -> float:
        """Smallest cosine in [-1, 1] that scores `score` or more; infinity where none does."""
        xs, ys = self._knots
        return math.inf if score > ys[-1] else float(np.interp(score, ys, xs))

    def extrapolated(self, score: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether each score lies beyond `limit_score`, where the fitted tail speaks."""
        return np.asarray(np.asarray(score) > self.limit_score)

    @staticmethod
    def fit(impostor_cosines: npt.ArrayLike, *, space: str, persons: int) -> Calibration:
        """The curve of impostor comparisons `(n,)` made between `persons` different persons in `space`.

        Raises:
            InputError: `data-insufficient`, with fewer than 100 comparisons, fewer than two persons, or a NaN.
        """
        values = _impostors(impostor_cosines, persons)
        n, independent = len(values), min(len(values), persons * (persons - 1) // 2)
        limit_rank = max(math.ceil(min(MEASURED_BY * n / independent, n / MEASURED_BY)), math.ceil(MIN_FMR * n))
        xs, ys = _measured_knots(values, limit_rank)
        tail = _fit_tail(values[-max(limit_rank, math.ceil(TAIL_SHARE * n)) :], xs[-1], ys[-1])
        tail_xs, tail_ys = _tail_knots(tail, xs[-1], ys[-1])
        return Calibration(
            space=space,
            cosines=(*xs.tolist(), *tail_xs.tolist()),
            scores=(*ys.tolist(), *tail_ys.tolist()),
            tail=tail,
            limit_score=min(float(ys[-1]), max(0.0, 10.0 * math.log10((independent + 1) / MEASURED_BY))),
            impostor_pairs=n,
            persons=persons,
        )

    def lowered(self, by: float) -> Calibration:
        """The same curve, scores from `RAMP` up lower by `by` and those below in proportion, so that it rises from 0.

        Raises:
            UsageError: `by` is not between 0 and `MOST_LOWERED`.
        """
        if not 0.0 <= by <= MOST_LOWERED:
            raise UsageError(f"scores are lowered by 0 to {MOST_LOWERED:g}, not {by}")

        def less(scores: npt.ArrayLike) -> Floats:
            given = np.asarray(scores, dtype=np.float64)
            return np.asarray(given - by * np.minimum(given / RAMP, 1.0))

        knots = np.append(self.cosine_at(RAMP), self.cosines)
        xs = np.unique(knots[np.isfinite(knots)])
        lower = tuple(less(self.score(xs)).tolist())
        return replace(self, cosines=tuple(xs.tolist()), scores=lower, limit_score=float(less(self.limit_score)))

    def as_json(self) -> dict[str, Any]:
        """Fields as JSON values; `from_json` gives back an equal calibration, to the last bit."""
        return {**asdict(self), "cosines": list(self.cosines), "scores": list(self.scores)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Calibration:
        """The calibration that `as_json` described.

        Raises:
            PackageError: `package-corrupt`, when a field is missing or of the wrong kind.
        """
        try:
            return Calibration(
                space=str(data["space"]),
                cosines=tuple(float(knot) for knot in data["cosines"]),
                scores=tuple(float(knot) for knot in data["scores"]),
                tail=Tail(**{name: float(data["tail"][name]) for name in ("threshold", "scale", "shape")}),
                limit_score=float(data["limit_score"]),
                impostor_pairs=int(data["impostor_pairs"]),
                persons=int(data["persons"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise PackageError(Code.PACKAGE_CORRUPT, f"a calibration cannot be read: {error!r}") from error


@dataclass(frozen=True)
class LinearScore:
    """Score 50·(1 + cos), 0 to 100; the preset for when no impostors are at hand.

    It claims no error rate, so the same threshold means something else in every space.
    """

    def score(self, cosine: npt.ArrayLike) -> Floats:
        """Scores of `cosine`, elementwise and in its shape; NaN stays NaN."""
        return np.asarray(50.0 * (1.0 + np.clip(np.asarray(cosine, dtype=np.float64), -1.0, 1.0)))

    def cosine_at(self, score: float) -> float:
        """Smallest cosine in [-1, 1] that scores `score` or more; infinity where none does."""
        return math.inf if score > 100.0 else max(-1.0, score / 50.0 - 1.0)

    def extrapolated(self, score: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Always false: a score without a claim cannot claim too much."""
        return np.zeros(np.shape(score), dtype=np.bool_)


def _rises(values: Floats) -> bool:
    return bool(np.isfinite(values).all() and (np.diff(values) > 0.0).all())


def _impostors(impostor_cosines: npt.ArrayLike, persons: int) -> Floats:
    """Ascending cosines within [-1, 1], once there are enough of them."""
    values = np.sort(np.asarray(impostor_cosines, dtype=np.float64), axis=None)
    if len(values) < MIN_COMPARISONS or persons < 2:
        raise InputError(
            Code.DATA_INSUFFICIENT,
            f"a calibration needs {MIN_COMPARISONS} impostor comparisons between 2 persons or more, got {len(values)} "
            f"between {persons}: add captures of other persons",
        )
    if np.isnan(values).any():
        raise InputError(Code.DATA_INSUFFICIENT, "impostor cosines hold values that are not numbers: check the model")
    return np.where(values > IDENTICAL, 1.0, np.maximum(values, -1.0))


def _measured_knots(values: Floats, limit_rank: int) -> tuple[Floats, Floats]:
    """Knots of the survival function up to the `limit_rank`-th largest of `values`, and one at cosine -1."""
    n = len(values)
    ranks = np.round(np.geomspace(limit_rank, n, BODY_KNOTS)).astype(np.intp)  # 1 is the largest value
    xs = np.unique(values[n - ranks])
    reaching = n - np.searchsorted(values, xs, side="left")  # ties count in full, as they do at a threshold
    ys = -10.0 * np.log10(reaching / (n + 1))
    return (xs, ys) if xs[0] == -1.0 else (np.append(-1.0, xs), np.append(0.0, ys))


def _fit_tail(top: Floats, limit_cosine: float, limit_score: float) -> Tail:
    """Tail of the ascending values `top` over their first, bounded so that cosine 1 scores `SCORE_CAP` at most."""
    threshold, excess = float(top[0]), top[1:] - top[0]
    mean = max(float(excess.mean()), MIN_MEAN_EXCESS)

    def law(shape: float) -> Tail:
        return Tail(threshold, mean * (1.0 - shape), shape)  # keeps the mean excess, whatever the shape

    def above_cap(shape: float) -> float:
        return limit_score + law(shape).decay(1.0) - law(shape).decay(limit_cosine) - SCORE_CAP

    room = 1.0 - threshold - mean  # with a shape of -mean / room the law would end at cosine 1
    lowest = max(-MAX_SHAPE, -mean / room * (1.0 - 1e-9)) if room > 0.0 else -MAX_SHAPE
    if limit_cosine < 1.0 and above_cap(lowest) > 0.0:
        from scipy.optimize import brentq  # noqa: PLC0415 - as above

        lowest = float(brentq(above_cap, lowest, MAX_SHAPE))
    return law(min(max(_moment_shape(excess), lowest), MAX_SHAPE))


def _moment_shape(excess: Floats) -> float:
    """Shape from the ascending `excess` by probability-weighted moments, Hosking & Wallis 1987, with k = -ξ."""
    above = 1.0 - (np.arange(1, len(excess) + 1) - 0.35) / len(excess)
    a0, a1 = float(excess.mean()), float((excess * above).mean())
    return 2.0 - a0 / (a0 - 2.0 * a1) if a0 > 0.0 else 0.0


def _tail_knots(tail: Tail, limit_cosine: float, limit_score: float) -> tuple[Floats, Floats]:
    """Knots after the limit up to cosine 1, evenly spaced in score."""
    if limit_cosine >= 1.0:
        return np.empty(0), np.empty(0)
    at_limit, at_one = tail.decay(limit_cosine), tail.decay(1.0)
    decay = np.linspace(at_limit, at_one, TAIL_KNOTS)[1:]
    xs = tail.cosine_after(decay)
    xs[-1] = 1.0
    return xs, limit_score + decay - at_limit
