"""The one way to serve: a gRPC server whose health is true, which ends without dropping calls and hides its internals.

    service = Service(NAME, partial(add_XServicer_to_server, servicer), {"redis": redis.ping})
    async with Server(settings, [service], [metrics]) as server:
        await server.serve_until_signalled()

Every call of every kind runs inside the same layers, outermost first: the current call (request id, caller), logs,
those that the program adds (metrics), and innermost the translation of errors. Handlers are async: a coroutine for one
response, an async generator or a coroutine that uses `context.write` for many; requests of a stream are iterated over.

On SIGTERM or SIGINT health turns to NOT_SERVING, calls are still taken for `drain_notice` so that whoever balances load
can notice, then no more; running calls get `drain_grace` to end, the rest are cancelled. A second signal ends it at
once.

Kubernetes asks for health in plain text, whoever else must speak TLS: `probe_address` answers that, and nothing else.
A server answers for the name `alive` from its start to its end, also while a dependency is away or calls are drained:
what is restarted for another's fault does not come back any better.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Annotated, Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tutelage.calls import FRAME_BYTES, LOOKAHEAD_BYTES, Layer, call_current, calls_logged
from tutelage.errors import SettingsError
from tutelage.handlers import Interceptor
from tutelage.health import WHOLE_SERVER, Check, watch_health
from tutelage.running_calls import RunningCalls
from tutelage.settings import Address, Range
from tutelage.tls import CertificateFiles, Certificates, ServerTls

__all__ = ["ALIVE", "MAX_MESSAGE_BYTES", "Server", "ServerSettings", "Service"]

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""A batch of 64 captures of 256x256 that no PNG can shrink, at 16 bits, has 8 MiB; weights travel in chunks."""

KEEPALIVE_TIME_MS = 60_000
"""A connection on which nothing moved for this long is asked whether it still stands: home routers forget after less
than five minutes, and a device that lost power never says goodbye."""

KEEPALIVE_TIMEOUT_MS = 20_000
"""An answer to that question later than this means the connection is gone."""

LEAST_CLIENT_PING_MS = 20_000
"""Clients that ask more often than this are sent away; ours ask every 30 seconds."""

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", LEAST_CLIENT_PING_MS),
    ("grpc.http2.max_frame_size", FRAME_BYTES),
    ("grpc.http2.lookahead_bytes", LOOKAHEAD_BYTES),
    ("grpc.so_reuseport", 0),  # a second server on the same port is a mistake, not half of the load
)

CUT_EVERY_S = 0.05
"""How often a server that ends looks for watchers of its health that came in the last moment."""

ALIVE = "alive"
"""Name whose health is SERVING from the start to the end of the server, whatever its dependencies do."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class ServerSettings:
    """How a server listens, checks itself and ends."""

    address: Address = field(default_factory=lambda: Address("127.0.0.1", 50_051))
    """Where calls are taken, as host:port. Only this machine by default; a container sets 0.0.0.0:50051."""
    probe_address: Address | None = None
    """Where health, and nothing else, is asked for in plain text, as host:port: Kubernetes' probes speak no TLS.
    Absent: only where calls are taken."""
    concurrent_calls: Annotated[int, Range(1)] = 1_000
    """Calls answered at once; more are turned away as `service-unavailable` instead of making all of them slow."""
    health_interval: Annotated[timedelta, Range(0.01, 3_600)] = timedelta(seconds=5)
    """Seconds between two checks of what the services depend on."""
    health_timeout: Annotated[timedelta, Range(0.01, 600)] = timedelta(seconds=2)
    """Seconds after which a dependency that has not answered counts as down."""
    drain_notice: Annotated[timedelta, Range(0, 600)] = timedelta(seconds=2)
    """Seconds between NOT_SERVING and the refusal of new calls: what load balancers take to notice."""
    drain_grace: Annotated[timedelta, Range(0, 3_600)] = timedelta(seconds=20)
    """Seconds that running calls get to end; with the notice below the 30 that Kubernetes waits before it kills."""
    tls: ServerTls = field(default_factory=ServerTls)
    """How the server proves itself and whom it admits."""


@dataclass(frozen=True)
class Service:
    """One gRPC service and what it depends on."""

    name: str
    """Full name, `tutelage.api.registry.v1.ModelRegistryService`."""
    add: Callable[[grpc.aio.Server], object]
    """Adds the servicer: `partial(add_ModelRegistryServiceServicer_to_server, servicer)`."""
    checks: Mapping[str, Check] = field(default_factory=dict)
    """Dependencies by name; the service is SERVING only while all of them answer."""
    endless: Collection[str] = ()
    """Methods whose calls end only when their caller hangs up: a server that ends does not wait for them."""


class Server:
    """Serves from `start` to `drain`; a context manager does both."""

    def __init__(self, settings: ServerSettings, services: Sequence[Service], layers: Sequence[Layer] = ()) -> None:
        """Bind the address; `layers` (metrics, traces) go around every call.

        Must be made inside the event loop that will serve.

        Raises:
            SettingsError: The address cannot be bound, or the certificates cannot be used.
        """
        self._settings = settings
        self._services = services
        self._running = RunningCalls({(service.name, method) for service in services for method in service.endless})
        self._signalled = asyncio.Event()
        self._hurry = asyncio.Event()
        self._draining: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        interceptor = Interceptor((call_current, calls_logged, *layers), self._running)
        self._grpc = grpc.aio.server(
            interceptors=[interceptor], options=OPTIONS, maximum_concurrent_rpcs=settings.concurrent_calls
        )
        self._health = health.aio.HealthServicer()
        self._add_services()
        self.port = _bound(self._grpc, settings.address, _credentials(settings.tls))
        """The TCP port that is listened on, chosen by the system where the settings say 0."""
        self._probes: grpc.aio.Server | None = None
        self.probe_port: int | None = None
        """The one where health is asked for in plain text, if the settings name it."""
        if settings.probe_address is not None:
            self._probes = grpc.aio.server(options=OPTIONS)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._probes)
            self.probe_port = _bound(self._probes, settings.probe_address, None)

    def _add_services(self) -> None:
        for service in self._services:
            service.add(self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        own = [service.name for service in self._services]
        reflection.enable_server_reflection((*own, health.SERVICE_NAME, reflection.SERVICE_NAME), self._grpc)

    async def start(self) -> None:
        """Take calls; health is NOT_SERVING until the dependencies have answered."""
        await self._report_all(serving=False)
        await self._report(ALIVE, serving=True)
        for server in self._servers():
            await server.start()
        self._watching = asyncio.create_task(
            watch_health(
                {service.name: service.checks for service in self._services},
                self._report,
                interval_s=self._settings.health_interval.total_seconds(),
                timeout_s=self._settings.health_timeout.total_seconds(),
            )
        )
        structlog.get_logger().info("server started", port=self.port, services=[s.name for s in self._services])

    def _servers(self) -> list[grpc.aio.Server]:
        return [self._grpc, *([self._probes] if self._probes is not None else [])]

    async def _report_all(self, *, serving: bool) -> None:
        for name in (WHOLE_SERVER, *(service.name for service in self._services)):
            await self._report(name, serving)

    async def _report(self, service: str, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set(service, status)

    async def drain(self) -> None:
        """End as the settings say: first NOT_SERVING, then no new calls, then nothing; any number may wait for it."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        await asyncio.shield(self._draining)

    async def _drain(self) -> None:
        structlog.get_logger().info("server draining", running=self._running.count)
        if self._watching is not None:
            self._watching.cancel()
        await self._report_all(serving=False)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), self._settings.drain_notice.total_seconds())
        # Once, and never again: a second stop while one runs has been seen to crash grpcio 1.85.
        stopping = asyncio.create_task(self._grpc.stop(self._settings.drain_grace.total_seconds()))
        while not stopping.done():
            # Whoever watches health never hangs up: only our own calls are worth the whole grace period.
            self._running.cut(own=self._hurry.is_set())
            await asyncio.wait({stopping}, timeout=CUT_EVERY_S)
        await stopping
        if self._probes is not None:
            await self._probes.stop(None)
        structlog.get_logger().info("server stopped")

    async def stop(self) -> None:
        """End at once; running calls end as `service-unavailable`, and a `drain` that waits does so no longer."""
        self._hurry.set()
        await self.drain()

    async def serve_until_signalled(self) -> None:
        """Return after SIGTERM or SIGINT, once drained; a second signal cuts that short."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        try:
            await self._signalled.wait()
            await self.drain()
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._signalled.is_set():
            self._cut = asyncio.create_task(self.stop())
        self._signalled.set()

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain()


def _bound(server: grpc.aio.Server, address: Address, credentials: grpc.ServerCredentials | None) -> int:
    """The port of `server` at `address`, in plain text without `credentials`.

    Raises:
        SettingsError: The address cannot be bound.
    """
    try:
        if credentials is None:
            return server.add_insecure_port(str(address))
        return server.add_secure_port(str(address), credentials)
    except RuntimeError as error:
        raise SettingsError(f"calls cannot be taken at {address}: choose an address that is free") from error


def _credentials(tls: ServerTls) -> grpc.ServerCredentials | None:
    """What `tls` asks for, with files looked at anew for every connection; None for plain text."""
    if tls.certificate_file is None:
        return None
    files = CertificateFiles(certificate=tls.certificate_file, key=tls.key_file, authorities=tls.client_ca_file)
    return grpc.dynamic_ssl_server_credentials(
        _configuration(files.current()),
        lambda: _configuration(files.current()),
        require_client_authentication=tls.client_ca_file is not None,
    )


def _configuration(now: Certificates) -> Any:
    return grpc.ssl_server_certificate_configuration([(now.key or b"", now.chain or b"")], now.authorities)
