"""Nonsense for teacher-inference: every call ends typed, and the service answers afterwards as before."""

from __future__ import annotations

import io
import os

import pytest

pytest.importorskip("grpc")

from fuzzing import Fuzzer, assail
from labelling_service import SECONDS, SITE, ScriptedBackend, enrol, label, part, png, settings, submit
from served_part import served, twins

from tutelage.api.teacher.v1 import teacher_pb2 as pb
from tutelage.api.teacher.v1.teacher_pb2_grpc import TeacherInferenceServiceStub
from tutelage.log import configure_logging

REQUESTS = int(os.environ.get("FAULT_REQUESTS", "10000"))
SERVICE = pb.DESCRIPTOR.services_by_name["TeacherInferenceService"]
FOREVER = "person-who-stays"
VALID = {
    "EnrolPerson": [enrol("anna", png(1), png(1, 1)), enrol("Ж" * 20, png(2), site="a.b_c-D")],
    "RemovePerson": [pb.RemovePersonRequest(site=SITE, person="anna")],
    "Label": [label([png(1, 2), png(1, 3)], [png(2, 2)]), label([png(3)])],
    "SubmitLabelBatch": [submit("k1", [png(1, 4)], [png(2, 4), png(2, 5)]), submit("k2", [png(4)])],
    "GetLabelBatch": [pb.GetLabelBatchRequest(site=SITE, batch_id="0" * 32)],
    "ExtractFeatures": [pb.ExtractFeaturesRequest(captures=[png(1), png(2)])],
    "GetTeacher": [pb.GetTeacherRequest()],
}


async def test_nonsense_is_answered_typed_and_changes_nothing(tmp_path, seed):
    log = io.StringIO()
    configure_logging("warning", log)
    async with served(part(ScriptedBackend()), settings(), twins(tmp_path)) as channel:
        stub = TeacherInferenceServiceStub(channel)
        for person in (5, 6):
            await stub.EnrolPerson(enrol(f"{FOREVER}-{person}", png(person), site="apart"), timeout=SECONDS)
        question = label([png(5, 1)], [png(6, 1)], site="apart")
        before = await stub.Label(question, timeout=SECONDS)
        tally = await assail(channel._settings.address.port, Fuzzer(SERVICE, VALID, seed), count=REQUESTS)
        assert await stub.Label(question, timeout=SECONDS) == before
    assert [answer.person for answer in before.answers] == [f"{FOREVER}-5", f"{FOREVER}-6"]
    assert sum(tally.values()) == REQUESTS
    endings = {status for _, status in tally}
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS"} <= endings, tally
    assert {method for method, status in tally if status == "OK"} == set(VALID) - {"GetLabelBatch"}, tally
    assert "unforeseen" not in log.getvalue(), log.getvalue()[:2000]
    assert FOREVER not in log.getvalue()
