"""The registry: what its calls do, over an object store that holds the truth and an index that finds things in it.

A version is made in one order: file, manifest, index. Whatever breaks in between is either invisible (a file without a
manifest) or found again (a manifest that is not in the index): `rebuild` makes the index from the manifests and the
histories of the channels, and is run by itself where the index says that it is not built.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from prometheus_client import CollectorRegistry

from model_registry.arrivals import Arrival, Budget
from model_registry.channels import ChannelChange, Channels
from model_registry.departures import Departures
from model_registry.index import Devices, Index, VersionFilter
from model_registry.registry_metrics import RegistryMetrics
from model_registry.uploads import Upload, Uploads
from model_registry.versions import VERSIONS_PREFIX, Lineage, Version, version_key
from tutelage.archive import whole
from tutelage.errors import Code, ObjectError, PackageError, RequestError
from tutelage.objects import ObjectStore, object_key
from tutelage.package import PackageManifest, verify_package
from tutelage.paging import page_token, place_in
from tutelage.stored_packages import StoredPackage, point_to_package

__all__ = ["Received", "Registry"]

T = TypeVar("T")


@dataclass(frozen=True)
class Received:
    """What came of an upload."""

    version: Version | None
    """None while bytes are still missing."""
    stored_bytes: int
    """Bytes that are kept from the file's beginning."""


class Registry:
    """Versions and channels; safe for any number of registries over one store and one index."""

    def __init__(
        self,
        objects: ObjectStore,
        index: Index,
        *,
        trusted: Sequence[Ed25519PublicKey],
        upload_budget: Budget,
        download_memory_bytes: int = 0,
        metrics: RegistryMetrics | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Keep only packages that one of `trusted` signed; `now` is the clock of times that are kept.

        Files uploaded or downloaded last stay in memory, up to `download_memory_bytes`.
        """
        self._objects, self._index, self._trusted, self._now = objects, index, trusted, now
        self._channels, self._uploads = Channels(objects), Uploads(objects)
        self._budget = upload_budget
        self._departures = Departures(objects, download_memory_bytes)
        self._metrics = metrics or RegistryMetrics(CollectorRegistry())
        self._building = asyncio.Lock()

    async def receive(self, upload: Upload, *, offset: int, lineage: Lineage, chunks: AsyncIterator[bytes]) -> Received:
        """Take the bytes of `upload` from `offset` on; a stream that breaks leaves what came for the next call.

        Raises:
            ObjectError: `object-range`, with the fact `stored_bytes`: the upload does not stand at `offset`.
            PackageError: It is damaged or not signed by a trusted key; nothing is kept.
            RequestError: More bytes came than were said; `request-conflict`, another package has that name and version.
        """
        if (version := await self.find(upload.digest)) is not None:
            return Received(version, version.size_bytes)
        first = await anext(chunks, None)
        if first is None or offset:  # from the beginning, whatever is kept does not matter
            stored = await self._do(self._uploads.stored_bytes, upload, self._now())
            if not offset:
                return Received(None, stored)
            if offset != stored:
                raise _elsewhere(offset, stored)
        self._budget.take(upload.size_bytes)
        try:
            return await self._arrive(upload, offset, lineage, _with_first(first, chunks))
        finally:
            self._budget.give_back(upload.size_bytes)

    async def _arrive(self, upload: Upload, offset: int, lineage: Lineage, chunks: AsyncIterator[bytes]) -> Received:
        """Store what is kept and what comes; keep what came where the stream ends, breaks or is cancelled too early."""
        arrival = Arrival(self._objects, upload, partial(self._verified, upload))
        try:
            if offset:
                await self._do(self._resume, arrival, upload)
            async for chunk in chunks:
                arrival.add(chunk)
                self._metrics.received(len(chunk))
        except (RequestError, ObjectError):
            await arrival.cut()
            raise
        except BaseException:
            await self._keep(arrival, upload, offset)
            raise
        if not arrival.is_whole:
            return Received(None, await self._keep(arrival, upload, offset))
        return Received(await self._complete(arrival, upload, offset, lineage), upload.size_bytes)

    def _resume(self, arrival: Arrival, upload: Upload) -> None:
        for chunk in self._uploads.read(upload, self._now()):
            arrival.add(chunk)

    async def _keep(self, arrival: Arrival, upload: Upload, offset: int) -> int:
        """Keep what arrived, although the call may be cancelled meanwhile: its stream ends a moment before."""
        return await asyncio.shield(asyncio.ensure_future(self._kept(arrival, upload, offset)))

    async def _kept(self, arrival: Arrival, upload: Upload, offset: int) -> int:
        await arrival.cut()
        data = partial(bytes, arrival.data(offset))
        return await self._do(lambda: self._uploads.keep(upload, data(), offset=offset, now=self._now()))

    async def _complete(self, arrival: Arrival, upload: Upload, offset: int, lineage: Lineage) -> Version:
        try:
            package = await arrival.finish()
        except PackageError:
            await self._do(self._uploads.drop, upload)
            raise
        version = await self._publish(package, upload, lineage)
        self._departures.remember(upload.file_digest, arrival.data())
        if offset:  # what another call may have kept of a file that now came whole is forgotten when its time runs out
            await self._do(self._uploads.drop, upload)
        return version

    def _verified(
        self, upload: Upload, data: bytes | memoryview, arrived: Callable[[int], None] = whole
    ) -> PackageManifest:
        """What the package in these bytes says of itself, once they have `arrived`; the store compares `file_digest`.

        Raises:
            PackageError: It is not, it is damaged, or nobody trusted signed it.
        """
        package = verify_package(data, trusted=self._trusted, arrived=arrived)
        if package.digest != upload.digest:
            raise PackageError(Code.PACKAGE_CORRUPT, f"the bytes are the package {package.digest}, not digest")
        return package

    async def adopt(self, upload: Upload, lineage: Lineage) -> Version:
        """Make a version of a package whose file is in the object store already; again is no harm.

        Raises:
            ObjectError: `object-missing`, the file is not there.
            PackageError: It is damaged or not signed by a trusted key.
            RequestError: `request-conflict`, another package has that name and version.
        """
        if (version := await self.find(upload.digest)) is not None:
            return version
        data = await self._do(lambda: b"".join(self._objects.read(object_key(upload.file_digest))))
        return await self._publish(await self._do(self._verified, upload, data), upload, lineage)

    async def _publish(self, package: PackageManifest, upload: Upload, lineage: Lineage) -> Version:
        """Write the manifest, once, and tell the index."""
        version = Version.of(
            package,
            file_digest=upload.file_digest,
            size_bytes=upload.size_bytes,
            lineage=lineage,
            now=self._now(),
        )
        kept = await self._do(self._created, version)
        await self._index.add(kept)
        if kept is version:
            self._metrics.created()
            structlog.get_logger().info("version created", student=version.name, version=version.version)
        return kept

    def _created(self, version: Version) -> Version:
        """`version` as it is in the store, whoever put it there."""
        key = version_key(version.name, version.version)
        # For jobs that go on from this package; before the manifest, so that no version is without it. It refuses
        # where the file is missing.
        point_to_package(self._objects, StoredPackage(version.digest, version.file_digest, version.size_bytes))
        try:
            self._objects.create(key, version.as_bytes())
        except ObjectError as error:
            if error.code is not Code.OBJECT_CONFLICT:
                raise
            found = Version.from_bytes(self._objects.get(key).data)
            if found.digest != version.digest:
                raise RequestError(
                    f"{version.name} {version.version} is another package: give yours another version",
                    Code.REQUEST_CONFLICT,
                ) from error
            return found
        return version

    async def find(self, digest: str) -> Version | None:
        """The version of this digest, if there is one."""
        return await self._sure(lambda: self._index.version(digest))

    async def get(self, digest: str) -> Version:
        """The version of this digest.

        Raises:
            ObjectError: `object-missing`.
        """
        version = await self.find(digest)
        if version is None:
            raise ObjectError(Code.OBJECT_MISSING, f"there is no version {digest}: create it, or check the digest")
        return version

    async def named(self, name: str, version: str) -> Version:
        """The version that people call so.

        Raises:
            ObjectError: `object-missing`.
        """
        try:
            return Version.from_bytes((await self._do(self._objects.get, version_key(name, version))).data)
        except ObjectError as error:
            if error.code is not Code.OBJECT_MISSING:
                raise
            raise ObjectError(Code.OBJECT_MISSING, f"there is no {name} {version}: check name and version") from error

    async def devices(self, digest: str) -> Devices:
        """Who runs the version of this digest."""
        return await self._index.devices(digest)

    async def page(self, wanted: VersionFilter, *, token: str, limit: int) -> tuple[Sequence[Version], str]:
        """Versions, the latest created first, and the token of the next page.

        Raises:
            RequestError: The token is not of this listing.
        """
        question = tuple(vars(wanted).values())
        after = place_in(token, *question)
        if not await self._index.is_built():
            await self.rebuild()
        versions, place = await self._index.page(wanted, after=after, limit=limit)
        return versions, page_token(place, *question)

    async def read(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """The file of a version from `offset` on, in pieces.

        Raises:
            ObjectError: `object-missing`; `object-range`, the offset is beyond its end.
        """
        async for piece in self._departures.read(await self.get(digest), offset):
            yield piece
            self._metrics.sent(len(piece))

    async def set_channel(
        self, channel: str, digest: str, *, expected: str | None, reason: str, actor: str | None
    ) -> tuple[Version, ChannelChange]:
        """Point `channel` to a version, if it points to the `expected` one (None: to none) now.

        Raises:
            ObjectError: `object-missing`, no such version; `object-conflict`, it points elsewhere.
        """
        version = await self.get(digest)
        latest = await self.latest(channel)
        if (latest.digest if latest else None) != expected:
            now = latest.digest if latest else "no version yet"
            raise ObjectError(
                Code.OBJECT_CONFLICT, f"channel {channel} points to {now}, not to expected_digest: decide anew"
            )
        append = partial(self._channels.append, latest, channel, digest, reason=reason, actor=actor, now=self._now())
        change = await self._do(append)
        await self._index.set_channel(change)
        structlog.get_logger().info("channel set", channel=channel, number=change.number, version=version.version)
        return version, change

    async def latest(self, channel: str) -> ChannelChange | None:
        """The latest change of a channel, as the store has it; None if it was never set."""
        known = await self._index.channel(channel)
        latest = await self._do(partial(self._channels.latest, channel, known=known))
        if latest is not None and latest != known:
            await self._index.set_channel(latest)
        return latest

    async def channel(self, channel: str) -> tuple[Version, ChannelChange]:
        """Where a channel points.

        Raises:
            ObjectError: `object-missing`, it was never set.
        """
        change = await self._latest_of(channel)
        return await self.get(change.digest), change

    async def history(self, channel: str, *, token: str, limit: int) -> tuple[Sequence[ChannelChange], str]:
        """Changes of a channel, the latest first, and the token of the next page.

        Raises:
            ObjectError: `object-missing`, it was never set.
            RequestError: The token is not of this listing.
        """
        place = place_in(token, channel)
        newest = int(place) if place.isdecimal() else (await self._latest_of(channel)).number
        changes = await self._do(lambda: list(self._channels.history(channel, newest=newest, count=limit)))
        rest = newest - len(changes)
        return changes, page_token(str(rest) if rest else "", channel)

    async def _latest_of(self, channel: str) -> ChannelChange:
        latest = await self.latest(channel)
        if latest is None:
            raise ObjectError(Code.OBJECT_MISSING, f"channel {channel} was never set: set it, or check its name")
        return latest

    async def rebuild(self, report: Callable[[int], None] = lambda _: None) -> int:
        """Make the index anew from the store, telling `report` of each version; how many versions there are.

        Calls go on meanwhile; what is created during it is in the index too.
        """
        async with self._building:
            await self._index.clear()
            count, after = 0, ""
            while True:
                page = await self._do(partial(self._objects.list, VERSIONS_PREFIX, after=after))
                for key in page.keys:
                    await self._index.add(Version.from_bytes((await self._do(self._objects.get, key)).data))
                    count += 1
                    report(count)
                if page.after is None:
                    break
                after = page.after
            await self.refresh()
            await self._index.mark_built()
            structlog.get_logger().info("index built", versions=count)
            return count

    async def refresh(self) -> None:
        """Tell the index of what other registries did to channels, and forget uploads that ended."""
        for name in await self._do(self._channels.names):
            await self.latest(name)
        await self._do(self._uploads.sweep, self._now())

    async def _sure(self, look: Callable[[], Awaitable[T | None]]) -> T | None:
        """What `look` finds in the index, which is built first where it finds nothing because it is empty."""
        found = await look()
        if found is None and not await self._index.is_built():
            await self.rebuild()
            found = await look()
        return found

    @staticmethod
    async def _do(work: Callable[..., T], *words: object) -> T:
        return await asyncio.to_thread(work, *words)


async def _with_first(first: bytes | None, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first is not None:
        yield first
    async for chunk in chunks:
        yield chunk


def _elsewhere(offset: int, stored: int) -> ObjectError:
    error = ObjectError(Code.OBJECT_RANGE, f"the upload stands at {stored}, not at {offset}: go on from there")
    error.facts = {"stored_bytes": str(stored)}
    return error
