"""ModelRegistryService: requests checked and turned into words of the domain, and its answers into messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from datetime import datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from model_registry import requests as check
from model_registry.arrivals import MAX_CHUNK_BYTES
from model_registry.channels import ChannelChange
from model_registry.check_ins import CheckIns
from model_registry.index import CheckedIn, VersionFilter
from model_registry.registry import Registry
from model_registry.uploads import Upload
from model_registry.versions import Lineage, Version
from tutelage.api.registry.v1 import registry_pb2 as pb
from tutelage.api.registry.v1.registry_pb2_grpc import ModelRegistryServiceServicer
from tutelage.calls import Caller, current_call
from tutelage.errors import Code, RequestError, ServiceError
from tutelage.paging import page_size

__all__ = ["ModelRegistryServicer"]

MAX_REVERTED = 16
"""Digests of reverted students in one check-in."""

MAX_EVENT_KINDS = 100
"""Kinds of events in one check-in."""


class ModelRegistryServicer(ModelRegistryServiceServicer):
    """Converts; `Registry` and `CheckIns` decide."""

    def __init__(self, registry: Registry, check_ins: CheckIns, publishers: Collection[str]) -> None:
        """Let only callers of the names `publishers` create versions and set channels; all, where there are none."""
        self._registry, self._check_ins, self._publishers = registry, check_ins, frozenset(publishers)

    async def CreateVersion(
        self, request_iterator: AsyncIterator[pb.CreateVersionRequest], context: Any
    ) -> pb.CreateVersionResponse:
        self._admit()
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("part") != "header":
            raise RequestError("the first message of the stream must be the header")
        header = first.header
        received = await self._registry.receive(
            _upload(header),
            offset=check.offset(header.offset, "header.offset"),
            lineage=_lineage_of(header.lineage, "header.lineage"),
            chunks=_chunks(request_iterator),
        )
        version = None if received.version is None else _version(received.version)
        return pb.CreateVersionResponse(version=version, stored_bytes=received.stored_bytes)

    async def GetVersion(self, request: pb.GetVersionRequest, context: Any) -> pb.GetVersionResponse:
        version = await self._which(request)
        devices = await self._registry.devices(version.digest)
        response = pb.GetVersionResponse(
            version=_version(version), devices=devices.as_released, devices_beyond=devices.beyond
        )
        if devices.latest_s is not None:
            response.latest_check_in_time.FromMilliseconds(int(1000 * devices.latest_s))
        return response

    async def _which(self, request: pb.GetVersionRequest) -> Version:
        match request.WhichOneof("which"):
            case "digest":
                return await self._registry.get(check.digest(request.digest, "digest"))
            case "named":
                named = request.named
                return await self._registry.named(
                    check.name(named.name, "named.name"), check.version(named.version, "named.version")
                )
        raise RequestError("give digest, or named with name and version")

    async def ListVersions(self, request: pb.ListVersionsRequest, context: Any) -> pb.ListVersionsResponse:
        versions, token = await self._registry.page(
            _filter(request), token=request.page_token, limit=page_size(request.page_size)
        )
        return pb.ListVersionsResponse(versions=map(_version, versions), next_page_token=token)

    async def DownloadVersion(
        self, request: pb.DownloadVersionRequest, context: Any
    ) -> AsyncIterator[pb.DownloadVersionResponse]:
        digest, offset = check.digest(request.digest, "digest"), check.offset(request.offset, "offset")
        async for chunk in self._registry.read(digest, offset):
            yield pb.DownloadVersionResponse(chunk=chunk)

    async def SetChannel(self, request: pb.SetChannelRequest, context: Any) -> pb.SetChannelResponse:
        caller = self._admit()
        version, change = await self._registry.set_channel(
            check.name(request.channel, "channel"),
            check.digest(request.digest, "digest"),
            expected=check.optional(
                request.HasField("expected_digest"), request.expected_digest, check.digest, "expected_digest"
            ),
            reason=check.reason(request.reason, "reason"),
            actor=caller.name if caller.authenticated else None,
        )
        return pb.SetChannelResponse(channel=_channel(version, change))

    async def GetChannel(self, request: pb.GetChannelRequest, context: Any) -> pb.GetChannelResponse:
        version, change = await self._registry.channel(check.name(request.channel, "channel"))
        return pb.GetChannelResponse(channel=_channel(version, change))

    async def ListChannelHistory(
        self, request: pb.ListChannelHistoryRequest, context: Any
    ) -> pb.ListChannelHistoryResponse:
        changes, token = await self._registry.history(
            check.name(request.channel, "channel"), token=request.page_token, limit=page_size(request.page_size)
        )
        return pb.ListChannelHistoryResponse(changes=map(_change, changes), next_page_token=token)

    async def CheckIn(self, request: pb.CheckInRequest, context: Any) -> pb.CheckInResponse:
        seen, reverted = _seen(request)
        wanted = await self._check_ins.check_in(seen, check.name(request.channel, "channel"), reverted)
        interval = Duration()
        interval.FromTimedelta(self._check_ins.interval.draw())
        return pb.CheckInResponse(wanted=None if wanted is None else _wanted(wanted), interval=interval)

    def _admit(self) -> Caller:
        """The caller, if it may publish.

        Raises:
            ServiceError: `caller-refused`.
        """
        call = current_call()
        caller = call.caller if call else Caller()
        if self._publishers and self._publishers.isdisjoint(caller.names):
            raise ServiceError(Code.CALLER_REFUSED, "only publishers may do this: call with a publisher's certificate")
        return caller


async def _chunks(requests: AsyncIterator[pb.CreateVersionRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        chunk = request.chunk  # asked for once: each time is a copy; empty where the part is another
        if not 0 < len(chunk) <= MAX_CHUNK_BYTES:
            raise RequestError(f"every message after the header must be a chunk of 1 to {MAX_CHUNK_BYTES} bytes")
        yield chunk


def _upload(header: pb.UploadHeader) -> Upload:
    upload = Upload(
        check.digest(header.digest, "header.digest"),
        check.digest(header.file_digest, "header.file_digest"),
        check.size_bytes(header.size_bytes, "header.size_bytes"),
    )
    if header.offset > upload.size_bytes:
        raise RequestError(f"header.offset must be 0 to size_bytes: {header.offset}")
    return upload


def _lineage_of(lineage: pb.Lineage, field: str) -> Lineage:
    return Lineage(
        check.optional(lineage.HasField("data_set"), lineage.data_set, check.digest, f"{field}.data_set"),
        check.optional(lineage.HasField("job_id"), lineage.job_id, check.job_id, f"{field}.job_id"),
    )


def _filter(request: pb.ListVersionsRequest) -> VersionFilter:
    given = {field.name for field, _ in request.ListFields()}

    def asked(field: str, rule: Callable[[str, str], str]) -> str | None:
        return check.optional(field in given, getattr(request, field), rule, field)

    return VersionFilter(
        name=asked("name", check.name),
        teacher_space=asked("teacher_space", check.space),
        data_set=asked("data_set", check.digest),
        job_id=asked("job_id", check.job_id),
        parent=asked("parent", check.digest),
    )


def _seen(request: pb.CheckInRequest) -> tuple[CheckedIn, Collection[str]]:
    """What is kept of a check-in, and what the device took back; all of its state is checked."""
    state = request.state
    device_id = check.name(request.device_id, "device_id")
    generation = check.generation(state.generation, "state.generation")
    check.digest(state.digest, "state.digest")
    released = check.digest(state.released_digest, "state.released_digest")
    check.optional(state.HasField("parent"), state.parent, check.digest, "state.parent")
    if len(state.reverted_digests) > MAX_REVERTED:
        raise RequestError(f"state.reverted_digests must be at most {MAX_REVERTED}: send the latest")
    reverted = {check.digest(digest, "state.reverted_digests") for digest in state.reverted_digests}
    if len(state.events) > MAX_EVENT_KINDS:
        raise RequestError(f"state.events must be at most {MAX_EVENT_KINDS} kinds")
    counts = {"state.persons": state.persons, "state.store_bytes": state.store_bytes}
    for field, count in {**counts, "state.events": min(state.events.values(), default=0)}.items():
        check.offset(count, field)
    return CheckedIn(device_id, released, "+" in generation), reverted


def _version(version: Version) -> pb.Version:
    lineage = version.lineage
    return pb.Version(
        digest=version.digest,
        name=version.name,
        version=version.version,
        file_digest=version.file_digest,
        size_bytes=version.size_bytes,
        space=version.space,
        teacher_space=version.teacher_space,
        readout=version.readout,
        parent=version.parent,
        lineage=pb.Lineage(data_set=lineage.data_set, job_id=lineage.job_id) if lineage != Lineage() else None,
        student=_struct(version.student),
        training=_struct(version.training),
        made_time=_time(version.made),
        create_time=_time(version.created),
    )


def _wanted(version: Version) -> pb.WantedVersion:
    return pb.WantedVersion(
        digest=version.digest,
        name=version.name,
        version=version.version,
        file_digest=version.file_digest,
        size_bytes=version.size_bytes,
    )


def _channel(version: Version, change: ChannelChange) -> pb.Channel:
    return pb.Channel(channel=change.channel, version=_version(version), change=_change(change))


def _change(change: ChannelChange) -> pb.ChannelChange:
    return pb.ChannelChange(
        number=change.number,
        digest=change.digest,
        previous_digest=change.previous_digest,
        reason=change.reason,
        actor=change.actor,
        time=_time(change.time),
    )


def _struct(fields: Any) -> Struct:
    struct = Struct()
    struct.update(fields)
    return struct


def _time(text: str) -> Timestamp:
    time = Timestamp()
    time.FromDatetime(datetime.fromisoformat(text))  # one without a zone is taken for UTC
    return time
