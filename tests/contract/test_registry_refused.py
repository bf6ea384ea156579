"""What the registry refuses, on the twins and on a real Redis and MinIO: nothing of it is kept, and nothing is lost."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("redis")

from registry_calls import SECONDS, check_in, create, download, header, parts, set_channel, settings, stream
from served_part import served, twins
from served_registry import ready, refused
from student_packages import STRANGER, digest, student_package

from model_registry.service import PART
from tutelage.api.registry.v1 import registry_pb2 as pb
from tutelage.errors import Code, TutelageError
from tutelage.folder_objects import FolderObjects

BALLAST = 300_000
BAD_NAMES = ["", "../x", "/etc/passwd", ".hidden", "a/b", "a b", "ä", "x" * 65, "a\n"]


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("a flipped byte", Code.PACKAGE_CORRUPT),
        ("another signer", Code.PACKAGE_SIGNATURE),
        ("another digest", Code.PACKAGE_CORRUPT),
        ("too many bytes", Code.REQUEST_INVALID),
        ("no header", Code.REQUEST_INVALID),
        ("nothing", Code.REQUEST_INVALID),
        ("two headers", Code.REQUEST_INVALID),
        ("an empty chunk", Code.REQUEST_INVALID),
    ],
)
async def test_what_is_no_trusted_package_is_refused_and_nothing_is_kept(registry, case, code):
    data = student_package("v1", ballast=1000)
    strange = student_package("v1", ballast=1000, signer=STRANGER)
    flipped = data[:700] + bytes([data[700] ^ 1]) + data[701:]
    head = pb.CreateVersionRequest(header=header(data))
    messages = {
        "a flipped byte": [head, pb.CreateVersionRequest(chunk=flipped)],
        "another signer": list(parts(strange)),
        "another digest": list(parts(data, digest="sha256:" + "0" * 64)),
        "too many bytes": [head, pb.CreateVersionRequest(chunk=data + b"x")],
        "no header": [pb.CreateVersionRequest(chunk=data)],
        "nothing": [],
        "two headers": [head, head],
        "an empty chunk": [head, pb.CreateVersionRequest(chunk=b"")],
    }[case]
    async with registry() as channel:
        stub = await ready(channel)
        with pytest.raises(TutelageError) as raised:
            await stub.CreateVersion(stream(messages), timeout=SECONDS)
        assert refused(raised, code)
        listed = await stub.ListVersions(pb.ListVersionsRequest(), timeout=SECONDS)
        assert not listed.versions
        assert (await create(stub, data)).digest == digest(data)  # and nothing stands in its way


async def test_a_whole_package_that_goes_on_is_refused_and_leaves_no_file(tmp_path):
    data = student_package("v1", ballast=BALLAST)
    async with served(PART, settings(tmp_path), twins(tmp_path / "objects")) as channel:
        stub = await ready(channel)
        messages = [*parts(data), pb.CreateVersionRequest(chunk=b"x")]
        with pytest.raises(TutelageError) as raised:
            await stub.CreateVersion(stream(messages), timeout=SECONDS)
        assert refused(raised, Code.REQUEST_INVALID)
        assert FolderObjects(tmp_path / "objects").list().keys == ()


async def test_an_upload_that_is_refused_takes_no_file_from_the_store(registry):
    data = student_package("v1", ballast=BALLAST)
    async with registry(download_memory_bytes=0) as channel:
        stub = await ready(channel)
        await create(stub, data)
        with pytest.raises(TutelageError) as raised:
            await create(stub, data, digest="sha256:" + "0" * 64)
        assert refused(raised, Code.PACKAGE_CORRUPT)
        assert await download(stub, digest(data)) == data


@pytest.mark.parametrize("name", BAD_NAMES)
async def test_a_name_that_is_no_name_is_refused_everywhere(registry, name):
    good = "sha256:" + "a" * 64
    async with registry() as channel:
        stub = await ready(channel)
        calls = [
            stub.GetVersion(pb.GetVersionRequest(named=pb.NamedVersion(name=name, version="v1")), timeout=SECONDS),
            stub.GetVersion(pb.GetVersionRequest(digest=name), timeout=SECONDS),
            stub.SetChannel(set_channel(good, channel=name), timeout=SECONDS),
            stub.SetChannel(set_channel(name), timeout=SECONDS),
            stub.GetChannel(pb.GetChannelRequest(channel=name), timeout=SECONDS),
            stub.ListChannelHistory(pb.ListChannelHistoryRequest(channel=name), timeout=SECONDS),
            stub.CheckIn(check_in(name, good), timeout=SECONDS),
            stub.CheckIn(check_in("gate", good, channel=name), timeout=SECONDS),
            download(stub, name),
        ]
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(answer, TutelageError)
            assert answer.code is Code.REQUEST_INVALID
