"""A channel to a real server: deadlines are a must, failures come back typed, only what may be repeated is."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

pytest.importorskip("grpc")

from echo_service import KINDS, NAME, Echo, invoke, service, stubs

from tutelage.calls import current_call
from tutelage.channel import MAX_MESSAGE_BYTES, Channel, ChannelSettings, idempotent_methods
from tutelage.errors import Code, PersonError, ServiceError, StorageError
from tutelage.server import Server, ServerSettings
from tutelage.settings import Address


def methods() -> frozenset[str]:
    return idempotent_methods(stubs()[0].DESCRIPTOR.services_by_name["EchoService"])


def reached(server: Server, idempotent=()) -> Channel:
    return Channel(ChannelSettings(Address("127.0.0.1", server.port)), idempotent=idempotent)


@asynccontextmanager
async def called(echo: Echo, idempotent=()):
    settings = ServerSettings(address=Address("127.0.0.1", 0), drain_notice=timedelta(0))
    async with Server(settings, [service(echo)]) as server, reached(server, idempotent) as channel:
        yield stubs()[1].EchoServiceStub(channel)


def test_idempotent_methods_are_those_whose_proto_says_so():
    assert methods() == {f"/{NAME}/One", f"/{NAME}/Many"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_of_each_kind_is_answered(kind: str):
    async def scenario():
        async with called(Echo()) as stub:
            return await invoke(stub, kind, "a", "b")

    assert asyncio.run(scenario()) == {"One": ["a"], "Many": ["a"] * 3, "Gather": ["a b"], "Chat": ["a", "b"]}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_without_a_deadline_is_refused_and_never_sent(kind: str):
    async def scenario():
        echo = Echo()
        async with called(echo) as stub:
            with pytest.raises(ServiceError, match=kind) as caught:
                await invoke(stub, kind, "a", timeout=None)
            return caught.value.code, echo.calls

    assert asyncio.run(scenario()) == (Code.DEADLINE_MISSING, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_typed_failure_comes_back_as_its_own_class(kind: str):
    async def scenario(word: str, expected: type[Exception]):
        async with called(Echo()) as stub:
            with pytest.raises(expected) as caught:
                await invoke(stub, kind, f"{word} anna")
            return caught.value

    assert "anna" in asyncio.run(scenario("typed", PersonError)).message
    hidden = asyncio.run(scenario("hidden", StorageError))
    assert (hidden.code, "/var/lib" in hidden.message) == (Code.STORAGE_FAILED, False)
    assert asyncio.run(scenario("untyped", ServiceError)).code is Code.SERVICE_FAILED


@pytest.mark.parametrize("kind", ["One", "Many"])
def test_a_call_that_may_be_repeated_outlives_failures_that_pass(kind: str):
    async def scenario():
        echo = Echo()
        echo.fail_first = 3
        async with called(echo, methods()) as stub:
            return await invoke(stub, kind, "flaky"), echo.calls

    answers, calls = asyncio.run(scenario())
    assert (set(answers), calls) == ({"flaky"}, 3 + len(answers))


@pytest.mark.parametrize(
    ("kind", "word", "idempotent"),
    [("One", "flaky", False), ("Gather", "flaky", True), ("Chat", "flaky", True), ("One", "typed", True)],
)
def test_nothing_else_is_repeated(kind: str, word: str, idempotent: bool):
    async def scenario():
        echo = Echo()
        echo.fail_first = 1
        names = {f"/{NAME}/{name}" for name in KINDS} if idempotent else ()
        async with called(echo, names) as stub:
            with pytest.raises((StorageError, PersonError)):
                await invoke(stub, kind, word)
            return echo.calls

    assert asyncio.run(scenario()) == 1


def test_a_stream_that_broke_after_an_answer_is_not_begun_again():
    class Breaking(Echo):
        async def Many(self, request, context):  # noqa: N802
            self.calls += 1
            yield stubs()[0].Text(text="first")
            raise StorageError(Code.STORAGE_FAILED, "gone")

    async def scenario():
        echo = Breaking()
        async with called(echo, methods()) as stub:
            with pytest.raises(StorageError):
                await invoke(stub, "Many", "a")
            return echo.calls

    assert asyncio.run(scenario()) == 1


def test_the_deadline_holds_for_all_tries_together():
    async def scenario():
        echo = Echo()
        echo.fail_first = 1_000
        async with called(echo, methods()) as stub:
            begun = time.monotonic()
            with pytest.raises((StorageError, ServiceError)):
                await invoke(stub, "One", "flaky", timeout=1)
            return time.monotonic() - begun, echo.calls

    seconds, calls = asyncio.run(scenario())
    assert seconds < 3
    assert 2 <= calls < 100


def test_a_slow_answer_and_an_absent_server_have_their_codes():
    async def scenario():
        echo = Echo()
        async with called(echo) as stub:
            with pytest.raises(ServiceError) as slow:
                await invoke(stub, "One", "wait", timeout=0.2)
            echo.release.set()
        async with Channel(ChannelSettings(Address("127.0.0.1", 1))) as channel:
            with pytest.raises(ServiceError) as absent:
                await invoke(stubs()[1].EchoServiceStub(channel), "One", "a")
        return slow.value.code, absent.value.code

    assert asyncio.run(scenario()) == (Code.DEADLINE_EXCEEDED, Code.SERVICE_UNAVAILABLE)


def test_what_is_too_large_or_unknown_has_its_code():
    async def scenario():
        async with called(Echo()) as stub:
            with pytest.raises(ServiceError) as large:
                await stub.One(stubs()[0].Text(blob=bytes(MAX_MESSAGE_BYTES + 1)), timeout=5)
        settings = ServerSettings(address=Address("127.0.0.1", 0), drain_notice=timedelta(0))
        async with Server(settings, []) as server, reached(server) as channel:
            with pytest.raises(ServiceError) as unknown:
                await invoke(stubs()[1].EchoServiceStub(channel), "One", "a")
        return large.value.code, unknown.value.code

    assert asyncio.run(scenario()) == (Code.MESSAGE_TOO_LARGE, Code.CALL_UNKNOWN)


def test_the_request_id_goes_along_from_service_to_service():
    class Asking(Echo):
        """Asks the next service, with the id of the call it is answering."""

        following = None

        async def One(self, request, context):  # noqa: N802
            if self.following is not None:
                return await self.following.One(request, timeout=5)
            return stubs()[0].Text(text=current_call().request_id)

    async def scenario():
        first = Asking()
        async with called(Asking()) as last, called(first) as stub:
            first.following = last
            request, message = (("x-request-id", "r-17"),), stubs()[0].Text(text="a")
            return (await stub.One(message, timeout=5, metadata=request)).text

    assert asyncio.run(scenario()) == "r-17"


def test_a_stream_nobody_reads_on_is_cancelled_at_the_server():
    class Endless(Echo):
        """Counts answers until somebody stops it."""

        ended = False

        async def Many(self, request, context):  # noqa: N802
            try:
                while True:
                    yield stubs()[0].Text(text="tick")
                    await asyncio.sleep(0.01)
            finally:
                self.ended = True

    async def scenario():
        echo = Endless()
        async with called(echo) as stub:
            answers = stub.Many(stubs()[0].Text(text="a"), timeout=30)
            assert (await anext(answers)).text == "tick"
            await answers.aclose()
            async with asyncio.timeout(5):
                while not echo.ended:
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())
