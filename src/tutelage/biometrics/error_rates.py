"""How often recognition errs, in the words of ISO/IEC 19795-1, and how sure one can be of it.

A genuine (mated) comparison is of two captures of one person, an impostor (non-mated) one of two persons. A comparison
is accepted when its cosine *reaches* the threshold; FMR is the share of impostor comparisons accepted, FNMR the share
of genuine comparisons that are not. A threshold is fixed before a change and kept after it, else the change is judged
by a ruler that changed with it. Comparisons of one person resemble each other, so uncertainty is over persons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from tutelage.errors import Code, InputError, UsageError

__all__ = [
    "PairedTest",
    "bootstrap_by_person",
    "clopper_pearson",
    "det_curve",
    "eer",
    "fmr",
    "fmr_threshold",
    "fnmr",
    "paired_test",
    "rank1",
    "tar_at_fmr",
]

Floats = npt.NDArray[np.float64]

MIN_SIGNED_RANK = 5
"""Fewest pairs for a signed-rank test: with four, no outcome has a p-value below 0.125."""


def fmr(impostor: npt.ArrayLike, threshold: float) -> float:
    """Share of impostor cosines that reach `threshold`.

    Raises:
        InputError: `data-insufficient`, without comparisons or with NaN among them.
    """
    return float(np.mean(_comparisons(impostor).astype(np.float64) >= threshold))


def fnmr(genuine: npt.ArrayLike, threshold: float) -> float:
    """Share of genuine cosines that stay below `threshold`.

    Raises:
        InputError: `data-insufficient`, without comparisons or with NaN among them.
    """
    return float(np.mean(_comparisons(genuine).astype(np.float64) < threshold))


def fmr_threshold(impostor: npt.ArrayLike, fmr: float) -> float:
    """Smallest threshold at which the measured FMR is `fmr` or less.

    It is the next number above an impostor cosine, in the precision of `impostor`: the next double would round back
    onto that cosine when compared with single-precision ones. Without room for any limit (`fmr` 1) it is -infinity.

    Raises:
        UsageError: `fmr` is not within [0, 1].
        InputError: `data-insufficient`, without comparisons or with NaN among them.
    """
    if not 0.0 <= fmr <= 1.0:
        raise UsageError(f"a false match rate lies within 0 and 1, got {fmr}")
    values = _comparisons(impostor)
    n = len(values)
    allowed = int(fmr * n)
    allowed += (allowed + 1) / n <= fmr  # the product may round below a whole number
    if allowed >= n:
        return -math.inf
    refused = np.partition(values, n - 1 - allowed)[n - 1 - allowed]  # largest that may not be accepted
    return float(np.nextafter(refused, np.inf, dtype=values.dtype))


def tar_at_fmr(genuine: npt.ArrayLike, impostor: npt.ArrayLike, fmr: float) -> float:
    """Share of genuine cosines accepted, 1 - FNMR, at the threshold of `fmr_threshold`.

    Raises:
        UsageError: `fmr` is not within [0, 1].
        InputError: `data-insufficient`, without comparisons or with NaN among them.
    """
    return 1.0 - fnmr(genuine, fmr_threshold(impostor, fmr))


def det_curve(genuine: npt.ArrayLike, impostor: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
    """FMR, FNMR and threshold `(T,)` at every cosine seen and just above the highest.

    Thresholds rise strictly, FMR falls from 1 to 0 and FNMR rises from 0 to 1.

    Raises:
        InputError: `data-insufficient`, without comparisons or with NaN among them.
    """
    mated, non_mated = (np.sort(_comparisons(values).astype(np.float64)) for values in (genuine, impostor))
    seen = np.unique(np.concatenate([mated, non_mated]))
    thresholds = np.append(seen, np.nextafter(seen[-1], np.inf))
    false_matches = (len(non_mated) - np.searchsorted(non_mated, thresholds, side="left")) / len(non_mated)
    false_non_matches = np.searchsorted(mated, thresholds, side="left") / len(mated)
    return false_matches, false_non_matches, thresholds


def eer(genuine: npt.ArrayLike, impostor: npt.ArrayLike) -> float:
    """Rate at which FMR and FNMR are equal, on straight lines between the points of the DET curve.

    Raises:
        InputError: `data-insufficient`, without comparisons or with NaN among them.
    """
    false_matches, false_non_matches, _ = det_curve(genuine, impostor)
    gap = false_non_matches - false_matches  # from -1 to 1, never falling
    after = int(np.searchsorted(gap, 0.0))
    before = after - 1
    share = gap[before] / (gap[before] - gap[after])
    return float(false_non_matches[before] + share * (false_non_matches[after] - false_non_matches[before]))


def rank1(cosines: npt.ArrayLike, truth: Sequence[str], gallery_persons: Sequence[str]) -> float:
    """Share of N probes whose own person is nearer than every other person of the gallery.

    A tie is a miss, for the device could not tell; so is a probe whose person is not in the gallery.

    Args:
        cosines: Probes against reference rows, `(N, M)`.
        truth: Person of each probe, N names.
        gallery_persons: Person of each reference row, M names.

    Raises:
        InputError: `data-insufficient`, without probes or when the sizes do not agree.
    """
    table = np.asarray(cosines)
    if table.shape != (len(truth), len(gallery_persons)) or not len(truth):
        raise InputError(
            Code.DATA_INSUFFICIENT,
            f"rank-1 needs cosines of {len(truth)} probes with {len(gallery_persons)} references, "
            f"got the shape {table.shape}",
        )
    same = np.asarray(truth, dtype=np.str_)[:, None] == np.asarray(gallery_persons, dtype=np.str_)[None, :]  # (N, M)
    own = np.where(same, table, -np.inf).max(axis=1, initial=-np.inf)
    other = np.where(same, -np.inf, table).max(axis=1, initial=-np.inf)
    return float(np.mean(own > other))


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a rate seen `k` times in `n` independent trials; (0, 1) for no trials.

    Clopper & Pearson 1934, by quantiles of the beta distribution. With k = 0 the upper end is near 3.7 / n; the rule
    of 3 of ISO/IEC 19795-1 is its one-sided counterpart.

    Raises:
        UsageError: `k` is not within 0 and `n`, or `confidence` not between 0 and 1.
    """
    if not 0 <= k <= n:
        raise UsageError(f"{k} of {n} trials is not a rate")
    alpha = _alpha(confidence)
    low = float(special.betaincinv(k, n - k + 1, alpha / 2.0)) if k > 0 else 0.0
    high = float(special.betaincinv(k + 1, n - k, 1.0 - alpha / 2.0)) if k < n else 1.0
    return low, high


def bootstrap_by_person(
    values: Mapping[str, Sequence[float]],
    statistic: Callable[[Floats], float],
    *,
    seed: int,
    rounds: int = 1000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of `statistic` over persons drawn with replacement, each with all of their values.

    The subset bootstrap of Bolle, Ratha & Pankanti 1999. Drawing single comparisons instead would take each person's
    captures for independent and give too narrow an interval. Impostor comparisons share two persons: grouped by one of
    them the interval is still somewhat narrow (Li et al. 2009, doi:10.1007/978-3-642-03767-2_7).

    Args:
        values: Values of each person, in any order of persons; those without values are left out.
        statistic: Function of all values drawn `(n,)`, such as `np.mean`.
        seed: The same seed and values give the same interval.
        rounds: How often persons are drawn.
        confidence: Share of the rounds' statistics inside the interval.

    Raises:
        UsageError: `rounds` is below 1, or `confidence` not between 0 and 1.
        InputError: `data-insufficient`, with fewer than two persons that have values.
    """
    alpha = _alpha(confidence)
    if rounds < 1:
        raise UsageError(f"a bootstrap takes one round or more, got {rounds}")
    groups = [np.asarray(values[person], dtype=np.float64) for person in sorted(values) if len(values[person])]
    if len(groups) < 2:
        raise InputError(Code.DATA_INSUFFICIENT, f"a bootstrap over persons needs two or more, got {len(groups)}")
    draws = np.random.default_rng(seed).integers(len(groups), size=(rounds, len(groups)))
    drawn = [float(statistic(np.concatenate([groups[i] for i in draw]))) for draw in draws]
    low, high = np.quantile(drawn, [alpha / 2.0, 1.0 - alpha / 2.0])
    return float(low), float(high)


@dataclass(frozen=True)
class PairedTest:
    """Outcome of comparing two methods on the same seeds or persons."""

    mean_difference: float
    """Mean of first minus second."""
    sd: float
    """Standard deviation of the differences, n - 1 in the denominator."""
    p_value: float
    """Two-sided p-value of the paired t-test."""
    n: int
    """Pairs compared."""
    wilcoxon_p: float | None
    """Two-sided p-value of the signed-rank test, which assumes no normal law; none below five pairs."""


def paired_test(a: npt.ArrayLike, b: npt.ArrayLike) -> PairedTest:
    """Student's paired t-test of `a` against `b` `(n,)`, with Wilcoxon's signed-rank test beside it.

    Differences that are all zero have p = 1; equal ones other than zero have p = 0 in the t-test.

    Raises:
        InputError: `data-insufficient`, with fewer than two pairs, unequal lengths or NaN.
    """
    first, second = _comparisons(a).astype(np.float64), _comparisons(b).astype(np.float64)
    n = len(first)
    if n != len(second) or n < 2:
        raise InputError(Code.DATA_INSUFFICIENT, f"a paired test needs two pairs or more, got {n} and {len(second)}")
    difference = first - second
    mean, sd = float(difference.mean()), float(difference.std(ddof=1))
    return PairedTest(mean, sd, _t_test_p(mean, sd, n), n, _signed_rank_p(difference))


def _t_test_p(mean: float, sd: float, n: int) -> float:
    # Written out because scipy's own warns of precision where all differences are nearly equal.
    if sd == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return float(2.0 * special.stdtr(n - 1, -abs(mean) / (sd / math.sqrt(n))))


def _signed_rank_p(difference: Floats) -> float | None:
    if len(difference) < MIN_SIGNED_RANK:
        return None
    from scipy.stats import wilcoxon  # noqa: PLC0415 - takes a second, and commands that test nothing come here too

    return float(wilcoxon(difference).pvalue) if difference.any() else 1.0


def _comparisons(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Values in one row, in the floating-point type they came in."""
    array = np.asarray(values).ravel()
    if not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)
    if not len(array) or np.isnan(array).any():
        raise InputError(Code.DATA_INSUFFICIENT, "there are no comparisons, or values among them that are not numbers")
    return array


def _alpha(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise UsageError(f"a confidence lies between 0 and 1, got {confidence}")
    return 1.0 - confidence
