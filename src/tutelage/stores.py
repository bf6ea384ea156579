"""Stores: the queues and objects of one program, on real servers where its settings name them, else on their twins.

A program opens its `Stores` once and hands queues and objects to its parts. Without an address queues live in this
process and are gone with it; without address and folder objects lie in a temporary folder. That is right for a first
look, for tests and for notebooks; `durable` tells whether anything is kept.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import structlog

from tutelage.errors import SettingsError, TutelageError
from tutelage.folder_objects import FolderObjects
from tutelage.health import Check
from tutelage.memory_queue import MemoryQueue
from tutelage.objects import ObjectStore
from tutelage.queue_entries import Queue
from tutelage.settings import Address, Secret

if TYPE_CHECKING:
    from tutelage.redis_server import Redis

__all__ = [
    "ObjectsSettings",
    "RedisSettings",
    "Stores",
    "StoresSettings",
    "open_objects",
    "open_stores",
    "prepared_objects",
]

PREPARE_EVERY = timedelta(seconds=1)
"""How often a store that does not answer yet is asked to make its bucket."""

BEGIN_WITHIN = timedelta(seconds=2)
"""How long a program waits at its start for an object store to be ready."""

SWEEP_EVERY = timedelta(minutes=5)
"""How often expired objects are deleted; readers refuse them from their end on anyway."""


@dataclass(frozen=True)
class RedisSettings:
    """The Redis server of queues and indexes."""

    address: Address | None = None
    """Where Redis answers, as host:port. Absent: queues and indexes live in this process and are gone with it."""
    tls: bool = True
    """Whether to speak TLS with it; false only within one machine or a network that encrypts by itself."""
    ca_file: Path | None = None
    """PEM file of the authorities that signed its certificate. Absent: the system's."""
    user: str = "default"
    """Who logs in, where a password is given."""
    password: Secret | None = None
    """File with the password. Absent: no login."""

    @property
    def url(self) -> str:
        """The address as `redis://` or `rediss://`, password and all; never log it.

        Raises:
            SettingsError: There is no address.
        """
        if self.address is None:
            raise SettingsError("no Redis server is set: give its address")
        login = ""
        if self.password is not None:
            login = f"{quote(self.user, safe='')}:{quote(self.password.value.decode(), safe='')}@"
        query = f"?{urlencode({'ssl_ca_certs': self.ca_file})}" if self.tls and self.ca_file else ""
        return f"redis{'s' if self.tls else ''}://{login}{self.address}/0{query}"


@dataclass(frozen=True)
class ObjectsSettings:
    """The object store."""

    address: Address | None = None
    """Where S3 answers, as host:port. Absent: objects lie in `folder`."""
    bucket: str = "tutelage"
    """The bucket that holds everything; it is made where it is missing."""
    access_key: Secret | None = None
    """File with the name of the S3 account."""
    secret_key: Secret | None = None
    """File with its secret."""
    tls: bool = True
    """Whether to speak TLS with it; false only within one machine or a network that encrypts by itself."""
    ca_file: Path | None = None
    """PEM file of the authorities that signed its certificate. Absent: the system's."""
    folder: Path | None = None
    """Folder of this machine that holds objects where no address is given. Absent: a temporary one."""

    def __post_init__(self) -> None:
        """Refuse an address without an account."""
        if self.address is not None and (self.access_key is None or self.secret_key is None):
            raise ValueError("an address of S3 needs access_key and secret_key beside it")


@dataclass(frozen=True)
class StoresSettings:
    """Where a program keeps queues, indexes and objects."""

    redis: RedisSettings = field(default_factory=RedisSettings)
    """The server of queues and indexes."""
    objects: ObjectsSettings = field(default_factory=ObjectsSettings)
    """The object store."""


class Stores:
    """Queues and objects of one program; `open_stores` makes them."""

    def __init__(
        self, objects: ObjectStore, redis: Redis | None, url: str, *, durable: bool, place: ObjectsSettings
    ) -> None:
        """Hand out `objects`, and queues on the Redis at `url` or, where `redis` is None, in this process."""
        self.objects = objects
        self.place = place
        """Where the objects lie, for other processes of this machine that `open_objects` there."""
        self.redis = redis
        """The connection for indexes; None where they live in this process."""
        self.durable = durable
        """Whether queues and objects outlive this process."""
        self._url, self._queues = url, dict[str, Queue]()

    def queue(self, name: str, **numbers: Any) -> Queue:
        """The queue of this name, the same one each time; `numbers` as for `RedisQueue`, given with the first call."""
        if name not in self._queues:
            self._queues[name] = self._made(name, numbers)
        return self._queues[name]

    @property
    def queues(self) -> Sequence[Queue]:
        """Those that were asked for so far."""
        return tuple(self._queues.values())

    def _made(self, name: str, numbers: Mapping[str, Any]) -> Queue:
        if self.redis is None:
            return MemoryQueue(name, **numbers)
        from tutelage.queues import RedisQueue  # noqa: PLC0415 - needs the extra `stores`

        return RedisQueue(self._url, name, **numbers)

    @property
    def checks(self) -> Mapping[str, Check]:
        """For health: each returns when a server answered."""
        return {"redis": self._ping, "objects": self._look}

    async def _ping(self) -> None:
        if self.redis is not None:
            from tutelage.redis_server import answer  # noqa: PLC0415 - needs the extra `stores`

            await answer(self.redis.ping())

    async def _look(self) -> None:
        await asyncio.to_thread(self.objects.list, "", limit=1)

    async def close(self) -> None:
        """Let go of connections; what is stored stays."""
        for queue in self._queues.values():
            await queue.close()
        if self.redis is not None:
            await self.redis.aclose()


@asynccontextmanager
async def open_stores(settings: StoresSettings) -> AsyncIterator[Stores]:
    """The stores that `settings` name; meanwhile the bucket is made and expired objects are swept.

    A server that is away is no error here: health says so, and what uses the store waits or fails by itself.
    """
    redis = _connected(settings.redis) if settings.redis.address else None
    url = settings.redis.url if settings.redis.address else ""
    with tempfile.TemporaryDirectory(prefix="tutelage-objects-") as spare:
        place = settings.objects if _is_kept(settings.objects) else replace(settings.objects, folder=Path(spare))
        objects, prepare = _objects(place)
        durable = _is_kept(settings.objects) and redis is not None
        stores = Stores(objects, redis, url, durable=durable, place=place)
        tending = asyncio.create_task(_tend(objects, prepare))
        await _briefly(stores.checks["objects"])
        try:
            yield stores
        finally:
            tending.cancel()
            await stores.close()


def open_objects(settings: ObjectsSettings) -> ObjectStore:
    """The object store at the address or in the folder that `settings` name; nothing is made or swept.

    Raises:
        SettingsError: They name neither.
    """
    return _kept_objects(settings)[0]


def prepared_objects(settings: ObjectsSettings) -> ObjectStore:
    """As `open_objects`, with its bucket made where it is missing.

    Raises:
        SettingsError: They name neither.
        ObjectError: The store does not answer, or refuses.
    """
    objects, prepare = _kept_objects(settings)
    prepare()
    return objects


def _kept_objects(settings: ObjectsSettings) -> tuple[ObjectStore, Callable[[], None]]:
    if not _is_kept(settings):
        raise SettingsError("no object store is set: give its address, or a folder")
    return _objects(settings)


def _is_kept(settings: ObjectsSettings) -> bool:
    return bool(settings.address or settings.folder)


async def _briefly(check: Check) -> None:
    """Wait until `check` passes, so that the first calls find a bucket, but not long for a server that is away."""
    with suppress(TimeoutError):
        async with asyncio.timeout(BEGIN_WITHIN.total_seconds()):
            while True:
                with suppress(TutelageError):
                    await check()
                    return
                await asyncio.sleep(0.05)


async def _tend(objects: ObjectStore, prepare: Callable[[], None]) -> None:
    """Prepare the store as soon as it answers, then delete what has expired, again and again."""
    pause = PREPARE_EVERY
    while True:
        try:
            await asyncio.to_thread(prepare)
            await asyncio.to_thread(objects.sweep)
            pause = SWEEP_EVERY
        except TutelageError as error:
            structlog.get_logger().warning("objects cannot be tended", code=error.code)
        await asyncio.sleep(pause.total_seconds())


def _connected(settings: RedisSettings) -> Redis:
    from tutelage.redis_server import connect  # noqa: PLC0415 - needs the extra `stores`

    return connect(settings.url)


def _objects(settings: ObjectsSettings) -> tuple[ObjectStore, Callable[[], None]]:
    """The store, and what makes it ready to be used."""
    if settings.address is None:
        assert settings.folder is not None  # noqa: S101 - callers see to it
        return FolderObjects(settings.folder), lambda: None
    from tutelage.s3_objects import S3Objects  # noqa: PLC0415 - needs the extra `stores`

    assert settings.access_key is not None  # noqa: S101 - the settings refuse an address without them
    assert settings.secret_key is not None  # noqa: S101
    store = S3Objects(
        str(settings.address),
        settings.bucket,
        access_key=settings.access_key.value.decode(),
        secret_key=settings.secret_key.value.decode(),
        secure=settings.tls,
        ca_file=settings.ca_file,
    )
    return store, store.ensure_bucket
