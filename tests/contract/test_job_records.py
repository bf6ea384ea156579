"""The records of jobs in an object store: on MinIO and in a folder."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from object_makers import s3

from student_distiller.job_records import (
    Checkpoint,
    EndState,
    JobEnd,
    JobFailure,
    JobRecord,
    JobRecords,
    StudentResult,
    job_id_for,
)
from student_distiller.job_spec import JobSpec
from tutelage.errors import Code, ObjectError, QueueError, RequestError
from tutelage.folder_objects import FolderObjects
from tutelage.memory_queue import MemoryQueue

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
SPEC = JobSpec("thumbs", "v1", "sha256:" + "a" * 64, "tiny")
RESULT = StudentResult("sha256:d", "sha256:f", 12, "fused", "s/fused", "t", {"fused": {"eer": None, "persons": 3}})


@pytest.fixture(params=["folder", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path):
    if request.param == "folder":
        return FolderObjects(tmp_path)
    store = s3(request.getfixturevalue("minio_server"))
    store.ensure_bucket()
    return store


@pytest.fixture
def records(objects) -> JobRecords:
    return JobRecords(objects)


def job(key: str = "one", minutes: int = 0, spec: JobSpec = SPEC) -> JobRecord:
    chosen = replace(spec, teacher_space="t")
    return JobRecord(job_id_for(key), key, spec, chosen, "small", NOON + timedelta(minutes=minutes))


def together(count: int, call) -> list:
    """What `count` threads get that call at once, errors as their codes."""
    barrier = threading.Barrier(count)

    def one(number: int):
        barrier.wait()
        try:
            return call(number)
        except (ObjectError, QueueError, RequestError) as error:
            return error.code

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


async def test_the_id_of_a_job_is_that_of_its_queue_entry():
    assert await MemoryQueue().put({}, key="some.key_1-x") == job_id_for("some.key_1-x")


def test_a_job_is_what_was_first_submitted(records):
    first = records.submit(job())
    assert first == job()
    assert records.submit(job(minutes=5)) == first
    with pytest.raises(RequestError) as raised:
        records.submit(job(spec=replace(SPEC, seed=1)))
    assert raised.value.code is Code.REQUEST_CONFLICT
    assert records.find(first.job_id) == first
    assert [record for _, record in records.page("", 10)[0]] == [first]


def test_of_many_who_submit_one_key_all_get_one_job(records):
    found = together(8, lambda number: records.submit(job(minutes=number)))
    assert len({record.submitted for record in found}) == 1
    assert len(records.page("", 10)[0]) == 1


def test_a_submission_that_was_interrupted_is_completed_by_the_next_one(records, objects):
    records.submit(job())
    (place,) = objects.list("jobs/").keys
    objects.delete(place)
    records.submit(job(minutes=9))
    assert objects.list("jobs/").keys == (place,)


@pytest.mark.parametrize("bad", ["", "0" * 31, "0" * 33, "../../etc/passwd", "A" * 32, "0" * 31 + "\n"])
def test_what_is_no_job_is_not_found(records, bad: str):
    for job_id in (bad, "0" * 32):
        with pytest.raises(QueueError) as raised:
            records.find(job_id)
        assert raised.value.code is Code.ENTRY_UNKNOWN


def test_pages_begin_with_the_latest_and_go_on_by_place(records):
    made = [records.submit(job(f"key{number}", number)) for number in range(7)]
    found, place, more, sizes = [], "", True, []
    while more:
        page, more = records.page(place, 3)
        sizes.append(len(page))
        place = page[-1][0]
        found += [record for _, record in page]
    assert sizes == [3, 3, 1]
    assert found == made[::-1]
    for bad in ("jobs/x", "../x", "job-specs/" + "0" * 32):
        with pytest.raises(RequestError, match="page_token"):
            records.page(bad, 3)


def test_open_jobs_are_those_that_were_not_closed(records):
    for number in range(3):
        records.submit(job(f"key{number}", number))
    records.close(job_id_for("key1"))
    records.close(job_id_for("key1"))
    since = {job_id_for("key0"): NOON, job_id_for("key2"): NOON + timedelta(minutes=2)}
    assert dict(records.open_jobs()) == since


def test_of_many_who_end_a_job_exactly_one_does(records):
    job_id = records.submit(job()).job_id
    assert records.end(job_id) is None
    states = list(EndState)
    found = together(8, lambda number: records.finish(job_id, JobEnd(states[number % 4], NOON, deliveries=number)))
    assert len(set(map(repr, found))) == 1
    assert records.end(job_id) == found[0]


def test_an_end_is_read_as_it_was_written(records):
    job_id = records.submit(job()).job_id
    failure = JobFailure("training-budget", "too long", retryable=False)
    end = JobEnd(EndState.FAILED, NOON, 3, NOON - timedelta(hours=1), failure, None, "because", 17)
    assert records.finish(job_id, end) == end == records.end(job_id)
    other = records.submit(job("two")).job_id
    done = JobEnd(EndState.SUCCEEDED, NOON, result=RESULT)
    assert records.finish(other, done) == done == records.end(other)


def test_a_run_belongs_to_the_last_who_began_it(records):
    job_id = records.submit(job()).job_id
    assert records.run(job_id) is None
    first = records.begin(job_id, "a", NOON)
    assert (first.started, first.spent, first.checkpoint) == (NOON, timedelta(), None)
    records.move(job_id, "a", timedelta(seconds=5))
    second = records.begin(job_id, "b", NOON + timedelta(hours=1))
    assert (second.holder, second.started, second.spent) == ("b", NOON, timedelta(seconds=5))
    with pytest.raises(QueueError) as raised:
        records.move(job_id, "a", timedelta(seconds=9))
    assert raised.value.code is Code.CLAIM_LOST
    records.move(job_id, "b", timedelta(seconds=1))
    assert records.run(job_id).spent == timedelta(seconds=5)


def test_a_checkpoint_takes_the_place_of_the_one_before_and_goes_with_the_job(records, objects):
    job_id = records.submit(job()).job_id
    records.begin(job_id, "a", NOON)
    keys = [objects.put([bytes([number])]).key for number in range(2)]
    for step, key in enumerate(keys):
        records.move(job_id, "a", timedelta(seconds=step), Checkpoint(key, step, 1))
    assert objects.list("objects/").keys == (keys[1],)
    assert records.begin(job_id, "b", NOON).checkpoint == Checkpoint(keys[1], 1, 1)
    records.finish(job_id, JobEnd(EndState.CANCELLED, NOON))
    assert not objects.list("objects/").keys


def test_of_many_deliveries_that_begin_a_run_the_last_one_holds_it(records):
    job_id = records.submit(job()).job_id
    found = together(6, lambda number: records.begin(job_id, str(number), NOON))
    holder = records.run(job_id).holder
    outcomes = [
        call
        for call in together(6, lambda number: records.move(job_id, str(number), timedelta(1)) or str(number))
        if call is not Code.CLAIM_LOST
    ]
    assert outcomes == [holder]
    assert len(found) == 6


def test_the_first_result_stays_and_needs_its_package(records, objects):
    job_id = records.submit(job()).job_id
    assert records.result(job_id) is None
    with pytest.raises(ObjectError) as raised:
        records.keep_result(job_id, RESULT, ["objects/sha256/" + "0" * 64])
    assert raised.value.code is Code.OBJECT_MISSING
    key = objects.put([b"package"]).key
    assert records.keep_result(job_id, RESULT, [key]) == RESULT
    assert records.keep_result(job_id, replace(RESULT, readout="exit1"), [key]) == RESULT == records.result(job_id)


def test_the_first_wish_to_cancel_stays(records):
    job_id = records.submit(job()).job_id
    assert records.cancel_reason(job_id) is None
    records.cancel(job_id, "first")
    records.cancel(job_id, "second")
    assert records.cancel_reason(job_id) == "first"
