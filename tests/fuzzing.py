"""Nonsense for services: valid requests changed at random, by the types of their fields and byte by byte.

    fuzzer = Fuzzer(service_descriptor, {"Label": [request, ..], ..}, seed)
    tally = await assail(port, fuzzer, count=10_000)

`assail` sends requests over real gRPC and refuses every ending that a service must not have: a status that is not
typed, INTERNAL, UNKNOWN, a call that hangs. A service under a strain it is meant to bear may turn calls away.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tutelage.errors import CATALOGUE, Code, Status
from tutelage.server import MAX_MESSAGE_BYTES

TEXTS = (
    *(
        "",
        " ",
        ".",
        "..",
        "../",
        "../../etc/passwd",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "C:\\con",
        "%2e%2e%2f",
        "\x00",
        "a\x00b",
    ),
    *("\n", "\u202e", "\ufeff", "é", "e\u0301", "人", "😀", "'; --", "{}", "null", "NaN", "-1", "a" * 64, "a" * 65),
    *(
        "a" * 128,
        "a" * 129,
        "a" * 5_000,
        "sha256:",
        "sha256:" + "0" * 64,
        "sha256:" + "G" * 64,
        "*",
        "$(id)",
        "{{7*7}}",
    ),
)
BYTES = (b"", b"\x00", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"\xff" * 100, b"{}", b"\x80\x04.", b"GIF89a", b"\x1f\x8b")
NUMBERS = (0, 1, -1, 2, 7, 500, 501, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf"))
TOO_MANY = (2, 17, 300)
"""How often the elements of a list are repeated."""

MOST = 3_000
"""Elements of a list at most: more test nothing but patience."""

SENDING_CUT = "Internal error from Core"
"""What this side of a stream says where the server refused it while it was being sent; the server's word is lost."""
CUT = "CUT"

BAD = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})
CALLED_AT_ONCE = 16
MAX_STREAMED = 20
"""Answers of one stream that are read before it is let go of."""

_WHOLE = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT32)
_WHOLE += (FieldDescriptor.CPPTYPE_UINT64,)
_REAL = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)


@dataclass(frozen=True)
class Request:
    """What one call sends."""

    method: MethodDescriptor
    messages: Sequence[bytes]
    """Encoded, as many as the method takes: one, or any number in a stream."""


class Fuzzer:
    """Makes requests to a service out of `valid` ones, by method; the same ones for the same seed."""

    def __init__(self, service: ServiceDescriptor, valid: Mapping[str, Sequence[Message]], seed: int) -> None:
        assert set(valid) == {method.name for method in service.methods}, "give valid requests for every method"
        self.service, self.valid, self._rng = service, valid, random.Random(seed)
        self._all = [message for messages in valid.values() for message in messages]

    def request(self) -> Request:
        """The next one, to any method."""
        method = self._rng.choice(self.service.methods)
        messages = [self._rng.choice(self.valid[method.name])]
        if method.client_streaming:
            messages = list(self.valid[method.name])
            self._shake(messages)
        return Request(method, [self._changed(message) for message in messages])

    def _shake(self, messages: list[Message]) -> None:
        """A stream with parts left out, repeated and in another order."""
        match self._rng.randrange(5):
            case 0:
                self._rng.shuffle(messages)
            case 1:
                del messages[self._rng.randrange(len(messages)) :]
            case 2:
                messages.extend(messages)
            case 3:
                del messages[: self._rng.randrange(len(messages))]

    def _changed(self, message: Message) -> bytes:
        kind = self._rng.random()
        if kind < 0.55:
            return self._with_changed_fields(message)
        if kind < 0.9:
            return self._with_changed_bytes(message.SerializeToString())
        if kind < 0.95:  # another call's request
            return self._rng.choice(self._all).SerializeToString()
        return self._rng.randbytes(self._rng.randrange(200))

    def _with_changed_fields(self, message: Message) -> bytes:
        changed = type(message)()
        changed.CopyFrom(message)
        for _ in range(self._rng.choice((1, 1, 2, 4))):
            self._change_a_field(changed)
        return changed.SerializePartialToString()

    def _change_a_field(self, message: Message) -> None:
        """Somewhere in `message`, at any depth."""
        field = self._rng.choice(message.DESCRIPTOR.fields) if message.DESCRIPTOR.fields else None
        if field is None:
            return
        if field.is_repeated:
            self._change_a_list(message, field)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            if self._rng.random() < 0.2:
                message.ClearField(field.name)
            else:
                self._change_a_field(getattr(message, field.name))
        elif self._rng.random() < 0.1:
            message.ClearField(field.name)
        else:
            self._set(message, field)

    def _change_a_list(self, message: Message, field: FieldDescriptor) -> None:
        values = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            message.ClearField(field.name)
            return
        within = self._rng.random()
        if within < 0.2 or not values:
            message.ClearField(field.name)
        elif within < 0.4:
            repeated = (list(values) * self._rng.choice(TOO_MANY))[:MOST]
            del values[:]
            values.extend(repeated)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            self._change_a_field(self._rng.choice(values))
        else:
            values[self._rng.randrange(len(values))] = self._value(field, self._rng.choice(values))

    def _set(self, message: Message, field: FieldDescriptor) -> None:
        value = self._value(field, getattr(message, field.name))
        try:
            setattr(message, field.name, value)
        except ValueError:  # out of the field's range: as much of it as fits
            setattr(message, field.name, value % 2**31)

    def _value(self, field: FieldDescriptor, present: Any) -> Any:
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return self._with_changed_bytes(present) if self._rng.random() < 0.6 else self._rng.choice(BYTES)
            text = self._rng.choice(TEXTS)
            return present + text if self._rng.random() < 0.2 else text
        if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
            return self._rng.choice(NUMBERS) % 2**31  # lists of enums take no more
        if field.cpp_type in _WHOLE:
            return self._rng.choice(NUMBERS)
        return self._rng.choice(FLOATS) if field.cpp_type in _REAL else self._rng.random() < 0.5

    def _with_changed_bytes(self, data: bytes) -> bytes:
        """Bits flipped, a part cut out, doubled or replaced."""
        changed, at = bytearray(data), self._rng.randrange(len(data) + 1)
        match self._rng.randrange(6):
            case 0 if data:
                for _ in range(self._rng.choice((1, 3, 30))):
                    changed[self._rng.randrange(len(changed))] ^= 1 << self._rng.randrange(8)
            case 1:
                del changed[at:]
            case 2:
                changed[at:at] = self._rng.randbytes(self._rng.choice((1, 4, 64)))
            case 3:
                changed[at : at + 8] = b"\xff" * 8
            case 4:
                del changed[at : at + self._rng.randrange(1, 50)]
            case _:
                changed += self._rng.choice((data, b"\x0a\xff\xff\xff\xff\x0f", self._rng.randbytes(30)))
        return bytes(changed)


async def assail(port: int, fuzzer: Fuzzer, *, count: int, within_s: float = 20.0) -> Counter[tuple[str, str]]:
    """Send `count` requests to a service on this machine's `port`; how often each method ended with each status.

    Fails on the first ending that no call may have.
    """
    tally: Counter[tuple[str, str]] = Counter()
    left = iter(range(count))

    async def call_on(channel: grpc.aio.Channel) -> None:
        for _ in left:
            request = fuzzer.request()
            status = await _ending(channel, request, within_s)
            tally[request.method.name, status] += 1

    options = [("grpc.max_send_message_length", 2 * MAX_MESSAGE_BYTES)]
    options += [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        await asyncio.gather(*(call_on(channel) for _ in range(CALLED_AT_ONCE)))
    return tally


async def _ending(channel: grpc.aio.Channel, request: Request, within_s: float) -> str:
    """Name of the status that a call ends with, once it is known to be one that calls may end with."""
    try:
        async with asyncio.timeout(within_s + 10):
            await _call(channel, request, within_s)
    except grpc.aio.AioRpcError as error:
        if request.method.client_streaming and error.details() == SENDING_CUT:
            return CUT
        check_typed(error, request)
        return str(error.code().name)
    return "OK"


async def _call(channel: grpc.aio.Channel, request: Request, within_s: float) -> None:
    method = request.method
    path = f"/{method.containing_service.full_name}/{method.name}"
    sent: Any = _stream(request.messages) if method.client_streaming else request.messages[0]
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    call = getattr(channel, kind)(path)(sent, timeout=within_s)
    if not method.server_streaming:
        await call
        return
    read = 0
    async for _ in call:
        read += 1
        if read == MAX_STREAMED:
            call.cancel()
            return


async def _stream(messages: Sequence[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


def check_typed(error: grpc.aio.AioRpcError, request: Request) -> None:
    """Fail unless `error` is one of the catalogue, with its ErrorInfo, and says nothing about our insides."""
    told = f"{request.method.name} -> {error.code().name}: {error.details()} after {_shown(request)}"
    assert error.code() not in BAD, told
    assert "Traceback" not in (error.details() or ""), told
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (error.details() or ""):
        return  # by gRPC itself, before any of our code
    found = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    assert found is not None, told
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status_pb2.Status.FromString(found).details), told
    assert (info.domain, info.reason in Code.__members__) == ("tutelage", True), told
    assert CATALOGUE[Code[info.reason]].status is Status(error.code().name), told


def _shown(request: Request) -> str:
    """Enough of a request to send it again."""
    return " ".join(message[:300].hex() for message in request.messages[:4])
