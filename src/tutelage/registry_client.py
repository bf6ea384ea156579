"""The model registry, for callers that wait: publishes packages, and brings a device the version its channel wants.

    with RegistryClient(ChannelSettings(address), timeout=timedelta(seconds=30)) as registry:
        wanted = registry.check_in("gate-7", "stable", state).wanted
        package = registry.download(wanted)

A transfer that breaks goes on where it stopped. What was downloaded has the digest that was wanted, or is refused;
whether to trust it is for `tutelage.package.read_package` to say.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from tutelage.api.registry.v1 import registry_pb2 as pb
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.archive import unpack
from tutelage.channel import ChannelSettings, idempotent_methods
from tutelage.errors import CATALOGUE, Code, PackageError, TutelageError
from tutelage.package import MANIFEST
from tutelage.waiting_channel import WaitingChannel

__all__ = ["RegistryClient"]

CHUNK_BYTES = 1 << 20
"""Of one message."""

TRIES = 5
"""Times that a transfer is begun or gone on with, at most."""

_METHODS = idempotent_methods(pb.DESCRIPTOR.services_by_name["ModelRegistryService"])


class RegistryClient:
    """Calls the registry; any number of threads may use it; a context manager.

    Every method may raise what the service's catalogue has, among it `service-unavailable` and `deadline-exceeded`,
    after which it may be called again.
    """

    def __init__(self, settings: ChannelSettings, *, timeout: timedelta) -> None:
        """Call the registry that `settings` lead to, with `timeout` for each call, tries included.

        Raises:
            SettingsError: the certificates cannot be used.
        """
        self._timeout = timeout
        self._channel = WaitingChannel(settings, ModelRegistryServiceStub, idempotent=_METHODS)
        self._stub = self._channel.stub

    def publish(self, package: bytes, *, lineage: pb.Lineage | None = None) -> pb.Version:
        """The version that `package` is in the registry, uploaded unless it is there.

        Raises:
            PackageError: it is damaged or not signed by a key that the registry trusts.
            RequestError: `request-conflict`, another package has its name and version.
        """
        header = pb.UploadHeader(
            digest=_digest(unpack(package)[MANIFEST]),
            file_digest=_digest(package),
            size_bytes=len(package),
            lineage=lineage,
        )
        for turn in range(TRIES):
            try:
                stored = self._create(header, package, None)
                done = stored if stored.HasField("version") else self._create(header, package, stored.stored_bytes)
            except TutelageError as error:
                if turn == TRIES - 1 or not CATALOGUE[error.code].retryable:
                    raise
            else:
                return done.version
        raise AssertionError("the last try returns or raises")

    def _create(self, header: pb.UploadHeader, package: bytes, offset: int | None) -> pb.CreateVersionResponse:
        """Send `package` from `offset` on; without one, ask where the upload stands."""

        async def messages() -> AsyncIterator[pb.CreateVersionRequest]:
            header.offset = offset or 0
            yield pb.CreateVersionRequest(header=header)
            for start in range(len(package) if offset is None else offset, len(package), CHUNK_BYTES):
                yield pb.CreateVersionRequest(chunk=package[start : start + CHUNK_BYTES])

        response: pb.CreateVersionResponse = self._ask(self._stub.CreateVersion, messages())
        return response

    def set_channel(self, channel: str, digest: str, *, expected: str | None, reason: str) -> pb.Channel:
        """Point `channel` to the version of this digest, if it points to the `expected` one (None: to none) now.

        Raises:
            ObjectError: `object-conflict`, it points elsewhere; `object-missing`, no such version.
        """
        request = pb.SetChannelRequest(channel=channel, digest=digest, expected_digest=expected, reason=reason)
        found: pb.Channel = self._ask(self._stub.SetChannel, request).channel
        return found

    def wanted_of(self, channel: str) -> pb.WantedVersion:
        """The version that `channel` points to, for a device that has none to check in with.

        Raises:
            ObjectError: `object-missing`, the channel was never set.
        """
        version = self._ask(self._stub.GetChannel, pb.GetChannelRequest(channel=channel)).channel.version
        return pb.WantedVersion(
            digest=version.digest,
            name=version.name,
            version=version.version,
            file_digest=version.file_digest,
            size_bytes=version.size_bytes,
        )

    def check_in(self, device_id: str, channel: str, state: pb.DeviceState) -> pb.CheckInResponse:
        """What the device should run, and when to ask again."""
        request = pb.CheckInRequest(device_id=device_id, channel=channel, state=state)
        response: pb.CheckInResponse = self._ask(self._stub.CheckIn, request)
        return response

    def download(self, wanted: pb.WantedVersion) -> bytes:
        """The file of the version that a check-in named.

        Raises:
            PackageError: `package-corrupt`, what came has another digest; nothing of it should be used.
        """
        data = bytearray()
        for turn in range(TRIES):
            try:
                request = pb.DownloadVersionRequest(digest=wanted.digest, offset=len(data))
                for answer in self._channel.listen(self._stub.DownloadVersion, request, timeout=self._timeout):
                    data += answer.chunk
            except TutelageError as error:
                if turn == TRIES - 1 or not CATALOGUE[error.code].retryable:
                    raise
            else:
                break
        if _digest(data) != wanted.file_digest:
            raise PackageError(Code.PACKAGE_CORRUPT, "the download does not have the digest it should: fetch it again")
        return bytes(data)

    def close(self) -> None:
        """End the connection; calls that still run fail as `call-cancelled`."""
        self._channel.close()

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, method: Any, request: Any) -> Any:
        return self._channel.ask(method, request, timeout=self._timeout)


def _digest(data: bytes | bytearray | memoryview) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
