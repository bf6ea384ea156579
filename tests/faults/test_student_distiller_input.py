"""What callers of the distiller may send: refused with a typed status and the field's name, whatever it is."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from distiller import STATE, cloud, distilling, pb, spec
from fuzzing import Fuzzer, assail
from google.protobuf.json_format import ParseDict
from real_servers import free_port
from student_packages import STRANGER, student_package

from tutelage.channel import ChannelSettings
from tutelage.errors import Code, TutelageError
from tutelage.package import read_package
from tutelage.paging import page_token
from tutelage.settings import Address
from tutelage.stored_packages import keep_package

SERVICE = pb.DESCRIPTOR.services_by_name["StudentDistillerService"]
ABSENT = "sha256:" + "0" * 64


def joined(pages: list[list[str]]) -> list[str]:
    return [entry for page in pages for entry in page]


async def refused(call) -> TutelageError:
    with pytest.raises(TutelageError) as raised:
        await call
    return raised.value


async def test_what_does_not_exist_or_cannot_be_trusted_is_told_when_a_job_is_submitted(tmp_path: Path):
    async with distilling(tmp_path, workers=0) as distiller:
        data_set = distiller.push(cloud(tmp_path / "cloud"))
        assert (await refused(distiller.submit(spec(ABSENT)))).code is Code.OBJECT_MISSING
        assert (await refused(distiller.submit(spec(data_set, parent=ABSENT)))).code is Code.OBJECT_MISSING
        strange = student_package("v2", signer=STRANGER)
        package = read_package(strange, trusted=[STRANGER.public_key()])
        keep_package(distiller.stores.objects, package, strange)
        error = await refused(distiller.submit(spec(data_set, parent=package.digest)))
        assert error.code is Code.PACKAGE_SIGNATURE
        error = await refused(distiller.submit(spec(data_set, teacher_space="0/teacher")))
        assert error.code is Code.SPACE_MISMATCH
        for name in ("../x", "a/b", "", "x" * 65):
            error = await refused(distiller.submit(spec(data_set, name=name)))
            assert (error.code, "spec.name" in error.message) == (Code.REQUEST_INVALID, True)
        # Nothing of all this became a job.
        assert not (await distiller.stub.ListJobs(pb.ListJobsRequest(), timeout=5)).jobs
        assert not distiller.stores.objects.list("open-jobs/").keys


async def test_a_key_gives_one_job_and_refuses_another_spec(tmp_path: Path):
    async with distilling(tmp_path, workers=0) as distiller:
        data_set = distiller.push(cloud(tmp_path / "cloud"))
        job = await distiller.submit(spec(data_set))
        assert await distiller.submit(spec(data_set)) == job
        # The defaults of the contract, spelt out, are the same wish; the teacher was left open and still is.
        spelt = spec(data_set)
        ParseDict({"heldOut": 0.25, "training": {"learningRate": 0.003}, "budget": {"processes": 1}}, spelt)
        distiller.teacher.space = "1" * 24 + "/teacher"
        assert (await distiller.submit(spelt)).job_id == job.job_id
        error = await refused(distiller.submit(spec(data_set, steps=21)))
        assert (error.code, "'first'" in error.message) == (Code.REQUEST_CONFLICT, True)
        assert (await refused(distiller.submit(spec(data_set), "a/b"))).code is Code.REQUEST_INVALID


async def test_a_teacher_that_is_away_is_told_at_once(tmp_path: Path):
    async with distilling(tmp_path, workers=0) as distiller:
        data_set = distiller.push(cloud(tmp_path / "cloud"))
    async with distilling(tmp_path, workers=0, teacher=ChannelSettings(Address("127.0.0.1", free_port()))) as distiller:
        error = await refused(distiller.submit(spec(data_set), timeout=3))
        assert error.code in (Code.SERVICE_UNAVAILABLE, Code.DEADLINE_EXCEEDED)


async def test_jobs_are_listed_by_pages_the_latest_first(tmp_path: Path):
    async with distilling(tmp_path, workers=0) as distiller:
        data_set = distiller.push(cloud(tmp_path / "cloud"))
        made = [
            await distiller.submit(spec(data_set, name=("thumbs", "palms")[number % 2]), f"key{number}")
            for number in range(7)
        ]
        await distiller.cancel(made[2].job_id)
        latest = [job.job_id for job in reversed(made)]

        async def pages(**asked) -> list[list[str]]:
            found, token = [], ""
            while True:
                request = pb.ListJobsRequest(page_token=token, **asked)
                answer = await distiller.stub.ListJobs(request, timeout=10)
                found.append([job.job_id for job in answer.jobs])
                if not (token := answer.next_page_token):
                    return found

        assert await pages() == [latest]
        assert [len(page) for page in await pages(page_size=3)] == [3, 3, 1]
        assert joined(await pages(page_size=3)) == latest
        assert joined(await pages(page_size=2, name="palms")) == latest[1::2]
        assert await pages(states=[STATE.JOB_STATE_CANCELLED]) == [[made[2].job_id]]
        assert joined(await pages(page_size=2, states=[STATE.JOB_STATE_QUEUED])) == [
            job_id for job_id in latest if job_id != made[2].job_id
        ]
        assert await pages(name="nobody") == [[]]
        positions = [(await distiller.get(job.job_id)).progress.queue_position for job in made if job != made[2]]
        assert positions == list(range(6))


async def test_bad_pages_states_and_ids_are_refused(tmp_path: Path):
    async with distilling(tmp_path, workers=0) as distiller:
        data_set = distiller.push(cloud(tmp_path / "cloud"))
        for number in range(3):
            await distiller.submit(spec(data_set), f"key{number}")
        listed = await distiller.stub.ListJobs(pb.ListJobsRequest(page_size=1), timeout=5)
        bad = [
            {"page_token": "../../etc/passwd"},
            {"page_token": page_token("objects/sha256/" + "0" * 64, [], None)},
            {"page_token": page_token("jobs/../../x", [], None)},
            {"page_token": listed.next_page_token, "name": "thumbs"},
            {"page_token": listed.next_page_token, "states": [STATE.JOB_STATE_DEAD]},
            {"page_token": "x" * 100_000},
            {"page_size": -1},
            {"page_size": 501},
            {"states": [0]},
            {"states": [99]},
        ]
        for asked in bad:
            error = await refused(distiller.stub.ListJobs(pb.ListJobsRequest(**asked), timeout=5))
            assert error.code is Code.REQUEST_INVALID, asked
        for job_id in ("", "0" * 32, "../../x", "a" * 10_000, "\x00"):
            assert (await refused(distiller.get(job_id))).code is Code.ENTRY_UNKNOWN
            assert (await refused(distiller.cancel(job_id))).code is Code.ENTRY_UNKNOWN
            error = await refused(anext(aiter(distiller.watched(job_id))))
            assert error.code is Code.ENTRY_UNKNOWN
        for reason in ("", " ", "x" * 501):
            error = await refused(distiller.cancel(listed.jobs[0].job_id, reason))
            assert (error.code, "reason" in error.message) == (Code.REQUEST_INVALID, True)
        large = pb.SubmitJobRequest(idempotency_key="x" * (17 << 20))
        assert (await refused(distiller.stub.SubmitJob(large, timeout=20))).code is Code.MESSAGE_TOO_LARGE


async def test_ten_thousand_messages_of_nonsense_are_answered_and_typed(tmp_path: Path, seed: int):
    async with distilling(tmp_path, workers=0, recover_every=timedelta(hours=1)) as distiller:
        data_set = distiller.push(cloud(tmp_path / "cloud"))
        ended = (await distiller.submit(spec(data_set), "ended")).job_id
        await distiller.cancel(ended)
        full = spec(data_set, seed=3, teacher_space=distiller.teacher.space, held_out=0.5)
        full.training.learning_rate = full.loss.margin = 0.1
        full.budget.max_duration.FromTimedelta(timedelta(hours=1))
        full.budget.max_memory_bytes = 1 << 30
        token = page_token("jobs/" + "0" * 17 + "-" + "0" * 32 + ".json", ["queued"], "thumbs")
        valid = {
            "SubmitJob": [pb.SubmitJobRequest(idempotency_key="first", spec=made) for made in (full, spec(data_set))],
            "GetJob": [pb.GetJobRequest(job_id=ended)],
            "ListJobs": [
                pb.ListJobsRequest(page_size=2),
                pb.ListJobsRequest(page_token=token, states=[STATE.JOB_STATE_QUEUED], name="thumbs"),
            ],
            "WatchJob": [pb.WatchJobRequest(job_id=ended)],
            "CancelJob": [pb.CancelJobRequest(job_id=ended, reason="enough")],
        }
        tally = await assail(distiller.address.port, Fuzzer(SERVICE, valid, seed), count=10_000)
        statuses = {status for _, status in tally}
        assert sum(tally.values()) == 10_000
        assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND"} <= statuses
        assert all(tally[method.name, "OK"] for method in SERVICE.methods)
        job = await distiller.get(ended)
        assert (job.job_id, job.progress.state) == (ended, STATE.JOB_STATE_CANCELLED)
