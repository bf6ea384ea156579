"""Who may have features: they are biometrics, and leave the service for callers that its settings name, nobody else."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tutelage.calls import ANONYMOUS
from tutelage.errors import Code, ServiceError

__all__ = ["FeatureCallers"]


class FeatureCallers:
    """The names that may ask for features."""

    def __init__(self, names: Collection[str]) -> None:
        """Admit callers with one of these `names` in their certificate; `anonymous` admits those without one."""
        self._names = frozenset(names)

    def check(self, names: Sequence[str]) -> None:
        """Return if a caller whose certificate has these `names`, none without a certificate, may have features.

        Raises:
            ServiceError: `caller-refused`.
        """
        if not self._names & set(names or (ANONYMOUS.name,)):
            raise ServiceError(
                Code.CALLER_REFUSED, "features are given only to callers that the service's settings name"
            )
