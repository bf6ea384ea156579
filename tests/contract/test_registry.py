"""What the registry's calls promise, over gRPC, on the twins and on a real Redis and MinIO."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("redis")

from registry_calls import SECONDS, check_in, create, download, header, parts, set_channel, settings, stream
from served_part import served, twins
from served_registry import ready, refused
from student_packages import CLOUD, digest, student_package

from model_registry.service import PART
from tutelage.api.registry.v1 import registry_pb2 as pb
from tutelage.errors import Code, TutelageError
from tutelage.folder_objects import FolderObjects
from tutelage.objects import object_key
from tutelage.stored_packages import read_stored_package
from tutelage.stores import open_stores

BALLAST = 300_000


async def test_a_version_is_created_once_described_and_downloaded_from_any_offset(registry):
    data = student_package("v1", ballast=BALLAST)
    async with registry() as channel:
        stub = await ready(channel)
        lineage = pb.Lineage(data_set="sha256:" + "a" * 64, job_id="job-1")
        version = await create(stub, data, lineage=lineage)
        assert (version.digest, version.name, version.version) == (digest(data), "tiny", "v1")
        assert (version.size_bytes, version.lineage) == (len(data), lineage)
        assert version.made_time.seconds == 1714979289
        again = await stub.CreateVersion(stream([pb.CreateVersionRequest(header=header(data))]), timeout=SECONDS)
        assert again.version == version
        named = pb.GetVersionRequest(named=pb.NamedVersion(name="tiny", version="v1"))
        for request in (pb.GetVersionRequest(digest=version.digest), named):
            assert (await stub.GetVersion(request, timeout=SECONDS)).version == version
        assert await download(stub, version.digest) == data
        assert await download(stub, version.digest, len(data) - 7) == data[-7:]
        assert await download(stub, version.digest, len(data)) == b""


@pytest.mark.parametrize("memory", [0, 1_000_000, 100_000_000])
async def test_a_file_comes_whole_whether_or_not_the_registry_remembers_it(registry, memory):
    first, other = student_package("v1", ballast=2_500_000), student_package("v2", ballast=2_600_000)
    async with registry(download_memory_bytes=memory) as channel:
        stub = await ready(channel)
        for data in (first, other):
            await create(stub, data)
    async with registry(download_memory_bytes=memory) as channel:  # that saw neither come
        stub = await ready(channel)
        for data in (first, other, first):
            assert await download(stub, digest(data)) == data
            assert await download(stub, digest(data), 1_500_000) == data[1_500_000:]


async def test_what_was_uploaded_is_sent_on_without_the_store(tmp_path):
    data = student_package("v1", ballast=2_500_000)
    places = twins(tmp_path / "objects")
    async with served(PART, settings(tmp_path), places) as channel, open_stores(places) as stores:
        stub = await ready(channel)
        version = await create(stub, data)
        stores.objects.delete(object_key(version.file_digest))
        assert await download(stub, version.digest) == data


async def test_a_version_can_be_found_by_who_goes_on_from_its_package(tmp_path):
    data, folder = student_package("v1"), tmp_path / "objects"
    async with served(PART, settings(tmp_path), twins(folder)) as channel:
        await create(await ready(channel), data)
    found = read_stored_package(FolderObjects(folder), digest(data), trusted=[CLOUD.public_key()])
    assert found.digest == digest(data)


async def test_uploads_that_stand_still_keep_nobody_waiting(registry):
    standing, go_on = [student_package(f"v{number}") for number in range(2, 36)], asyncio.Event()

    async def slow(data):
        for message in parts(data, 0, len(data) - 1):
            yield message
        await go_on.wait()
        yield pb.CreateVersionRequest(chunk=data[-1:])

    async with registry() as channel:
        stub = await ready(channel)
        calls = [asyncio.ensure_future(stub.CreateVersion(slow(data), timeout=3 * SECONDS)) for data in standing]
        await asyncio.sleep(0.5)
        version = await create(stub, student_package("v1"))
        assert await download(stub, version.digest) == student_package("v1")
        go_on.set()
        assert [answer.version.digest for answer in await asyncio.gather(*calls)] == [digest(d) for d in standing]


async def test_a_broken_upload_goes_on_where_it_stopped(registry):
    data = student_package("v1", ballast=BALLAST)
    async with registry() as channel:
        stub = await ready(channel)
        for end in (100_000, 200_000):
            begun = 0 if end == 100_000 else 100_000
            answer = await stub.CreateVersion(stream(parts(data, begun, end)), timeout=SECONDS)
            assert (answer.HasField("version"), answer.stored_bytes) == (False, end)
        asked = await stub.CreateVersion(stream(parts(data, 0, 0)), timeout=SECONDS)
        assert asked.stored_bytes == 200_000
        with pytest.raises(TutelageError) as raised:
            await stub.CreateVersion(stream(parts(data, 50_000)), timeout=SECONDS)
        assert refused(raised, Code.OBJECT_RANGE)
        assert raised.value.facts == {"stored_bytes": "200000"}
    async with registry() as channel:  # another process of the registry knows where it stands
        stub = await ready(channel)
        answer = await stub.CreateVersion(stream(parts(data, 200_000)), timeout=SECONDS)
        assert answer.version.digest == digest(data)
        assert await download(stub, digest(data)) == data


async def test_a_caller_that_vanishes_leaves_what_it_sent(registry):
    data = student_package("v1", ballast=BALLAST)
    sent = asyncio.Event()

    async def stops_in_the_middle():
        for message in parts(data, 0, 131_072):
            yield message
        sent.set()
        await asyncio.Event().wait()

    async with registry() as channel:
        stub = await ready(channel)
        call = asyncio.create_task(stub.CreateVersion(stops_in_the_middle(), timeout=SECONDS))
        await sent.wait()
        await asyncio.sleep(0.3)
        call.cancel()
        async with asyncio.timeout(SECONDS):
            stored = 0
            while not stored:
                await asyncio.sleep(0.02)
                stored = (await stub.CreateVersion(stream(parts(data, 0, 0)), timeout=SECONDS)).stored_bytes
        assert stored == 131_072
        assert (await stub.CreateVersion(stream(parts(data, stored)), timeout=SECONDS)).version.digest == digest(data)


async def test_a_name_and_version_belong_to_one_package(registry):
    first, second = student_package("v1", ballast=10), student_package("v1", ballast=20)
    async with registry() as channel:
        stub = await ready(channel)
        await create(stub, first)
        with pytest.raises(TutelageError) as raised:
            await create(stub, second)
        assert refused(raised, Code.REQUEST_CONFLICT)
        assert await download(stub, digest(first)) == first


async def test_many_who_create_one_version_at_once_get_the_same(registries):
    data = student_package("v1", ballast=BALLAST)
    async with registries() as stubs:
        versions = await asyncio.gather(*(create(stubs[n % 2], data) for n in range(6)))
        assert len({version.SerializeToString(deterministic=True) for version in versions}) == 1
        assert len((await stubs[0].ListVersions(pb.ListVersionsRequest(), timeout=SECONDS)).versions) == 1


async def test_versions_are_listed_by_page_and_filter_the_latest_first(registry):
    packages = [student_package(f"v{n}") for n in range(5)]
    parent = digest(packages[0])
    packages.append(student_package("v5", parent=parent))
    async with registry() as channel:
        stub = await ready(channel)
        for n, data in enumerate(packages):
            await create(stub, data, lineage=pb.Lineage(job_id=f"job-{n % 2}"))
        pages, token = [], ""
        while not pages or token:
            answer = await stub.ListVersions(pb.ListVersionsRequest(page_size=2, page_token=token), timeout=SECONDS)
            pages.append([version.version for version in answer.versions])
            token = answer.next_page_token
        assert pages == [["v5", "v4"], ["v3", "v2"], ["v1", "v0"]]

        async def listed(**wanted):
            answer = await stub.ListVersions(pb.ListVersionsRequest(**wanted), timeout=SECONDS)
            return [version.version for version in answer.versions]

        assert await listed(job_id="job-1") == ["v5", "v3", "v1"]
        assert await listed(parent=parent) == ["v5"]
        assert await listed(name="tiny", teacher_space="t", job_id="job-0") == ["v4", "v2", "v0"]
        assert await listed(name="other") == []
        first = await stub.ListVersions(pb.ListVersionsRequest(page_size=1), timeout=SECONDS)
        for bad in ({"page_token": first.next_page_token, "name": "tiny"}, {"page_token": "../.."}, {"page_size": -1}):
            with pytest.raises(TutelageError) as raised:
                await stub.ListVersions(pb.ListVersionsRequest(**bad), timeout=SECONDS)
            assert refused(raised, Code.REQUEST_INVALID)


async def test_a_channel_moves_only_from_where_the_caller_saw_it_and_forgets_nothing(registry):
    one, two = student_package("v1"), student_package("v2")
    first, second = digest(one), digest(two)
    async with registry() as channel:
        stub = await ready(channel)
        for data in (one, two):
            await create(stub, data)
        with pytest.raises(TutelageError) as raised:
            await stub.GetChannel(pb.GetChannelRequest(channel="stable"), timeout=SECONDS)
        assert refused(raised, Code.OBJECT_MISSING)
        await stub.SetChannel(set_channel(first), timeout=SECONDS)
        for request in (set_channel(second), set_channel(second, second)):
            with pytest.raises(TutelageError) as raised:
                await stub.SetChannel(request, timeout=SECONDS)
            assert refused(raised, Code.OBJECT_CONFLICT)
        moved = await stub.SetChannel(set_channel(second, first, reason="fewer misses"), timeout=SECONDS)
        assert (moved.channel.version.version, moved.channel.change.number) == ("v2", 2)
        await stub.SetChannel(set_channel(first, second, reason="back"), timeout=SECONDS)
    async with registry() as channel:
        stub = await ready(channel)
        changes, token = [], ""
        while not changes or token:
            request = pb.ListChannelHistoryRequest(channel="stable", page_size=2, page_token=token)
            answer = await stub.ListChannelHistory(request, timeout=SECONDS)
            changes += answer.changes
            token = answer.next_page_token
        assert [(c.number, c.digest, c.previous_digest, c.reason) for c in changes] == [
            (3, first, second, "back"),
            (2, second, first, "fewer misses"),
            (1, first, "", "it is better"),
        ]
        assert (
            await stub.GetChannel(pb.GetChannelRequest(channel="stable"), timeout=SECONDS)
        ).channel.version.digest == first


async def test_of_many_who_move_a_channel_at_once_one_succeeds(registries):
    data = student_package("v1")
    async with registries() as stubs:
        await create(stubs[0], data)

        async def move(n: int) -> Code | None:
            try:
                await stubs[n % 2].SetChannel(set_channel(digest(data)), timeout=SECONDS)
            except TutelageError as error:
                return error.code
            return None

        found = await asyncio.gather(*(move(n) for n in range(8)))
        assert sorted(found, key=str) == sorted([None, *[Code.OBJECT_CONFLICT] * 7], key=str)


async def test_a_device_is_told_what_its_channel_wants_and_is_counted_where_it_is(registry):
    one, two = student_package("v1"), student_package("v2")
    first, second = digest(one), digest(two)
    async with registry() as channel:
        stub = await ready(channel)
        for data in (one, two):
            await create(stub, data)
        nothing = await stub.CheckIn(check_in("gate-1", first), timeout=SECONDS)
        assert (nothing.HasField("wanted"), 24 <= nothing.interval.seconds <= 36) == (False, True)
        await stub.SetChannel(set_channel(second, channel="canary"), timeout=SECONDS)
        wanted = await stub.CheckIn(check_in("gate-1", first, channel="canary"), timeout=SECONDS)
        assert (wanted.wanted.digest, wanted.wanted.size_bytes) == (second, len(two))
        reverted = check_in("gate-1", first, channel="canary", reverted_digests=[second])
        assert (await stub.CheckIn(reverted, timeout=SECONDS)).wanted.digest == first
        await stub.CheckIn(check_in("gate-2", first, generation="v1+3"), timeout=SECONDS)

        async def counted(digest: str) -> tuple[int, int, bool]:
            found = await stub.GetVersion(pb.GetVersionRequest(digest=digest), timeout=SECONDS)
            return found.devices, found.devices_beyond, found.HasField("latest_check_in_time")

        assert await counted(first) == (1, 1, True)
        assert await counted(second) == (0, 0, False)
        await stub.CheckIn(check_in("gate-1", second, generation="v2"), timeout=SECONDS)
        assert await counted(first) == (0, 1, True)
        assert await counted(second) == (1, 0, True)
