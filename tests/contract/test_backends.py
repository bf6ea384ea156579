"""What every backend of a teacher guarantees, whatever runs it: this process, TorchServe, or MLServer."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("grpc")

from backend_makers import IN_PROCESS, PNGS, SERVERS, WITHIN_S, BackendMaker, at

from teacher_inference.backends import BackendKind
from tutelage.captures import decode_png, encode_png
from tutelage.errors import CATALOGUE, Code, ServiceError, SpaceMismatchError
from tutelage.nn.teacher_sources import open_teacher

SAME = 1e-5
"""Batches of other sizes sum in another order."""


@pytest.fixture(scope="module")
def teacher():
    return open_teacher("fingerprint")


@pytest.fixture(params=["in-process", "in-process, joined", "torchserve", "torchserve, joined", "open-inference"])
def make(request: pytest.FixtureRequest) -> BackendMaker:
    name, _, joined = request.param.partition(", ")
    if name == BackendKind.IN_PROCESS:
        return BackendMaker(IN_PROCESS, joined=bool(joined))
    server = request.getfixturevalue(SERVERS[BackendKind(name)])
    return BackendMaker(at(BackendKind(name), server.port), joined=bool(joined))


def noise(*shape: int) -> bytes:
    """A capture of `shape` that no PNG can shrink."""
    return encode_png(np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8))


async def test_features_are_the_teachers_own_in_the_order_of_the_captures(make, teacher):
    backend = await make()
    assert (backend.kind, backend.space) == (make.settings.kind, teacher.space)
    assert backend.name == {BackendKind.OPEN_INFERENCE: "teacher"}.get(backend.kind, teacher.name)
    found = await backend.extract(PNGS, timeout=WITHIN_S)
    own = teacher.extract([decode_png(png) for png in PNGS])
    assert found.features.space == teacher.space
    np.testing.assert_allclose(found.features.vectors, own.features.vectors, atol=SAME)
    assert found.usable.tolist() == own.usable.tolist()
    assert (found.reasons, found.notes) == (own.reasons, own.notes)


async def test_a_feature_does_not_depend_on_what_else_is_asked(make):
    backend = await make()
    together = await backend.extract(PNGS[:5], timeout=WITHIN_S)
    for row, png in enumerate(PNGS[:5]):
        alone = await backend.extract([png], timeout=WITHIN_S)
        np.testing.assert_allclose(alone.features.vectors[0], together.features.vectors[row], atol=SAME)


async def test_what_is_no_capture_is_reported_in_its_place_and_costs_nobody_else(make):
    backend = await make()
    damaged = PNGS[1][:-30]
    found = await backend.extract([b"", PNGS[0], damaged, b"\x80\x04.", PNGS[1]], timeout=WITHIN_S)
    assert found.usable.tolist() == [False, True, False, False, True]
    assert [bool(reason) for reason in found.reasons] == [True, False, True, True, False]
    assert found.notes == ("",) * 5
    clean = await backend.extract(PNGS[:2], timeout=WITHIN_S)
    np.testing.assert_allclose(found.features.vectors[[1, 4]], clean.features.vectors, atol=SAME)
    nothing = await backend.extract([b"x"], timeout=WITHIN_S)
    assert nothing.usable.tolist() == [False]
    assert not nothing.features.vectors.any()


async def test_no_captures_give_no_features_of_the_teachers_length(make, teacher):
    found = await (await make()).extract([], timeout=WITHIN_S)
    assert found.features.vectors.shape == (0, teacher.network.spec.dimension)
    assert found.reasons == found.notes == ()


async def test_captures_of_all_sizes_in_grey_and_colour_travel_in_one_batch(make, teacher):
    captures = [noise(8, 8), noise(256, 256), noise(256, 256, 3), noise(8, 256, 3)] * 8
    found = await (await make()).extract(captures, timeout=WITHIN_S)
    own = teacher.extract([decode_png(png) for png in captures])
    np.testing.assert_allclose(found.features.vectors, own.features.vectors, atol=SAME)


async def test_callers_at_the_same_time_get_each_their_own(make):
    backend = await make()
    expected = (await backend.extract(PNGS, timeout=WITHIN_S)).features.vectors
    slices = [slice(start, start + size) for start, size in zip(range(0, 48, 6), (1, 2, 3, 6, 1, 1, 4, 5), strict=True)]
    found = await asyncio.gather(*(backend.extract(PNGS[rows], timeout=WITHIN_S) for rows in slices))
    for rows, extraction in zip(slices, found, strict=True):
        np.testing.assert_allclose(extraction.features.vectors, expected[rows], atol=SAME)


async def test_a_deadline_holds_and_the_next_call_is_answered(make):
    backend = await make()
    begun = time.monotonic()
    with pytest.raises(ServiceError) as raised:
        await backend.extract(PNGS, timeout=0.005)
    assert raised.value.code is Code.DEADLINE_EXCEEDED
    assert time.monotonic() - begun < 2
    assert (await backend.extract(PNGS[:2], timeout=WITHIN_S)).usable.all()


async def test_a_caller_that_goes_away_disturbs_nobody(make):
    backend = await make()
    leaving = [asyncio.create_task(backend.extract(PNGS[:8], timeout=WITHIN_S)) for _ in range(3)]
    staying = asyncio.create_task(backend.extract(PNGS[8:16], timeout=WITHIN_S))
    await asyncio.sleep(0.01)
    for task in leaving:
        task.cancel()
    assert (await staying).usable.all()
    assert all(
        isinstance(gone, asyncio.CancelledError) for gone in await asyncio.gather(*leaving, return_exceptions=True)
    )
    assert (await backend.extract(PNGS[:8], timeout=WITHIN_S)).usable.all()


async def test_a_backend_that_runs_passes_its_check_and_a_closed_one_does_not(make):
    backend = await make()
    await backend.check()
    await backend.close()
    await backend.close()
    for call in (backend.check(), backend.extract(PNGS[:1], timeout=WITHIN_S), backend.extract([b"x"], timeout=5)):
        with pytest.raises(ServiceError) as raised:
            await call
        assert raised.value.code is Code.SERVICE_UNAVAILABLE


async def test_closing_ends_the_calls_that_run(make):
    backend = await make()
    running = [asyncio.create_task(backend.extract(PNGS, timeout=WITHIN_S)) for _ in range(3)]
    await asyncio.sleep(0.02)
    begun = time.monotonic()
    await backend.close()
    ended = await asyncio.gather(*running, return_exceptions=True)
    assert time.monotonic() - begun < 5
    refused = [error for error in ended if isinstance(error, BaseException)]
    assert refused
    assert all(isinstance(error, ServiceError) and CATALOGUE[error.code].retryable for error in refused)


async def test_another_teacher_than_the_settings_name_is_refused(make, teacher):
    with pytest.raises(SpaceMismatchError):
        await make(space="0123456789abcdef01234567/teacher")
    assert (await make(space=teacher.space)).space == teacher.space
