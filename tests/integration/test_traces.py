"""Traces, sent to a real collector over OTLP: one leads through calls and queues, and holds nothing of a message."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import grpc
import pytest

pytest.importorskip("opentelemetry.sdk")

from echo_service import NAME, Echo, service, stubs
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc
from served_part import LOOPBACK, quick_server

from tutelage.channel import Channel, ChannelSettings
from tutelage.errors import PersonError
from tutelage.memory_queue import MemoryQueue
from tutelage.queue_entries import Claim, handle
from tutelage.server import Server
from tutelage.settings import Address
from tutelage.traces import SpanKind, TracesSettings, calls_traced, open_traces, propagated, span

SECRET = "anna-of-gate-seven"


class Collector(otlp_grpc.TraceServiceServicer):
    def __init__(self):
        self.requests = []

    def Export(self, request, context):  # noqa: N802
        self.requests.append(request)
        return otlp.ExportTraceServiceResponse()

    @property
    def spans(self):
        return [s for r in self.requests for t in r.resource_spans for scope in t.scope_spans for s in scope.spans]


@contextmanager
def collecting():
    """A collector, and settings that lead to it."""
    collector, server = Collector(), grpc.server(ThreadPoolExecutor(2))
    otlp_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    server.start()
    yield collector, TracesSettings(True, Address(LOOPBACK, port))
    server.stop(0).wait()


class Relay(Echo):
    """Puts what it is asked into a queue, whose handler calls the service again."""

    def __init__(self, queue):
        super().__init__()
        self.queue = queue

    async def One(self, request, context):  # noqa: N802
        if request.text.startswith("relay"):
            await self.queue.put({"text": request.text}, key=request.text)
        return await super().One(request, context)


async def relayed() -> None:
    """A call, the entry it puts, and the call that the entry's handler makes, which fails."""
    queue = MemoryQueue("label.batches")
    async with (
        Server(quick_server(), [service(Relay(queue))], [calls_traced]) as server,
        Channel(ChannelSettings(Address(LOOPBACK, server.port))) as channel,
    ):
        messages, generated = stubs()
        stub = generated.EchoServiceStub(channel)
        await stub.One(messages.Text(text=f"relay {SECRET}"), timeout=5)
        claim = await queue.claim("w", wait=timedelta(seconds=5))

        async def handler(claim: Claim) -> None:
            with pytest.raises(PersonError):
                await stub.One(messages.Text(text=f"typed {SECRET}"), timeout=5)

        await handle(queue, claim, handler)


def test_one_trace_leads_from_a_call_through_a_queue_to_the_last_call():
    with collecting() as (collector, settings):
        with open_traces(settings, "gate"):
            asyncio.run(relayed())
        spans = {span.span_id: span for span in collector.spans}
    assert len({span.trace_id for span in spans.values()}) == 1
    last = next(span for span in spans.values() if any(a.value.string_value == "NOT_FOUND" for a in span.attributes))
    names = [last.name]
    while last.parent_span_id:
        last = spans[last.parent_span_id]
        names.append(last.name)
    call = f"{NAME}/One"
    assert names == [call, call, "label.batches handle", call, call]  # server, client, consumer, server, client
    assert SECRET.encode() not in b"".join(r.SerializeToString() for r in collector.requests)
    assert b"gate" in collector.requests[0].SerializeToString()


def test_without_settings_nothing_is_recorded_and_nothing_goes_along():
    with open_traces(TracesSettings(), "gate"), span("x", SpanKind.CLIENT) as begun:
        assert begun is None
        assert propagated() == {}


def test_a_collector_that_is_away_holds_nothing_up(caplog):
    caplog.set_level(logging.CRITICAL, logger="opentelemetry")
    with open_traces(TracesSettings(True, Address(LOOPBACK, 1)), "gate"):
        asyncio.run(asyncio.wait_for(relayed(), 10))


def test_a_made_up_context_begins_a_trace_of_its_own():
    with collecting() as (collector, settings):
        with open_traces(settings, "gate"):
            for carrier in (
                {"traceparent": "../../etc"},
                {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"},
                {},
            ):
                with span("x", SpanKind.SERVER, carrier=carrier):
                    pass
        assert [span.parent_span_id for span in collector.spans] == [b""] * 3
