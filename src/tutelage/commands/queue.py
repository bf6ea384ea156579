"""Commands on the work queues of a running service: how they stand, what is dead in them, and another try for that.

They ask the Redis server that the environment names, with the variables that the services read.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.commands.training import JsonOption, printable
from tutelage.errors import Code, MissingExtraError, QueueError
from tutelage.queue_entries import Backlog, Status
from tutelage.settings import PREFIX, read_settings
from tutelage.stores import RedisSettings

if TYPE_CHECKING:
    from tutelage.queues import RedisQueue

__all__ = ["QUEUES", "app"]

app = typer.Typer(no_args_is_help=True, help="Look into the work queues, and give dead letters another try.")

QUEUES = ("distill.jobs", "label.batches", "model.events")
"""Of the services."""

MOST = 100
"""Dead letters that are shown, the oldest first."""

Name = Annotated[str, typer.Argument(metavar="QUEUE", help=f"One of {', '.join(QUEUES)}.")]


@app.callback()
def _group() -> None:
    """Look into the work queues, and give dead letters another try."""


@app.command()
def status(*, as_json: JsonOption = False) -> None:
    """Tell how much lies in each queue, and how long the first entry has waited for a worker."""
    found = {name: asyncio.run(_backlog(name)) for name in QUEUES}
    if as_json:
        typer.echo(json.dumps({name: _document(backlog) for name, backlog in found.items()}, indent=2))
        return
    for name, backlog in found.items():
        counts = ", ".join(f"{count} {state.value}" for state, count in backlog.entries.items())
        typer.echo(f"{name}: {counts}; the first has waited {backlog.waited.total_seconds():.0f} s")


@app.command()
def dead(queue: Name, *, as_json: JsonOption = False) -> None:
    """Show the dead letters of a queue, the oldest first, each with its last error."""
    found = asyncio.run(_dead(queue))
    if as_json:
        typer.echo(json.dumps([_letter(one) for one in found], indent=2))
        return
    for one in found:
        body = json.dumps(dict(one.entry.body))
        typer.echo(f"{one.entry.id}  {body}  deliveries: {one.deliveries}  {printable(one.error)}")


@app.command()
def revive(
    queue: Name, entries: Annotated[list[str], typer.Argument(metavar="ENTRY...", help="Ids, as `dead` shows them.")]
) -> None:
    """Queue dead letters anew, with all their deliveries."""
    for entry in entries:
        asyncio.run(_revive(queue, entry))
        typer.echo(f"{entry} is queued again")


@asynccontextmanager
async def _opened(name: str) -> AsyncIterator[RedisQueue]:
    try:
        from tutelage.queues import RedisQueue  # noqa: PLC0415 - needs the extra `stores`
    except ModuleNotFoundError as error:
        raise MissingExtraError("stores", "queues on a server") from error
    if name not in QUEUES:
        raise QueueError(Code.ENTRY_UNKNOWN, f"there is no queue {name}: name one of {', '.join(QUEUES)}")
    queue = RedisQueue(read_settings(RedisSettings, os.environ, f"{PREFIX}STORES_REDIS_").url, name)
    try:
        yield queue
    finally:
        await queue.close()


async def _backlog(name: str) -> Backlog:
    async with _opened(name) as queue:
        return await queue.backlog()


async def _dead(name: str) -> Sequence[Status]:
    async with _opened(name) as queue:
        return await queue.dead(limit=MOST)


async def _revive(name: str, entry: str) -> None:
    async with _opened(name) as queue:
        if not await queue.revive(entry):
            raise QueueError(Code.ENTRY_UNKNOWN, f"{name} has no dead letter {entry}: see `tutelage queue dead {name}`")


def _document(backlog: Backlog) -> dict[str, float]:
    counts = {state.value: count for state, count in backlog.entries.items()}
    return {**counts, "waited_s": backlog.waited.total_seconds()}


def _letter(one: Status) -> Mapping[str, object]:
    about = {"id": one.entry.id, "body": dict(one.entry.body), "deliveries": one.deliveries}
    return {**about, "worker": one.worker, "error": one.error}
