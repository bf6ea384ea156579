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

__all__ = ["FINAL", "STATE", "Work", "drawn_fingers", "pushed", "spec", "working"]

SECONDS = 30


def drawn_fingers(folder: Path, persons: int = 24, captures: int = 6) -> Path:
    """A folder of synthetic fingers, as `tutelage draw` makes them."""
    words = ("draw", "fingers", "--persons", str(persons), "--captures", str(captures))
    _tutelage(*words, folder=folder)
    return folder / "fingers"


def pushed(release: Release, data: Path) -> str:
    """Digest of a data set, once it is in the object store of a release: pushed through a forwarded port."""
    folder = data.parent
    known = {**release.namespace.secret(f"{NAME}-keys"), **release.namespace.secret(f"{NAME}-minio")}
    for name in ("data.key", "access-key", "secret-key"):
        (folder / name).write_bytes(known[name])
    with release.forwarded(f"service/{NAME}-minio", 9000) as address:
        store = {
            "ADDRESS": str(address),
            "CA_FILE": str(release.certificate().ca_file),
            "ACCESS_KEY_FILE": str(folder / "access-key"),
            "SECRET_KEY_FILE": str(folder / "secret-key"),
        }
        settings = {f"TUTELAGE_STORES_OBJECTS_{name}": value for name, value in store.items()}
        said = _tutelage("data-set", "push", str(data), "--key", "data.key", folder=folder, **settings)
    return said.split()[-1]


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

    async def until(self, job_id: str, holds, within: float = 240) -> pb.Job:
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

    async def ended(self, job_id: str, within: float = 240) -> pb.Job:
        """A job once it has ended."""
        return await self.until(job_id, lambda job: job.progress.state in FINAL, within)

    async def watched(self, job_id: str, within: float = 240) -> list[pb.WatchJobResponse]:
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
