"""A distiller that serves, with a real teacher beside it, on twins or on real stores; and the calls that tests make."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from drawn_persons import draw_manifest
from prometheus_client import CollectorRegistry
from served_part import quick_server, twins
from torch_teacher import LOOPBACK, serving_teacher, write_teacher

from student_distiller.service import PART, DeviceKind, DistillerSettings
from tutelage.api.distiller.v1 import distiller_pb2 as pb
from tutelage.api.distiller.v1.distiller_pb2_grpc import StudentDistillerServiceStub
from tutelage.channel import Channel, ChannelSettings, idempotent_methods
from tutelage.cohorts import read_data
from tutelage.data_sets import push_data_set
from tutelage.manifest import Split
from tutelage.nn.teachers import ResidualTeacher
from tutelage.sealing import make_key, read_key
from tutelage.server import Server
from tutelage.serving import Context
from tutelage.signing import make_signer, public_pem
from tutelage.stores import StoresSettings, open_stores

IDEMPOTENT = idempotent_methods(pb.DESCRIPTOR.services_by_name["StudentDistillerService"])
STATE = pb.JobState
FINAL = frozenset({STATE.JOB_STATE_SUCCEEDED, STATE.JOB_STATE_FAILED, STATE.JOB_STATE_CANCELLED, STATE.JOB_STATE_DEAD})


@dataclass
class Keys:
    """Key files of one fleet, made anew."""

    folder: Path

    def __post_init__(self):
        self.signer, self.seal, self.data = (self.folder / n for n in ("signer.pem", "seal.key", "data.key"))
        self.public = self.folder / "signer.pub"
        if not self.signer.exists():
            self.public.write_bytes(public_pem(make_signer(self.signer).public_key()))
            make_key(self.seal)
            make_key(self.data)


def settings(keys: Keys, address, **changed) -> DistillerSettings:
    return DistillerSettings(
        **{
            "teacher": ChannelSettings(address),
            "signer_file": keys.signer,
            "seal_key_file": keys.seal,
            "data_key_file": keys.data,
            "device": DeviceKind.CPU,
            "lease": timedelta(seconds=6),
            "recover_every": timedelta(seconds=0.5),
            "retell_for": timedelta(),
            **changed,
        }
    )


def spec(data_set: str, **changed) -> pb.JobSpec:
    made = pb.JobSpec(name="thumbs", version="v7", data_set=data_set, size=pb.STUDENT_SIZE_TINY)
    made.training.steps, made.training.batch = changed.pop("steps", 20), changed.pop("batch", 8)
    for name, value in changed.items():
        setattr(made, name, value)
    return made


class Distiller:
    """What a test has of a distiller that serves."""

    def __init__(self, stores, teacher, keys: Keys, address, registry: CollectorRegistry, channel: Channel):
        self.stores, self.teacher, self.keys, self.address = stores, teacher, keys, address
        self.registry = registry
        self.stub = StudentDistillerServiceStub(channel)

    def push(self, manifest: Path) -> str:
        """Digest of the data set in a manifest, once it is in the store."""
        rows = read_data(manifest, 0).select(Split.DISTIL)
        return push_data_set(self.stores.objects, rows, read_key(self.keys.data)).data_set.digest

    async def submit(self, made: pb.JobSpec, key: str = "first", timeout: float = 20):
        request = pb.SubmitJobRequest(idempotency_key=key, spec=made)
        return (await self.stub.SubmitJob(request, timeout=timeout)).job

    async def get(self, job_id: str):
        return (await self.stub.GetJob(pb.GetJobRequest(job_id=job_id), timeout=10)).job

    async def cancel(self, job_id: str, reason: str = "not needed"):
        return (await self.stub.CancelJob(pb.CancelJobRequest(job_id=job_id, reason=reason), timeout=10)).job

    async def ended(self, job_id: str, within: float = 90):
        return await self.until(job_id, lambda job: job.progress.state in FINAL, within)

    async def until(self, job_id: str, holds, within: float = 60):
        """The job as soon as something holds of it."""
        job = None
        try:
            async with asyncio.timeout(within):
                while not holds(job := await self.get(job_id)):
                    await asyncio.sleep(0.1)
        except TimeoutError as error:
            raise AssertionError(f"not within {within} s, but {job}") from error
        return job

    def watched(self, job_id: str):
        return self.stub.WatchJob(pb.WatchJobRequest(job_id=job_id), timeout=90)

    async def event_of(self, job_id: str) -> str:
        """Id of the entry that tells the registry of a job."""
        return await self.stores.queue("model.events").put({}, key=job_id)

    async def closed(self, job_id: str) -> None:
        """Return once nothing is left to be done about a job."""
        async with asyncio.timeout(20):
            while f"open-jobs/{job_id}.json" in self.stores.objects.list("open-jobs/").keys:
                await asyncio.sleep(0.1)

    def metric(self, name: str, **labels) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def distilling(folder: Path, places: StoresSettings | None = None, **changed):
    """A distiller on the stores at `places`, with a teacher of its own; on twins in `folder` where none are named."""
    places = places or twins(folder / "objects")
    keys = Keys(folder)
    path = folder / "teacher.safetensors"
    teacher = ResidualTeacher.load(path if path.exists() else write_teacher(path))
    registry = CollectorRegistry()
    async with AsyncExitStack() as stack:
        servicer, address = await stack.enter_async_context(serving_teacher(teacher))
        stores = await stack.enter_async_context(open_stores(places))
        if places.objects.address:
            await asyncio.to_thread(stores.objects.ensure_bucket)
        own = settings(keys, address, **changed)
        service = await stack.enter_async_context(PART.open(own, Context(stores, registry)))
        server = await stack.enter_async_context(Server(quick_server(drain_grace=timedelta()), [service]))
        at = type(LOOPBACK)("127.0.0.1", server.port)
        channel = await stack.enter_async_context(Channel(ChannelSettings(at), idempotent=IDEMPOTENT))
        yield Distiller(stores, servicer, keys, at, registry, channel)


def cloud(folder: Path, persons: int = 10, images: int = 6) -> Path:
    """A manifest of persons of the cloud; ten with six captures each suffice to calibrate with."""
    return draw_manifest(folder, range(persons), images)
