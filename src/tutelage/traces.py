"""Traces: which call led to which, across services and queues, in OpenTelemetry's terms (extra `otel`).

A span is begun by whoever calls (client), answers (server) or handles an entry of a queue (consumer). Its context goes
along as W3C `traceparent`, in the metadata of calls and in the context of queue entries, so that one trace leads from a
device's label batch to the teacher's answer, and from a job to its version. Spans carry names of calls, statuses and
ids of entries; nothing of any message.

Off by default: without `open_traces`, or without the extra, `span` costs a comparison and nothing goes along.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import version
from typing import Any

from tutelage.calls import Call
from tutelage.errors import MissingExtraError, Status
from tutelage.settings import Address

__all__ = ["SpanKind", "TracesSettings", "calls_traced", "open_traces", "propagated", "span"]


EXPORT_SECONDS = 2
"""Longest try to hand spans over: a collector that is away costs spans, and the end of a process this long."""


class SpanKind(StrEnum):
    """Whose part of the work a span is."""

    SERVER = "server"
    CLIENT = "client"
    CONSUMER = "consumer"


@dataclass(frozen=True)
class TracesSettings:
    """Whether and where traces are sent."""

    enabled: bool = False
    """Whether spans are recorded at all; needs the extra `otel`."""
    address: Address = field(default_factory=lambda: Address("127.0.0.1", 4317))
    """Where an OpenTelemetry collector takes spans over OTLP/gRPC."""
    tls: bool = False
    """Whether to speak TLS with it; false only within one machine or a network that encrypts by itself."""


class _Here:
    """What `open_traces` opened in this process."""

    tracer: Any = None


@contextmanager
def open_traces(settings: TracesSettings, name: str) -> Iterator[None]:
    """Record and send the spans of this process, as the service `name`, until the block ends.

    Raises:
        MissingExtraError: They are enabled, and the extra `otel` is not installed.
    """
    if not settings.enabled:
        yield
        return
    provider = _provider(settings, name)
    before, _Here.tracer = _Here.tracer, provider.get_tracer("tutelage", version("tutelage"))
    try:
        yield
    finally:
        _Here.tracer = before
        provider.shutdown()


def _provider(settings: TracesSettings, name: str) -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError("otel", "sending traces") from error
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    exporter = OTLPSpanExporter(endpoint=str(settings.address), insecure=not settings.tls, timeout=EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


@contextmanager
def span(
    name: str, kind: SpanKind, *, carrier: Mapping[str, str] | None = None, facts: Mapping[str, str | int] | None = None
) -> Iterator[Any]:
    """A span around the block, below the one that `carrier` (headers or a context) speaks of, else the current one.

    Yields the span, or None where nothing is recorded. What the block raises is noted by its type alone.
    """
    if _Here.tracer is None:
        yield None
        return
    from opentelemetry import propagate, trace  # noqa: PLC0415 - only where traces are recorded

    above = propagate.extract(carrier) if carrier is not None else None
    with _Here.tracer.start_as_current_span(
        name,
        context=above,
        kind=trace.SpanKind[kind.name],
        attributes=facts or {},
        record_exception=False,
        set_status_on_exception=False,
    ) as begun:
        try:
            yield begun
        except BaseException as error:
            begun.set_attribute("error.type", type(error).__name__)
            begun.set_status(trace.StatusCode.ERROR)
            raise


def propagated() -> dict[str, str]:
    """Headers that name the current span; empty where nothing is recorded."""
    headers: dict[str, str] = {}
    if _Here.tracer is not None:
        from opentelemetry import propagate  # noqa: PLC0415 - only where traces are recorded

        propagate.inject(headers)
    return headers


@contextmanager
def calls_traced(call: Call) -> Iterator[None]:
    """A layer: a server's span around each call of our own services, below that of the caller."""
    if call.service.startswith("grpc."):
        yield
        return
    facts = {"rpc.system": "grpc", "rpc.service": call.service, "rpc.method": call.method}
    with span(f"{call.service}/{call.method}", SpanKind.SERVER, carrier=call.metadata, facts=facts) as begun:
        try:
            yield
        finally:
            if begun is not None:
                begun.set_attribute("rpc.grpc.status", call.status.value)
                if call.status is not Status.OK:
                    begun.set_attribute("error.type", call.status.value)
