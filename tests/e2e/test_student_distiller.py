"""The distiller over real gRPC, with a real teacher and real child processes: from a spec to a package."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from distiller import STATE, Distiller, cloud, distilling, pb, spec
from drawn_persons import draw_captures
from redis import Redis
from served_part import servers, twins

from tutelage.captures import to_input
from tutelage.errors import Code, StorageError, TutelageError
from tutelage.impostors import open_impostors
from tutelage.nn.students import Recogniser
from tutelage.package import StudentPackage, read_package
from tutelage.queue_entries import State
from tutelage.sealing import read_key
from tutelage.signing import read_public_key
from tutelage.stored_packages import find_package
from tutelage.stores import StoresSettings


@pytest.fixture(params=["twins", "servers"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> StoresSettings:
    """In memory and a folder, and on a real Redis and MinIO."""
    if request.param == "twins":
        return twins(tmp_path / "objects")
    redis = request.getfixturevalue("redis_server")
    Redis(port=redis.port).flushall()  # keys of jobs are remembered for a week
    return servers(redis, request.getfixturevalue("minio_server"))


def package_of(distiller: Distiller, job) -> StudentPackage:
    """The package that a job made, verified."""
    stored = find_package(distiller.stores.objects, job.result.digest)
    data = b"".join(distiller.stores.objects.read(stored.key))
    assert len(data) == job.result.size_bytes
    return read_package(data, trusted=[read_public_key(distiller.keys.public)])


async def test_the_whole_way_from_a_job_to_a_verified_package(places: StoresSettings, tmp_path: Path):
    async with distilling(tmp_path, places) as distiller:
        data_set = distiller.push(cloud(tmp_path / "cloud"))
        job = await distiller.submit(spec(data_set))
        assert job.progress.state in (STATE.JOB_STATE_QUEUED, STATE.JOB_STATE_RUNNING)
        assert (job.progress.steps, job.spec.teacher_space) == (20, distiller.teacher.space)
        watched = [answer async for answer in distiller.watched(job.job_id)]
        job = await distiller.get(job.job_id)
        assert job.progress.state == STATE.JOB_STATE_SUCCEEDED, job
        package = package_of(distiller, job)
        assert (package.digest, package.space, package.info.readout) == (
            *(job.result.digest, job.result.space, job.result.readout),
        )
        assert (package.info.name, package.info.version) == ("thumbs", "v7")
        assert package.info.teacher_space == job.result.teacher_space == distiller.teacher.space
        assert package.info.training["job_id"] == job.job_id
        assert len(open_impostors(package.impostors, read_key(distiller.keys.seal))[0]) == 60
        assert {found.readout for found in job.progress.metrics} == {"exit1", "exit2", "exit3", "exit4", "fused"}
        assert all((found.persons, found.captures) == (3, 18) for found in job.progress.metrics)
        assert (job.deliveries, job.progress.step, job.HasField("error")) == (1, 20, False)
        assert job.submit_time.ToDatetime() <= job.start_time.ToDatetime() < job.end_time.ToDatetime()
        assert watched[-1].progress == job.progress
        assert watched[-1].result == job.result
        assert any(answer.progress.step > 0 and answer.progress.losses["loss"] > 0 for answer in watched)
        status = await distiller.stores.queue("model.events").status(await distiller.event_of(job.job_id))
        stored = find_package(distiller.stores.objects, job.result.digest)
        assert status.state is State.QUEUED
        assert dict(status.entry.body) == {
            "event": "student-distilled",
            "package": stored.key,
            "digest": job.result.digest,
            "file_digest": stored.file_digest,
            "size_bytes": stored.size_bytes,
            "data_set": data_set,
            "job_id": job.job_id,
        }
        assert distiller.metric("tutelage_distiller_jobs_ended_total", state="succeeded") == 1
        assert distiller.metric("tutelage_distiller_checkpoint_duration_seconds_count") >= 1
        # Nothing is left open, and no checkpoint is left over.
        await distiller.closed(job.job_id)
        assert not distiller.stores.objects.list("expiring/").keys


async def test_a_job_that_the_queue_takes_for_done_does_not_stay_open_for_ever(tmp_path: Path):
    async with distilling(tmp_path) as distiller:
        data_set = distiller.push(cloud(tmp_path / "cloud"))
        queue = distiller.stores.queue("distill.jobs")
        job_id = await queue.put({}, key="first")  # of a store that is gone, say
        async with asyncio.timeout(20):
            while (await queue.status(job_id)).state is not State.DEAD:
                await asyncio.sleep(0.05)
        queue._records[job_id].state = State.DONE
        job = await distiller.ended((await distiller.submit(spec(data_set))).job_id, 20)
        assert (job.progress.state, job.error.code) == (STATE.JOB_STATE_FAILED, "service-failed")


async def test_the_registry_is_told_again_until_it_has_heard(tmp_path: Path):
    async with distilling(tmp_path, retell_for=timedelta(hours=1)) as distiller:
        job = await distiller.ended((await distiller.submit(spec(distiller.push(cloud(tmp_path / "cloud"))))).job_id)
        events = distiller.stores.queue("model.events")
        await asyncio.sleep(1.5)
        assert distiller.stores.objects.list("open-jobs/").keys
        events._records.clear()  # flushed before the registry heard
        await asyncio.sleep(1.5)
        claim = await events.claim("registry", wait=timedelta(seconds=5))
        assert claim.entry.body["job_id"] == job.job_id
        await events.settle_done(claim)
        await distiller.closed(job.job_id)


async def test_a_job_makes_the_student_of_the_command(tmp_path: Path):
    manifest = cloud(tmp_path / "cloud")
    async with distilling(tmp_path) as distiller:
        job = await distiller.submit(spec(distiller.push(manifest), seed=5))
        package = package_of(distiller, await distiller.ended(job.job_id))
        training = package.info.training
        out = tmp_path / "s.tutelage"
        words = ["--steps", "20", "--batch", "8", "--seed", "5", "--device", "cpu", "--name", "thumbs"]
        words += ["--version", "v7", "--teacher", str(tmp_path / "teacher.safetensors"), "--out", str(out), "--json"]
        command = [sys.executable, "-m", "tutelage", "distil", str(manifest), *words]
        document = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        other = read_package(out, trusted=[read_public_key(tmp_path / "signer.pub")])
        assert other.weights == package.weights
        assert other.calibration == package.calibration
        assert (document["readout"], document["space"]) == (package.info.readout, package.space)
        assert document["held_out"] == training["held_out"]
        assert {**other.info.training["settings"], **_cadence(training)} == training["settings"]


def _cadence(training) -> dict:
    """How often checkpoints are made, which is not what the student is made of."""
    return {name: value for name, value in training["settings"].items() if name.startswith("checkpoint_")}


async def test_two_processes_make_the_student_of_one_and_ask_the_teacher_nothing_new(tmp_path: Path):
    async with distilling(tmp_path) as distiller:
        data_set = distiller.push(cloud(tmp_path / "cloud"))
        one = package_of(distiller, await distiller.ended((await distiller.submit(spec(data_set))).job_id))
        asked = distiller.teacher.captures
        assert asked == 60
        made = spec(data_set)
        made.budget.processes = 2
        job = await distiller.ended((await distiller.submit(made, "second")).job_id, 120)
        assert job.progress.state == STATE.JOB_STATE_SUCCEEDED, job
        assert distiller.teacher.captures == asked
        two = package_of(distiller, job)
        # Features and not weights: where a gradient is all but zero, Adam makes whole steps of its rounding.
        inputs = to_input(draw_captures(3, 8))
        first, second = (Recogniser.of_package(found).features(inputs).vectors for found in (one, two))
        assert (first * second).sum(axis=1).min() > 0.98


async def test_a_job_goes_on_from_a_parent_of_its_size(tmp_path: Path):
    async with distilling(tmp_path) as distiller:
        data_set = distiller.push(cloud(tmp_path / "cloud"))
        first = await distiller.ended((await distiller.submit(spec(data_set))).job_id)
        made = spec(data_set, parent=first.result.digest, version="v8", size=pb.STUDENT_SIZE_UNSPECIFIED)
        job = await distiller.submit(made, "second")
        assert job.spec.size == pb.STUDENT_SIZE_TINY
        package = package_of(distiller, await distiller.ended(job.job_id))
        assert package.info.parent == first.result.digest
        with pytest.raises(TutelageError) as raised:
            await distiller.submit(spec(data_set, parent=first.result.digest, size=pb.STUDENT_SIZE_SMALL), "third")
        assert raised.value.code is Code.REQUEST_INVALID


async def test_a_job_is_cancelled_in_the_queue_and_at_work(places: StoresSettings, tmp_path: Path):
    async with distilling(tmp_path, places) as distiller:
        data_set = distiller.push(cloud(tmp_path / "cloud"))
        long = await distiller.submit(spec(data_set, steps=100_000))
        waiting = await distiller.submit(spec(data_set), "second")
        assert waiting.progress.state == STATE.JOB_STATE_QUEUED
        job = await distiller.cancel(waiting.job_id, "twice")
        assert (job.progress.state, job.cancel_reason) == (STATE.JOB_STATE_CANCELLED, "twice")
        running = await distiller.until(long.job_id, lambda job: job.progress.step > 1)
        assert running.progress.HasField("eta") or running.progress.step == 1
        assert (await distiller.cancel(long.job_id, "too long")).cancel_reason == "too long"
        job = await distiller.ended(long.job_id, 15)
        assert (job.progress.state, job.cancel_reason) == (STATE.JOB_STATE_CANCELLED, "too long")
        again = await distiller.cancel(long.job_id, "another reason")
        assert again == job
        assert not distiller.stores.objects.list("job-results/").keys


async def test_a_budget_of_time_ends_a_job_over_all_its_deliveries(tmp_path: Path):
    async with distilling(tmp_path) as distiller:
        made = spec(distiller.push(cloud(tmp_path / "cloud")), steps=100_000)
        made.budget.max_duration.FromTimedelta(timedelta(seconds=7))
        job = await distiller.ended((await distiller.submit(made)).job_id, 40)
        assert job.progress.state == STATE.JOB_STATE_FAILED
        assert (job.error.code, job.error.retryable, job.deliveries) == ("training-budget", False, 1)
        assert "7 seconds" in job.error.message


async def test_a_job_that_takes_too_much_memory_fails(tmp_path: Path):
    async with distilling(tmp_path, memory_bytes=300 << 20) as distiller:
        made = spec(distiller.push(cloud(tmp_path / "cloud")), steps=100_000, batch=1024)
        job = await distiller.ended((await distiller.submit(made)).job_id)
        assert job.progress.state == STATE.JOB_STATE_FAILED
        assert (job.error.code, job.error.retryable) == ("training-budget", False)
        assert "memory" in job.error.message


async def test_a_teacher_that_changed_after_the_job_was_submitted_fails_it(tmp_path: Path):
    async with distilling(tmp_path, workers=0) as distiller:
        data_set = distiller.push(cloud(tmp_path / "cloud"))
        job_id = (await distiller.submit(spec(data_set))).job_id
    async with distilling(tmp_path) as distiller:
        distiller.teacher.space = "0" * 24 + "/teacher"
        job = await distiller.ended(job_id)
        assert (job.progress.state, job.error.code) == (STATE.JOB_STATE_FAILED, "space-mismatch")
        with pytest.raises(TutelageError) as raised:
            await distiller.submit(spec(data_set, teacher_space="1" * 24 + "/teacher"), "second")
        assert raised.value.code is Code.SPACE_MISMATCH


async def test_a_teacher_that_is_away_for_a_while_costs_deliveries_and_no_more(tmp_path: Path):
    quick = {"retry_after": timedelta(seconds=0.5), "teacher_timeout": timedelta(seconds=1)}
    async with distilling(tmp_path, **quick) as distiller:
        distiller.teacher.fail = StorageError(Code.STORAGE_FAILED, "the gallery's disk is away")
        job = await distiller.submit(spec(distiller.push(cloud(tmp_path / "cloud"))))
        job = await distiller.until(job.job_id, lambda job: job.HasField("error"))
        assert job.progress.state in (STATE.JOB_STATE_QUEUED, STATE.JOB_STATE_RUNNING)
        assert job.error.retryable
        assert "gallery" not in job.error.message
        distiller.teacher.fail = None
        job = await distiller.ended(job.job_id)
        assert (job.progress.state, job.HasField("error")) == (STATE.JOB_STATE_SUCCEEDED, False)
        assert job.deliveries > 1


async def test_captures_that_the_teacher_cannot_use_are_left_out(tmp_path: Path):
    async with distilling(tmp_path) as distiller:
        distiller.teacher.unusable = lambda pixels: int(pixels.astype(int).sum()) % 7 == 0
        job = await distiller.submit(spec(distiller.push(cloud(tmp_path / "cloud", images=9))))
        job = await distiller.ended(job.job_id)
        assert job.progress.state == STATE.JOB_STATE_SUCCEEDED, job
        training = package_of(distiller, job).info.training
        measured = job.progress.metrics[0].captures
        assert training["left_out"]["no finger"] == 90 - training["captures"] - measured > 0


async def test_a_data_set_that_does_not_suffice_fails_the_job_and_says_why(tmp_path: Path):
    async with distilling(tmp_path) as distiller:
        job = await distiller.submit(spec(distiller.push(cloud(tmp_path / "cloud", 4, 2))))
        job = await distiller.ended(job.job_id)
        assert (job.progress.state, job.error.code) == (STATE.JOB_STATE_FAILED, "data-insufficient")
        assert "hold out more persons" in job.error.message
        assert not job.error.retryable
