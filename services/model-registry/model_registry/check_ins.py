"""Check-ins: a device says how it stands and is told which version its channel wants.

Ten thousand devices ask every half minute, so what they ask for is kept in memory for a moment: a version never
changes, and that a channel moved may be known a second later. Only the index is asked, never the object store.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from model_registry.channels import ChannelChange
from model_registry.index import CheckedIn, Index
from model_registry.registry import Registry
from model_registry.versions import Version

__all__ = ["CheckIns", "Interval"]

REMEMBERED = timedelta(seconds=1)
"""How long the latest change of a channel is believed without asking the index."""

MAX_REMEMBERED = 1_000
"""Channels and versions in memory; when there are more, all are asked for anew."""


T = TypeVar("T")


@dataclass(frozen=True)
class Interval:
    """When devices come back."""

    mean: timedelta
    jitter: float
    """Share of the mean by which each wait may be shorter or longer, 0 to 1: a fleet that lost its registry, or its
    power, must not come back in step."""

    def draw(self) -> timedelta:
        """One wait."""
        return self.mean * random.uniform(1 - self.jitter, 1 + self.jitter)


class CheckIns:
    """Answers devices."""

    def __init__(
        self, registry: Registry, index: Index, interval: Interval, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Find versions in `registry` and channels in `index`; `clock` gives seconds and never goes back."""
        self._registry, self._index, self.interval, self._clock = registry, index, interval, clock
        self._channels: dict[str, tuple[ChannelChange, float]] = {}
        self._versions: dict[str, Version] = {}

    async def check_in(self, seen: CheckedIn, channel: str, reverted: Collection[str]) -> Version | None:
        """Count the device, and the version it should run; None where its channel was never set.

        What a device took back is not wanted of it again while its channel points there: then it keeps what it has.
        """
        await self._index.check_in(seen)
        change = await self._change(channel)
        if change is None:
            return None
        if change.digest in reverted:
            return await self._registry.find(seen.released_digest)
        return await self._version(change.digest)

    async def _change(self, channel: str) -> ChannelChange | None:
        known = self._channels.get(channel)
        if known is not None and self._clock() < known[1]:
            return known[0]
        change = await self._index.channel(channel)
        if change is None and not await self._index.is_built():
            await self._registry.rebuild()
            change = await self._index.channel(channel)
        if change is not None:  # who waits for a channel to be set should not wait longer
            _keep(self._channels, channel, (change, self._clock() + REMEMBERED.total_seconds()))
        return change

    async def _version(self, digest: str) -> Version:
        if digest not in self._versions:
            _keep(self._versions, digest, await self._registry.get(digest))
        return self._versions[digest]


def _keep(known: dict[str, T], key: str, value: T) -> None:
    if len(known) >= MAX_REMEMBERED:
        known.clear()
    known[key] = value
