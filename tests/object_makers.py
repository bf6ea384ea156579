"""Makes the object stores that the contract suite tests, with a clock that tests move, and reads them whole."""

from __future__ import annotations

import hashlib
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from tutelage.errors import Code, ObjectError
from tutelage.s3_objects import S3Objects

MIB = 1 << 20


class Clock:
    """A time that tests move."""

    def __init__(self):
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def s3(server, clock=None, *, bucket: str | None = None, within: float = 5.0, secret: str = "tester-secret"):
    return S3Objects(
        f"127.0.0.1:{server.port}",
        bucket or f"b-{secrets.token_hex(6)}",
        access_key="tester",
        secret_key=secret,
        secure=False,
        attempt_within=timedelta(seconds=within),
        clock=clock or (lambda: datetime.now(UTC)),
    )


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def whole(store, key: str, **part) -> bytes:
    return b"".join(store.read(key, **part))


def code(raised) -> Code:
    return raised.value.code


def at_once(calls) -> list:
    """Results or error codes of all `calls`, begun together."""
    barrier = threading.Barrier(len(calls))

    def run(call):
        barrier.wait()
        try:
            return call()
        except ObjectError as error:
            return error.code

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))
