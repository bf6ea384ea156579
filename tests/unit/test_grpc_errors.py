"""Endings of calls that gRPC words by itself, without details of ours, become typed errors too."""

from __future__ import annotations

import pytest

pytest.importorskip("grpc")

import grpc
from grpc.aio import AioRpcError, Metadata

from tutelage.errors import CATALOGUE, Code
from tutelage.grpc_errors import error_from_call


@pytest.mark.parametrize(
    ("status", "details", "code"),
    [
        (grpc.StatusCode.INTERNAL, "Internal error from Core", Code.SERVICE_UNAVAILABLE),
        (grpc.StatusCode.INTERNAL, "something else", Code.SERVICE_FAILED),
        (grpc.StatusCode.CANCELLED, "CANCELLED", Code.SERVICE_UNAVAILABLE),
        (grpc.StatusCode.CANCELLED, "Channel closed.", Code.CALL_CANCELLED),
        (grpc.StatusCode.UNAVAILABLE, "Connection refused", Code.SERVICE_UNAVAILABLE),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max", Code.MESSAGE_TOO_LARGE),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "", Code.SERVICE_UNAVAILABLE),
    ],
)
def test_what_grpc_says_by_itself_has_a_code(status: grpc.StatusCode, details: str, code: Code):
    assert error_from_call(AioRpcError(status, Metadata(), Metadata(), details)).code is code


def test_a_stream_cut_off_while_it_was_sent_may_be_sent_again():
    cut = AioRpcError(grpc.StatusCode.INTERNAL, Metadata(), Metadata(), "Internal error from Core")
    assert CATALOGUE[error_from_call(cut).code].retryable
