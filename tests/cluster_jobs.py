"""What tests do with the distiller of a release: data sets pushed from outside the cluster, jobs submitted, watched."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from distiller import FINAL, STATE, spec
from helm_release import NAME, Release

from tutelage.api.distiller.v1 import distiller_pb2 as pb
from tutelage.api.distiller.v1.distiller_pb2_grpc import StudentDistillerServiceStub
from tutelage.api.registry.v1 import registry_pb2
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.settings import Address

__all__ = ["FINAL", "STATE", "Work", "drawn_fingers", "pushed", "spec", "store_variables", "versions", "working"]

SECONDS = 30


def drawn_fingers(folder: Path, persons: int = 24, captures: int = 6) -> Path:
    """A folder of synthetic fingers, as `tutelage draw` makes them."""
    words = ("draw", "fingers", "--persons", str(persons), "--captures", str(captures))
    _tutelage(*words, folder=folder)
    return folder / "fingers"


def pushed(release: Release, data: Path) -> str:
    """Digest of a data set, once it is in the object store of a release: pushed through a forwarded port."""
    folder = data.parent
    (folder / "data.key").write_bytes(release.namespace.secret(f"{NAME}-keys")["data.key"])
    with release.forwarded(f"service/{NAME}-minio", 9000) as address:
        settings = store_variables(release, address, folder)
        said = _tutelage("data-set", "push", str(data), "--key", "data.key", folder=folder, **settings)
    return said.split()[-1]


def store_variables(release: Release, address: Address, folder: Path) -> dict[str, str]:
    """What leads a program of this machine to the object store of a release, forwarded to `address`."""
    for name, value in release.namespace.secret(f"{NAME}-minio").items():
        (folder / name).write_bytes(value)
    store = {
        "ADDRESS": str(address),
        "CA_FILE": str(release.certificate().ca_file),
        "ACCESS_KEY_FILE": str(folder / "access-key"),
        "SECRET_KEY_FILE": str(folder / "secret-key"),
    }
    return {f"TUTELAGE_STORES_OBJECTS_{name}": value for name, value in store.items()}


def _tutelage(*words: str, folder: Path, **settings: str) -> str:
    command, environment = [sys.executable, "-m", "tutelage", *words], {**os.environ, **settings}
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Work:
    """The jobs of a release, through one connection."""

    def __init__(self, stub: StudentDistillerServiceStub) -> None:
        self.stub = stub

    async def submitted(self, made: pb.JobSpec, key: str) -> pb.Job:
        """A job as it was taken."""
        request = pb.SubmitJobRequest(idempotency_key=key, spec=made)
        return (await self.stub.SubmitJob(request, timeout=SECONDS)).job

    async def job(self, job_id: str) -> pb.Job:
        """A job as it stands."""
        return (await self.stub.GetJob(pb.GetJobRequest(job_id=job_id), timeout=SECONDS)).job

    async def until(self, job_id: str, holds, within: float = 480) -> pb.Job:
        """A job as soon as something holds of it."""
        job = None
        try:
            async with asyncio.timeout(within):
                while not holds(job := await self.job(job_id)):
                    await asyncio.sleep(0.3)
        except TimeoutError as error:
            raise AssertionError(f"not within {within} s, but {job}") from error
        return job

    async def stepping(self, job_id: str, beyond: int = 1) -> pb.Job:
        """A job that is being worked on and has done more steps than `beyond`."""
        return await self.until(job_id, lambda job: job.progress.step > beyond and job.progress.state not in FINAL)

    async def ended(self, job_id: str, within: float = 480) -> pb.Job:
        """A job once it has ended."""
        return await self.until(job_id, lambda job: job.progress.state in FINAL, within)

    async def steps_until_the_end(self, job_id: str, within: float = 480) -> list[int]:
        """Steps of a job at every look until it ended; a delivery that began anew would be seen at step 0."""
        steps: list[int] = []

        def look(job: pb.Job) -> bool:
            steps.append(job.progress.step)
            return job.progress.state in FINAL

        await self.until(job_id, look, within)
        return steps

    async def watched(self, job_id: str, within: float = 480) -> list[pb.WatchJobResponse]:
        """Everything that WatchJob told until the end."""
        return [told async for told in self.stub.WatchJob(pb.WatchJobRequest(job_id=job_id), timeout=within)]

    async def cancelled(self, job_id: str, reason: str) -> pb.Job:
        """A job, once it is asked to end."""
        request = pb.CancelJobRequest(job_id=job_id, reason=reason)
        return (await self.stub.CancelJob(request, timeout=SECONDS)).job


@asynccontextmanager
async def working(release: Release) -> AsyncIterator[Work]:
    """The jobs of a release."""
    async with release.calling(f"service/{NAME}-student-distiller") as channel:
        yield Work(StudentDistillerServiceStub(channel))


async def versions(release: Release, name: str) -> list[registry_pb2.Version]:
    """Versions of a name in the registry, once there are any: it makes them of finished jobs by itself."""
    asked = registry_pb2.ListVersionsRequest(name=name)
    async with release.calling(f"service/{NAME}-model-registry") as channel, asyncio.timeout(90):
        registry = ModelRegistryServiceStub(channel)
        while not (found := list((await registry.ListVersions(asked, timeout=SECONDS)).versions)):
            await asyncio.sleep(0.3)
    return found
