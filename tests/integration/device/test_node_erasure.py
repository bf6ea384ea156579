"""ErasePerson by RPC: with a teacher that is away, without any, and while people are recognised."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("grpc")
pytest.importorskip("teacher_inference")

from device_cloud import teaching
from device_node import SECONDS, calling, enrol_all, events, live, node_settings, png, status, until
from toy_device import PERSONS, STORE_KEY, name_of

from device_sim.node_folder import read_keys
from device_sim.node_settings import TeacherSettings
from device_sim.receipt import read_receipt
from device_sim.store import Store
from tutelage.api.device.v1 import device_pb2 as pb
from tutelage.errors import Code, TutelageError

GONE = name_of(1)
ERASE = pb.ErasePersonRequest(person=GONE)


async def refused(call, request) -> Code:
    with pytest.raises(TutelageError) as caught:
        await call(request, timeout=SECONDS)
    return caught.value.code


async def test_a_device_without_a_teacher_erases_at_once_and_receipts_the_same_again(tmp_path: Path):
    settings = node_settings(tmp_path / "device")
    async with calling(settings) as stub:
        await enrol_all(stub)
        await live(stub, 1)
        first = await stub.ErasePerson(ERASE, timeout=SECONDS)
        assert (first.references, first.teacher_knew, list(first.deleted_generations)) == (2, False, [])
        assert first.student.generation == "v1"
        assert (await status(stub)).persons == PERSONS - 1
        assert await stub.ErasePerson(ERASE, timeout=SECONDS) == first
        receipt = read_receipt(first.receipt, trusted=[read_keys(settings).signer.public_key()])
        assert (receipt.teacher, len(receipt.references)) == ("absent", 2)
        assert [event.kind for event in await events(stub, pb.EVENT_KIND_PERSON_ERASED)] == [
            pb.EVENT_KIND_PERSON_ERASED
        ]
    async with calling(settings) as stub:
        assert await stub.ErasePerson(ERASE, timeout=SECONDS) == first
        assert (await refused(stub.ErasePerson, pb.ErasePersonRequest(person="nobody"))) is Code.PERSON_UNKNOWN


async def test_while_the_teacher_is_away_the_device_does_its_part_and_goes_on_by_itself(tmp_path: Path):
    async with teaching(tmp_path) as teacher:
        brief = TeacherSettings(teacher, timeout=timedelta(seconds=0.5))
        settings = node_settings(tmp_path / "device", teacher=brief)
        async with calling(settings) as stub:
            await enrol_all(stub)
    async with calling(settings) as stub:
        assert (await refused(stub.ErasePerson, ERASE)) is Code.SERVICE_UNAVAILABLE
        now = await status(stub)
        assert (now.persons, now.pending_erasures) == (PERSONS - 1, 1)
        answer = await stub.Recognize(pb.RecognizeRequest(capture=png(1, 7)), timeout=SECONDS)
        assert answer.recognition.person != GONE
    async with calling(settings) as stub, teaching(tmp_path, teacher.port):
        # Nobody asks for it: the chore tells the teacher, and the receipt is there once somebody does.
        await until(lambda now: not now.pending_erasures, lambda: status(stub))
        erased = await stub.ErasePerson(ERASE, timeout=SECONDS)
        assert (erased.references, erased.teacher_knew) == (2, True)


async def test_a_person_who_is_recognised_while_they_are_erased_is_in_no_row_afterwards(tmp_path: Path):
    settings = node_settings(tmp_path / "device")
    async with calling(settings) as stub:
        await enrol_all(stub)
        seen: list[str] = []

        async def keep_coming(first: int) -> None:
            for press in range(first, first + 40):
                request = pb.RecognizeRequest(capture=png(1, press), attempt=str(press))
                seen.append((await stub.Recognize(request, timeout=SECONDS)).recognition.person)

        coming = [asyncio.create_task(keep_coming(100 * n)) for n in range(4)]
        while seen.count(GONE) < 10:
            await asyncio.sleep(0.01)
        await stub.ErasePerson(ERASE, timeout=SECONDS)
        erased_at = len(seen)
        await asyncio.gather(*coming)
        assert GONE not in seen[erased_at + 4 :]  # of each caller one answer may have been on its way
    folder = settings.folder
    with Store.open(folder / "store.sqlite", key=STORE_KEY, clock=lambda: 0.0) as store:
        assert not store.forgetting.knows(GONE)
        assert len(store.decisions()) == len(seen)
        assert GONE not in {decision.observation.person for decision in store.decisions()}
