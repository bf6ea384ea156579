"""Entries of a work queue and the contract of every queue: who may have an entry, how often, and what becomes of it.

An entry is a small mapping of keys and digests; images and weights lie in the object store. It is put under an
idempotency key, claimed by one worker at a time, and settled once:

    queued ──claim──> running ──> done
      ^                  │ ├────> cancelled
      ├──── delayed <────┘ └────> dead (permanent failure, or the deliveries are used up) ──revive──> queued

Delivery is at least once. It becomes exactly once in effect by three things together: putting the same key again gives
the first entry, a claim that was lost cannot settle anything, and handlers are idempotent.

A handler ends well, or raises `Permanent` or `Temporary`; nothing else decides about a retry. Any other exception is
taken for a defect and buries the entry at once, with the exception's name.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol, TypeVar

import structlog

from tutelage.canonical import canonical_json
from tutelage.errors import Code, QueueError
from tutelage.traces import SpanKind, propagated, span

MAX_BODY_BYTES = 16 << 10
"""Canonical JSON of a body; a hundred keys with their digests fit, an image does not."""

MAX_CONTEXT_BYTES = 4 << 10
"""Names and values of a context; W3C trace headers need some 700."""

MAX_KEY_BYTES = 512
"""Idempotency key in UTF-8."""

MAX_ERROR_CHARACTERS = 2000
"""Of the last error kept with an entry: a message, not a log."""

LEASE = timedelta(seconds=30)
"""A claim not renewed for so long is taken over. With `POLL` it keeps the promise of a minute, with room for a
restart of the server in between."""

HEARTBEATS_PER_LEASE = 3
"""Two renewals in a row may be lost before a living worker loses its claim."""

POLL = timedelta(seconds=1)
"""How often an idle worker looks for abandoned and delayed entries; new entries wake it at once."""

MAX_DELIVERIES = 5
"""Claims of one entry before it is dead: enough for a rolling restart gone wrong, few for a job of hours."""

REMEMBER = timedelta(days=7)
"""How long a finished entry, and with it its idempotency key, is known."""

_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds between attempts while the server is away, plus up to half again

_Answer = TypeVar("_Answer")

_log = structlog.get_logger(__name__)


class Priority(StrEnum):
    """Order of claiming, strict: while a higher one waits, no lower one is begun."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class State(StrEnum):
    """Where an entry is; `done`, `dead` and `cancelled` are final."""

    QUEUED = "queued"
    DELAYED = "delayed"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"


class Permanent(Exception):  # noqa: N818 - a verdict of the handler, not an error of ours
    """Raised by a handler: no repetition can help; the entry is dead."""


class Temporary(Exception):  # noqa: N818 - as above
    """Raised by a handler: try again after `delay`, as long as deliveries are left."""

    def __init__(self, message: str, delay: timedelta) -> None:
        """Keep why (`message`) and for how long (`delay`, zero or more)."""
        super().__init__(message)
        self.delay = delay


@dataclass(frozen=True)
class Entry:
    """What was put. Two puts under one key are one entry, with what the first one brought."""

    id: str
    """Digest of the idempotency key: known to the caller even when the server's answer was lost."""
    body: Mapping[str, Any]
    """Keys and digests; at most `MAX_BODY_BYTES` as canonical JSON."""
    priority: Priority = Priority.NORMAL
    context: Mapping[str, str] = field(default_factory=dict)
    """Trace headers and the like, handed from the caller to the worker as they are."""


@dataclass(frozen=True)
class Claim:
    """One worker's hold on an entry, until settled or lost."""

    entry: Entry
    token: int
    """Grows with each claim of the entry; one with an older token can no longer renew or settle."""
    deliveries: int
    """How often the entry was handed out, this time included; counted by the server. Those given back do not count."""


@dataclass(frozen=True)
class Status:
    """An entry as the queue sees it now."""

    entry: Entry
    state: State
    deliveries: int
    worker: str
    """Who has or last had it; empty before the first claim."""
    error: str
    """The last failure, also of an entry that is to be tried again; empty if there was none."""


@dataclass(frozen=True)
class Backlog:
    """How much lies in a queue."""

    entries: Mapping[State, int]
    """How many are queued, delayed, running and dead."""
    waited: timedelta
    """For how long the entry that waits longest could have been claimed: new, due again, or abandoned by its worker;
    zero where none can."""


class Queue(Protocol):
    """A named work queue. Every method may raise `QueueError`: `queue-unavailable` (retryable) or `queue-refused`."""

    @property
    def name(self) -> str:
        """What the queue is called, `label.batches`."""

    @property
    def lease(self) -> timedelta:
        """How long a claim holds without being renewed."""

    async def put(
        self,
        body: Mapping[str, Any],
        *,
        key: str,
        priority: Priority = Priority.NORMAL,
        context: Mapping[str, str] | None = None,
    ) -> str:
        """Id of the entry under the idempotency `key`; it is made of this call's words unless it exists.

        Raises:
            QueueError: `entry-invalid`, `entry-too-large`.
        """

    async def claim(self, worker: str, *, wait: timedelta) -> Claim | None:
        """The next entry for `worker`, or None if there was none for as long as `wait`.

        Abandoned entries come first, then new ones by priority and age. Cancelling the call claims nothing: what was
        delivered in that instant is given back, or, where the server went away with it, is free after its lease.
        """

    async def renew(self, claim: Claim) -> None:
        """Hold `claim` for another lease from now.

        Raises:
            QueueError: `claim-lost`, another worker has it or it is settled; `entry-cancelled`, stop and call
                `settle_cancelled`.
        """

    async def settle_done(self, claim: Claim) -> None:
        """The work is done. Settling twice is harmless.

        Raises:
            QueueError: `claim-lost`, this outcome does not count.
        """

    async def settle_cancelled(self, claim: Claim) -> None:
        """The work was stopped because somebody cancelled it. Raises as `settle_done`."""

    async def settle_failed(self, claim: Claim, error: str, *, retry_after: timedelta | None) -> None:
        """Keep `error`; dead at once if `retry_after` is None or deliveries are used up. Raises as `settle_done`."""

    async def give_back(self, claim: Claim) -> None:
        """Let another worker have it at once, uncounted: this worker is being stopped. Raises as `settle_done`."""

    async def cancel(self, entry_id: str) -> State:
        """State after cancelling: `cancelled`; `running`, its worker learns with its next renewal; or a final one.

        Raises:
            QueueError: `entry-unknown`.
        """

    async def status(self, entry_id: str) -> Status:
        """What the queue knows of an entry.

        Raises:
            QueueError: `entry-unknown`, never put, or finished longer than `REMEMBER` ago.
        """

    async def ahead(self, entry_id: str) -> int:
        """How many waiting entries will be claimed before this one; 0 for one that is not queued.

        Raises:
            QueueError: `entry-unknown`.
        """

    async def backlog(self) -> Backlog:
        """How much lies here now."""

    async def dead(self, *, limit: int = 100) -> Sequence[Status]:
        """The dead letters, oldest first, at most `limit`; kept until revived."""

    async def revive(self, entry_id: str) -> bool:
        """Queue a dead entry anew with all its deliveries; False if it is not dead."""

    async def close(self) -> None:
        """Let go of connections; the queue stays."""


Handler = Callable[[Claim], Awaitable[None]]
"""Does an entry's work, again without harm. It must leave the event loop free: work that computes belongs in
`asyncio.to_thread` or a process, or the claim cannot be renewed."""


def entry_of(body: Mapping[str, Any], key: str, priority: Priority, context: Mapping[str, str] | None) -> Entry:
    """The entry these words make.

    Raises:
        QueueError: `entry-invalid`, `entry-too-large`.
    """
    if not isinstance(key, str) or not key or len(key.encode("utf-8", "replace")) > MAX_KEY_BYTES:
        raise QueueError(Code.ENTRY_INVALID, f"an idempotency key has 1 to {MAX_KEY_BYTES} bytes: give it such a one")
    context = {**propagated(), **(context or {})}
    if not isinstance(body, Mapping) or not all(isinstance(text, str) for pair in context.items() for text in pair):
        raise QueueError(Code.ENTRY_INVALID, "an entry is a mapping, and its context maps text to text")
    try:
        sizes = len(canonical_json(dict(body))), len(canonical_json(context))
    except (TypeError, ValueError, RecursionError) as error:
        raise QueueError(
            Code.ENTRY_INVALID, f"an entry holds what JSON cannot carry ({error}): put keys in it"
        ) from error
    for size, limit in zip(sizes, (MAX_BODY_BYTES, MAX_CONTEXT_BYTES), strict=True):
        if size > limit:
            raise QueueError(
                Code.ENTRY_TOO_LARGE,
                f"{size} bytes, {limit} are carried: put the data in the object store, its key here",
            )
    return Entry(hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:32], dict(body), priority, context)


async def work(queue: Queue, handler: Handler, *, worker: str, stop: asyncio.Event) -> None:
    """Claim and handle entries one after the other until `stop` is set; the entry begun by then is finished.

    While the server is away it waits, with growing pauses. Cancelled, it cancels the handler and gives the entry back.

    Raises:
        QueueError: `queue-refused`; whatever else the queue says is dealt with.
    """
    while not stop.is_set():
        claim = await _unless(stop, _persisting(lambda: queue.claim(worker, wait=POLL), stop))
        if claim is not None:
            await handle(queue, claim, handler)


async def _unless(stop: asyncio.Event, answer: Coroutine[Any, Any, _Answer | None]) -> _Answer | None:
    """The `answer`, or None as soon as `stop` is set, which cancels it."""
    asking, stopping = asyncio.create_task(answer), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return await asking if asking.done() else None
    finally:
        await _ended(asking, stopping)


async def handle(queue: Queue, claim: Claim, handler: Handler) -> None:
    """Run `handler` on a claimed entry, renewing the claim meanwhile, and settle it by the outcome."""
    job = asyncio.ensure_future(_traced(queue, claim, handler))
    heart = asyncio.create_task(_keep(queue, claim))
    try:
        await asyncio.wait({job, heart}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await _ended(job, heart)
        with suppress(QueueError):  # away or lost already: the lease does the same, later
            await queue.give_back(claim)
        raise
    ended_by_itself = job.done()
    await _ended(job, heart)
    try:
        if ended_by_itself:
            await _persisting(lambda: _settle(queue, claim, job))
        elif _code(heart) is Code.ENTRY_CANCELLED:
            await _persisting(lambda: queue.settle_cancelled(claim))
        else:
            _log.warning("claim lost", entry=claim.entry.id, deliveries=claim.deliveries)
    except QueueError as error:
        if error.code is not Code.CLAIM_LOST:
            raise
        _log.warning("outcome came too late", entry=claim.entry.id, deliveries=claim.deliveries)


async def _traced(queue: Queue, claim: Claim, handler: Handler) -> None:
    """Run `handler` below the span of whoever put the entry."""
    facts = {"messaging.destination.name": queue.name, "messaging.message.id": claim.entry.id}
    with span(f"{queue.name} handle", SpanKind.CONSUMER, carrier=claim.entry.context, facts=facts):
        await handler(claim)


async def _settle(queue: Queue, claim: Claim, job: asyncio.Future[None]) -> None:
    """Tell the queue how the handler ended."""
    error = asyncio.CancelledError("the handler cancelled itself") if job.cancelled() else job.exception()
    if error is None:
        await queue.settle_done(claim)
    elif isinstance(error, Temporary):
        await queue.settle_failed(claim, str(error), retry_after=error.delay)
    elif isinstance(error, Permanent):
        await queue.settle_failed(claim, str(error), retry_after=None)
    else:
        _log.error("handler failed unexpectedly", entry=claim.entry.id, exc_info=error)
        await queue.settle_failed(claim, f"{type(error).__name__}: {error}", retry_after=None)


async def _keep(queue: Queue, claim: Claim) -> None:
    """Renew `claim` until that fails for good; a server that is away may come back before anybody else notices."""
    while True:
        await asyncio.sleep(queue.lease.total_seconds() / HEARTBEATS_PER_LEASE)
        await _persisting(lambda: queue.renew(claim))


async def _ended(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs and wait until it has ended, however it does."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _code(task: asyncio.Future[None]) -> Code | None:
    error = None if task.cancelled() else task.exception()
    return error.code if isinstance(error, QueueError) else None


async def _persisting(attempt: Callable[[], Awaitable[_Answer]], stop: asyncio.Event | None = None) -> _Answer | None:
    """What `attempt` returns as soon as the server answers; None if `stop` is set first.

    The pauses grow so that a server that is starting is not flooded, and differ so that workers do not come in step.
    """
    pauses = iter(_PAUSES)
    while True:
        try:
            return await attempt()
        except QueueError as error:
            if error.code is not Code.QUEUE_UNAVAILABLE:
                raise
            _log.warning("queue away", reason=error.message)
        pause = next(pauses, _PAUSES[-1])
        with suppress(TimeoutError):
            await asyncio.wait_for((stop or asyncio.Event()).wait(), pause * random.uniform(1.0, 1.5))
            return None
