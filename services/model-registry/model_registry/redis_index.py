"""The index on Redis.

Keys, all in one cluster slot; `{..}` are Redis's braces:

tutelage:{registry}:built               exists once the index was built
tutelage:{registry}:versions            hash: digest -> manifest of the version
tutelage:{registry}:order               sorted set of `order_of` each version, scores 0: a listing by its bytes
tutelage:{registry}:channels            hash: channel -> its latest change as JSON
tutelage:{registry}:device:ID           string: where the device is counted; ends with the device
tutelage:{registry}:running:DIGEST      sorted set: device -> UNIX time, of those that run it as released
tutelage:{registry}:beyond:DIGEST       the same of those that run a local generation of it
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from model_registry.channels import ChannelChange
from model_registry.index import FORGET_DEVICE, SCANNED, CheckedIn, Devices, VersionFilter, order_of
from model_registry.versions import Version
from tutelage.canonical import canonical_json
from tutelage.redis_server import Redis, answer

__all__ = ["RedisIndex"]

PREFIX = "tutelage:{registry}:"

# A device moves from the set where it was counted to the one where it is now, in one step.
_CHECK_IN = """
local now, keep = redis.call('TIME')[1], tonumber(ARGV[4])
local before = redis.call('GET', KEYS[1])
local set = ARGV[2] .. ':' .. ARGV[3]
if before and before ~= set then redis.call('ZREM', ARGV[5] .. before, ARGV[1]) end
redis.call('SET', KEYS[1], set, 'EX', keep)
redis.call('ZADD', ARGV[5] .. set, now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', ARGV[5] .. set, '-inf', now - keep)
redis.call('EXPIRE', ARGV[5] .. set, keep)
return 1
"""

# Two registries that tell of one channel at the same time: the later change stays.
_SET_CHANNEL = """
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known and cjson.decode(known)['number'] >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""


class RedisIndex:
    """An `Index` on a Redis server."""

    def __init__(self, redis: Redis) -> None:
        """Use the connection `redis`, which stays the caller's to close."""
        self._redis = redis
        self._move = redis.register_script(_CHECK_IN)
        self._change = redis.register_script(_SET_CHANNEL)

    async def is_built(self) -> bool:
        """See `Index.is_built`."""
        return bool(await answer(self._redis.exists(PREFIX + "built")))

    async def mark_built(self) -> None:
        """See `Index.mark_built`."""
        await answer(self._redis.set(PREFIX + "built", 1))

    async def clear(self) -> None:
        """See `Index.clear`."""
        await answer(self._redis.delete(*(PREFIX + name for name in ("built", "versions", "order", "channels"))))

    async def add(self, version: Version) -> None:
        """See `Index.add`."""
        both = self._redis.pipeline(transaction=True)
        both.hset(PREFIX + "versions", version.digest, version.as_bytes().decode())
        both.zadd(PREFIX + "order", {order_of(version): 0})
        await answer(both.execute())

    async def version(self, digest: str) -> Version | None:
        """See `Index.version`."""
        found = await answer(self._redis.hget(PREFIX + "versions", digest))
        return None if found is None else Version.from_bytes(found.encode())

    async def page(self, wanted: VersionFilter, *, after: str, limit: int) -> tuple[Sequence[Version], str]:
        """See `Index.page`."""
        newest = f"({after}" if after else "+"
        places = await answer(self._redis.zrevrangebylex(PREFIX + "order", newest, "-", 0, SCANNED + 1))
        looked_at = places[:SCANNED]
        digests = [place.rpartition(" ")[2] for place in looked_at]
        texts = await answer(self._redis.hmget(PREFIX + "versions", digests)) if digests else []
        found: list[Version] = []
        for place, text in zip(looked_at, texts, strict=True):
            version = Version.from_bytes(text.encode()) if text is not None else None
            found += [version] if version is not None and wanted.passes(version) else []
            if len(found) == limit or place == looked_at[-1]:
                return found, place if place != places[-1] else ""
        return found, ""

    async def set_channel(self, change: ChannelChange) -> None:
        """See `Index.set_channel`."""
        words = (change.channel, change.number, canonical_json(asdict(change)))
        await answer(self._change(keys=[PREFIX + "channels"], args=words))

    async def channel(self, name: str) -> ChannelChange | None:
        """See `Index.channel`."""
        found = await answer(self._redis.hget(PREFIX + "channels", name))
        return None if found is None else ChannelChange(**json.loads(found))

    async def check_in(self, seen: CheckedIn) -> None:
        """See `Index.check_in`."""
        words = (seen.device_id, _set(beyond=seen.beyond), seen.released_digest, _KEEP_S, PREFIX)
        await answer(self._move(keys=[f"{PREFIX}device:{seen.device_id}"], args=words))

    async def devices(self, digest: str) -> Devices:
        """See `Index.devices`."""
        seconds = await answer(self._redis.time())
        since = seconds[0] - _KEEP_S
        found: list[Any] = []
        for beyond in (False, True):
            key = f"{PREFIX}{_set(beyond=beyond)}:{digest}"
            found.append(await answer(self._redis.zcount(key, f"({since}", "+inf")))
            found.append(await answer(self._redis.zrevrange(key, 0, 0, withscores=True)))
        latest = [at for newest in (found[1], found[3]) for _, at in newest if at > since]
        return Devices(found[0], found[2], max(latest, default=None))


_KEEP_S = int(FORGET_DEVICE.total_seconds())


def _set(*, beyond: bool) -> str:
    return "beyond" if beyond else "running"
