"""Errors across gRPC: a failure becomes a status with details on one machine and the same typed error on another.

The catalogue decides the status and what may be told. Details are a `google.rpc.ErrorInfo`: reason is the code's name
in capitals, domain is `tutelage`, and its metadata tells `retryable`. What nobody foresaw becomes `service-failed` with
an `incident`, an opaque id under which this machine's log has the traceback; nothing else of it is sent.
"""

from __future__ import annotations

import traceback
import uuid
from collections.abc import Mapping

import grpc
import structlog
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from tutelage.errors import CATALOGUE, Code, ServiceError, TutelageError, error_for

__all__ = ["DOMAIN", "error_from_call", "status_for"]

DOMAIN = "tutelage"
"""Whose reasons these are, in `google.rpc.ErrorInfo`."""

_DETAILS_KEY = "grpc-status-details-bin"

# gRPC's own words where it answers by itself, with no details of ours.
_TOO_LARGE = "larger than max"
_SENDING_CUT = "Internal error from Core"
"""What our side of a call says where the other side ended it while we were sending, and its status came too late."""
_DROPPED = "CANCELLED"
"""What a server says, in place of any reason, to a call that reaches it in the moment in which it stops."""

_BARE: Mapping[grpc.StatusCode, Code] = {
    grpc.StatusCode.CANCELLED: Code.CALL_CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED: Code.DEADLINE_EXCEEDED,
    grpc.StatusCode.INVALID_ARGUMENT: Code.REQUEST_INVALID,
    grpc.StatusCode.PERMISSION_DENIED: Code.CALLER_REFUSED,
    grpc.StatusCode.UNAUTHENTICATED: Code.CALLER_REFUSED,
    grpc.StatusCode.UNIMPLEMENTED: Code.CALL_UNKNOWN,
    grpc.StatusCode.UNAVAILABLE: Code.SERVICE_UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Code.SERVICE_UNAVAILABLE,
}


def status_for(error: Exception) -> grpc.Status:
    """What a call that failed with `error` ends with; writes to the log what must not be sent."""
    if isinstance(error, TutelageError):
        entry = CATALOGUE[error.code]
        if entry.public is not None:  # a message that was sent names what the caller sent, which no log may hold
            structlog.get_logger().warning("call failed", error=error.code.value, reason=error.message)
        return _status(error.code, entry.public_text(error.message), error.facts)
    incident = uuid.uuid4().hex[:16]
    structlog.get_logger().error("call failed unforeseen", incident=incident, traceback=_frames(error))
    text = f"{CATALOGUE[Code.SERVICE_FAILED].public} under incident {incident}"
    return _status(Code.SERVICE_FAILED, text, {"incident": incident})


def _frames(error: BaseException) -> str:
    """Where `error` and what led to it was raised, as types and lines of code, the first cause first.

    Messages are left out: they may quote the request.
    """
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = _frames(cause) if cause is not None else ""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    return f"{before}{''.join(traceback.format_tb(error.__traceback__))}{kind}\n"


def _status(code: Code, text: str, more: Mapping[str, str]) -> grpc.Status:
    entry = CATALOGUE[code]
    info = error_details_pb2.ErrorInfo(
        reason=code.name, domain=DOMAIN, metadata={"retryable": str(entry.retryable).lower(), **more}
    )
    whole = status_pb2.Status(code=code_pb2.Code.Value(entry.status.value), message=text)
    whole.details.add().Pack(info)
    return rpc_status.to_status(whole)


def error_from_call(error: grpc.aio.AioRpcError) -> TutelageError:
    """The typed error that the other side raised, or that stands for what gRPC itself met on the way."""
    text = error.details() or error.code().name
    info = _error_info(error)
    if info is not None and info.domain == DOMAIN and info.reason in Code.__members__:
        typed = error_for(Code[info.reason], text)
        typed.facts = {name: value for name, value in info.metadata.items() if name != "retryable"}
        return typed
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in text:
        return ServiceError(Code.MESSAGE_TOO_LARGE, text)
    if error.code() is grpc.StatusCode.INTERNAL and text == _SENDING_CUT:
        return ServiceError(Code.SERVICE_UNAVAILABLE, "the call was ended while it was still being sent: try again")
    if error.code() is grpc.StatusCode.CANCELLED and text == _DROPPED:
        return ServiceError(Code.SERVICE_UNAVAILABLE, "the service stopped before it answered: try again")
    code = _BARE.get(error.code(), Code.SERVICE_FAILED)
    return error_for(code, f"{error.code().name}: {text}")


def _error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo | None:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            return _first_info(value)
    return None


def _first_info(value: bytes) -> error_details_pb2.ErrorInfo | None:
    info = error_details_pb2.ErrorInfo()
    try:
        details = status_pb2.Status.FromString(value).details
        return next((info for detail in details if detail.Unpack(info)), None)
    except Exception:
        return None
