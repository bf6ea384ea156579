"""Work queues on Redis 7 Streams: `RedisQueue`, and what every queue is made of (`tutelage.queue_entries`).

Why Streams directly and no library: `docs/adr/0005-queues-on-redis-streams.md`. Keys of the queue NAME, all in one
cluster slot; `{..}` are Redis's braces:

    tutelage:{NAME}:high, :normal, :low   streams, one a priority; an item is the field `id`. Consumer group `workers`
    tutelage:{NAME}:entry:ID              hash: body, context (JSON), priority, state, at (item in its stream), worker,
                                          error, deliveries, token, cancel
    tutelage:{NAME}:delayed               sorted set of ids by the millisecond at which they are queued again
    tutelage:{NAME}:dead                  sorted set of ids by the millisecond of their death

Each operation is one run of `queues.lua`, so it happens whole or not at all, also if the client dies. The group starts
at 0 and is made with its stream, in one script: no entry can come before it, a flushed server is no special case, and
there is no BUSYGROUP to swallow. A stream holds nothing but waiting and running entries: an item goes with its
acknowledgement, and nothing is ever trimmed. Run Redis with `appendonly yes` and `maxmemory-policy noeviction`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from importlib import resources
from typing import Any

from tutelage.canonical import canonical_json
from tutelage.errors import Code, QueueError
from tutelage.queue_entries import (
    LEASE,
    MAX_DELIVERIES,
    MAX_ERROR_CHARACTERS,
    POLL,
    REMEMBER,
    Backlog,
    Claim,
    Entry,
    Priority,
    State,
    Status,
    entry_of,
)
from tutelage.redis_server import answer, connect

_BLOCK_MS = 2000  # one blocking read: short enough to see delayed and abandoned entries
_SCRIPT = resources.files("tutelage").joinpath("queues.lua").read_text(encoding="utf-8")


class RedisQueue:
    """A `tutelage.queue_entries.Queue` on the server at a `redis://` or `rediss://` address, whose clock counts."""

    def __init__(
        self,
        url: str,
        name: str,
        *,
        lease: timedelta = LEASE,
        max_deliveries: int = MAX_DELIVERIES,
        poll: timedelta = POLL,
        remember: timedelta = REMEMBER,
    ) -> None:
        """Connects with the first call. All who share the queue `name` give the same numbers."""
        self.name, self.lease = name, lease
        self._prefix, self._most = f"tutelage:{{{name}}}:", max_deliveries
        self._block, self._keep = min(_milliseconds(poll), _BLOCK_MS), _milliseconds(remember)
        self._redis = connect(url)
        self._script = self._redis.register_script(_SCRIPT)

    async def put(
        self,
        body: Mapping[str, Any],
        *,
        key: str,
        priority: Priority = Priority.NORMAL,
        context: Mapping[str, str] | None = None,
    ) -> str:
        """See `Queue.put`."""
        entry = entry_of(body, key, priority, context)
        await self._run("put", entry.id, canonical_json(entry.body), canonical_json(entry.context), priority)
        return entry.id

    async def claim(self, worker: str, *, wait: timedelta) -> Claim | None:
        """See `Queue.claim`."""
        clock = asyncio.get_running_loop().time
        until = clock() + wait.total_seconds()
        while True:
            found = await self._claim_now(worker)
            if isinstance(found, Claim):
                return found
            left = int(1000 * (until - clock()))
            if left <= 0:
                return None
            # A plain read: it wakes at anything newer than what the claim saw, and takes nothing away.
            ends: dict[Any, Any] = {self._prefix + priority: end for priority, end in zip(Priority, found, strict=True)}
            await answer(self._redis.xread(ends, count=1, block=min(left, self._block)))

    async def _claim_now(self, worker: str) -> Claim | list[str]:
        """The next entry, or the ends of the streams where there is none; given back where the caller is cancelled."""
        asked = asyncio.ensure_future(self._run("claim", worker, _milliseconds(self.lease), self._most, self._keep))
        try:
            return _claim_in(await asyncio.shield(asked))
        except asyncio.CancelledError:
            with suppress(QueueError):
                if isinstance(claim := _claim_in(await asked), Claim):
                    await self.give_back(claim)
            raise

    async def renew(self, claim: Claim) -> None:
        """See `Queue.renew`."""
        _check(await self._run("renew", claim.entry.id, claim.token), claim)

    async def settle_done(self, claim: Claim) -> None:
        """See `Queue.settle_done`."""
        await self._settle(claim, "done")

    async def settle_cancelled(self, claim: Claim) -> None:
        """See `Queue.settle_cancelled`."""
        await self._settle(claim, "cancelled")

    async def settle_failed(self, claim: Claim, error: str, *, retry_after: timedelta | None) -> None:
        """See `Queue.settle_failed`."""
        outcome = "dead" if retry_after is None else "delayed"
        await self._settle(claim, outcome, error[:MAX_ERROR_CHARACTERS], retry_after or timedelta())

    async def give_back(self, claim: Claim) -> None:
        """See `Queue.give_back`."""
        await self._settle(claim, "back")

    async def cancel(self, entry_id: str) -> State:
        """See `Queue.cancel`."""
        return State(_known(await self._run("cancel", entry_id, self._keep), entry_id))

    async def status(self, entry_id: str) -> Status:
        """See `Queue.status`."""
        found = _known(await answer(self._redis.hgetall(f"{self._prefix}entry:{entry_id}")), entry_id)
        entry = _entry(entry_id, found["body"], found["context"], found["priority"])
        state, deliveries = State(found["state"]), int(found["deliveries"])
        return Status(entry, state, deliveries, found.get("worker", ""), found.get("error", ""))

    async def ahead(self, entry_id: str) -> int:
        """See `Queue.ahead`."""
        count = await self._run("ahead", entry_id)
        return int(_known(count if count is None else str(count), entry_id))

    async def backlog(self) -> Backlog:
        """See `Queue.backlog`."""
        *counts, waited_ms = await self._run("backlog", _milliseconds(self.lease))
        states = (State.QUEUED, State.DELAYED, State.RUNNING, State.DEAD)
        return Backlog(dict(zip(states, counts, strict=True)), timedelta(milliseconds=waited_ms))

    async def dead(self, *, limit: int = 100) -> Sequence[Status]:
        """See `Queue.dead`."""
        ids = await answer(self._redis.zrange(f"{self._prefix}dead", 0, limit - 1))
        return [await self.status(entry_id) for entry_id in ids]

    async def revive(self, entry_id: str) -> bool:
        """See `Queue.revive`."""
        return bool(await self._run("revive", entry_id))

    async def close(self) -> None:
        """See `Queue.close`."""
        await self._redis.aclose()

    async def _settle(self, claim: Claim, outcome: str, error: str = "", delay: timedelta = timedelta()) -> None:
        words = (outcome, self._keep, error, _milliseconds(delay), self._most)
        _check(await self._run("settle", claim.entry.id, claim.token, *words), claim)

    async def _run(self, *words: str | bytes | int) -> Any:
        return await answer(self._script(keys=[self._prefix], args=words))


def _claim_in(found: list[Any]) -> Claim | list[str]:
    if len(found) == len(Priority):
        return found
    entry_id, token, deliveries, *words = found
    return Claim(_entry(entry_id, *words), token, deliveries)


def _check(answer: str, claim: Claim) -> None:
    if answer == "cancelled":
        raise QueueError(Code.ENTRY_CANCELLED, f"entry {claim.entry.id} was cancelled: stop working on it")
    if answer == "lost":
        raise QueueError(Code.CLAIM_LOST, f"entry {claim.entry.id} is no longer claimed here: drop its outcome")


def _known(found: Any, entry_id: str) -> Any:
    if not found:
        raise QueueError(Code.ENTRY_UNKNOWN, f"no entry {entry_id} is known: put it, or check the id")
    return found


def _entry(entry_id: str, body: str, context: str, priority: str) -> Entry:
    return Entry(entry_id, json.loads(body), Priority(priority), json.loads(context))


def _milliseconds(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1000)
