"""Nonsense for the registry: every call ends typed, and what was there is there afterwards, unchanged."""

from __future__ import annotations

import io
import os

import pytest

pytest.importorskip("grpc")

from fuzzing import Fuzzer, assail
from registry_calls import SECONDS, check_in, create, download, header, set_channel, settings
from served_part import served, twins
from student_packages import digest, student_package

from model_registry.service import PART
from tutelage.api.registry.v1 import registry_pb2 as pb
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceStub
from tutelage.log import configure_logging

REQUESTS = int(os.environ.get("FAULT_REQUESTS", "10000"))
SERVICE = pb.DESCRIPTOR.services_by_name["ModelRegistryService"]


def valid(kept: bytes, other: bytes) -> dict:
    """Good requests for every call; those that create are for `other`."""
    name = digest(kept)
    return {
        "CreateVersion": [
            pb.CreateVersionRequest(header=header(other, lineage=pb.Lineage(data_set=name, job_id="job-1"))),
            pb.CreateVersionRequest(chunk=other[:700]),
            pb.CreateVersionRequest(chunk=other[700:]),
        ],
        "GetVersion": [
            pb.GetVersionRequest(digest=name),
            pb.GetVersionRequest(named=pb.NamedVersion(name="tiny", version="v1")),
        ],
        "ListVersions": [
            pb.ListVersionsRequest(page_size=2),
            pb.ListVersionsRequest(name="tiny", teacher_space="t", data_set=name, job_id="job-1", parent=name),
        ],
        "DownloadVersion": [pb.DownloadVersionRequest(digest=name, offset=3)],
        "SetChannel": [set_channel(name, name, channel="canary")],
        "GetChannel": [pb.GetChannelRequest(channel="stable")],
        "ListChannelHistory": [pb.ListChannelHistoryRequest(channel="stable", page_size=1)],
        "CheckIn": [
            check_in("gate-1", name, parent=name, reverted_digests=[name], events={"gate-passed": 3}, persons=4)
        ],
    }


async def test_nonsense_is_answered_typed_and_changes_nothing(tmp_path, seed):
    log = io.StringIO()
    configure_logging("warning", log)
    kept, other = student_package("v1", ballast=1000), student_package("v2", ballast=500)
    async with served(PART, settings(tmp_path), twins(tmp_path / "objects")) as channel:
        stub = ModelRegistryServiceStub(channel)
        version = await create(stub, kept)
        for name in ("stable", "canary"):
            await stub.SetChannel(set_channel(version.digest, channel=name), timeout=SECONDS)
        fuzzer = Fuzzer(SERVICE, valid(kept, other), seed)
        tally = await assail(channel._settings.address.port, fuzzer, count=REQUESTS)
        found = await stub.GetVersion(pb.GetVersionRequest(digest=version.digest), timeout=SECONDS)
        assert found.version == version
        assert await download(stub, version.digest) == kept
        stable = await stub.GetChannel(pb.GetChannelRequest(channel="stable"), timeout=SECONDS)
        assert (stable.channel.change.number, stable.channel.version) == (1, version)
        assert (await create(stub, other)).version == "v2"
    assert sum(tally.values()) == REQUESTS
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE"} <= {status for _, status in tally}, tally
    assert {method for method, status in tally if status == "OK"} == set(valid(kept, other)), tally
    assert "unforeseen" not in log.getvalue(), log.getvalue()[:3000]
