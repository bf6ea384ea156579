"""The twin of a queue on Redis within one process: the same contract, nothing to install, nothing that survives.

For the embedded way of running, notebooks and tests. One event loop; state changes between two `await`s only, so
each operation is whole.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any

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

_ORDER = {priority: rank for rank, priority in enumerate(Priority)}
_FINAL = frozenset({State.DONE, State.CANCELLED})


@dataclass
class _Record:
    """An entry with all that changes about it."""

    entry: Entry
    turn: int
    """Place in its priority; a new one each time it is queued."""
    state: State = State.QUEUED
    deliveries: int = 0
    token: int = 0
    worker: str = ""
    error: str = ""
    is_cancelled: bool = False
    at: float = 0.0
    """By the clock: queued, renewed last, due again, or finished, whichever the state needs."""


class MemoryQueue:
    """A `tutelage.queue_entries.Queue` in memory; `clock` gives seconds and never goes back."""

    def __init__(
        self,
        name: str = "memory",
        *,
        lease: timedelta = LEASE,
        max_deliveries: int = MAX_DELIVERIES,
        poll: timedelta = POLL,
        remember: timedelta = REMEMBER,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """An empty queue."""
        self.name, self.lease = name, lease
        self._most = max_deliveries
        self._poll = poll.total_seconds()
        self._remember = remember.total_seconds()
        self._clock = clock
        self._records: dict[str, _Record] = {}
        self._turns = itertools.count()
        self._news = asyncio.Event()

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
        self._forget_old()
        if entry.id not in self._records:
            self._records[entry.id] = _Record(entry, next(self._turns), at=self._clock())
            self._wake()
        return entry.id

    async def claim(self, worker: str, *, wait: timedelta) -> Claim | None:
        """See `Queue.claim`."""
        until = monotonic() + wait.total_seconds()
        while True:
            claim = self._next(worker)
            left = until - monotonic()
            if claim is not None or left <= 0:
                return claim
            news = self._news
            try:
                await asyncio.wait_for(news.wait(), min(left, self._poll))
            except TimeoutError:
                continue

    async def renew(self, claim: Claim) -> None:
        """See `Queue.renew`."""
        record = self._held(claim)
        if record.state is not State.RUNNING:
            raise _lost(claim)
        if record.is_cancelled:
            raise QueueError(Code.ENTRY_CANCELLED, f"entry {claim.entry.id} was cancelled: stop working on it")
        record.at = self._clock()

    async def settle_done(self, claim: Claim) -> None:
        """See `Queue.settle_done`."""
        if record := self._running(claim):
            self._finish(record, State.DONE)

    async def settle_cancelled(self, claim: Claim) -> None:
        """See `Queue.settle_cancelled`."""
        if record := self._running(claim):
            self._finish(record, State.CANCELLED)

    async def settle_failed(self, claim: Claim, error: str, *, retry_after: timedelta | None) -> None:
        """See `Queue.settle_failed`."""
        record = self._running(claim)
        if record is None:
            return
        if retry_after is not None and record.is_cancelled:
            self._finish(record, State.CANCELLED)
            return
        record.error = error[:MAX_ERROR_CHARACTERS]
        if retry_after is None or record.deliveries >= self._most:
            self._finish(record, State.DEAD)
        else:
            record.state, record.at = State.DELAYED, self._clock() + retry_after.total_seconds()

    async def give_back(self, claim: Claim) -> None:
        """See `Queue.give_back`."""
        record = self._running(claim)
        if record is None:
            return
        if record.is_cancelled:
            self._finish(record, State.CANCELLED)
            return
        record.deliveries -= 1
        self._enqueue(record)

    async def cancel(self, entry_id: str) -> State:
        """See `Queue.cancel`."""
        record = self._known(entry_id)
        if record.state in {State.QUEUED, State.DELAYED}:
            self._finish(record, State.CANCELLED)
        elif record.state is State.RUNNING:
            record.is_cancelled = True
        return record.state

    async def status(self, entry_id: str) -> Status:
        """See `Queue.status`."""
        record = self._known(entry_id)
        return Status(record.entry, record.state, record.deliveries, record.worker, record.error)

    async def ahead(self, entry_id: str) -> int:
        """See `Queue.ahead`."""
        record = self._known(entry_id)
        if record.state is not State.QUEUED:
            return 0
        return sum(_rank(other) < _rank(record) for other in self._in(State.QUEUED))

    async def backlog(self) -> Backlog:
        """See `Queue.backlog`."""
        states, lease = (State.QUEUED, State.DELAYED, State.RUNNING, State.DEAD), self.lease.total_seconds()
        lying = {state: self._in(state) for state in states}
        free = [record.at for state in (State.QUEUED, State.DELAYED) for record in lying[state]]
        free += [record.at + lease for record in lying[State.RUNNING]]
        waited = max(0.0, self._clock() - min(free, default=self._clock()))
        return Backlog({state: len(records) for state, records in lying.items()}, timedelta(seconds=waited))

    async def dead(self, *, limit: int = 100) -> Sequence[Status]:
        """See `Queue.dead`."""
        oldest = sorted(self._in(State.DEAD), key=lambda record: record.at)
        return [await self.status(record.entry.id) for record in oldest[:limit]]

    async def revive(self, entry_id: str) -> bool:
        """See `Queue.revive`."""
        record = self._records.get(entry_id)
        if record is None or record.state is not State.DEAD:
            return False
        record.deliveries, record.is_cancelled = 0, False
        self._enqueue(record)
        return True

    async def close(self) -> None:
        """See `Queue.close`."""

    def _next(self, worker: str) -> Claim | None:
        """What `worker` may have now: an abandoned entry, else the first in order."""
        now = self._clock()
        for record in self._in(State.DELAYED):
            if record.at <= now:
                self._enqueue(record)
        for record in sorted(self._in(State.RUNNING), key=_rank):
            if now - record.at >= self.lease.total_seconds() and self._is_deliverable(record):
                return self._deliver(record, worker)
        waiting = min(self._in(State.QUEUED), key=_rank, default=None)
        return None if waiting is None else self._deliver(waiting, worker)

    def _is_deliverable(self, record: _Record) -> bool:
        """Whether an abandoned entry may be tried again; if not, it is finished here."""
        tried = f"delivery {record.deliveries} of {self._most}"
        record.error = f"worker {record.worker} died or was cut off during {tried}"
        if record.is_cancelled:
            self._finish(record, State.CANCELLED)
        elif record.deliveries >= self._most:
            self._finish(record, State.DEAD)
        return record.state is State.RUNNING

    def _deliver(self, record: _Record, worker: str) -> Claim:
        record.state, record.worker, record.at = State.RUNNING, worker, self._clock()
        record.token += 1
        record.deliveries += 1
        return Claim(record.entry, record.token, record.deliveries)

    def _enqueue(self, record: _Record) -> None:
        record.state, record.turn, record.at = State.QUEUED, next(self._turns), self._clock()
        self._wake()

    def _finish(self, record: _Record, state: State) -> None:
        record.state, record.at = state, self._clock()

    def _wake(self) -> None:
        """Let everybody who waits look once; who comes later waits for the next news."""
        self._news.set()
        self._news = asyncio.Event()

    def _running(self, claim: Claim) -> _Record | None:
        """The record that `claim` may settle; None if that is done already."""
        record = self._held(claim)
        return record if record.state is State.RUNNING else None

    def _held(self, claim: Claim) -> _Record:
        record = self._records.get(claim.entry.id)
        if record is None or record.token != claim.token:
            raise _lost(claim)
        return record

    def _known(self, entry_id: str) -> _Record:
        self._forget_old()
        if entry_id not in self._records:
            raise QueueError(Code.ENTRY_UNKNOWN, f"no entry {entry_id} is known: put it, or check the id")
        return self._records[entry_id]

    def _in(self, state: State) -> list[_Record]:
        return [record for record in self._records.values() if record.state is state]

    def _forget_old(self) -> None:
        limit = self._clock() - self._remember
        for entry_id in [i for i, r in self._records.items() if r.state in _FINAL and r.at <= limit]:
            del self._records[entry_id]


def _rank(record: _Record) -> tuple[int, int]:
    return _ORDER[record.entry.priority], record.turn


def _lost(claim: Claim) -> QueueError:
    return QueueError(Code.CLAIM_LOST, f"entry {claim.entry.id} is no longer claimed here: drop its outcome")
