"""The health of a server, also as probes ask for it, and its end: what it drains, and what it cuts."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("grpc")

import echo_service
import grpc
from echo_server import LOOPBACK, NOT_SERVING, SERVING, health_of, serving, until
from echo_service import NAME, Echo, invoke, stubs
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from tutelage.errors import Code, QueueError
from tutelage.server import ALIVE
from tutelage.settings import Address


def test_health_follows_the_dependencies_by_service_and_overall():
    answers = {"redis": False}

    async def redis():
        if not answers["redis"]:
            raise ConnectionError("refused")

    async def scenario():
        async with serving(Echo(), checks={"redis": redis}) as (_, channel):
            assert await health_of(channel, NAME) == NOT_SERVING
            assert await health_of(channel, "") == NOT_SERVING
            for up, status in ((True, SERVING), (False, NOT_SERVING), (True, SERVING)):
                answers["redis"] = up

                async def both(wanted=status):
                    return {await health_of(channel, name) for name in ("", NAME)} == {wanted}

                await until(both)

    asyncio.run(scenario())


def test_a_dependency_s_typed_error_is_logged_by_its_code():
    async def redis():
        raise QueueError(Code.QUEUE_REFUSED, "the login was refused")

    async def scenario():
        async with serving(Echo(), checks={"redis": redis}) as (_, channel):
            await until(lambda: asyncio.sleep(0, bool(logged)))
            assert await health_of(channel, NAME) == NOT_SERVING

    with capture_logs() as logged:
        asyncio.run(scenario())
    told = [line for line in logged if line["event"] == "dependency fails"]
    assert [(line["dependency"], line["code"]) for line in told] == [("redis", "queue-refused")]


def test_a_dependency_that_hangs_is_down():
    async def scenario():
        async with serving(Echo(), checks={"s3": asyncio.Event().wait}) as (_, channel):
            await asyncio.sleep(0.5)
            assert await health_of(channel, NAME) == NOT_SERVING

    asyncio.run(scenario())


def test_a_drain_tells_health_first_lets_a_call_end_and_takes_no_new_one():
    async def scenario():
        echo = Echo()
        async with serving(echo, drain_notice=timedelta(seconds=0.3)) as (server, channel):
            echo.release.clear()
            stub = stubs()[1].EchoServiceStub(channel)
            running = asyncio.ensure_future(stub.One(stubs()[0].Text(text="wait"), timeout=10))
            await echo.entered.wait()
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=NAME), timeout=20)
            seen = [(await watch.read()).status]
            draining = asyncio.create_task(server.drain())
            while seen[-1] != NOT_SERVING or len(seen) == 1:
                seen.append((await watch.read()).status)
            assert (await stub.One(stubs()[0].Text(text="still"), timeout=5)).text == "still"
            await asyncio.sleep(0.5)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.One(stubs()[0].Text(text="late"), timeout=5)
            assert not draining.done()
            echo.release.set()
            assert (await running).text == "wait"
            async with asyncio.timeout(2):  # the open watch does not hold it up for the whole grace period
                await draining
            return caught.value.code(), echo.calls, seen

    code, calls, seen = asyncio.run(scenario())
    assert (code, calls) == (grpc.StatusCode.UNAVAILABLE, 2)
    assert seen[-1] == NOT_SERVING


def test_a_call_that_outlives_the_grace_period_is_cancelled():
    async def scenario():
        echo = Echo()
        async with serving(echo, drain_grace=timedelta(seconds=0.2)) as (server, channel):
            echo.release.clear()
            stub = stubs()[1].EchoServiceStub(channel)
            running = asyncio.ensure_future(stub.One(stubs()[0].Text(text="wait"), timeout=20))
            await echo.entered.wait()
            await server.drain()
            with pytest.raises(grpc.aio.AioRpcError):
                await running

    asyncio.run(scenario())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_told_to_end_answers_its_running_call_and_exits_with_zero(number: int):
    environment = {
        **os.environ,
        "TUTELAGE_SERVER_ADDRESS": f"{LOOPBACK}:0",
        "TUTELAGE_SERVER_DRAIN_NOTICE": "0",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, str(Path(echo_service.__file__))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:

            async def scenario():
                port = int(await asyncio.to_thread(process.stdout.readline))
                async with grpc.aio.insecure_channel(f"{LOOPBACK}:{port}") as channel:
                    call = stubs()[1].EchoServiceStub(channel).One(stubs()[0].Text(text="wait"), timeout=20)
                    task = asyncio.ensure_future(call)
                    assert await asyncio.to_thread(process.stdout.readline) == "entered\n"
                    process.send_signal(number)
                    return (await task).text

            assert asyncio.run(scenario()) == "wait"
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()


def test_a_second_signal_ends_it_at_once():
    async def scenario():
        echo = Echo()
        hour = timedelta(hours=1)
        async with serving(echo, drain_notice=timedelta(minutes=10), drain_grace=hour) as (server, channel):
            echo.release.clear()
            ending = asyncio.create_task(server.serve_until_signalled())
            stub = stubs()[1].EchoServiceStub(channel)
            running = asyncio.ensure_future(stub.One(stubs()[0].Text(text="wait"), timeout=60))
            await echo.entered.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.1)
            assert not running.done()
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(5):
                await ending
            with pytest.raises(grpc.aio.AioRpcError):
                await running

    asyncio.run(scenario())


def test_probes_ask_for_health_in_plain_text_and_for_nothing_else():
    answers = {"redis": True}

    async def redis():
        if not answers["redis"]:
            raise ConnectionError("refused")

    async def scenario():
        plain = Address(LOOPBACK, 0)
        async with (
            serving(Echo(), checks={"redis": redis}, probe_address=plain) as (server, _),
            grpc.aio.insecure_channel(f"{LOOPBACK}:{server.probe_port}") as probes,
        ):
            for up, status in ((True, SERVING), (False, NOT_SERVING)):
                answers["redis"] = up

                async def told(wanted=status):
                    return await health_of(probes, "") == wanted

                await until(told)
                assert await health_of(probes, ALIVE) == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await invoke(stubs()[1].EchoServiceStub(probes), "One", "a", "b")
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
            await server.drain()
            with pytest.raises(grpc.aio.AioRpcError):
                await health_of(probes, ALIVE)

    asyncio.run(scenario())


def test_a_server_that_drains_is_alive_and_takes_no_more():
    async def scenario():
        slow = {"drain_notice": timedelta(seconds=5), "probe_address": Address(LOOPBACK, 0)}
        async with (
            serving(Echo(), **slow) as (server, _),
            grpc.aio.insecure_channel(f"{LOOPBACK}:{server.probe_port}") as probes,
        ):

            async def serves(wanted=SERVING):
                return await health_of(probes, "") == wanted

            await until(serves)
            draining = asyncio.create_task(server.drain())
            await until(partial(serves, NOT_SERVING))
            assert await health_of(probes, ALIVE) == SERVING
            await server.stop()
            await draining

    asyncio.run(scenario())
