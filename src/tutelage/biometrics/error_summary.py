"""The few rates by which one model is set against another in a table, from one set of features.

For captures of persons whom a model never met. Rank-1 is measured as a device would be used: the first capture of each
person is the reference, all others are probes. EER and TAR are over all pairs of captures, each once, which leaves
little to the choice of references. A TAR is given only where ten false matches or more fix its threshold: below that a
single pair of look-alikes would decide it (see `tutelage.biometrics.calibration`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tutelage.biometrics.calibration import MEASURED_BY
from tutelage.biometrics.error_rates import eer, rank1, tar_at_fmr
from tutelage.biometrics.features import Features, cosines, impostor_cosines

__all__ = ["ErrorSummary", "impostor_count", "summarise"]


@dataclass(frozen=True)
class ErrorSummary:
    """Rates as fractions 0..1; None where the captures do not suffice to measure one."""

    persons: int
    captures: int
    genuine: int
    """Pairs of captures of one person."""
    impostor: int
    """Pairs of captures of two persons."""
    rank1: float | None
    """Share of probes nearest to their own person's reference."""
    eer: float | None
    tar_1e2: float | None
    """TAR at FMR 1e-2."""
    tar_1e3: float | None
    """TAR at FMR 1e-3."""


def summarise(features: Features, persons: Sequence[str]) -> ErrorSummary:
    """Rates of the `features` of captures made by `persons`, one a row.

    Raises:
        InputError: `data-insufficient`, when there is not one person a row.
    """
    impostor = impostor_cosines(features, persons)
    names = np.asarray(persons)
    genuine = cosines(features, features)[np.triu(names[:, None] == names[None, :], 1)]
    both = len(genuine) > 0 and len(impostor) > 0
    return ErrorSummary(
        persons=len(frozenset(persons)),
        captures=len(features),
        genuine=len(genuine),
        impostor=len(impostor),
        rank1=_rank1(features, names) if both else None,
        eer=eer(genuine, impostor) if both else None,
        tar_1e2=_tar(genuine, impostor, 1e-2),
        tar_1e3=_tar(genuine, impostor, 1e-3),
    )


def impostor_count(persons: Sequence[str]) -> int:
    """How many pairs of captures of two persons there are among captures made by `persons`."""
    _, counts = np.unique(np.asarray(persons, dtype=np.str_), return_counts=True)
    return int(len(persons) ** 2 - np.square(counts).sum()) // 2


def _rank1(features: Features, names: npt.NDArray[np.str_]) -> float:
    owners, first = np.unique(names, return_index=True)
    probes = np.setdiff1d(np.arange(len(names)), first)
    table = cosines(features[probes], features[first])
    return rank1(table, names[probes].tolist(), owners.tolist())


def _tar(genuine: npt.NDArray[np.float32], impostor: npt.NDArray[np.float32], fmr: float) -> float | None:
    if not len(genuine) or round(fmr * len(impostor), 6) < MEASURED_BY:
        return None
    return tar_at_fmr(genuine, impostor, fmr)
