"""teacher-inference as it is shipped: real processes and real calls, with the fingerprint teacher."""

from __future__ import annotations

import asyncio
import io
import json
import signal
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("grpc")

import grpc
from certificates import Authority
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from labelling_service import (
    KEY,
    SECONDS,
    SITE,
    ScriptedBackend,
    SpectrumTeacher,
    ended,
    enrol,
    label,
    part,
    png,
    settings,
    submit,
)
from prometheus_client import CollectorRegistry, generate_latest
from served_part import LOOPBACK, quick_server, served, twins
from service_process import running

from device_sim.models import shipped
from teacher_inference.abstention import MEASURED, AbstentionSettings
from teacher_inference.servicer import NAME
from tutelage.api.teacher.v1 import teacher_pb2 as pb
from tutelage.api.teacher.v1.teacher_pb2_grpc import TeacherInferenceServiceStub
from tutelage.captures import decode_png, encode_png
from tutelage.channel import Channel, ChannelSettings
from tutelage.errors import CaptureError, Code, InputError, PersonError, RequestError, ServiceError, UsageError
from tutelage.labelling import AbstentionPolicy, GalleryLabeller
from tutelage.labelling_client import ServiceLabeller
from tutelage.log import configure_logging
from tutelage.server import Server
from tutelage.serving import Context
from tutelage.settings import Address
from tutelage.stores import open_stores
from tutelage.tls import ClientTls, ServerTls

PERSON = "Anna-of-Gate-Seven"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "key").write_bytes(KEY.value)
    return {
        "TUTELAGE_TEACHER_GALLERY_KEY_FILE": str(tmp_path / "key"),
        "TUTELAGE_TEACHER_BACKEND_THREADS": "1",
        "TUTELAGE_STORES_OBJECTS_FOLDER": str(tmp_path / "objects"),
    }


@pytest.fixture(scope="module")
def strangers() -> list[bytes]:
    """One capture each of persons that the shipped teacher was not trained on."""
    return [encode_png(capture) for capture in shipped().impostors.captures[:12]]


def run(scenario) -> None:
    asyncio.run(scenario)


def test_enrolled_persons_are_named_also_after_a_restart_until_they_are_removed(environment, strangers, tmp_path):
    async def scenario():
        async with running("teacher_inference", environment, tmp_path) as service:
            async with service.channel as channel:
                stub = TeacherInferenceServiceStub(channel)
                for number, capture in enumerate(strangers[:6]):
                    answer = await stub.EnrolPerson(enrol(f"{PERSON}-{number}", capture), timeout=SECONDS)
                    assert (answer.references, len(answer.unusable)) == (1, 0)
                teacher = (await stub.GetTeacher(pb.GetTeacherRequest(), timeout=SECONDS)).teacher
                assert (teacher.name, teacher.backend) == ("fingerprint", pb.TEACHER_BACKEND_IN_PROCESS)
                assert (teacher.abstention.min_cosine, teacher.abstention.min_margin) == MEASURED[teacher.teacher_space]
            assert service.kill(signal.SIGTERM) == 0
            await service.start()
            async with service.channel as channel:
                stub = TeacherInferenceServiceStub(channel)
                question = label([strangers[2]], [strangers[9]])
                known, unknown = (await stub.Label(question, timeout=SECONDS)).answers
                assert (known.person, unknown.HasField("person")) == (f"{PERSON}-2", False)
                assert unknown.reason.startswith("nobody near enough")
                batch = (await stub.SubmitLabelBatch(submit("k", [strangers[4]]), timeout=SECONDS)).batch
                (queued,) = (await ended(stub, batch)).answers
                assert queued.person == f"{PERSON}-4"
                await stub.RemovePerson(pb.RemovePersonRequest(site=SITE, person=f"{PERSON}-2"), timeout=SECONDS)
                (gone, _) = (await stub.Label(question, timeout=SECONDS)).answers
                assert not gone.HasField("person")
        log = service.log.read_text()
        assert PERSON not in log
        kept = b"".join(path.read_bytes() for path in (tmp_path / "objects").rglob("*") if path.is_file())
        assert PERSON.encode() not in kept
        assert b"PNG" not in kept

    run(scenario())


def test_the_service_describes_itself(environment, tmp_path):
    async def scenario():
        async with (
            running("teacher_inference", environment, tmp_path) as service,
            grpc.aio.insecure_channel(f"{LOOPBACK}:{service.port}") as channel,
        ):
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
            async for answer in stub.ServerReflectionInfo(iter(asked)):
                assert NAME in {service.name for service in answer.list_services_response.service}

    run(scenario())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"TUTELAGE_TEACHER_GALLERY_KEY_FILE": ""}, "TUTELAGE_TEACHER_GALLERY_KEY_FILE is missing"),
        ({"TUTELAGE_TEACHER_BACKEND_TEACHER": "/nowhere"}, "there is no teacher file"),
        ({"TUTELAGE_TEACHER_ABSTENTION_MIN_COSINE": "7"}, "-1 to 1"),
    ],
)
def test_a_service_that_cannot_start_says_why(environment, tmp_path, changed, said):
    async def scenario():
        with pytest.raises(AssertionError, match=said):
            async with running("teacher_inference", {**environment, **changed}, tmp_path):
                pass

    run(scenario())


@asynccontextmanager
async def secured(ours: Authority, folder: Path, **changed):
    """The service behind mutual TLS, and how a client of a name calls it."""
    tls = ServerTls(*ours.issue(folder, "server"), ours.write(folder / "ours.pem"))
    async with open_stores(twins(folder / "objects")) as stores:
        context = Context(stores, CollectorRegistry())
        async with (
            part(ScriptedBackend()).open(settings(**changed), context) as service,
            Server(quick_server(address=Address("localhost", 0), tls=tls), [service]) as server,
        ):

            def called_by(name: str) -> Channel:
                certificate, key = ours.issue(folder, name)
                mine = ClientTls(True, folder / "ours.pem", certificate, key)
                return Channel(ChannelSettings(Address("localhost", server.port), mine))

            yield called_by


def test_features_are_for_the_callers_that_settings_name(tmp_path):
    async def scenario():
        request = pb.ExtractFeaturesRequest(captures=[png(1), png(2)])
        async with secured(Authority("ours"), tmp_path, feature_callers=("spiffe://tutelage/distiller",)) as called_by:
            async with called_by("distiller") as channel:
                answer = await TeacherInferenceServiceStub(channel).ExtractFeatures(request, timeout=SECONDS)
                assert [len(feature.vector) for feature in answer.features] == [800, 800]
            async with called_by("door-3") as channel:
                with pytest.raises(ServiceError) as caught:
                    await TeacherInferenceServiceStub(channel).ExtractFeatures(request, timeout=SECONDS)
                assert caught.value.code is Code.CALLER_REFUSED
                await TeacherInferenceServiceStub(channel).EnrolPerson(enrol("anna", png(1)), timeout=SECONDS)

    run(scenario())


@pytest.mark.parametrize("callers", [(), ("distiller",)])
def test_features_are_not_for_the_anonymous_unless_settings_say_so(tmp_path, callers):
    async def scenario():
        async with served(part(ScriptedBackend()), settings(feature_callers=callers), twins(tmp_path)) as channel:
            with pytest.raises(ServiceError) as caught:
                await TeacherInferenceServiceStub(channel).ExtractFeatures(
                    pb.ExtractFeaturesRequest(captures=[png(1)]), timeout=SECONDS
                )
            assert caught.value.code is Code.CALLER_REFUSED

    run(scenario())


def test_a_new_teacher_names_nobody_until_all_are_enrolled_again(tmp_path):
    async def scenario():
        question = label([png(1, 2)])
        async with served(part(ScriptedBackend()), settings(), twins(tmp_path)) as channel:
            stub = TeacherInferenceServiceStub(channel)
            for person in (1, 2):
                await stub.EnrolPerson(enrol(f"p{person}", png(person)), timeout=SECONDS)
            assert (await stub.Label(question, timeout=SECONDS)).answers[0].person == "p1"
        other = ScriptedBackend(SpectrumTeacher("spectrum-2"))
        async with served(part(other), settings(), twins(tmp_path)) as channel:
            stub = TeacherInferenceServiceStub(channel)
            for enrolled, reason in ((None, "2 persons of the site"), ("p2", "1 person of the site")):
                if enrolled:
                    await stub.EnrolPerson(enrol(enrolled, png(2)), timeout=SECONDS)
                (answer,) = (await stub.Label(question, timeout=SECONDS)).answers
                assert not answer.HasField("person")
                assert answer.reason.startswith(reason)
            await stub.EnrolPerson(enrol("p1", png(1)), timeout=SECONDS)
            (answer,) = (await stub.Label(question, timeout=SECONDS)).answers
            assert (answer.person, answer.teacher_space) == ("p1", "spectrum-2")

    run(scenario())


def test_bad_requests_name_their_field_and_change_nothing(tmp_path):
    damaged = png(2)[: len(png(2)) // 2]
    many = [[png(1)]] * 257
    dark = encode_png(_with_black_corner(decode_png(png(3))))

    async def scenario():
        async with served(part(ScriptedBackend()), settings(), twins(tmp_path)) as channel:
            stub = TeacherInferenceServiceStub(channel)
            for method, request, kind, said in (
                (stub.Label, label([png(1)], site="../up"), RequestError, "^site must"),
                (stub.Label, label([png(1)], [png(1), damaged]), CaptureError, r"attempts\[1\].captures\[1\]: "),
                (stub.Label, label(*many), RequestError, "attempts must be 1 to 256: 257"),
                (stub.Label, label(), RequestError, "attempts must be 1"),
                (stub.Label, label([]), RequestError, r"attempts\[0\].captures must be 1 to 16"),
                (stub.Label, label([b"x" * 262_145]), CaptureError, r"attempts\[0\].captures\[0\]: 262145 bytes"),
                (stub.EnrolPerson, enrol("a\nb", png(1)), RequestError, "^person must"),
                (stub.EnrolPerson, enrol("", png(1)), RequestError, "^person must"),
                (stub.EnrolPerson, enrol("anna", *[png(1)] * 17), RequestError, "captures must be 1 to 16"),
                (stub.EnrolPerson, enrol("anna", png(1), damaged), CaptureError, r"captures\[1\]: "),
                (stub.EnrolPerson, enrol("anna", dark, dark), InputError, "no reference capture is usable"),
                (stub.SubmitLabelBatch, submit("a/b", [png(1)]), RequestError, "^idempotency_key must"),
                (stub.SubmitLabelBatch, submit("k", [png(1)], [damaged]), CaptureError, r"attempts\[1\].captures\[0\]"),
                (stub.RemovePerson, pb.RemovePersonRequest(site=SITE, person="anna"), PersonError, "not enrolled"),
            ):
                with pytest.raises(kind, match=said):
                    await method(request, timeout=SECONDS)
            (answer,) = (await stub.Label(label([png(1)]), timeout=SECONDS)).answers
            assert (answer.reason, answer.HasField("margin"), len(answer.soft)) == ("nobody is enrolled", False, 0)
            mixed = await stub.EnrolPerson(enrol("anna", dark, png(3)), timeout=SECONDS)
            assert (mixed.references, [(u.index, u.reason) for u in mixed.unusable]) == (1, [(0, "nothing to see")])

    run(scenario())


def _with_black_corner(pixels):
    dark = pixels.copy()
    dark[:3, :3] = 0
    return dark


def test_a_slow_or_dead_teacher_ends_calls_in_time(tmp_path):
    backend = ScriptedBackend()

    async def scenario():
        async with served(part(backend), settings(), twins(tmp_path)) as channel:
            stub = TeacherInferenceServiceStub(channel)
            for delay, error, expected in (
                (30.0, None, Code.DEADLINE_EXCEEDED),
                (0.0, Code.SERVICE_UNAVAILABLE, Code.SERVICE_UNAVAILABLE),
            ):
                backend.delay_s, backend.error = delay, error
                for method, request in ((stub.Label, label([png(1)])), (stub.EnrolPerson, enrol("anna", png(1)))):
                    with pytest.raises(ServiceError) as caught:
                        await asyncio.wait_for(method(request, timeout=0.4), 5)
                    assert caught.value.code is expected

    run(scenario())


def test_metrics_and_logs_count_without_telling_who(tmp_path):
    stream, registry = io.StringIO(), CollectorRegistry()
    configure_logging("debug", stream)

    async def scenario():
        async with (
            open_stores(twins(tmp_path)) as stores,
            part(ScriptedBackend()).open(settings(), Context(stores, registry)) as service,
            Server(quick_server(), [service]) as server,
            Channel(ChannelSettings(Address(LOOPBACK, server.port))) as channel,
        ):
            stub = TeacherInferenceServiceStub(channel)
            await stub.EnrolPerson(enrol(PERSON, png(1)), timeout=SECONDS)
            await stub.Label(label([png(1)], [png(2)]), timeout=SECONDS)
            await stub.Label(label([png(1)], site="empty"), timeout=SECONDS)
            batch = (await stub.SubmitLabelBatch(submit("k", [png(1)]), timeout=SECONDS)).batch
            await ended(stub, batch)
            with pytest.raises(PersonError):
                await stub.RemovePerson(pb.RemovePersonRequest(site=SITE, person=f"{PERSON}?"), timeout=SECONDS)
            return generate_latest(registry).decode()

    numbers = asyncio.run(scenario())
    for line in (
        'tutelage_teacher_answers_total{outcome="person",reason=""} 3.0',
        'tutelage_teacher_answers_total{outcome="abstained",reason="nobody-enrolled"} 1.0',
        'tutelage_teacher_batches_total{stage="done"} 1.0',
        "tutelage_teacher_batch_queue_seconds_count 1.0",
        'tutelage_teacher_backend_duration_seconds_count{outcome="answered"} 4.0',
        "tutelage_teacher_captures_total 5.0",
        "tutelage_teacher_gallery_persons 1.0",
    ):
        assert line in numbers
    for said in (numbers, stream.getvalue()):
        assert PERSON not in said
        assert SITE not in said
    assert [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_device_is_answered_through_the_service_as_by_a_teacher_of_its_own(tmp_path):
    """`ServiceLabeller` and `GalleryLabeller` in one teacher's space give the same answers and errors."""
    attempts = [[], *[[decode_png(png(person, number)) for number in (2, 3)] for person in range(1, 5)], []]
    policy = AbstentionPolicy(min_cosine=-1.0, min_margin=0.1)
    here = GalleryLabeller(SpectrumTeacher(), policy)

    async def scenario():
        limits = AbstentionSettings(min_cosine=policy.min_cosine, min_margin=policy.min_margin)
        async with served(part(ScriptedBackend()), settings(abstention=limits), twins(tmp_path)) as channel:
            await asyncio.to_thread(compare, channel._settings)

    def compare(where: ChannelSettings) -> None:
        with ServiceLabeller(where, site=SITE, timeout=timedelta(seconds=SECONDS)) as there:
            assert there.space == here.space
            for person in (1, 2, 3):
                for labeller in (here, there):
                    labeller.enrol(f"p{person}", [decode_png(png(person)), decode_png(png(person, 1))])
            _assert_alike(there.label(attempts), here.label(attempts))
            _assert_alike(there.label(attempts[1:2] * 300), here.label(attempts[1:2]) * 300)  # several requests
            for labeller in (here, there):
                labeller.remove("p2")
                with pytest.raises(PersonError):
                    labeller.remove("p2")
                with pytest.raises(UsageError):
                    labeller.enrol("", attempts[1])
                with pytest.raises(InputError) as caught:
                    labeller.enrol("p2", [])
                assert caught.value.code is Code.DATA_INSUFFICIENT
            _assert_alike(there.label(attempts), here.label(attempts))

    run(scenario())


def _assert_alike(found, expected) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.person, one.reason, one.space) == (other.person, other.reason, other.space)
        assert (one.confidence, one.margin) == pytest.approx((other.confidence, other.margin), abs=1e-6)
        assert list(one.soft) == list(other.soft)
        assert list(one.soft.values()) == pytest.approx(list(other.soft.values()), abs=1e-6)


def test_a_device_whose_service_is_away_is_told_in_time():
    where = ChannelSettings(Address(LOOPBACK, 9))
    with (
        ServiceLabeller(where, site=SITE, timeout=timedelta(seconds=0.5)) as labeller,
        pytest.raises(ServiceError) as caught,
    ):
        labeller.label([[decode_png(png(1))]])
    assert caught.value.code in {Code.SERVICE_UNAVAILABLE, Code.DEADLINE_EXCEEDED}


def test_where_the_last_capture_is_judged_alone_the_others_must_be_captures_all_the_same(tmp_path):
    async def scenario():
        limits = AbstentionSettings(min_cosine=-1.0, min_margin=0.0, group=False)
        async with served(part(ScriptedBackend()), settings(abstention=limits), twins(tmp_path)) as channel:
            stub = TeacherInferenceServiceStub(channel)
            for person in (1, 2):
                await stub.EnrolPerson(enrol(f"p{person}", png(person)), timeout=SECONDS)
            (answer,) = (await stub.Label(label([png(1, 1), png(1, 2), png(2, 1)]), timeout=SECONDS)).answers
            assert answer.person == "p2"
            half = png(1)[: len(png(1)) // 2]
            for attempt, place in (([half, png(1)], 0), ([png(1), half], 1)):
                with pytest.raises(CaptureError, match=rf"attempts\[1\]\.captures\[{place}\]: "):
                    await stub.Label(label([png(2)], attempt), timeout=SECONDS)

    run(scenario())
