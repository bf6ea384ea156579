"""When a teacher abstains: limits that were measured for the teachers we know, and have to be given for all others.

Teachers differ in how far they set people apart, so no one limit fits all: 0.05 is much to one and nothing to another.
What we measure for each, on captures of strangers to it (`benchmarks/abstention.py`), is the cosine that one pair of
strangers in 1000 reaches, and the standard deviation of the cosines between strangers; the least margin is a *lead* of
so many of the latter (docs/results.md tells what other leads bring).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from tutelage.errors import SettingsError
from tutelage.labelling import AbstentionPolicy
from tutelage.settings import Range

__all__ = ["MEASURED", "AbstentionSettings", "policy_for"]


@dataclass(frozen=True)
class AbstentionSettings:
    """Limits that the operator sets; those left open are the measured ones of the teacher."""

    min_cosine: Annotated[float, Range(-1, 1)] | None = None
    """The nearest person must be at least as near as this cosine. Absent: as measured for a teacher we know."""
    min_margin: Annotated[float, Range(0, 2)] | None = None
    """The nearest person must be nearer than the second nearest by at least this. Absent: as measured for a teacher we
    know."""
    group: bool = True
    """Whether the captures of an attempt are judged by their mean feature; else by the last capture alone."""
    soft_temperature: Annotated[float, Range(0.001, 100)] = 0.1
    """Cosines are divided by this before the softmax of a soft label."""


MEASURED: Mapping[str, tuple[float, float]] = {
    "622ce2c8f9dda0deea5e7436/teacher": (0.40, 0.045),  # fingerprint
    "ff4567fad09c134cd347e152/face": (0.937, 0.012),
}
"""min_cosine and min_margin of known teachers, by the space that names their very weights."""


def policy_for(settings: AbstentionSettings, name: str, space: str) -> AbstentionPolicy:
    """When the teacher called `name`, of this `space`, abstains.

    Raises:
        SettingsError: a limit is neither set nor measured.
    """
    cosine, margin = MEASURED.get(space, (None, None))
    cosine = cosine if settings.min_cosine is None else settings.min_cosine
    margin = margin if settings.min_margin is None else settings.min_margin
    if cosine is None or margin is None:
        raise SettingsError(
            f"nobody has measured when teacher {name!r} of space {space} must abstain: set both "
            "TUTELAGE_TEACHER_ABSTENTION_MIN_COSINE and TUTELAGE_TEACHER_ABSTENTION_MIN_MARGIN"
        )
    return AbstentionPolicy(cosine, margin, settings.group, settings.soft_temperature)
