"""Serves a part in this process for tests: its real servicer behind real gRPC on loopback, over stores of choice."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from tutelage.calls import Layer
from tutelage.channel import Channel, ChannelSettings
from tutelage.server import Server, ServerSettings
from tutelage.serving import Context, Part
from tutelage.settings import Address, Secret
from tutelage.stores import ObjectsSettings, RedisSettings, StoresSettings, open_stores

LOOPBACK = "127.0.0.1"


def quick_server(**other: Any) -> ServerSettings:
    """Settings of a server that starts and ends at once, on a free port."""
    quick = {"drain_notice": timedelta(0), "drain_grace": timedelta(seconds=2), "health_interval": timedelta(seconds=1)}
    return ServerSettings(**{"address": Address(LOOPBACK, 0), **quick, **other})


def twins(folder: Path) -> StoresSettings:
    """Queues in memory, objects in a folder."""
    return StoresSettings(objects=ObjectsSettings(folder=folder))


def servers(redis: Any, minio: Any, bucket: str | None = None) -> StoresSettings:
    """Real servers, in a bucket of its own."""
    return StoresSettings(
        RedisSettings(Address(LOOPBACK, redis.port), tls=False),
        ObjectsSettings(
            Address(LOOPBACK, minio.port),
            bucket or f"b-{secrets.token_hex(6)}",
            Secret(b"tester"),
            Secret(b"tester-secret"),
            tls=False,
        ),
    )


@asynccontextmanager
async def served(
    part: Part, settings: Any, stores: StoresSettings, *, layers: Sequence[Layer] = (), **server: Any
) -> AsyncIterator[Channel]:
    """A channel to `part` with its own `settings`, over `stores`."""
    async with open_stores(stores) as opened:
        context = Context(opened, CollectorRegistry())
        async with (
            part.open(settings, context) as service,
            Server(quick_server(**server), [service], layers) as running,
            Channel(ChannelSettings(Address(LOOPBACK, running.port))) as channel,
        ):
            yield channel
