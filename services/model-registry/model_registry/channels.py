"""Channels: named pointers to versions, each the last entry of a history that is only ever appended to.

    channels/NAME/NUMBER.json        one change, canonical JSON; NUMBER from 000000000001, without gaps

Appending is `create` of the next number, which one of many callers wins: the history is its own compare-and-set, and
the truth. Whoever looks for the latest change lists the keys after the latest one it knows of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime

from tutelage.canonical import canonical_json, parse_canonical
from tutelage.errors import Code, ObjectError
from tutelage.objects import ObjectStore

__all__ = ["CHANNELS_PREFIX", "ChannelChange", "Channels"]

CHANNELS_PREFIX = "channels/"


@dataclass(frozen=True)
class ChannelChange:
    """One change of a channel."""

    channel: str
    number: int
    """From 1."""
    digest: str
    """Of the version that the channel points to since."""
    previous_digest: str | None
    """Of the one before; None for the first change."""
    reason: str
    actor: str | None
    """Name in the caller's certificate; None where callers show none."""
    time: str
    """ISO 8601, by the registry's clock."""

    @property
    def key(self) -> str:
        """Where it lies."""
        return _key(self.channel, self.number)


class Channels:
    """The histories in an object store; synchronous, as the store is."""

    def __init__(self, objects: ObjectStore) -> None:
        """Read and write in `objects`."""
        self._objects = objects

    def names(self) -> list[str]:
        """All channels that were ever set."""
        found: list[str] = []
        after: str | None = ""
        while after is not None:
            page = self._objects.list(CHANNELS_PREFIX, after=after, limit=1)
            if not page.keys:
                break
            found.append(page.keys[0].split("/")[1])
            # "0" follows "/" in the order of keys: the next key belongs to another channel.
            after = f"{CHANNELS_PREFIX}{found[-1]}/~" if page.after is not None else None
        return found

    def latest(self, channel: str, *, known: ChannelChange | None = None) -> ChannelChange | None:
        """The last change of `channel`, looking only at those after a `known` one; None if it was never set."""
        last = known.number if known else 0
        after: str | None = _key(channel, last)
        while after is not None:
            page = self._objects.list(f"{CHANNELS_PREFIX}{channel}/", after=after)
            last = int(page.keys[-1].rpartition("/")[2].removesuffix(".json")) if page.keys else last
            after = page.after
        if known is not None and last == known.number:
            return known
        return self.change(channel, last) if last else None

    def change(self, channel: str, number: int) -> ChannelChange:
        """The change of this number.

        Raises:
            ObjectError: `object-missing`; `object-corrupt`, it cannot be read.
        """
        try:
            return ChannelChange(**parse_canonical(self._objects.get(_key(channel, number)).data))
        except (ValueError, TypeError) as error:
            raise ObjectError(
                Code.OBJECT_CORRUPT, f"change {number} of channel {channel!r} is damaged: restore it from a backup"
            ) from error

    def history(self, channel: str, *, newest: int, count: int) -> Iterator[ChannelChange]:
        """At most `count` changes from number `newest` down."""
        for number in range(newest, max(0, newest - count), -1):
            yield self.change(channel, number)

    def append(
        self, latest: ChannelChange | None, channel: str, digest: str, *, reason: str, actor: str | None, now: datetime
    ) -> ChannelChange:
        """Point `channel` to `digest`, if `latest` is still its last change.

        Raises:
            ObjectError: `object-conflict`, somebody else changed it meanwhile.
        """
        number, previous = (latest.number + 1, latest.digest) if latest else (1, None)
        change = ChannelChange(channel, number, digest, previous, reason, actor, now.isoformat())
        self._objects.create(change.key, canonical_json(asdict(change)))
        return change


def _key(channel: str, number: int) -> str:
    return f"{CHANNELS_PREFIX}{channel}/{number:012d}.json"
