"""A feature is a unit-length embedding of a capture that always carries the space it lives in.

Two networks give the same capture two unrelated vectors, and the cosine between those is a number that means nothing.
So a vector never travels without its space, the digest of the weights that made it, and whatever compares two sets of
features checks their spaces first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tutelage.errors import Code, InputError, SpaceMismatchError

__all__ = ["Features", "Vectors", "cosines"]

Vectors = npt.NDArray[np.float32]
"""Rows of features, `(N, D)`."""

NORM_TOLERANCE = 1e-3
"""How far a row's length may be from one: single precision is far nearer, a forgotten normalisation far off."""


@dataclass(frozen=True, eq=False)
class Features:
    """Features of N captures in one space.

    A row of zeros stands for a capture that gave no feature; its cosine with every other feature is 0.

    Raises:
        InputError: `data-insufficient`, when `vectors` is not `(N, D)` or a row is neither of unit length nor zero.
    """

    vectors: Vectors
    """Unit rows `(N, D)`, kept in single precision; N may be 0."""
    space: str
    """Id of the embedding space: the digest of the weights that made the rows."""

    def __post_init__(self) -> None:
        """Refuse what cannot be a set of features, before it meets a threshold."""
        vectors = np.asarray(self.vectors, dtype=np.float32)
        object.__setattr__(self, "vectors", vectors)
        if vectors.ndim != 2:
            raise InputError(
                Code.DATA_INSUFFICIENT, f"features must be rows (N, D), got an array of shape {vectors.shape}"
            )
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))  # (N,)
        off = ~((np.abs(lengths - 1.0) <= NORM_TOLERANCE) | (lengths == 0.0))  # NaN is off, too
        if off.any():
            raise InputError(
                Code.DATA_INSUFFICIENT,
                f"{int(off.sum())} of {len(vectors)} features are not finite vectors of unit length: "
                "normalise them, and check the model that made them",
            )

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, index: slice | npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Features:
        """Rows chosen by a slice, an array of indices or a mask, in the same space."""
        return Features(self.vectors[index], self.space)

    @staticmethod
    def concat(parts: Sequence[Features]) -> Features:
        """All rows of `parts`, in order, as one set.

        Raises:
            SpaceMismatchError: the parts live in different spaces.
            InputError: `data-insufficient`, when there is no part, or rows differ in length D.
        """
        if not parts:
            raise InputError(Code.DATA_INSUFFICIENT, "no features to put together: an empty set still needs its space")
        for part in parts:
            _check_comparable(parts[0], part)
        filled = [part.vectors for part in parts if len(part)] or [parts[0].vectors]
        return Features(np.concatenate(filled), parts[0].space)


def cosines(a: Features, b: Features) -> npt.NDArray[np.float32]:
    """Cosine of every row of `a` with every row of `b`, `(N, M)`, within [-1, 1].

    Raises:
        SpaceMismatchError: `a` and `b` live in different spaces.
        InputError: `data-insufficient`, when rows of the same space differ in length D.
    """
    _check_comparable(a, b)
    if not len(a) or not len(b):
        return np.zeros((len(a), len(b)), dtype=np.float32)
    product = _of_one(a.vectors, b.vectors) if len(a) == 1 else a.vectors @ b.vectors.T  # (N, D) @ (D, M) -> (N, M)
    return np.clip(product, -1.0, 1.0, out=product)


def _of_one(one: Vectors, others: Vectors) -> Vectors:
    """Inner products (1, M) of one row with M, in this thread alone.

    A matrix product wakes a thread for each core, and who stands at the door waits for whichever comes last: beside a
    training that can be many times what the others save.
    """
    products: Vectors = np.vecdot(others, one[0])[None]
    return products


def _check_comparable(a: Features, b: Features) -> None:
    if a.space != b.space:
        raise SpaceMismatchError(a.space, b.space)
    sides = a.vectors.shape[1], b.vectors.shape[1]
    if len(a) and len(b) and sides[0] != sides[1]:
        raise InputError(
            Code.DATA_INSUFFICIENT, f"features of one space {a.space} have {sides[0]} and {sides[1]} numbers a row"
        )


def impostor_cosines(features: Features, persons: Sequence[str]) -> npt.NDArray[np.float32]:
    """Cosines of all pairs of rows made by different `persons`, each pair once.

    Raises:
        InputError: `data-insufficient`, when there is not one person a row.
    """
    if len(persons) != len(features):
        raise InputError(Code.DATA_INSUFFICIENT, f"{len(persons)} persons were given for {len(features)} features")
    names = np.asarray(persons)
    different: npt.NDArray[np.bool_] = np.triu(names[:, None] != names[None, :], 1)
    pairs: npt.NDArray[np.float32] = cosines(features, features)[different]
    return pairs
