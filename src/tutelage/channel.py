"""The one way to call a service: a channel that insists on deadlines and raises the errors of the catalogue.

    async with Channel(settings, idempotent=idempotent_methods(service_descriptor)) as channel:
        stub = ModelRegistryServiceStub(channel)
        version = await stub.GetVersion(request, timeout=2)
        async for progress in stub.WatchJob(request, timeout=3600): ...

A call is a coroutine, or an async iterator where the service answers with a stream; it begins once it is awaited or
iterated over, and cancelling that cancels the call. Deadlines are seconds for the call as a whole, tries included. A
call is tried again where its method is idempotent, its request no stream, no answer has come yet, and the catalogue
says that the failure may pass. Request ids go along. Certificates that change on disk are used by a new connection
under the same channel; running calls end on the old one.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tutelage.calls import FRAME_BYTES, LOOKAHEAD_BYTES, REQUEST_ID_KEY, current_call, request_id_from
from tutelage.errors import CATALOGUE, Code, ServiceError, TutelageError
from tutelage.grpc_errors import error_from_call
from tutelage.settings import Address
from tutelage.tls import CertificateFiles, Certificates, ClientTls
from tutelage.traces import SpanKind, propagated, span

__all__ = ["Channel", "ChannelSettings", "idempotent_methods", "serving"]

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""As our servers: what they would refuse is not sent."""

KEEPALIVE_TIME_MS = 30_000
"""A connection on which nothing moved for this long is asked whether it still stands; servers allow every 20 s."""

KEEPALIVE_TIMEOUT_MS = 10_000
"""An answer to that question later than this means the connection is gone."""

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.http2.max_frame_size", FRAME_BYTES),
    ("grpc.http2.lookahead_bytes", LOOKAHEAD_BYTES),
    ("grpc.enable_retries", 0),  # here, where the catalogue is known; twice would multiply
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),  # gRPC's two minutes would outlive a restart by far
    # Whoever was restarted may have another address: half a minute, gRPC's own, is long before a closed door.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
)

FIRST_PAUSE_S = 0.1
"""Before the second try at most; doubled for each further one."""

MAX_PAUSE_S = 5.0
"""Longest pause between two tries."""

Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True)
class ChannelSettings:
    """Where a service is and how to reach it."""

    address: Address
    """Where the service takes calls, as host:port."""
    tls: ClientTls = field(default_factory=ClientTls)
    """How the service is recognised, and how this client proves itself."""


def idempotent_methods(*services: ServiceDescriptor) -> frozenset[str]:
    """Methods of `services`, as `/package.Service/Method`, whose .proto sets `idempotency_level`."""
    levels = (MethodOptions.IDEMPOTENT, MethodOptions.NO_SIDE_EFFECTS)
    return frozenset(
        f"/{service.full_name}/{method.name}"
        for service in services
        for method in service.methods
        if method.GetOptions().idempotency_level in levels
    )


async def serving(channel: Channel, service: str, *, timeout: float) -> bool:
    """Whether `service`, by its full name, says that it serves now; asked once, within `timeout` seconds.

    Raises:
        ServiceError: Nobody answers there, or a server without that service does.
    """
    health: Any = health_pb2_grpc.HealthStub(cast(Any, channel))
    answer = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class Channel:
    """Takes the place of a `grpc.aio.Channel` under generated stubs; a context manager."""

    def __init__(self, settings: ChannelSettings, *, idempotent: Collection[str] = ()) -> None:
        """Connect on the first call; calls of the methods `idempotent` (`/package.Service/Method`) may be repeated.

        Raises:
            SettingsError: The certificates cannot be used.
        """
        self._settings = settings
        self._idempotent = frozenset(idempotent)
        tls = settings.tls
        self._files = CertificateFiles(certificate=tls.certificate_file, key=tls.key_file, authorities=tls.ca_file)
        self._certificates = self._files.current()
        self._connection = _Connection(self._open(self._certificates))

    def _open(self, certificates: Certificates) -> grpc.aio.Channel:
        address, tls = str(self._settings.address), self._settings.tls
        if not tls.enabled:
            return grpc.aio.insecure_channel(address, OPTIONS)
        name = (("grpc.ssl_target_name_override", tls.server_name),) if tls.server_name else ()
        credentials = grpc.ssl_channel_credentials(certificates.authorities, certificates.key, certificates.chain)
        return grpc.aio.secure_channel(address, credentials, (*OPTIONS, *name))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[grpc.aio.Channel]:
        """The connection with the certificates of now; an older one is closed when its last call has ended."""
        certificates = self._files.current()
        if certificates is not self._certificates:
            self._certificates, old = certificates, self._connection
            self._connection = _Connection(self._open(certificates))
            await old.retire()
        connection = self._connection
        connection.calls += 1
        try:
            yield connection.channel
        finally:
            connection.calls -= 1
            await connection.close_if_idle()

    async def close(self) -> None:
        """End the connection; running calls fail as `call-cancelled`."""
        await self._connection.channel.close()

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def unary_unary(self, method: str, *coders: Any, **named: Any) -> Callable[..., Coroutine[Any, Any, Any]]:
        """What a stub calls for a method with one request and one answer."""
        return self._one("unary_unary", method, coders, named)

    def stream_unary(self, method: str, *coders: Any, **named: Any) -> Callable[..., Coroutine[Any, Any, Any]]:
        """What a stub calls for a method with many requests and one answer."""
        return self._one("stream_unary", method, coders, named)

    def unary_stream(self, method: str, *coders: Any, **named: Any) -> Callable[..., AsyncIterator[Any]]:
        """What a stub calls for a method with one request and many answers."""
        return self._many("unary_stream", method, coders, named)

    def stream_stream(self, method: str, *coders: Any, **named: Any) -> Callable[..., AsyncIterator[Any]]:
        """What a stub calls for a method with many requests and many answers."""
        return self._many("stream_stream", method, coders, named)

    def _one(self, kind: str, method: str, coders: Any, named: Any) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def call(request: Any, *, timeout: float | None = None, metadata: Metadata = ()) -> Any:
            tries = self._tries(kind, method, timeout, metadata)
            while True:
                try:
                    with span(method[1:], SpanKind.CLIENT):
                        async with self._connected() as channel:
                            bound = getattr(channel, kind)(method, *coders, **named)
                            return await bound(request, **tries.words())
                except grpc.aio.AioRpcError as error:
                    await tries.pause_after(error_from_call(error))

        return call

    def _many(self, kind: str, method: str, coders: Any, named: Any) -> Callable[..., AsyncIterator[Any]]:
        async def call(
            request: Any,
            *,
            timeout: float | None = None,
            metadata: Metadata = (),
        ) -> AsyncIterator[Any]:
            tries = self._tries(kind, method, timeout, metadata)
            while True:
                try:
                    async with self._connected() as channel:
                        running = getattr(channel, kind)(method, *coders, **named)(request, **tries.words())
                        async with aclosing(_answers(running)) as answers:
                            async for answer in answers:
                                tries.repeatable = False  # what was handed on cannot be taken back
                                yield answer
                        return
                except grpc.aio.AioRpcError as error:
                    await tries.pause_after(error_from_call(error))

        return call

    def _tries(self, kind: str, method: str, timeout: float | None, metadata: Metadata) -> _Tries:
        if timeout is None:
            raise ServiceError(
                Code.DEADLINE_MISSING, f"{method} was called without a deadline: give it timeout=seconds"
            )
        repeatable = method in self._idempotent and kind.startswith("unary")
        return _Tries(time.monotonic() + timeout, repeatable, (*metadata, *_forwarded(metadata)))


async def _answers(running: Any) -> AsyncGenerator[Any, None]:
    """The answers of a running call, which is cancelled when nobody wants more of them."""
    try:
        async for answer in running:
            yield answer
    finally:
        running.cancel()


def _forwarded(metadata: Metadata) -> Metadata:
    """The request id of the call that is being answered, or a new one; unless the caller gave one."""
    if any(key == REQUEST_ID_KEY for key, _ in metadata):
        return ()
    call = current_call()
    return ((REQUEST_ID_KEY, call.request_id if call else request_id_from({})),)


@dataclass
class _Tries:
    """The tries of one call."""

    deadline: float
    """On the monotonic clock, for all of them together."""
    repeatable: bool
    metadata: Metadata
    failed: int = 0

    def words(self) -> dict[str, Any]:
        """What gRPC is told for the next try."""
        left = max(0.0, self.deadline - time.monotonic())
        return {"timeout": left, "metadata": (*self.metadata, *propagated().items())}

    async def pause_after(self, error: TutelageError) -> None:
        """Return when it is time for another try; raise `error` where there must be none."""
        # Full jitter: clients that failed together do not come back together.
        pause = random.uniform(0, min(MAX_PAUSE_S, FIRST_PAUSE_S * 2**self.failed))
        in_time = time.monotonic() + pause < self.deadline
        if not (self.repeatable and in_time and CATALOGUE[error.code].retryable):
            raise error
        self.failed += 1
        await asyncio.sleep(pause)


class _Connection:
    """A gRPC channel and how many calls run on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.calls = 0
        self._retired = False

    async def retire(self) -> None:
        """Close once the last call has ended."""
        self._retired = True
        await self.close_if_idle()

    async def close_if_idle(self) -> None:
        if self._retired and not self.calls:
            await self.channel.close()
