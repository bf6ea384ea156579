"""The network between a device and its teacher: while it is out, every call fails as a real one would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.captures import Pixels
from tutelage.errors import Code, ServiceError
from tutelage.labelling import LabelAnswer, Labeller


@dataclass
class Uplink:
    """A `Labeller` behind a network that can be out."""

    labeller: Labeller
    online: bool = True

    @property
    def space(self) -> str:
        """See `Labeller.space`."""
        return self.labeller.space

    def enrol(self, person: str, captures: Sequence[Pixels]) -> None:
        """See `Labeller.enrol`.

        Raises:
            ServiceError: `service-unavailable`, the network is out.
        """
        self._reach()
        self.labeller.enrol(person, captures)

    def remove(self, person: str) -> None:
        """See `Labeller.remove`.

        Raises:
            ServiceError: `service-unavailable`, the network is out.
        """
        self._reach()
        self.labeller.remove(person)

    def label(self, attempts: Sequence[Sequence[Pixels]]) -> list[LabelAnswer]:
        """See `Labeller.label`.

        Raises:
            ServiceError: `service-unavailable`, the network is out.
        """
        self._reach()
        return self.labeller.label(attempts)

    def _reach(self) -> None:
        if not self.online:
            raise ServiceError(Code.SERVICE_UNAVAILABLE, "there is no network: ask again later")
