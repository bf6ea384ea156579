"""A registry over gRPC for contract tests, on the twins and on a real Redis and MinIO; fixtures of their conftest."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from redis import Redis
from registry_calls import SECONDS, settings
from served_part import served, servers, twins

from model_registry.service import PART
from tutelage.api.registry.v1 import registry_pb2 as pb
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.errors import Code, TutelageError


@pytest.fixture(params=["twins", "servers"])
def stores(request, tmp_path):
    if request.param == "twins":
        return twins(tmp_path / "objects")
    redis, minio = request.getfixturevalue("redis_server"), request.getfixturevalue("minio_server")
    # Registries of different buckets would share the index of one Redis server.
    Redis(port=redis.port).flushall()
    return servers(redis, minio)


@pytest.fixture
def registry(stores, tmp_path):
    """Opens a registry over the same stores, as often as asked."""

    def opened(**other):
        return served(PART, settings(tmp_path, **other), stores)

    return opened


@pytest.fixture
def registries(registry, stores):
    """Opens two registries that serve at the same time; on the twins, which are of one process, one twice."""

    @asynccontextmanager
    async def opened():
        async with AsyncExitStack() as stack:
            channels = [await stack.enter_async_context(registry())]
            if stores.redis.address is not None:
                channels.append(await stack.enter_async_context(registry()))
            yield [await ready(channels[0]), await ready(channels[-1])]

    return opened


def refused(raised, code: Code) -> bool:
    return raised.value.code is code


async def ready(channel) -> ModelRegistryServiceStub:
    """A stub, once the registry's bucket exists."""
    stub = ModelRegistryServiceStub(channel)
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                await stub.ListVersions(pb.ListVersionsRequest(), timeout=SECONDS)
                return stub
            except TutelageError:
                await asyncio.sleep(0.05)
