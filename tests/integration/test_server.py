"""A server that is called for real on this machine: its answers, its errors, its logs and metrics."""

from __future__ import annotations

import asyncio
import io
import json
import urllib.request

import pytest

pytest.importorskip("grpc")

import grpc
from echo_server import LOOPBACK, serving, settings, until
from echo_service import KINDS, NAME, Echo, invoke, stubs
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from tutelage.errors import SettingsError
from tutelage.log import configure_logging
from tutelage.metrics import CallMetrics, MetricsServer
from tutelage.server import MAX_MESSAGE_BYTES, Server
from tutelage.settings import Address

SECRET_TEXT = "anna-of-gate-seven"


def info_of(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    (raw,) = [value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"]
    status = status_pb2.Status.FromString(raw)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


def events(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def log() -> io.StringIO:
    stream = io.StringIO()
    configure_logging("debug", stream)
    return stream


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_of_each_kind_is_answered(kind: str):
    async def scenario():
        async with serving(Echo()) as (_, channel):
            return await invoke(stubs()[1].EchoServiceStub(channel), kind, "a", "b")

    expected = {"One": ["a"], "Many": ["a"] * 3, "Gather": ["a b"], "Chat": ["a", "b"]}
    assert asyncio.run(scenario()) == expected[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("word", "code", "reason", "retryable"),
    [
        ("typed", "NOT_FOUND", "PERSON_UNKNOWN", "false"),
        ("hidden", "UNAVAILABLE", "STORAGE_FAILED", "true"),
        ("untyped", "INTERNAL", "SERVICE_FAILED", "false"),
    ],
)
def test_a_failure_has_its_status_and_details_and_hides_the_inside(
    kind: str, word: str, code: str, reason: str, retryable: str, log: io.StringIO
):
    async def scenario():
        async with serving(Echo()) as (_, channel):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await invoke(stubs()[1].EchoServiceStub(channel), kind, f"{word} {SECRET_TEXT}")
            return caught.value

    error = asyncio.run(scenario())
    info = info_of(error)
    assert (error.code().name, info.reason, info.domain, info.metadata["retryable"]) == (
        code,
        reason,
        "tutelage",
        retryable,
    )
    assert "/var/lib" not in error.details()
    assert "no idea" not in error.details()
    assert SECRET_TEXT not in log.getvalue()
    answered = [event for event in events(log) if event["event"] == "call answered" and event["method"] == kind]
    assert [event["code"] for event in answered] == [code]
    if word == "untyped":
        (unforeseen,) = [event for event in events(log) if event["event"] == "call failed unforeseen"]
        assert unforeseen["incident"] == info.metadata["incident"]
        assert unforeseen["incident"] in error.details()
        assert "echo_service.py" in unforeseen["traceback"]
        assert "ValueError" in unforeseen["traceback"]
        assert unforeseen["request_id"] == answered[0]["request_id"]


def test_logs_carry_the_request_and_device_ids_and_nothing_of_a_message(log: io.StringIO):
    async def scenario():
        async with serving(Echo()) as (_, channel):
            metadata = (("x-request-id", "r-17"), ("x-device-id", "door-3"))
            one = stubs()[1].EchoServiceStub(channel).One
            await one(stubs()[0].Text(text=SECRET_TEXT), metadata=metadata, timeout=5)
            await one(stubs()[0].Text(text=SECRET_TEXT), metadata=(("x-request-id", "no good: {}"),), timeout=5)

    asyncio.run(scenario())
    first, second = [event for event in events(log) if event["event"] == "call answered"]
    assert (first["request_id"], first["device_id"], first["code"], first["caller"]) == (
        "r-17",
        "door-3",
        "OK",
        "anonymous",
    )
    assert len(second["request_id"]) == 32
    assert "device_id" not in second
    assert SECRET_TEXT not in log.getvalue()


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
def test_a_call_nobody_serves_is_refused_in_the_catalogues_words(kind: str):
    registry = CollectorRegistry()

    async def scenario():
        async with serving(Echo(), layers=[CallMetrics(registry)]) as (_, channel):
            request = b"" if kind.startswith("unary") else iter([b""])
            call = getattr(channel, kind)(f"/{NAME}/Nope")(request, timeout=5)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await (call if kind.endswith("unary") else anext(aiter(call)))
            return caught.value

    error = asyncio.run(scenario())
    assert (error.code(), info_of(error).reason) == (grpc.StatusCode.UNIMPLEMENTED, "CALL_UNKNOWN")
    labels = {"service": "unknown", "method": "unknown", "code": "UNIMPLEMENTED"}
    assert registry.get_sample_value("tutelage_grpc_calls_total", labels) == 1


@pytest.mark.parametrize("kind", ["One", "Many"])
def test_bytes_that_are_no_message_are_the_callers_mistake(kind: str, log: io.StringIO):
    async def scenario():
        async with serving(Echo()) as (_, channel):
            method = channel.unary_unary if kind == "One" else channel.unary_stream
            call = method(f"/{NAME}/{kind}")(b"\xff\xff\xff", timeout=5)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                _ = (await call) if kind == "One" else [x async for x in call]
            return caught.value

    error = asyncio.run(scenario())
    assert (error.code(), info_of(error).reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID")
    assert "Traceback" not in log.getvalue()


def test_an_oversized_message_is_refused_and_the_server_goes_on():
    async def scenario():
        async with serving(Echo()) as (_, channel):
            one = stubs()[1].EchoServiceStub(channel).One
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await one(stubs()[0].Text(blob=bytes(MAX_MESSAGE_BYTES + 1)), timeout=10)
            assert (await one(stubs()[0].Text(text="a", blob=bytes(MAX_MESSAGE_BYTES - 100)), timeout=10)).text == "a"
            return caught.value.code()

    assert asyncio.run(scenario()) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_two_hundred_calls_run_at_once_and_one_too_many_is_turned_away():
    async def scenario():
        echo = Echo()
        async with serving(echo, concurrent_calls=200) as (_, channel):
            echo.release.clear()
            one = stubs()[1].EchoServiceStub(channel).One
            calls = [one(stubs()[0].Text(text="wait"), timeout=30) for _ in range(200)]
            tasks = [asyncio.ensure_future(call) for call in calls]

            async def all_in():
                return echo.calls == 200

            await until(all_in)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await one(stubs()[0].Text(text="a"), timeout=5)
            echo.release.set()
            answers = await asyncio.gather(*tasks)
            return caught.value.code(), {answer.text for answer in answers}

    assert asyncio.run(scenario()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, {"wait"})


def test_reflection_lists_the_services_and_describes_them():
    async def scenario():
        async with serving(Echo()) as (_, channel):
            ask = reflection_pb2.ServerReflectionRequest
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            asked = iter([ask(list_services=""), ask(file_containing_symbol=NAME)])
            return [answer async for answer in stub.ServerReflectionInfo(asked, timeout=5)]

    listed, described = asyncio.run(scenario())
    assert {NAME, "grpc.health.v1.Health"} <= {found.name for found in listed.list_services_response.service}
    assert b"EchoService" in described.file_descriptor_response.file_descriptor_proto[0]


def test_metrics_tell_counts_times_and_concurrency_over_http():
    registry = CollectorRegistry()

    async def scenario():
        echo = Echo()
        async with serving(echo, layers=[CallMetrics(registry)]) as (_, channel):
            stub = stubs()[1].EchoServiceStub(channel)
            await invoke(stub, "One", SECRET_TEXT)
            with pytest.raises(grpc.aio.AioRpcError):
                await invoke(stub, "Chat", f"typed {SECRET_TEXT}")
            echo.release.clear()
            running = asyncio.ensure_future(stub.One(stubs()[0].Text(text="wait"), timeout=10))
            await echo.entered.wait()
            with MetricsServer(registry, Address(LOOPBACK, 0)) as metrics:
                url = f"http://{LOOPBACK}:{metrics.port}/metrics"
                text = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read().decode())
            echo.release.set()
            await running
            return text

    text = asyncio.run(scenario())
    one = f'method="One",service="{NAME}"'
    assert f'tutelage_grpc_calls_total{{code="OK",{one}}} 1.0' in text
    assert f'tutelage_grpc_calls_total{{code="NOT_FOUND",method="Chat",service="{NAME}"}} 1.0' in text
    assert f"tutelage_grpc_calls_in_flight{{{one}}} 1.0" in text
    assert f"tutelage_grpc_call_duration_seconds_count{{{one}}} 1.0" in text
    assert SECRET_TEXT not in text


def test_an_address_that_is_taken_is_refused():
    async def scenario():
        async with serving(Echo()) as (server, _):
            with pytest.raises(SettingsError, match=f"{LOOPBACK}:{server.port}"):
                Server(settings(address=Address(LOOPBACK, server.port)), [])

    asyncio.run(scenario())
