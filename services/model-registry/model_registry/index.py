"""The index: what is looked up fast, and can be made again from the object store at any time.

It knows versions by digest and by what they come from, the latest change of each channel, and the latest check-in of
each device. All but the check-ins is in the object store too, and that is the truth; devices report again within a
minute. An index that was never built, or was flushed, says so (`is_built`).
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from model_registry.channels import ChannelChange
from model_registry.versions import Version

__all__ = ["FORGET_DEVICE", "CheckedIn", "Devices", "Index", "MemoryIndex", "VersionFilter", "order_of"]

FORGET_DEVICE = timedelta(days=30)
"""A device that has not checked in for so long is no longer counted."""

SCANNED = 1_000
"""Versions looked at for one page, at most: a rare filter gives a short page, never a slow call."""


@dataclass(frozen=True)
class VersionFilter:
    """Which versions to list; None lets all pass."""

    name: str | None = None
    teacher_space: str | None = None
    data_set: str | None = None
    job_id: str | None = None
    parent: str | None = None

    def passes(self, version: Version) -> bool:
        """Whether `version` is wanted."""
        wanted = (
            (self.name, version.name),
            (self.teacher_space, version.teacher_space),
            (self.data_set, version.lineage.data_set),
            (self.job_id, version.lineage.job_id),
            (self.parent, version.parent),
        )
        return all(want is None or want == has for want, has in wanted)


@dataclass(frozen=True)
class CheckedIn:
    """What the index keeps of one check-in."""

    device_id: str
    released_digest: str
    """Of the released version that the device runs, or runs a local generation of."""
    beyond: bool
    """Whether it runs a local generation."""


@dataclass(frozen=True)
class Devices:
    """How many devices run a version, by the latest check-in of each."""

    as_released: int
    beyond: int
    """Those that run a local generation of it."""
    latest_s: float | None
    """UNIX time of the latest of these check-ins; None where there is none."""


class Index(Protocol):
    """Every method may raise `QueueError`: `queue-unavailable` (retryable) or `queue-refused`."""

    async def is_built(self) -> bool:
        """Whether everything in the object store at the time of the last `mark_built` is in here."""

    async def mark_built(self) -> None:
        """Say that everything is in here."""

    async def clear(self) -> None:
        """Forget versions and channels, and that the index was built; check-ins stay."""

    async def add(self, version: Version) -> None:
        """Know `version`; again is no harm."""

    async def version(self, digest: str) -> Version | None:
        """The version of this digest."""

    async def page(self, wanted: VersionFilter, *, after: str, limit: int) -> tuple[Sequence[Version], str]:
        """At most `limit` versions, the latest created first, and where the next page begins: empty after the last.

        `after` is that of the page before, empty for the first.
        """

    async def set_channel(self, change: ChannelChange) -> None:
        """Know `change` as the latest of its channel, unless a later one is known."""

    async def channel(self, name: str) -> ChannelChange | None:
        """The latest change known of a channel."""

    async def check_in(self, seen: CheckedIn) -> None:
        """Count the device where it is now, and nowhere else."""

    async def devices(self, digest: str) -> Devices:
        """Who runs the version of this digest."""


@dataclass
class MemoryIndex:
    """The twin of an index on Redis within one process; gone with it, and built anew at the next start."""

    clock: Callable[[], float] = time.time
    """UNIX time in seconds."""
    _versions: dict[str, Version] = field(default_factory=dict, init=False)
    _order: list[str] = field(default_factory=list, init=False)
    """`order_of` each version, ascending."""
    _channels: dict[str, ChannelChange] = field(default_factory=dict, init=False)
    _devices: dict[str, tuple[CheckedIn, float]] = field(default_factory=dict, init=False)
    _built: bool = field(default=False, init=False)

    async def is_built(self) -> bool:
        """See `Index.is_built`."""
        return self._built

    async def mark_built(self) -> None:
        """See `Index.mark_built`."""
        self._built = True

    async def clear(self) -> None:
        """See `Index.clear`."""
        self._built = False
        for known in (self._versions, self._order, self._channels):
            known.clear()

    async def add(self, version: Version) -> None:
        """See `Index.add`."""
        if version.digest not in self._versions:
            self._versions[version.digest] = version
            insort(self._order, order_of(version))

    async def version(self, digest: str) -> Version | None:
        """See `Index.version`."""
        return self._versions.get(digest)

    async def page(self, wanted: VersionFilter, *, after: str, limit: int) -> tuple[Sequence[Version], str]:
        """See `Index.page`."""
        older = [place for place in reversed(self._order) if not after or place < after]
        found: list[Version] = []
        for place in older[:SCANNED]:
            version = self._versions[place.rpartition(" ")[2]]
            found += [version] if wanted.passes(version) else []
            if len(found) == limit or place == older[:SCANNED][-1]:
                return found, place if place != older[-1] else ""
        return found, ""

    async def set_channel(self, change: ChannelChange) -> None:
        """See `Index.set_channel`."""
        known = self._channels.get(change.channel)
        if known is None or known.number < change.number:
            self._channels[change.channel] = change

    async def channel(self, name: str) -> ChannelChange | None:
        """See `Index.channel`."""
        return self._channels.get(name)

    async def check_in(self, seen: CheckedIn) -> None:
        """See `Index.check_in`."""
        self._devices[seen.device_id] = (seen, self.clock())

    async def devices(self, digest: str) -> Devices:
        """See `Index.devices`."""
        since = self.clock() - FORGET_DEVICE.total_seconds()
        here = [(s, at) for s, at in self._devices.values() if s.released_digest == digest and at > since]
        beyond = sum(seen.beyond for seen, _ in here)
        return Devices(len(here) - beyond, beyond, max((at for _, at in here), default=None))


def order_of(version: Version) -> str:
    """Text by which versions sort in the order of their creation; it ends with the digest."""
    return f"{version.created} {version.digest}"
