"""The part that this distribution offers: the registry wired to stores, index, queue and settings."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

import structlog

from model_registry.arrivals import Budget
from model_registry.check_ins import CheckIns, Interval
from model_registry.events import QUEUE, ModelEvents
from model_registry.index import Index, MemoryIndex
from model_registry.registry import Registry
from model_registry.registry_metrics import RegistryMetrics
from model_registry.servicer import ModelRegistryServicer
from tutelage.api.registry.v1 import registry_pb2 as pb
from tutelage.api.registry.v1.registry_pb2_grpc import add_ModelRegistryServiceServicer_to_server
from tutelage.errors import SettingsError, TutelageError
from tutelage.package import MAX_PACKAGE_BYTES
from tutelage.queue_entries import work
from tutelage.server import Service
from tutelage.serving import Context, KeyKind, Part
from tutelage.settings import Range
from tutelage.signing import read_public_key
from tutelage.stores import Stores

__all__ = ["PART", "RegistrySettings", "make_registry"]

NAME = pb.DESCRIPTOR.services_by_name["ModelRegistryService"].full_name


@dataclass(frozen=True)
class RegistrySettings:
    """What the registry alone has to be told."""

    trusted_files: tuple[Path, ...]
    """PEM files of the public keys whose packages are kept, separated by commas."""
    publishers: tuple[str, ...] = ()
    """Names in the certificates of callers that may create versions and set channels. Empty: all callers may."""
    upload_memory_bytes: Annotated[int, Range(MAX_PACKAGE_BYTES)] = 2 * MAX_PACKAGE_BYTES
    """Bytes of packages in memory at once; more uploads are turned away until there is room."""
    download_memory_bytes: Annotated[int, Range(0)] = MAX_PACKAGE_BYTES
    """Bytes of packages that stay in memory after they were uploaded or downloaded: a fleet asks for the same one."""
    check_in_interval: Annotated[timedelta, Range(1, 86_400)] = timedelta(seconds=30)
    """Seconds between two check-ins of a device, on average."""
    check_in_jitter: Annotated[float, Range(0, 0.9)] = 0.2
    """Share of that by which each wait is drawn shorter or longer."""
    refresh_interval: Annotated[timedelta, Range(0.1, 3_600)] = timedelta(seconds=30)
    """Seconds between two looks for what other registries did to channels."""


def make_registry(
    settings: RegistrySettings, stores: Stores, metrics: RegistryMetrics | None = None
) -> tuple[Registry, Index]:
    """The registry and its index over `stores`.

    Raises:
        SettingsError: A file of `trusted_files` holds no public key.
    """
    try:
        trusted = [read_public_key(path) for path in settings.trusted_files]
    except TutelageError as error:
        raise SettingsError(f"trusted_files: {error.message}") from error
    index = _index(stores)
    registry = Registry(
        stores.objects,
        index,
        trusted=trusted,
        upload_budget=Budget(settings.upload_memory_bytes),
        download_memory_bytes=settings.download_memory_bytes,
        metrics=metrics,
    )
    return registry, index


def _index(stores: Stores) -> Index:
    if stores.redis is None:
        return MemoryIndex()
    from model_registry.redis_index import RedisIndex  # noqa: PLC0415 - only where there is a Redis server

    return RedisIndex(stores.redis)


@asynccontextmanager
async def _open(settings: RegistrySettings, context: Context) -> AsyncIterator[Service]:
    registry, index = make_registry(settings, context.stores, RegistryMetrics(context.metrics))
    check_ins = CheckIns(registry, index, Interval(settings.check_in_interval, settings.check_in_jitter))
    servicer = ModelRegistryServicer(registry, check_ins, settings.publishers)
    queue, stop = context.stores.queue(QUEUE), asyncio.Event()
    worker = f"{socket.gethostname()}:{os.getpid()}"
    events = asyncio.create_task(work(queue, ModelEvents(registry).handle, worker=worker, stop=stop))
    refreshing = asyncio.create_task(_refresh(registry, settings.refresh_interval))

    async def events_are_handled() -> None:
        if events.done():
            await events

    try:
        yield Service(
            NAME,
            partial(add_ModelRegistryServiceServicer_to_server, servicer),
            {**context.stores.checks, "events": events_are_handled},
        )
    finally:
        stop.set()
        refreshing.cancel()
        with suppress(TutelageError):
            await events


async def _refresh(registry: Registry, interval: timedelta) -> None:
    """Keep the index in step with the store for ever."""
    while True:
        try:
            await registry.refresh()
        except TutelageError as error:
            structlog.get_logger().warning("index not refreshed", code=error.code)
        await asyncio.sleep(interval.total_seconds())


PART = Part(
    name="model-registry",
    prefix="REGISTRY_",
    settings=RegistrySettings,
    open=_open,
    keys={"TRUSTED_FILES": KeyKind.TRUST},
)
"""For `python -m model_registry` and `tutelage up`."""
