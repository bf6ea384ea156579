"""The distiller over real gRPC: from a submitted job to a package that devices believe."""

from __future__ import annotations

from pathlib import Path

from distiller import STATE, cloud, distilling, spec

from tutelage.package import read_package
from tutelage.signing import read_public_key
from tutelage.stored_packages import find_package


async def test_the_whole_way_from_a_job_to_a_verified_package(tmp_path: Path):
    async with distilling(tmp_path) as distiller:
        data_set = distiller.push(cloud(tmp_path / "cloud"))
        job = await distiller.submit(spec(data_set))
        assert job.progress.state in (STATE.JOB_STATE_QUEUED, STATE.JOB_STATE_RUNNING)
        job = await distiller.ended(job.job_id)
        assert job.progress.state == STATE.JOB_STATE_SUCCEEDED, job
        stored = find_package(distiller.stores.objects, job.result.digest)
        data = b"".join(distiller.stores.objects.read(stored.key))
        package = read_package(data, trusted=[read_public_key(distiller.keys.public)])
        assert package.digest == job.result.digest
