"""Extractions put together and taken apart: captures of many calls share a batch, and those of one may take several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tutelage.biometrics.features import Features
from tutelage.labelling import Extraction, nothing_seen

__all__ = ["joined", "part"]


def joined(parts: Sequence[Extraction], space: str) -> Extraction:
    """All entries of `parts`, in order; of no part, what a teacher of this `space` sees in no captures.

    Raises:
        SpaceMismatchError: the parts lie in different spaces.
    """
    if not parts:
        return nothing_seen(space)
    if len(parts) == 1:
        return parts[0]
    return Extraction(
        Features.concat([part.features for part in parts]),
        np.concatenate([part.usable for part in parts]),
        tuple(reason for part in parts for reason in part.reasons),
        tuple(note for part in parts for note in part.notes),
    )


def part(extraction: Extraction, rows: slice) -> Extraction:
    """These `rows` of an extraction."""
    return Extraction(
        extraction.features[rows], extraction.usable[rows], extraction.reasons[rows], extraction.notes[rows]
    )
