"""The echo service on a server of this process, and what is asked of its health."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import grpc
from echo_service import Echo, service
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tutelage.server import Server, ServerSettings
from tutelage.settings import Address

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LOOPBACK = "127.0.0.1"


def settings(**other) -> ServerSettings:
    quick = {"drain_notice": timedelta(0), "drain_grace": timedelta(seconds=5)}
    often = {"health_interval": timedelta(milliseconds=20), "health_timeout": timedelta(milliseconds=200)}
    return ServerSettings(**{"address": Address(LOOPBACK, 0), **quick, **often, **other})


@asynccontextmanager
async def serving(echo: Echo, *, checks=None, layers=(), **other):
    """A server with the echo service, and a plain channel to it."""
    async with Server(settings(**other), [service(echo, checks)], layers) as server:
        echo.release.set()
        async with grpc.aio.insecure_channel(f"{LOOPBACK}:{server.port}") as channel:
            yield server, channel


async def health_of(channel: grpc.aio.Channel, name: str) -> int:
    request = health_pb2.HealthCheckRequest(service=name)
    return (await health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)).status


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)
