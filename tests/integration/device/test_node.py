"""A device as a process sees callers: every call over real gRPC, what is refused, restarts, and who may do what."""

from __future__ import annotations

import asyncio
import io
import struct
import threading
import zlib
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("grpc")

from certificates import Authority
from device_node import SECONDS, attempt, calling, enrol_all, events, live, node, node_settings, png, status, until
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image
from toy_device import PERSONS, finger, name_of

from device_sim.events import EventKind
from device_sim.folder_lock import locked
from device_sim.patient_labeller import PatientLabeller
from device_sim.receipt import read_receipt
from device_sim.service import open_device
from device_sim.store_commands import rotate_key
from tutelage.api.device.v1 import device_pb2 as pb
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceStub
from tutelage.channel import Channel, ChannelSettings
from tutelage.errors import CATALOGUE, Code, Status, TutelageError
from tutelage.sent_captures import MAX_CAPTURE_BYTES
from tutelage.settings import Address
from tutelage.signing import read_signer
from tutelage.tls import ClientTls, ServerTls


def picture(mode: str, side: tuple[int, int] = (16, 16), kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (side[1], side[0], 4), np.uint8)
    Image.fromarray(noise, "RGBA").convert(mode).save(out, kind)
    return out.getvalue()


def header(width: int, height: int) -> bytes:
    """A file that claims so many pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def constant() -> bytes:
    out = io.BytesIO()
    Image.new("L", (16, 16), 128).save(out, "PNG")
    return out.getvalue()


BAD = {
    "nothing": (b"", Code.IMAGE_UNREADABLE),
    "text": (b"a person stands at the door" * 3, Code.IMAGE_UNREADABLE),
    "too many bytes": (png(0, 0) + bytes(MAX_CAPTURE_BYTES), Code.IMAGE_TOO_LARGE),
    "too many pixels": (header(50_000, 50_000), Code.IMAGE_TOO_LARGE),
    "one pixel": (picture("L", (1, 1)), Code.IMAGE_TOO_SMALL),
    "seven pixels": (picture("L", (7, 40)), Code.IMAGE_TOO_SMALL),
    "palette": (picture("P"), Code.IMAGE_UNREADABLE),
    "transparent": (picture("RGBA"), Code.IMAGE_UNREADABLE),
    "one bit": (picture("1"), Code.IMAGE_UNREADABLE),
    "jpeg": (picture("L", kind="JPEG"), Code.IMAGE_UNREADABLE),
    "constant": (constant(), Code.IMAGE_WITHOUT_CONTENT),
    "cut short": (png(0, 0)[:60], Code.IMAGE_UNREADABLE),
    "damaged": (png(0, 0)[:60] + bytes(8) + png(0, 0)[68:], Code.IMAGE_UNREADABLE),
}


async def refused(call, request) -> TutelageError:
    with pytest.raises(TutelageError) as caught:
        await call(request, timeout=SECONDS)
    return caught.value


async def test_what_is_no_capture_is_refused_and_nothing_is_recorded(tmp_path: Path):
    async with calling(node_settings(tmp_path / "device")) as stub:
        await enrol_all(stub, 2)
        before = await status(stub)
        for name, (data, code) in BAD.items():
            for call, request in (
                (stub.Recognize, pb.RecognizeRequest(capture=data)),
                (stub.Verify, pb.VerifyRequest(person=name_of(0), capture=data)),
                (stub.Enrol, pb.EnrolRequest(person="new", captures=[png(3, 0), data])),
            ):
                error = await refused(call, request)
                assert error.code is code, (name, error.message)
                assert CATALOGUE[error.code].status is Status.INVALID_ARGUMENT
                assert ("captures[1]" if "Enrol" in type(request).__name__ else "capture") in error.message
        assert await status(stub) == before
        answer = await stub.Recognize(pb.RecognizeRequest(capture=png(0, 5)), timeout=SECONDS)
        assert answer.outcome.decision_id == 1


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Enrol", pb.EnrolRequest(person="", captures=[png(0, 0)])),
        ("Enrol", pb.EnrolRequest(person="a\nb", captures=[png(0, 0)])),
        ("Enrol", pb.EnrolRequest(person="a" * 129, captures=[png(0, 0)])),
        ("Enrol", pb.EnrolRequest(person="a")),
        ("Enrol", pb.EnrolRequest(person="a", captures=[png(0, 0)] * 17)),
        ("Recognize", pb.RecognizeRequest(capture=png(0, 0), attempt="a" * 65)),
        ("Verify", pb.VerifyRequest(person="", capture=png(0, 0))),
        ("ListSamples", pb.ListSamplesRequest(page_size=501)),
        ("ListSamples", pb.ListSamplesRequest(page_size=-1)),
        ("ListSamples", pb.ListSamplesRequest(page_token="nonsense")),
        ("ListSamples", pb.ListSamplesRequest(states=[pb.SAMPLE_STATE_UNSPECIFIED])),
        ("ListSamples", pb.ListSamplesRequest(kinds=[9])),
        ("ExplainSample", pb.ExplainSampleRequest()),
        ("ExplainSample", pb.ExplainSampleRequest(sample_id=-3)),
        ("ErasePerson", pb.ErasePersonRequest()),
        ("Rollback", pb.RollbackRequest(reason=" ")),
        ("Rollback", pb.RollbackRequest(reason="a" * 501)),
    ],
)
async def test_what_breaks_the_rules_of_a_field_is_refused(tmp_path: Path, method: str, request_):
    async with calling(node_settings(tmp_path / "device")) as stub:
        assert (await refused(getattr(stub, method), request_)).code is Code.REQUEST_INVALID


async def test_events_are_not_asked_for_by_what_selects_none(tmp_path: Path):
    async with calling(node_settings(tmp_path / "device")) as stub:
        for request in (pb.WatchEventsRequest(after_event_id=-1), pb.WatchEventsRequest(kinds=[0])):
            with pytest.raises(TutelageError) as caught:
                async for _ in stub.WatchEvents(request, timeout=SECONDS):
                    pass
            assert caught.value.code is Code.REQUEST_INVALID


async def test_who_is_not_there_is_not_found(tmp_path: Path):
    async with calling(node_settings(tmp_path / "device")) as stub:
        alone = await stub.Recognize(pb.RecognizeRequest(capture=png(0, 0)), timeout=SECONDS)
        assert alone.recognition.decision == pb.DECISION_UNKNOWN
        assert not alone.recognition.HasField("person")
        await enrol_all(stub, 2)
        error = await refused(stub.Verify, pb.VerifyRequest(person="nobody", capture=png(0, 0)))
        assert error.code is Code.PERSON_UNKNOWN
        assert (await refused(stub.ExplainSample, pb.ExplainSampleRequest(sample_id=9))).code is Code.SAMPLE_UNKNOWN
        assert (await refused(stub.Rollback, pb.RollbackRequest(reason="why not"))).code is Code.STUDENT_MISSING
        assert (await refused(stub.ErasePerson, pb.ErasePersonRequest(person="nobody"))).code is Code.PERSON_UNKNOWN


async def test_a_device_recognises_keeps_explains_and_is_the_same_after_a_restart(tmp_path: Path):
    settings = node_settings(tmp_path / "device")
    probe = pb.RecognizeRequest(capture=png(1, 7), attempt="the same")
    async with calling(settings) as stub:
        await enrol_all(stub)
        more = pb.EnrolRequest(person=name_of(1), captures=[png(1, 2)])
        assert (await stub.Enrol(more, timeout=SECONDS)).references == 3
        before = await stub.Recognize(probe, timeout=SECONDS)
        assert (before.recognition.decision, before.recognition.person) == (pb.DECISION_ACCEPT, name_of(1))
        assert before.recognition.generation == "v1"
        claim = pb.VerifyRequest(person=name_of(1), capture=probe.capture)
        assert (await stub.Verify(claim, timeout=SECONDS)).score == pytest.approx(before.recognition.score)
        await live(stub, 2)
        kept = await status(stub)
    async with calling(settings) as stub:
        found = await status(stub)
        assert (found.persons, found.student) == (PERSONS, kept.student)
        assert [(c.kind, c.state, c.count) for c in found.samples] == [(c.kind, c.state, c.count) for c in kept.samples]
        after = await stub.Recognize(probe, timeout=SECONDS)
        assert after.recognition == before.recognition
        assert after.outcome.decision_id > before.outcome.decision_id
        for sample in (await stub.ListSamples(pb.ListSamplesRequest(), timeout=SECONDS)).samples:
            why = await stub.ExplainSample(pb.ExplainSampleRequest(sample_id=sample.sample_id), timeout=SECONDS)
            assert why.sample == sample
            assert why.lines[-1].endswith("the rules give the same answer.")
            assert why.outcome.decision_id == sample.attempt_end_decision_id
            assert why.recognition.score == pytest.approx(sample.score)


async def test_samples_come_in_pages_of_one_listing(tmp_path: Path):
    async with calling(node_settings(tmp_path / "device")) as stub:
        await enrol_all(stub)
        await live(stub, 3)
        whole = (await stub.ListSamples(pb.ListSamplesRequest(page_size=500), timeout=SECONDS)).samples
        request, paged = pb.ListSamplesRequest(page_size=4), []
        while True:
            answer = await stub.ListSamples(request, timeout=SECONDS)
            paged += answer.samples
            if not answer.next_page_token:
                break
            assert len(answer.samples) == 4
            request.page_token = answer.next_page_token
        assert list(whole) == paged
        assert len(paged) > 8
        assert [s.sample_id for s in paged] == sorted({s.sample_id for s in paged})
        first = pb.ListSamplesRequest(page_size=1, kinds=[pb.SAMPLE_KIND_SECOND])
        seconds = await stub.ListSamples(first, timeout=SECONDS)
        assert [s.kind for s in seconds.samples] == [pb.SAMPLE_KIND_SECOND]
        first.page_token, first.kinds[0] = seconds.next_page_token, pb.SAMPLE_KIND_FIRST
        assert (await refused(stub.ListSamples, first)).code is Code.REQUEST_INVALID


async def test_events_come_as_they_happen_and_from_where_one_wants(tmp_path: Path):
    async with calling(node_settings(tmp_path / "device")) as stub:
        await enrol_all(stub, 1)
        seen: list[pb.Event] = []

        async def watch(request: pb.WatchEventsRequest) -> None:
            async for answer in stub.WatchEvents(request, timeout=SECONDS):
                seen.append(answer.event)

        watching = asyncio.create_task(watch(pb.WatchEventsRequest(kinds=[pb.EVENT_KIND_ENROLLED])))
        await asyncio.sleep(0.5)  # from now on
        await stub.Enrol(pb.EnrolRequest(person="later", captures=[png(4, 0)]), timeout=SECONDS)

        async def look() -> int:
            return len(seen)

        await until(lambda count: count == 1, look)
        watching.cancel()
        told = await events(stub)
        assert [event.kind for event in told] == [
            pb.EVENT_KIND_RELEASE_INSTALLED,
            pb.EVENT_KIND_ENROLLED,
            pb.EVENT_KIND_ENROLLED,
        ]
        assert seen == told[-1:]
        assert await events(stub, after=told[1].event_id) == told[2:]
        assert "later" not in str(told)


async def test_health_and_reflection_tell_of_the_service(tmp_path: Path):
    async with (
        node(node_settings(tmp_path / "device")) as running,
        Channel(ChannelSettings(Address("127.0.0.1", running.port))) as channel,
    ):
        request = health_pb2.HealthCheckRequest(service="tutelage.api.device.v1.DeviceService")
        stub = health_pb2_grpc.HealthStub(channel)

        async def look() -> int:
            return (await stub.Check(request, timeout=SECONDS)).status

        await until(lambda found: found == health_pb2.HealthCheckResponse.SERVING, look)

        async def asked():
            yield reflection_pb2.ServerReflectionRequest(list_services="")

        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        async for answer in reflection.ServerReflectionInfo(asked(), timeout=SECONDS):
            names = [service.name for service in answer.list_services_response.service]
        assert "tutelage.api.device.v1.DeviceService" in names


async def test_over_mutual_tls_a_gate_recognises_and_the_owner_alone_does_the_rest(tmp_path: Path):
    authority = Authority("ours")
    ca = authority.write(tmp_path / "ca.pem")
    certificate, key = authority.issue(tmp_path, "device")
    settings = node_settings(tmp_path / "device", owners=("spiffe://tutelage/owner",))
    tls = ServerTls(certificate, key, ca)
    async with node(settings, tls=tls, address=Address("localhost", 0)) as running:

        def caller(name: str) -> Channel:
            own, own_key = authority.issue(tmp_path, name)
            return Channel(ChannelSettings(Address("localhost", running.port), ClientTls(True, ca, own, own_key)))

        async with caller("owner") as owner, caller("gate") as gate:
            owned, met = DeviceServiceStub(owner), DeviceServiceStub(gate)
            await enrol_all(owned, 2)
            answer = await met.Recognize(pb.RecognizeRequest(capture=png(1, 7)), timeout=SECONDS)
            assert answer.recognition.person == name_of(1)
            await met.Verify(pb.VerifyRequest(person=name_of(1), capture=png(1, 7)), timeout=SECONDS)
            assert (await status(met)).persons == 2
            for call, request in (
                (met.Enrol, pb.EnrolRequest(person="me", captures=[png(5, 0)])),
                (met.ListSamples, pb.ListSamplesRequest()),
                (met.ExplainSample, pb.ExplainSampleRequest(sample_id=1)),
                (met.ErasePerson, pb.ErasePersonRequest(person=name_of(1))),
                (met.TrainNow, pb.TrainNowRequest()),
                (met.Rollback, pb.RollbackRequest(reason="for fun")),
            ):
                assert (await refused(call, request)).code is Code.CALLER_REFUSED
            assert (await status(owned)).persons == 2


async def test_recognition_waits_for_no_slow_work(tmp_path: Path):
    """Whatever holds the lock of slow work, answers come."""
    settings = node_settings(tmp_path / "device")
    settings.folder.mkdir()
    with locked(settings.folder), open_device(settings, PatientLabeller(None, settings.folder / "untold")) as device:
        device.enrol("a", [finger(0, 0)])
        answered: list[str] = []
        with device.work:
            thread = threading.Thread(target=lambda: answered.append(device.answer(finger(0, 3)).generation))
            thread.start()
            thread.join(20)
            assert answered == ["v1"]
            assert device.activity.idle_s < 20
        assert device.store.last_event(EventKind.ENROLLED) is not None


async def test_who_watches_events_keeps_no_device_from_ending(tmp_path: Path):
    ended: list[Code] = []
    settings = node_settings(tmp_path / "device")
    async with asyncio.timeout(60), node(settings, drain_grace=timedelta(seconds=600)) as running:
        channel = Channel(ChannelSettings(Address("127.0.0.1", running.port)))
        stub, begun = DeviceServiceStub(channel), asyncio.Event()

        async def watch() -> None:
            try:
                async for _ in stub.WatchEvents(pb.WatchEventsRequest(after_event_id=0), timeout=600):
                    begun.set()
            except TutelageError as error:
                ended.append(error.code)

        watching = asyncio.create_task(watch())
        await begun.wait()
    await watching
    await channel.close()
    assert ended == [Code.SERVICE_UNAVAILABLE]


async def test_an_erased_person_is_gone_and_the_receipt_says_so(tmp_path: Path):
    settings = node_settings(tmp_path / "device")
    async with calling(settings) as stub:
        await enrol_all(stub)
        await live(stub, 2)
        erased = await stub.ErasePerson(pb.ErasePersonRequest(person=name_of(1)), timeout=SECONDS)
        assert (erased.references, erased.student.generation, erased.teacher_knew) == (2, "v1", False)
        own = read_signer(settings.folder / "device.key").public_key()
        receipt = read_receipt(erased.receipt, trusted=[own])
        assert (len(receipt.references), receipt.decisions) == (2, erased.decisions)
        again = await stub.ErasePerson(pb.ErasePersonRequest(person=name_of(1)), timeout=SECONDS)
        assert again.receipt == erased.receipt
    async with calling(settings) as stub:
        assert (await status(stub)).persons == PERSONS - 1
        error = await refused(stub.Verify, pb.VerifyRequest(person=name_of(1), capture=png(1, 7)))
        assert error.code is Code.PERSON_UNKNOWN
        answer = await stub.Recognize(pb.RecognizeRequest(capture=png(1, 7)), timeout=SECONDS)
        assert answer.recognition.person != name_of(1)


async def test_one_process_at_a_time_uses_a_folder(tmp_path: Path):
    settings = node_settings(tmp_path / "device")
    async with node(settings):
        with pytest.raises(TutelageError) as caught:
            async with node(settings):
                pass
        with pytest.raises(TutelageError) as refused_too:
            rotate_key(settings.folder)
    assert refused_too.value.code is Code.SETTING_INVALID
    assert caught.value.code is Code.SETTING_INVALID
    assert "another process uses it" in caught.value.message


async def test_failed_captures_of_one_visit_are_one_attempt(tmp_path: Path):
    async with calling(node_settings(tmp_path / "device")) as stub:
        await enrol_all(stub)
        missed = []
        for press in range(1000, 1400, 10):
            answers = await attempt(stub, 0, press, 0.9)
            if len(answers) == 3 and answers[-1].recognition.decision != pb.DECISION_ACCEPT:
                missed = answers
                break
        assert missed, "nobody failed"
        assert [a.outcome.kind for a in missed] == [pb.SAMPLE_KIND_NOTHING] * 2 + [pb.SAMPLE_KIND_SECOND]
        assert missed[-1].outcome.rule == pb.SAMPLE_RULE_REPEATED_FAILURE
        assert list(missed[-1].outcome.run_decision_ids) == [a.outcome.decision_id for a in missed]
