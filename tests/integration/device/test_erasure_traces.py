"""A person who was erased is looked for everywhere: on the disk, in mapped memory, queue and bucket, sealed or not."""

from __future__ import annotations

import asyncio
import io
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from pathlib import Path

import pytest

pytest.importorskip("redis")

from labelling_service import SECONDS, ScriptedBackend, batches, ended, part, settings, submit
from lived_device import WORN, begun, swapped
from object_makers import s3
from prometheus_client import CollectorRegistry
from redis import Redis
from served_part import LOOPBACK, quick_server, servers
from toy_device import PERSONS, SETTINGS, STORE_KEY, PixelTeacher, ToyLife, finger, name_of
from traces_of_a_person import (
    files,
    found,
    in_bucket,
    mapped,
    needles,
    opened_batch,
    opened_jobs,
    opened_store,
    pieces,
    queued,
)

from device_sim.job import JOB, TrainingJob
from device_sim.records import State
from device_sim.worker import work
from teacher_inference.abstention import AbstentionSettings
from tutelage.api.teacher.v1.teacher_pb2_grpc import TeacherInferenceServiceStub
from tutelage.captures import encode_png
from tutelage.channel import Channel, ChannelSettings
from tutelage.labelling_client import ServiceLabeller
from tutelage.server import Server
from tutelage.serving import Context
from tutelage.settings import Address
from tutelage.stores import StoresSettings, open_stores

GONE, NUMBER, SITE = "Wilhelmina-Gone", 2, "gate-7"


def live(folder: Path, address: Address) -> ToyLife:
    """A device taught by the service, with a student and a training that learnt from the person."""
    folder.mkdir()
    life = ToyLife(
        folder, replace(SETTINGS, self_distillation=replace(SETTINGS.self_distillation, checkpoint_seconds=0.0))
    )
    life.device.labeller = ServiceLabeller(ChannelSettings(address), site=SITE, timeout=timedelta(seconds=20))
    for person in range(PERSONS):
        name = GONE if person == NUMBER else name_of(person)
        life.device.enrol(name, [finger(person, 0), finger(person, 1)])
    life.live(6, WORN)
    assert life.device.fetch_labels() == ()
    swapped(life)
    life.live(6, WORN)
    assert life.device.fetch_labels() == ()
    life.live(1, 1.0)  # attempts that wait for a label
    half_trained(life)
    return life


def half_trained(life: ToyLife) -> None:
    """A training that left its job and a checkpoint, as one that was killed."""
    training = begun(life.device)
    training.kill()
    job = TrainingJob.open((training.folder / JOB).read_bytes(), STORE_KEY)
    steps = job.settings.steps // 2

    class Half(io.StringIO):
        def write(self, line: str) -> int:
            if f'"step": {steps}' in line:
                raise BrokenPipeError
            return len(line)

    (training.folder / JOB).write_bytes(replace(job, memory_bytes=2**36).sealed(STORE_KEY))
    with pytest.raises(BrokenPipeError):
        work(training.folder, STORE_KEY, Half())


def sought_of(life: ToyLife) -> dict[str, list[bytes]]:
    """Whatever the device and the teacher can hold of the person."""
    store, device = life.device.store, life.device
    captures = {f"reference {r.id}": store.reference_capture(r.id) for r in store.references() if r.person == GONE}
    references = list(captures.values())
    for sample in store.samples(*State):
        if sample.label and sample.label.person == GONE and sample.state is not State.DROPPED:
            captures[f"sample {sample.id}"] = store.sample_capture(sample.id)
    assert len(captures) > len(references) == 2
    sought = needles(GONE, captures, device.model.features(references).vectors, 16)
    teacher = PixelTeacher().extract(references).features.vectors
    sought["teacher's features"] = [piece for row in teacher for piece in pieces(row.astype("<f4").tobytes())]
    sought["sealed"] = sealed_of(life.folder / "store.sqlite", life.device.store)
    student = next(path for path in (life.folder / "students").iterdir() if device.model.digest[7:] in path.name)
    data = student.read_bytes()
    sought["student"] = [data[at : at + 32] for at in range(len(data) // 2, len(data) - 4096, 4096)]
    sought["jobs"] = [p for path in (life.folder / "jobs").rglob("*.sealed") for p in pieces(path.read_bytes()[64:])]
    return sought


def sealed_of(path: Path, store) -> list[bytes]:
    own = [r.id for r in store.references() if r.person == GONE]
    samples = [s.id for s in store.samples(*State) if s.label and s.label.person == GONE]
    with closing(sqlite3.connect(path)) as raw:
        marks = lambda ids: ", ".join(map(str, ids))  # noqa: E731
        rows = raw.execute(f"SELECT capture FROM reference_captures WHERE id IN ({marks(own)})").fetchall()
        rows += raw.execute(
            f"SELECT capture FROM samples WHERE id IN ({marks(samples)}) AND capture IS NOT NULL"
        ).fetchall()
    return [piece for (sealed,) in rows for piece in pieces(sealed[32:])]


def everywhere(life: ToyLife, redis: Redis, objects, batch: str) -> Iterator[tuple[str, bytes]]:
    return chain(
        files(life.folder),
        mapped(life.folder),
        opened_store(life.folder / "store.sqlite", STORE_KEY),
        opened_jobs(life.folder / "jobs", STORE_KEY),
        queued(redis),
        in_bucket(objects),
        opened_batch(objects, batch),
    )


@asynccontextmanager
async def serving(stores: StoresSettings, workers: int) -> AsyncIterator[Address]:
    """teacher-inference on real servers, with so many workers for submitted batches."""
    own = settings(abstention=AbstentionSettings(min_cosine=0.5, min_margin=0.05), batches=batches(workers=workers))
    teacher = part(ScriptedBackend(PixelTeacher()))
    async with (
        open_stores(stores) as opened,
        teacher.open(own, Context(opened, CollectorRegistry())) as service,
        Server(quick_server(), [service]) as running,
    ):
        yield Address(LOOPBACK, running.port)


def whereabouts(traces: set[tuple[str, str]]) -> dict[str, set[str]]:
    """Places by what was found there."""
    return {what: {place for found_, place in traces if found_ == what} for what, _ in traces}


def check_found(places: dict[str, set[str]]) -> None:
    """The search finds everything where it has to be before it is erased, or it would prove nothing afterwards."""
    assert {"names", "opened galleries"} <= places["name"]
    assert {"reference_captures", "samples", "captures of a batch"} <= places["png"]
    assert {"job.sealed"} <= places["inputs"]
    assert {"opened galleries"} <= places["teacher's features"]
    assert {"store.sqlite"} <= places["sealed"]
    assert any(place.startswith("students/") for place in places["student"])
    assert {"jobs/v1+2/job.sealed", "jobs/v1+2/checkpoint.sealed"} <= places["jobs"]
    # What lies open is nothing of a person; what is sealed was opened with its key.
    lying = {"store.sqlite", "store.sqlite-wal", "store.sqlite-shm", "queue", "mapped store.sqlite-shm"}
    for what in ("name", "png", "pixels", "inputs", "features", "teacher's features"):
        assert not places.get(what, set()) & lying, what


async def test_nothing_of_an_erased_person_is_anywhere(redis_server, minio_server, tmp_path: Path):
    redis, stores = Redis(port=redis_server.port), servers(redis_server, minio_server)
    redis.flushall()
    objects, folder = s3(minio_server, bucket=stores.objects.bucket), tmp_path / "device"
    async with serving(stores, workers=0) as address:
        life = await asyncio.to_thread(live, folder, address)
        async with Channel(ChannelSettings(address)) as channel:
            attempt = [encode_png(finger(NUMBER, press)) for press in (0, 1)]
            stub = TeacherInferenceServiceStub(channel)
            batch = (await stub.SubmitLabelBatch(submit("night", attempt, site=SITE), timeout=SECONDS)).batch
        sought = sought_of(life)
        check_found(whereabouts(found(sought, everywhere(life, redis, objects, batch.batch_id))))
        life.device.labeller.close()
    async with serving(stores, workers=1) as address:
        async with Channel(ChannelSettings(address)) as channel:
            assert (await ended(TeacherInferenceServiceStub(channel), batch, SITE)).answers[0].person == GONE
        life.device.labeller = ServiceLabeller(ChannelSettings(address), site=SITE, timeout=timedelta(seconds=20))
        erased = await asyncio.to_thread(life.device.erase, GONE)
        assert (erased.deleted, erased.contents.jobs, erased.teacher_knew) == (("v1+1",), ("v1+2",), True)
        assert found(sought, everywhere(life, redis, objects, batch.batch_id)) == set()
        assert found(sought, in_process(life)) == set()
        life.device.labeller.close()
    life.close()
    assert found(sought, everywhere(life, redis, objects, batch.batch_id)) == set()


def in_process(life: ToyLife) -> Iterator[tuple[str, bytes]]:
    """What the running device holds of persons by name or feature."""
    gallery, neighbours = life.device.model.gallery, life.device.reception.keeper.neighbours
    yield "gallery", gallery.features.vectors.astype("<f4").tobytes() + repr(gallery.persons).encode()
    yield "neighbours", repr(sorted(neighbours._kept)).encode()
    yield "run of failures", b"".join(capture.tobytes() for capture in life.device.reception.keeper._recent.values())
    yield "pseudonyms", repr(life.device.store._pseudonyms._opened).encode()
