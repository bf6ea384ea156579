"""Servers that run teachers and die, freeze, come back, refuse, or answer something wrong."""

from __future__ import annotations

import asyncio
import pickle
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("torch")
pytest.importorskip("grpc")

import grpc
from backend_makers import PNGS, SERVERS, WITHIN_S, BackendMaker, at
from scripted_model_server import DIMENSION, OWN_SPACE, ScriptedModelServer, packed, right

from teacher_inference.backends import BackendKind
from tutelage.errors import CATALOGUE, Code, ServiceError, SettingsError, SpaceMismatchError, TutelageError
from tutelage.settings import Secret


async def code_of(call, within: float = 5.0) -> Code:
    """The code that `call` fails with, `within` seconds."""
    begun = time.monotonic()
    with pytest.raises(TutelageError) as raised:
        await call
    assert time.monotonic() - begun < within
    return raised.value.code


# --- real servers ---


@pytest.fixture(params=SERVERS, ids=str)
def real_server(request: pytest.FixtureRequest):
    return request.param, request.getfixturevalue(SERVERS[request.param])


@pytest.fixture
def make(real_server) -> BackendMaker:
    kind, server = real_server
    return BackendMaker(at(kind, server.port), joined=kind is BackendKind.TORCHSERVE)


async def answered_again(backend) -> None:
    until = time.monotonic() + WITHIN_S
    while True:
        try:
            assert (await backend.extract(PNGS[:2], timeout=5)).usable.all()
            return
        except ServiceError as error:
            if not CATALOGUE[error.code].retryable or time.monotonic() > until:
                raise
        await asyncio.sleep(0.1)


async def test_a_dead_server_is_told_at_once_awaited_at_the_start_and_used_again(make, real_server):
    _, server = real_server
    backend = await make()
    running = asyncio.create_task(code_of(backend.extract(PNGS * 4, timeout=WITHIN_S)))
    await asyncio.sleep(0.1)
    server.kill()
    assert await running is Code.SERVICE_UNAVAILABLE
    assert await code_of(backend.extract(PNGS, timeout=WITHIN_S)) is Code.SERVICE_UNAVAILABLE
    assert await code_of(backend.check()) is Code.SERVICE_UNAVAILABLE
    assert await code_of(make(start_timeout=timedelta(0))) is Code.SERVICE_UNAVAILABLE
    later = asyncio.create_task(make())
    await asyncio.to_thread(server.start)
    assert (await later).space == backend.space
    await answered_again(backend)
    await backend.check()


async def test_a_frozen_server_costs_no_more_than_the_deadline(make, real_server):
    _, server = real_server
    backend = await make()
    server.freeze()
    try:
        calls = [code_of(backend.extract(PNGS[:n], timeout=0.5), within=2.5) for n in (1, 64, 3)]
        assert set(await asyncio.gather(*calls)) == {Code.DEADLINE_EXCEEDED}
        assert await code_of(make(start_timeout=timedelta(0))) is Code.DEADLINE_EXCEEDED
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(backend.check(), 0.5)
    finally:
        server.thaw()
    await answered_again(backend)


def worker_of(server) -> psutil.Process:
    """The process that runs the teacher."""
    started = psutil.Process(server.pid).children(recursive=True)
    (worker,) = (process for process in started if any("model_service_worker" in word for word in process.cmdline()))
    return worker


async def test_a_full_queue_of_torchserve_may_pass(torchserve_server):
    make = BackendMaker(at(BackendKind.TORCHSERVE, torchserve_server.port))
    backend, worker = await make(), worker_of(torchserve_server)
    worker.suspend()
    try:
        calls = [code_of(backend.extract(PNGS[:1], timeout=1)) for _ in range(50)]
        assert set(await asyncio.gather(*calls)) == {Code.DEADLINE_EXCEEDED, Code.SERVICE_UNAVAILABLE}
    finally:
        worker.resume()
    await answered_again(backend)
    await make.close()


async def test_a_dead_worker_of_torchserve_may_pass_and_is_replaced(torchserve_server):
    make = BackendMaker(at(BackendKind.TORCHSERVE, torchserve_server.port))
    backend, worker = await make(), worker_of(torchserve_server)
    running = asyncio.create_task(code_of(backend.extract(PNGS * 4, timeout=WITHIN_S)))
    await asyncio.sleep(0.2)
    worker.kill()
    assert await running is Code.SERVICE_UNAVAILABLE
    await answered_again(backend)
    await make.close()


# --- a server that does what a test wants, over both protocols ---


def play(kind: BackendKind, work, **settings) -> None:
    """Run the coroutine function `work` with a server and a maker of backends for it."""

    async def whole() -> None:
        server = ScriptedModelServer()
        await server.start()
        maker = BackendMaker(at(kind, server.port, start_timeout=timedelta(0), **settings))
        try:
            await work(server, maker)
        finally:
            await maker.close()
            await server.close()

    asyncio.run(whole())


@pytest.fixture(params=SERVERS, ids=str)
def scripted(request: pytest.FixtureRequest):
    return partial(play, request.param)


def changed(**changes):
    """An answer that is right but for `changes`, each made of the right value."""
    return lambda captures: {
        name: changes.get(name, lambda value: value)(value) for name, value in right(captures).items()
    }


WRONG = {
    "a row fewer": changed(features=lambda vectors: vectors[1:]),
    "another length": changed(features=lambda vectors: np.pad(vectors, ((0, 0), (0, 1)))),
    "no rows": changed(features=lambda vectors: vectors.reshape(-1)),
    "double precision": changed(features=lambda vectors: vectors.astype(np.float64)),
    "not normalised": changed(features=lambda vectors: vectors * 2),
    "not a number": changed(features=lambda vectors: vectors * np.float32("nan")),
    "infinite": changed(features=lambda vectors: np.where(vectors > 0, np.float32("inf"), 0).astype(np.float32)),
    "usable without a feature": changed(features=lambda vectors: vectors * 0),
    "a verdict fewer": changed(usable=lambda usable: usable[1:]),
    "verdicts that are numbers": changed(usable=lambda usable: usable.astype(np.uint8)),
    "a reason fewer": changed(reasons=lambda reasons: reasons[1:]),
    "a note more": changed(notes=lambda notes: [*notes, ""]),
    "no features": lambda captures: {name: value for name, value in right(captures).items() if name != "features"},
}


@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
def test_a_wrong_answer_is_refused_and_not_tried_again(scripted, raw):
    async def work(server, make):
        backend = await make()
        for name, answer in WRONG.items():
            server.now(answer=answer, raw=raw)
            assert await code_of(backend.extract(PNGS[:3], timeout=5)) is Code.SERVICE_FAILED, name
            assert len(server.script.seen) == 1
        server.now(raw=raw)
        assert (await backend.extract(PNGS[:3], timeout=5)).usable.all()

    scripted(work)


def test_features_of_another_space_are_refused(scripted):
    async def work(server, make):
        backend = await make()
        server.now(answer=changed(space=lambda space: space.replace("a", "b")))
        with pytest.raises(SpaceMismatchError):
            await backend.extract(PNGS[:3], timeout=5)

    scripted(work)


STATUSES = {
    grpc.StatusCode.UNAVAILABLE: Code.SERVICE_UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Code.SERVICE_UNAVAILABLE,
    grpc.StatusCode.CANCELLED: Code.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Code.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL: Code.SERVICE_FAILED,
    grpc.StatusCode.UNKNOWN: Code.SERVICE_FAILED,
    grpc.StatusCode.INVALID_ARGUMENT: Code.SERVICE_FAILED,
    grpc.StatusCode.NOT_FOUND: Code.SERVICE_FAILED,
    grpc.StatusCode.UNAUTHENTICATED: Code.SERVICE_FAILED,
    grpc.StatusCode.UNIMPLEMENTED: Code.SERVICE_FAILED,
}


def test_what_a_server_refuses_is_never_the_callers_fault(scripted):
    async def work(server, make):
        backend = await make()
        for status, code in STATUSES.items():
            server.now(status=status)
            assert await code_of(backend.extract(PNGS[:1], timeout=5)) is code, status
            assert await code_of(backend.check()) is code, status
            assert await code_of(make()) is code, status

    scripted(work)


def test_a_slow_server_costs_no_more_than_the_deadline(scripted):
    async def work(server, make):
        backend = await make()
        server.now(pause_s=30)
        assert await code_of(backend.extract(PNGS[:1], timeout=0.2), within=1.5) is Code.DEADLINE_EXCEEDED

    scripted(work)


def test_captures_that_are_too_many_bytes_are_not_sent(scripted):
    async def work(server, make):
        backend = await make()
        server.now()
        assert await code_of(backend.extract([bytes(2**20)] * 17, timeout=5)) is Code.MESSAGE_TOO_LARGE
        assert not server.script.seen

    scripted(work)


def test_a_server_that_is_not_well_fails_the_check(scripted):
    async def work(server, make):
        backend = await make()
        for health, code in (('{"status": "Unhealthy"}', Code.SERVICE_UNAVAILABLE), ("well", Code.SERVICE_FAILED)):
            server.now(health=health, ready=False)
            expected = code if backend.kind is BackendKind.TORCHSERVE else Code.SERVICE_UNAVAILABLE
            assert await code_of(backend.check()) is expected

    scripted(work)


def test_the_token_goes_along_with_every_call(scripted):
    async def work(server, make):
        server.now()
        backend = await make()
        await backend.extract(PNGS[:1], timeout=5)
        await backend.check()
        assert {metadata.get("authorization") for _, metadata in server.script.seen} == {"Bearer open sesame"}

    scripted(work, token=Secret(b"open sesame"))


# --- what only one protocol has ---


torchserve = partial(play, BackendKind.TORCHSERVE)
open_inference = partial(play, BackendKind.OPEN_INFERENCE)


class _Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_bytes_that_are_no_answer_are_refused_and_never_run(tmp_path):
    planted = pickle.dumps(_Touch(tmp_path / "ran"))
    header = packed(right(1)).replace(b'"answer"', b'"anwser"')

    async def work(server, make):
        backend = await make()
        for prediction in (b"", b"error", planted, packed(right(1))[:-1], header, packed(right(1)) + b"x"):
            server.now(prediction=prediction)
            assert await code_of(backend.extract(PNGS[:1], timeout=5)) is Code.SERVICE_FAILED
            assert await code_of(make()) is Code.SERVICE_FAILED

    torchserve(work)
    assert not (tmp_path / "ran").exists()


def test_a_model_may_give_features_alone_where_the_settings_know_their_space():
    def features_alone(captures):
        return {"features": right(captures)["features"] * (np.arange(captures) != 1)[:, None].astype(np.float32)}

    async def work(server, make):
        server.now(answer=features_alone)
        with pytest.raises(SettingsError, match="space"):
            await make()
        found = await (await make(space=OWN_SPACE)).extract(PNGS[:3], timeout=5)
        assert found.features.space == OWN_SPACE
        assert found.usable.tolist() == [True, False, True]
        assert found.reasons == found.notes == ("", "", "")

    open_inference(work)


def test_a_model_that_batches_gets_captures_in_rows():
    async def work(server, make):
        server.now(inputs=(("captures", "BYTES", (-1, 1)),))
        backend = await make()
        assert (await backend.extract(PNGS[:3], timeout=5)).features.vectors.shape == (3, DIMENSION)
        assert list(server.script.seen[-1][0].inputs[0].shape) == [3, 1]

    open_inference(work)


@pytest.mark.parametrize(
    "tensors",
    [
        {"inputs": (("pixels", "BYTES", (-1,)),)},
        {"inputs": (("captures", "FP32", (-1, 64, 64)),)},
        {"inputs": (("captures", "BYTES", (-1,)), ("more", "BYTES", (-1,)))},
        {"outputs": (("classes", "FP32", (-1, 10)),)},
        {"outputs": (("features", "FP16", (-1, DIMENSION)),)},
    ],
)
def test_a_model_that_is_no_teacher_is_told_at_the_start(tensors):
    async def work(server, make):
        server.now(**tensors)
        with pytest.raises(SettingsError, match="a teacher takes captures"):
            await make()
        server.now(inputs=(), outputs=())  # does not know what it takes
        await make()

    open_inference(work)


def test_a_model_that_is_still_loaded_is_waited_for():
    async def work(server, make):
        backend = await make()
        server.now(status=grpc.StatusCode.INVALID_ARGUMENT, loading=True)
        assert await code_of(backend.extract(PNGS[:1], timeout=5)) is Code.SERVICE_UNAVAILABLE
        assert await code_of(make()) is Code.SERVICE_UNAVAILABLE

    open_inference(work)
