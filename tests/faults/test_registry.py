"""The registry killed, flushed, cut off and full: every version is whole, every answer typed."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("redis")

from redis import Redis
from registry_calls import (
    SECONDS,
    check_in,
    create,
    download,
    file_digest,
    header,
    parts,
    set_channel,
    settings,
    stream,
)
from served_part import served, servers, twins
from service_process import running, stores_environment
from small_disk import small_disk
from student_packages import STRANGER, digest, student_package

from model_registry.events import QUEUE
from model_registry.service import PART
from tutelage.api.registry.v1 import registry_pb2 as pb
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.errors import CATALOGUE, Code, TutelageError
from tutelage.queue_entries import State
from tutelage.queues import RedisQueue

KILLS = int(os.environ.get("FAULT_KILLS", "8"))
SHORT = 3.0


@pytest.fixture
def environment(redis_server, minio_server, tmp_path):
    Redis(port=redis_server.port).flushall()
    settings(tmp_path)
    stores = stores_environment(redis_server, minio_server, f"b-{secrets.token_hex(6)}", tmp_path / "account")
    return {**stores, "TUTELAGE_REGISTRY_TRUSTED_FILES": str(tmp_path / "trusted.pem")}


async def persist(call):
    """What `call` answers once the service and its stores do."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await call()
            except TutelageError as error:
                if not CATALOGUE[error.code].retryable and error.code is not Code.CALL_CANCELLED:
                    raise
                await asyncio.sleep(0.05)


def versions(stub):
    return persist(lambda: stub.ListVersions(pb.ListVersionsRequest(), timeout=SECONDS))


async def upload(stub, data: bytes) -> pb.Version:
    """Go on from where the registry says it stands, as a client does after a broken connection."""
    asked = await stub.CreateVersion(stream([pb.CreateVersionRequest(header=header(data))]), timeout=SECONDS)
    if asked.HasField("version"):
        return asked.version
    return (await stub.CreateVersion(stream(parts(data, asked.stored_bytes)), timeout=SECONDS)).version


async def test_a_registry_killed_at_any_moment_has_each_version_once_and_whole(environment, tmp_path, seed):
    rng = random.Random(seed)
    packages = [student_package(f"v{n}", ballast=2_000_000) for n in range(KILLS)]
    async with running("model_registry", environment, tmp_path) as service:
        for data in packages:
            async with service.channel as channel:
                stub = ModelRegistryServiceStub(channel)
                await versions(stub)
                uploading = asyncio.create_task(upload(stub, data))
                await asyncio.sleep(rng.uniform(0, 0.12))
                service.kill()
                with suppress(TutelageError):
                    await uploading
            await service.start()
        async with service.channel as channel:
            stub = ModelRegistryServiceStub(channel)
            for data in packages:
                await persist(lambda data=data: upload(stub, data))
            listed = [version.digest for version in (await versions(stub)).versions]
            assert sorted(listed) == sorted(map(digest, packages))
            for data in packages:
                assert await download(stub, digest(data)) == data


async def test_a_flushed_redis_costs_nothing_but_check_ins(environment, tmp_path, redis_server):
    data = student_package("v1")
    async with running("model_registry", environment, tmp_path) as service, service.channel as channel:
        stub = ModelRegistryServiceStub(channel)
        await versions(stub)
        await create(stub, data)
        await stub.SetChannel(set_channel(digest(data)), timeout=SECONDS)
        calls = [
            lambda: stub.GetVersion(pb.GetVersionRequest(digest=digest(data)), timeout=SECONDS),
            lambda: stub.ListVersions(pb.ListVersionsRequest(name="tiny"), timeout=SECONDS),
            lambda: stub.GetChannel(pb.GetChannelRequest(channel="stable"), timeout=SECONDS),
            lambda: stub.SetChannel(set_channel(digest(data), digest(data)), timeout=SECONDS),
            lambda: download(stub, digest(data)),
        ]
        for call in calls:
            Redis(port=redis_server.port).flushall()
            assert await call()
        Redis(port=redis_server.port).flushall()
        await asyncio.sleep(1.1)  # what is remembered of a channel
        assert (await stub.CheckIn(check_in("gate", digest(data)), timeout=SECONDS)).wanted.digest == digest(data)
        Redis(port=redis_server.port).flushall()
        command = [sys.executable, "-m", "model_registry", "rebuild"]
        done = await asyncio.to_thread(
            subprocess.run, command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
        )
        assert done.stdout == "1 versions\n"


async def test_without_its_servers_it_answers_typed_and_comes_back(environment, tmp_path, redis_server, minio_server):
    data = student_package("v1")
    async with running("model_registry", environment, tmp_path) as service, service.channel as channel:
        stub = ModelRegistryServiceStub(channel)
        await versions(stub)
        await create(stub, data)
        for server in (redis_server, minio_server):
            server.kill()
            made, read = await codes(lambda: create(stub, student_package("v2")), lambda: download(stub, digest(data)))
            away = {Code.QUEUE_UNAVAILABLE, Code.OBJECTS_UNAVAILABLE, Code.DEADLINE_EXCEEDED}
            assert made in away
            assert read in away | {None}  # out of memory, where it was asked for before
            server.start()
            assert await persist(lambda: download(stub, digest(data))) == data


async def codes(*calls) -> list[Code | None]:
    async def code(call) -> Code | None:
        try:
            await call()
        except TutelageError as error:
            return error.code
        return None

    return await asyncio.gather(*map(code, calls))


async def test_a_frozen_object_store_ends_in_a_deadline(environment, tmp_path, minio_server):
    data = student_package("v1")
    async with running("model_registry", environment, tmp_path) as service, service.channel as channel:
        stub = ModelRegistryServiceStub(channel)
        await versions(stub)
        minio_server.freeze()
        try:
            with pytest.raises(TutelageError) as raised:
                await stub.CreateVersion(stream(parts(data)), timeout=SHORT)
            assert raised.value.code is Code.DEADLINE_EXCEEDED
        finally:
            minio_server.thaw()
        assert (await persist(lambda: upload(stub, data))).digest == digest(data)


@asynccontextmanager
async def failing_s3(status: int):
    """A server that answers every request of S3 with `status`."""

    class Failing(BaseHTTPRequestHandler):
        def _fail(self):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _fail  # noqa: N815

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        server.port = server.server_port
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [500, 503, 403])
async def test_an_object_store_that_answers_errors_is_typed(tmp_path, redis_server, status):
    Redis(port=redis_server.port).flushall()
    async with failing_s3(status) as s3, served(PART, settings(tmp_path), servers(redis_server, s3)) as channel:
        stub = ModelRegistryServiceStub(channel)
        found = await codes(
            lambda: create(stub, student_package("v1")),
            lambda: stub.ListVersions(pb.ListVersionsRequest(), timeout=SECONDS),
            lambda: stub.GetChannel(pb.GetChannelRequest(channel="stable"), timeout=SECONDS),
        )
        assert set(found) <= {Code.OBJECTS_UNAVAILABLE, Code.OBJECTS_REFUSED}


async def test_a_full_disk_keeps_nothing_half_written(tmp_path):
    small, large = student_package("v1"), student_package("v2", ballast=2_000_000)
    with small_disk(tmp_path / "disk", "1m") as disk:
        async with served(PART, settings(tmp_path), twins(disk)) as channel:
            stub = ModelRegistryServiceStub(channel)
            await versions(stub)
            assert await codes(lambda: create(stub, large)) == [Code.STORAGE_FULL]
            await create(stub, small)
            assert [version.version for version in (await versions(stub)).versions] == ["v1"]
            assert await download(stub, digest(small)) == small


async def test_events_become_versions_once_and_bad_ones_dead_letters(tmp_path, redis_server, minio_server):
    Redis(port=redis_server.port).flushall()
    stores = servers(redis_server, minio_server)
    good, strange = student_package("v1"), student_package("v2", signer=STRANGER)
    queue = RedisQueue(f"redis://127.0.0.1:{redis_server.port}", QUEUE)
    async with served(PART, settings(tmp_path), stores) as channel:
        stub = ModelRegistryServiceStub(channel)
        await versions(stub)
        objects = put_objects(stores, good, strange)
        assert objects == [file_digest(good), file_digest(strange)]
        for key in ("job-1", "job-1 again"):
            await queue.put(told(good), key=key)
        bad = [await queue.put(told(strange), key="job-2"), await queue.put({"event": "?"}, key="job-3")]
        missing = {**told(good), "digest": "sha256:" + "1" * 64, "file_digest": "sha256:" + "2" * 64}
        bad.append(await queue.put(missing, key="job-4"))
        async with asyncio.timeout(SECONDS):
            while not all([(await queue.status(entry)).state is State.DEAD for entry in bad]):
                await asyncio.sleep(0.05)
        (version,) = (await versions(stub)).versions
        assert (version.digest, version.lineage.job_id) == (digest(good), "job-1")
        assert "package-signature" in (await queue.status(bad[0])).error
    await queue.close()


def told(data: bytes) -> dict:
    names = {"digest": digest(data), "file_digest": file_digest(data), "size_bytes": len(data)}
    return {"event": "student-distilled", **names, "data_set": "sha256:" + "a" * 64, "job_id": "job-1"}


def put_objects(stores, *files: bytes) -> list[str]:
    from object_makers import s3  # noqa: PLC0415

    store = s3(stores.objects.address, bucket=stores.objects.bucket, within=timedelta(seconds=5).total_seconds())
    return [store.put([data]).digest for data in files]
