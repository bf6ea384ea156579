"""`tutelage up`: three services in one process, and one line from a data set to the version a device is to run."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("grpc")
pytest.importorskip("student_distiller")

from drawn_persons import draw_captures, draw_manifest
from PIL import Image
from registry_calls import check_in, download, set_channel

from tutelage.api.distiller.v1 import distiller_pb2 as distiller
from tutelage.api.distiller.v1.distiller_pb2_grpc import StudentDistillerServiceStub
from tutelage.api.registry.v1 import registry_pb2 as registry
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.api.teacher.v1 import teacher_pb2 as teacher
from tutelage.api.teacher.v1.teacher_pb2_grpc import TeacherInferenceServiceStub
from tutelage.channel import Channel, ChannelSettings
from tutelage.commands.up import environment_for
from tutelage.errors import Code, TutelageError
from tutelage.package import read_package
from tutelage.serving import installed_parts
from tutelage.settings import Address
from tutelage.signing import read_public_key

SECONDS = 60
COMMAND = [sys.executable, "-m", "tutelage"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def up(folder: Path):
    """Where the services take calls, until they have ended well."""
    address = Address("127.0.0.1", free_port())
    command = [*COMMAND, "up", "--folder", str(folder), "--address", str(address)]
    environment = {**os.environ, "TUTELAGE_SERVER_DRAIN_NOTICE": "0", "TUTELAGE_METRICS_ENABLED": "false"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout.readline().startswith(f"serving at {address}: model-registry")
            yield address
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0, process.stderr.read()
        finally:
            process.kill()


def pushed(folder: Path) -> str:
    """Digest of a data set of ten persons, put into the objects of `tutelage up` by the command for it."""
    manifest = draw_manifest(folder / "images", range(10), 6)
    environment = {
        **os.environ,
        "TUTELAGE_STORES_OBJECTS_FOLDER": str(folder / "up/objects"),
        "TUTELAGE_DISTILLER_DATA_KEY_FILE": str(folder / "up/keys/distiller-data.key"),
    }
    command = [*COMMAND, "data-set", "push", str(manifest), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["data_set"]


async def distilled(channel: Channel, data_set: str) -> distiller.WatchJobResponse:
    """The last word on a short job."""
    stub = StudentDistillerServiceStub(channel)
    spec = distiller.JobSpec(name="waves", version="v1", data_set=data_set, size=distiller.STUDENT_SIZE_TINY)
    spec.training.steps, spec.training.batch = 10, 8
    request = distiller.SubmitJobRequest(idempotency_key="first", spec=spec)
    job = (await stub.SubmitJob(request, timeout=SECONDS)).job
    async for told in stub.WatchJob(distiller.WatchJobRequest(job_id=job.job_id), timeout=SECONDS):
        last = told
    assert last.progress.state == distiller.JOB_STATE_SUCCEEDED, last
    return last


async def version_of(stub: ModelRegistryServiceStub, digest: str) -> registry.Version:
    """The version that the registry makes of what the distiller told it."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                return (await stub.GetVersion(registry.GetVersionRequest(digest=digest), timeout=SECONDS)).version
            except TutelageError as error:
                if error.code is not Code.OBJECT_MISSING:
                    raise
                await asyncio.sleep(0.1)


def png(person: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(draw_captures(person, 1, 64)[0]).save(out, "PNG")
    return out.getvalue()


async def named(channel: Channel) -> list[str]:
    """Whom the teacher names on the captures with which two persons were enrolled."""
    stub = TeacherInferenceServiceStub(channel)
    for person in (1, 2):
        request = teacher.EnrolPersonRequest(site="gate", person=f"p{person}", captures=[png(person)])
        await stub.EnrolPerson(request, timeout=SECONDS)
    attempts = [teacher.Attempt(captures=[png(person)]) for person in (2, 1)]
    answers = (await stub.Label(teacher.LabelRequest(site="gate", attempts=attempts), timeout=SECONDS)).answers
    return [answer.person for answer in answers]


async def whole_line(address: Address, data_set: str, folder: Path) -> None:
    async with Channel(ChannelSettings(address)) as channel:
        assert await named(channel) == ["p2", "p1"]
        told = await distilled(channel, data_set)
        stub = ModelRegistryServiceStub(channel)
        version = await version_of(stub, told.result.digest)
        assert (version.name, version.version, version.lineage.data_set) == ("waves", "v1", data_set)
        await stub.SetChannel(set_channel(version.digest), timeout=SECONDS)
        wanted = (await stub.CheckIn(check_in("gate", version.digest), timeout=SECONDS)).wanted
        package = read_package(
            await download(stub, wanted.digest), trusted=[read_public_key(folder / "up/keys/signer.pub")]
        )
        assert (package.digest, package.info.teacher_space) == (told.result.digest, told.result.teacher_space)


def test_one_line_leads_from_a_data_set_to_what_a_device_runs_and_outlives_a_restart(tmp_path):
    environment_for(installed_parts(), tmp_path / "up", "127.0.0.1:1", {})  # makes the keys, as the first start does
    data_set = pushed(tmp_path)
    with up(tmp_path / "up") as address:
        asyncio.run(whole_line(address, data_set, tmp_path))
    with up(tmp_path / "up") as address:
        asyncio.run(still_there(address))


async def still_there(address: Address) -> None:
    async with Channel(ChannelSettings(address)) as channel:
        request = registry.GetChannelRequest(channel="stable")
        assert (
            await ModelRegistryServiceStub(channel).GetChannel(request, timeout=SECONDS)
        ).channel.version.name == "waves"
        jobs = await StudentDistillerServiceStub(channel).ListJobs(distiller.ListJobsRequest(), timeout=SECONDS)
        assert [job.progress.state for job in jobs.jobs] == [distiller.JOB_STATE_SUCCEEDED]
        attempts = [teacher.Attempt(captures=[png(2)])]
        request = teacher.LabelRequest(site="gate", attempts=attempts)
        answers = (await TeacherInferenceServiceStub(channel).Label(request, timeout=SECONDS)).answers
        assert answers[0].person == "p2"
