"""Calls to the registry as its clients make them, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from student_packages import CLOUD, digest

from model_registry.service import RegistrySettings
from tutelage.api.registry.v1 import registry_pb2 as pb
from tutelage.signing import public_pem

CHUNK = 64 << 10
SECONDS = 20


def settings(folder: Path, **other) -> RegistrySettings:
    """Of a registry that trusts the cloud's key of the tests."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trusted.pem").write_bytes(public_pem(CLOUD.public_key()))
    return RegistrySettings((folder / "trusted.pem",), **other)


def file_digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def header(data: bytes, offset: int = 0, **other) -> pb.UploadHeader:
    words = {"digest": digest(data), "file_digest": file_digest(data), "size_bytes": len(data), "offset": offset}
    return pb.UploadHeader(**{**words, **other})


def parts(data: bytes, offset: int = 0, end: int | None = None, **other) -> Iterator[pb.CreateVersionRequest]:
    """The stream of an upload from `offset` to `end`."""
    yield pb.CreateVersionRequest(header=header(data, offset, **other))
    end = len(data) if end is None else end
    for start in range(offset, end, CHUNK):
        yield pb.CreateVersionRequest(chunk=data[start : min(start + CHUNK, end)])


async def stream(messages) -> AsyncIterator[pb.CreateVersionRequest]:
    for message in messages:
        yield message


async def create(stub, data: bytes, **other) -> pb.Version:
    return (await stub.CreateVersion(stream(parts(data, **other)), timeout=SECONDS)).version


async def download(stub, digest: str, offset: int = 0) -> bytes:
    request = pb.DownloadVersionRequest(digest=digest, offset=offset)
    return b"".join([message.chunk async for message in stub.DownloadVersion(request, timeout=SECONDS)])


def set_channel(digest: str, expected: str | None = None, channel: str = "stable", reason: str = "it is better"):
    return pb.SetChannelRequest(channel=channel, digest=digest, expected_digest=expected, reason=reason)


def check_in(device_id: str, digest: str, *, generation: str = "v1", channel: str = "stable", **state):
    state = {"generation": generation, "digest": digest, "released_digest": digest, **state}
    return pb.CheckInRequest(device_id=device_id, channel=channel, state=pb.DeviceState(**state))
