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
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, aclosing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Annotated, Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tutelage.calls import (
    ANONYMOUS,
    FRAME_BYTES,
    LOOKAHEAD_BYTES,
    Call,
    Caller,
    Layer,
    call_current,
    calls_logged,
    request_id_from,
)
from tutelage.errors import Code, RequestError, ServiceError, SettingsError, Status
from tutelage.grpc_errors import status_for
from tutelage.health import Check, watch_health
from tutelage.running_calls import RunningCalls
from tutelage.settings import Address, Range
from tutelage.tls import CertificateFiles, Certificates, ServerTls

__all__ = ["MAX_MESSAGE_BYTES", "Server", "ServerSettings", "Service"]

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

SIGNALS = (signal.SIGTERM, signal.SIGINT)
UNKNOWN = "unknown"


@dataclass(frozen=True)
class ServerSettings:
    """How a server listens, checks itself and ends."""

    address: Address = field(default_factory=lambda: Address("127.0.0.1", 50_051))
    """Where calls are taken, as host:port. Only this machine by default; a container sets 0.0.0.0:50051."""
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
        interceptor = _Interceptor((call_current, calls_logged, *layers), self._running)
        self._grpc = grpc.aio.server(
            interceptors=[interceptor], options=OPTIONS, maximum_concurrent_rpcs=settings.concurrent_calls
        )
        self._health = health.aio.HealthServicer()
        self._add_services()
        self.port = self._bind()
        """The TCP port that is listened on, chosen by the system where the settings say 0."""

    def _add_services(self) -> None:
        for service in self._services:
            service.add(self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        own = [service.name for service in self._services]
        reflection.enable_server_reflection((*own, health.SERVICE_NAME, reflection.SERVICE_NAME), self._grpc)

    def _bind(self) -> int:
        address = str(self._settings.address)
        credentials = _credentials(self._settings.tls)
        try:
            if credentials is None:
                return self._grpc.add_insecure_port(address)
            return self._grpc.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise SettingsError(f"calls cannot be taken at {address}: choose an address that is free") from error

    async def start(self) -> None:
        """Take calls; health is NOT_SERVING until the dependencies have answered."""
        for name in ("", *(service.name for service in self._services)):
            await self._report(name, serving=False)
        await self._grpc.start()
        self._watching = asyncio.create_task(
            watch_health(
                {service.name: service.checks for service in self._services},
                self._report,
                interval_s=self._settings.health_interval.total_seconds(),
                timeout_s=self._settings.health_timeout.total_seconds(),
            )
        )
        structlog.get_logger().info("server started", port=self.port, services=[s.name for s in self._services])

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
        await self._health.enter_graceful_shutdown()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), self._settings.drain_notice.total_seconds())
        # Once, and never again: a second stop while one runs has been seen to crash grpcio 1.85.
        stopping = asyncio.create_task(self._grpc.stop(self._settings.drain_grace.total_seconds()))
        while not stopping.done():
            # Whoever watches health never hangs up: only our own calls are worth the whole grace period.
            self._running.cut(own=self._hurry.is_set())
            await asyncio.wait({stopping}, timeout=CUT_EVERY_S)
        await stopping
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


class _Interceptor(grpc.aio.ServerInterceptor):
    """Runs every handler, of each of the four kinds, inside the layers."""

    def __init__(self, layers: Sequence[Layer], running: RunningCalls) -> None:
        self._layers: tuple[Layer, ...] = (*layers, running)
        self._running = running

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return grpc.stream_unary_rpc_method_handler(self._around(_refuse_unknown, UNKNOWN, UNKNOWN))
        _, service, method = handler_call_details.method.split("/")
        make, work = _unwrapped(handler)
        return make(self._around(work, service, method))

    def _around(self, work: _Work, service: str, method: str) -> _Work:
        async def answered(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            call = _call(context, service, method)
            with ExitStack() as stack:
                for layer in self._layers:
                    stack.enter_context(layer(call))
                return await _translated(work, request, context, call, self._running.is_cut)

        return answered


_Work = Callable[[Any, Any], Any]
"""A coroutine function: undecoded request or requests, context -> encoded response, or None after writing many."""


async def _translated(
    work: _Work,
    request: Any,
    context: grpc.aio.ServicerContext[Any, Any],
    call: Call,
    is_cut: Callable[[], bool],
) -> Any:
    """What `work` answers; its failures leave as the catalogue says."""
    try:
        answer = await work(request, context)
    except grpc.aio.AbortError:  # the handler chose a status by itself
        call.status = _status_name(context.code(), Status.UNKNOWN)
        raise
    except asyncio.CancelledError:
        if is_cut():
            await _refuse(context, call, ServiceError(Code.SERVICE_UNAVAILABLE, "this server is ending: try again"))
        remaining = context.time_remaining()
        over = remaining is not None and remaining <= 0
        call.status = Status.DEADLINE_EXCEEDED if over else Status.CANCELLED
        raise
    except Exception as error:
        await _refuse(context, call, error)
    call.status = _status_name(context.code(), Status.OK)
    return answer


async def _refuse(context: grpc.aio.ServicerContext[Any, Any], call: Call, error: Exception) -> None:
    """End the call with the status of `error`; raises."""
    status = status_for(error)
    call.status = _status_name(status.code, Status.UNKNOWN)
    await context.abort(status.code, status.details, status.trailing_metadata)


def _status_name(code: Any, otherwise: Status) -> Status:
    """The catalogue's name of gRPC's `code`, which it gives as a member, a number or not at all."""
    found = next((known for known in grpc.StatusCode if code in (known, known.value[0])), None)
    return otherwise if found is None else Status(found.name)


def _call(context: grpc.aio.ServicerContext[Any, Any], service: str, method: str) -> Call:
    sent = context.invocation_metadata() or ()
    metadata = {key: value for key, value in sent if isinstance(value, str)}
    return Call(service, method, metadata, _caller(context.auth_context()), request_id_from(metadata))


def _caller(proof: Mapping[str, Any]) -> Caller:
    """Names from the certificate that the client showed; TLS alone, without one, proves nothing about the client."""
    for keys in (("peer_uri", "peer_dns"), ("x509_common_name",)):
        names = [name.decode("utf-8", "replace") for key in keys for name in proof.get(key, ())]
        if names:
            return Caller(tuple(names))
    return ANONYMOUS


async def _refuse_unknown(_request: Any, _context: Any) -> Any:
    raise ServiceError(Code.CALL_UNKNOWN, "this server does not have that call: check service, method and version")


def _unwrapped(handler: Any) -> tuple[Callable[[_Work], Any], _Work]:
    """How to make a handler of the same kind, and the work of `handler` with decoding and encoding inside it.

    Outside, gRPC would answer for what cannot be decoded, past the layers and in its own words.
    """
    decode = _decoder(handler.request_deserializer)
    requests = partial(_each, decode) if handler.request_streaming else decode
    if handler.response_streaming:
        behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
        kinds = (grpc.unary_stream_rpc_method_handler, grpc.stream_stream_rpc_method_handler)
        make = partial(kinds[handler.request_streaming], response_serializer=handler.response_serializer)
        return make, partial(_write_all, behaviour, requests)
    behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary
    kinds_of_one = (grpc.unary_unary_rpc_method_handler, grpc.stream_unary_rpc_method_handler)
    encode = handler.response_serializer or _unchanged
    return kinds_of_one[handler.request_streaming], partial(_answer_one, behaviour, requests, encode)


async def _answer_one(behaviour: _Work, decode: Any, encode: Any, request: Any, context: Any) -> Any:
    return encode(await behaviour(decode(request), context))


async def _write_all(behaviour: _Work, decode: Any, request: Any, context: Any) -> None:
    answers = behaviour(decode(request), context)
    if not hasattr(answers, "__aiter__"):
        await answers  # it writes by itself
        return
    async with aclosing(answers):
        async for answer in answers:
            await context.write(answer)


async def _each(decode: Callable[[bytes], Any], requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for request in requests:
        yield decode(request)


def _decoder(deserializer: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    def decode(raw: bytes) -> Any:
        if deserializer is None:
            return raw
        try:
            return deserializer(raw)
        except Exception as error:
            raise RequestError("the request is not a message of the call's type: send what its .proto says") from error

    return decode


def _unchanged(raw: Any) -> Any:
    return raw


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
