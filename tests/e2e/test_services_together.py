"""From a data set to a version: three services as processes of their own, on a real Redis and a real MinIO."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

pytest.importorskip("redis")

from distiller import FINAL, STATE, Keys, cloud, pb, spec
from redis import Redis
from served_part import servers
from service_process import running, stores_environment

from tutelage.api.distiller.v1.distiller_pb2_grpc import StudentDistillerServiceStub
from tutelage.api.registry.v1 import registry_pb2
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.cohorts import read_data
from tutelage.data_sets import push_data_set
from tutelage.errors import Code, TutelageError
from tutelage.manifest import Split
from tutelage.sealing import make_key, read_key
from tutelage.stores import open_stores


@pytest.mark.slow
async def test_a_job_becomes_a_version_with_its_lineage(tmp_path: Path, redis_server, minio_server):
    Redis(port=redis_server.port).flushall()
    keys, bucket = Keys(tmp_path), f"b-{secrets.token_hex(6)}"
    make_key(tmp_path / "gallery.key")
    places = stores_environment(redis_server, minio_server, bucket, tmp_path / "accounts")
    threads = {"OMP_NUM_THREADS": "1", "TUTELAGE_TEACHER_BACKEND_THREADS": "1"}
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(open_stores(servers(redis_server, minio_server, bucket)))
        await asyncio.to_thread(stores.objects.ensure_bucket)

        async def started(module: str, **own: str):
            service = await stack.enter_async_context(running(module, {**places, **threads, **own}, tmp_path))
            return service, await stack.enter_async_context(service.channel)

        teacher, _ = await started(
            "teacher_inference",
            TUTELAGE_TEACHER_GALLERY_KEY_FILE=str(tmp_path / "gallery.key"),
            TUTELAGE_TEACHER_FEATURE_CALLERS="anonymous",
        )
        _, registry = await started("model_registry", TUTELAGE_REGISTRY_TRUSTED_FILES=str(keys.public))
        _, distiller = await started(
            "student_distiller",
            TUTELAGE_DISTILLER_TEACHER_ADDRESS=f"127.0.0.1:{teacher.port}",
            TUTELAGE_DISTILLER_SIGNER_FILE=str(keys.signer),
            TUTELAGE_DISTILLER_SEAL_KEY_FILE=str(keys.seal),
            TUTELAGE_DISTILLER_DATA_KEY_FILE=str(keys.data),
            TUTELAGE_DISTILLER_DEVICE="cpu",
        )
        rows = read_data(cloud(tmp_path / "cloud"), 0).select(Split.DISTIL)
        data_set = (await asyncio.to_thread(push_data_set, stores.objects, rows, read_key(keys.data))).data_set.digest
        jobs = StudentDistillerServiceStub(distiller)
        request = pb.SubmitJobRequest(idempotency_key="first", spec=spec(data_set))
        job = (await jobs.SubmitJob(request, timeout=20)).job
        async for answer in jobs.WatchJob(pb.WatchJobRequest(job_id=job.job_id), timeout=150):
            last = answer
        assert last.progress.state in FINAL
        assert last.progress.state == STATE.JOB_STATE_SUCCEEDED, last
        version = await found(ModelRegistryServiceStub(registry), last.result.digest)
        assert (version.name, version.version) == ("thumbs", "v7")
        assert (version.lineage.data_set, version.lineage.job_id) == (data_set, job.job_id)
        assert version.teacher_space == job.spec.teacher_space == last.result.teacher_space


async def found(registry: ModelRegistryServiceStub, digest: str):
    """The version, as soon as the registry has heard of it."""
    async with asyncio.timeout(30):
        while True:
            try:
                request = registry_pb2.GetVersionRequest(digest=digest)
                return (await registry.GetVersion(request, timeout=5)).version
            except TutelageError as error:
                if error.code not in (Code.OBJECT_MISSING, Code.SERVICE_UNAVAILABLE):
                    raise
            await asyncio.sleep(0.2)
