"""A device and its cloud: labels, trainings and students come and go, whoever is away meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("grpc")
pytest.importorskip("teacher_inference")
pytest.importorskip("model_registry")

from device_cloud import registering, released, signed_as, teaching
from device_node import QUICK, SECONDS, calling, enrol_all, events, live, node_settings, png, status, until
from student_packages import STRANGER
from toy_device import PERSONS, name_of, toy_release

from device_sim.node_settings import RegistrySettings, TeacherSettings
from tutelage.api.device.v1 import device_pb2 as pb
from tutelage.api.registry.v1 import registry_pb2
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.channel import Channel, ChannelSettings


def kinds(told: list[pb.Event]) -> list[str]:
    return [pb.EventKind.Name(event.kind).removeprefix("EVENT_KIND_").lower() for event in told]


async def test_a_worn_device_asks_trains_swaps_and_goes_back_while_it_recognises(tmp_path: Path):
    async with teaching(tmp_path) as teacher:
        when_told = replace(QUICK, training=timedelta(hours=1))
        settings = node_settings(tmp_path / "device", teacher=TeacherSettings(teacher), pace=when_told)
        async with calling(settings) as stub:
            await enrol_all(stub)
            assert (await stub.TrainNow(pb.TrainNowRequest(), timeout=SECONDS)).missing
            await live(stub, 6)
            await until(lambda now: list(now.labels_missing) == ["no attempt waits for a label"], lambda: status(stub))
            started = await stub.TrainNow(pb.TrainNowRequest(), timeout=SECONDS)
            assert (started.generation, list(started.missing)) == ("v1+1", [])
            again = await stub.TrainNow(pb.TrainNowRequest(), timeout=SECONDS)
            assert "the training under way has to end" in again.missing
            seen: list[pb.DeviceStatus] = []

            async def look() -> pb.DeviceStatus:
                answer = await stub.Recognize(pb.RecognizeRequest(capture=png(1, 7)), timeout=5)
                assert answer.recognition.decision == pb.DECISION_ACCEPT
                for _ in range(15):  # the worker gives way as long as somebody stands at the door
                    await asyncio.sleep(0.1)
                    seen.append(await status(stub))
                return seen[-1]

            swapped = await until(lambda now: now.student.generation == "v1+1", look)
            assert swapped.watching
            assert swapped.released.generation == swapped.previous.generation == "v1"
            trained = [now.training for now in seen if now.HasField("training")]
            assert {training.generation for training in trained} == {"v1+1"}
            assert max(training.elapsed.seconds for training in trained) < 120
            order = ["labels_asked", "label_stored", "training_started", "training_finished", "gate_passed"]
            told = list(dict.fromkeys(kinds(await events(stub))))
            assert [kind for kind in told if kind in order] == order
            back = await stub.Rollback(pb.RollbackRequest(reason="a test"), timeout=SECONDS)
            assert back.student.generation == "v1"
            answer = await stub.Recognize(pb.RecognizeRequest(capture=png(1, 7)), timeout=SECONDS)
            assert answer.recognition.generation == "v1"
            assert (await events(stub, pb.EVENT_KIND_GENERATION_REVERTED))[-1].reason == "a test"


async def test_a_training_that_a_restart_ended_goes_on(tmp_path: Path):
    async with teaching(tmp_path) as teacher:
        settings = node_settings(tmp_path / "device", teacher=TeacherSettings(teacher))
        async with calling(settings) as stub:
            await enrol_all(stub)
            await live(stub, 6)
            await until(lambda now: now.HasField("training"), lambda: status(stub))
        async with calling(settings) as stub:
            await until(lambda now: now.student.generation == "v1+1", lambda: status(stub))
            assert "training_resumed" in kinds(await events(stub))
            assert (await status(stub)).persons == PERSONS


async def test_a_teacher_that_is_away_costs_nothing_but_the_labels_age(tmp_path: Path):
    async with teaching(tmp_path) as teacher:
        pass
    brief = TeacherSettings(teacher, timeout=timedelta(seconds=0.5))
    settings = node_settings(tmp_path / "device", teacher=brief)
    async with calling(settings) as stub:
        await enrol_all(stub)
        await live(stub, 2)
        before = await status(stub)
        assert before.persons == PERSONS
        assert (await stub.Recognize(pb.RecognizeRequest(capture=png(1, 7)), timeout=5)).recognition.person == name_of(
            1
        )
    async with calling(settings) as stub:  # and after a restart
        await asyncio.sleep(0.5)
        assert not {"labels_asked", "label_stored", "label_abstained"} & set(kinds(await events(stub)))
        async with teaching(tmp_path, teacher.port):
            told = await until(lambda told: "label_stored" in kinds(told), lambda: events(stub))
            assert "labels_asked" in kinds(told)

            async def marker() -> bool:
                return (settings.folder / "untold").exists()

            await until(lambda there: not there, marker)


async def test_a_new_teacher_is_told_of_everybody_before_it_is_asked(tmp_path: Path):
    async with teaching(tmp_path) as teacher:
        settings = node_settings(tmp_path / "device", teacher=TeacherSettings(teacher))
        async with calling(settings) as stub:
            await enrol_all(stub)
            await live(stub, 1)
            await until(lambda told: "label_stored" in kinds(told), lambda: events(stub))
    async with teaching(tmp_path, teacher.port, space="pixels/newer"), calling(settings) as stub:
        before = len(await events(stub, pb.EVENT_KIND_LABEL_STORED))
        await live(stub, 1)

        async def stored() -> int:
            return len(await events(stub, pb.EVENT_KIND_LABEL_STORED))

        await until(lambda count: count > before, stored)


@asynccontextmanager
async def following(tmp_path: Path, registry, **other):
    settings = node_settings(tmp_path / "device", registry=RegistrySettings(registry), student_file=None, **other)
    async with calling(settings) as stub:
        yield stub


async def test_a_new_device_starts_with_its_channels_student_and_follows_it(tmp_path: Path):
    async with registering(tmp_path / "cloud") as registry:
        first = await released(registry, toy_release().package)
        async with following(tmp_path, registry) as stub:
            assert (await status(stub)).student.digest == first
            await enrol_all(stub)
            second = await released(registry, toy_release("v2").package, before=first)
            now = await until(lambda now: now.student.generation == "v2", lambda: status(stub))
            assert (now.student.digest, now.previous.digest, now.persons) == (second, first, PERSONS)
            answer = await stub.Recognize(pb.RecognizeRequest(capture=png(1, 7)), timeout=SECONDS)
            assert (answer.recognition.person, answer.recognition.generation) == (name_of(1), "v2")
            assert (await events(stub))[-1].kind in (pb.EVENT_KIND_RELEASE_INSTALLED, pb.EVENT_KIND_SAMPLE_KEPT)
            async with Channel(ChannelSettings(registry)) as channel:
                asked = registry_pb2.GetVersionRequest(digest=second)
                calls = ModelRegistryServiceStub(channel)
                await until(lambda found: found.devices == 1, lambda: calls.GetVersion(asked, timeout=SECONDS))


async def test_an_older_or_foreign_version_is_refused_with_one_event(tmp_path: Path):
    async with registering(tmp_path / "cloud") as registry:
        first = await released(registry, toy_release().package)
        second = await released(registry, toy_release("v2").package, before=first)
        async with following(tmp_path, registry) as stub:
            assert (await status(stub)).student.generation == "v2"
            await released(registry, toy_release().package, before=second)

            def refusals():
                return events(stub, pb.EVENT_KIND_RELEASE_REFUSED)

            told = await until(bool, refusals)
            assert "v1 was not installed: v1 is older than v2" in told[0].reason
            foreign = await released(registry, signed_as("v3", STRANGER), before=first)
            told = await until(lambda told: len(told) == 2, refusals)
            assert told[1].reason.startswith("v3 was not installed: no trusted key signed this package")
            await asyncio.sleep(2.5)  # two check-ins
            assert len(await refusals()) == 2
            assert (await status(stub)).student.generation == "v2"
        async with following(tmp_path, registry) as stub:  # it is the same refusal after a restart
            await asyncio.sleep(1.5)
            assert len(await events(stub, pb.EVENT_KIND_RELEASE_REFUSED)) == 2
            await released(registry, toy_release("v4").package, before=foreign)
            await until(lambda now: now.student.generation == "v4", lambda: status(stub))


async def test_without_the_registry_a_device_goes_on(tmp_path: Path):
    async with registering(tmp_path / "cloud") as registry:
        await released(registry, toy_release().package)
        async with following(tmp_path, registry) as stub:
            await enrol_all(stub, 2)
    async with following(tmp_path, registry) as stub:
        answer = await stub.Recognize(pb.RecognizeRequest(capture=png(1, 7)), timeout=5)
        assert answer.recognition.person == name_of(1)
