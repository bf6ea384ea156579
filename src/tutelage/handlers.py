"""Handlers: how a server runs each of its gRPC methods, of all four kinds, inside layers and with translated errors.

Requests are decoded and answers encoded inside the layers. Outside, gRPC would answer for what cannot be decoded, past
the layers and in its own words.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, aclosing
from functools import partial
from typing import Any

import grpc

from tutelage.calls import ANONYMOUS, Call, Caller, Layer, request_id_from
from tutelage.errors import Code, RequestError, ServiceError, Status
from tutelage.grpc_errors import status_for
from tutelage.running_calls import RunningCalls

__all__ = ["Interceptor"]

UNKNOWN = "unknown"

_STATUSES = {code: Status(known.name) for known in grpc.StatusCode for code in (known, known.value[0])}
"""The catalogue's names of gRPC's codes, which it gives as members or numbers, or not at all."""


class Interceptor(grpc.aio.ServerInterceptor):
    """Runs every handler, of each of the four kinds, inside the layers."""

    def __init__(self, layers: Sequence[Layer], running: RunningCalls) -> None:
        self._layers: tuple[Layer, ...] = (*layers, running)
        self._running = running

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a call, inside the layers; of an unknown one, one that refuses."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return grpc.stream_unary_rpc_method_handler(self._around(_refuse_unknown, UNKNOWN, UNKNOWN))
        _, service, method = handler_call_details.method.split("/")
        make, work = _unwrapped(handler)
        return make(self._around(work, service, method))

    def _around(self, work: _Work, service: str, method: str) -> _Work:
        async def answered(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            call = _call(context, service, method)
            with ExitStack() as stack:
                for layer in self._layers:
                    stack.enter_context(layer(call))
                return await _translated(work, request, context, call, self._running.is_cut)

        return answered


_Work = Callable[[Any, Any], Any]
"""A coroutine function: undecoded request or requests, context -> encoded response, or None after writing many."""


async def _translated(
    work: _Work,
    request: Any,
    context: grpc.aio.ServicerContext[Any, Any],
    call: Call,
    is_cut: Callable[[], bool],
) -> Any:
    """What `work` answers; its failures leave as the catalogue says."""
    try:
        answer = await work(request, context)
    except grpc.aio.AbortError:  # the handler chose a status by itself
        call.status = _STATUSES.get(context.code(), Status.UNKNOWN)
        raise
    except asyncio.CancelledError:
        if is_cut():
            await _refuse(context, call, ServiceError(Code.SERVICE_UNAVAILABLE, "this server is ending: try again"))
        remaining = context.time_remaining()
        over = remaining is not None and remaining <= 0
        call.status = Status.DEADLINE_EXCEEDED if over else Status.CANCELLED
        raise
    except Exception as error:
        await _refuse(context, call, error)
    call.status = _STATUSES.get(context.code(), Status.OK)
    return answer


async def _refuse(context: grpc.aio.ServicerContext[Any, Any], call: Call, error: Exception) -> None:
    """End the call with the status of `error`; raises."""
    status = status_for(error)
    call.status = _STATUSES.get(status.code, Status.UNKNOWN)
    await context.abort(status.code, status.details, status.trailing_metadata)


def _call(context: grpc.aio.ServicerContext[Any, Any], service: str, method: str) -> Call:
    sent = context.invocation_metadata() or ()
    metadata = {key: value for key, value in sent if isinstance(value, str)}
    return Call(service, method, metadata, _caller(context.auth_context()), request_id_from(metadata))


def _caller(proof: Mapping[str, Any]) -> Caller:
    """Names from the certificate that the client showed; TLS alone, without one, proves nothing about the client."""
    for keys in (("peer_uri", "peer_dns"), ("x509_common_name",)):
        names = [name.decode("utf-8", "replace") for key in keys for name in proof.get(key, ())]
        if names:
            return Caller(tuple(names))
    return ANONYMOUS


async def _refuse_unknown(_request: Any, _context: Any) -> Any:
    raise ServiceError(Code.CALL_UNKNOWN, "this server does not have that call: check service, method and version")


def _unwrapped(handler: Any) -> tuple[Callable[[_Work], Any], _Work]:
    """How to make a handler of the same kind, and the work of `handler` with decoding and encoding inside it."""
    decode = _decoder(handler.request_deserializer)
    requests = partial(_each, decode) if handler.request_streaming else decode
    if handler.response_streaming:
        behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
        kinds = (grpc.unary_stream_rpc_method_handler, grpc.stream_stream_rpc_method_handler)
        make = partial(kinds[handler.request_streaming], response_serializer=handler.response_serializer)
        return make, partial(_write_all, behaviour, requests)
    behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary
    kinds_of_one = (grpc.unary_unary_rpc_method_handler, grpc.stream_unary_rpc_method_handler)
    encode = handler.response_serializer or _unchanged
    return kinds_of_one[handler.request_streaming], partial(_answer_one, behaviour, requests, encode)


async def _answer_one(behaviour: _Work, decode: Any, encode: Any, request: Any, context: Any) -> Any:
    return encode(await behaviour(decode(request), context))


async def _write_all(behaviour: _Work, decode: Any, request: Any, context: Any) -> None:
    answers = behaviour(decode(request), context)
    if not hasattr(answers, "__aiter__"):
        await answers  # it writes by itself
        return
    async with aclosing(answers):
        async for answer in answers:
            await context.write(answer)


async def _each(decode: Callable[[bytes], Any], requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for request in requests:
        yield decode(request)


def _decoder(deserializer: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    def decode(raw: bytes) -> Any:
        if deserializer is None:
            return raw
        try:
            return deserializer(raw)
        except Exception as error:
            raise RequestError("the request is not a message of the call's type: send what its .proto says") from error

    return decode


def _unchanged(raw: Any) -> Any:
    return raw
