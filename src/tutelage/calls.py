"""A call that a server is answering: who makes it, under which request id, and how it ended.

Everything a server does around every call is a *layer*: a function that takes the `Call` and gives a context manager,
entered before the handler and left after it, when `Call.status` is known. Layers know nothing of gRPC, so they can be
read and tested without it; `tutelage.server` enters them for each of the four kinds of call.

While a handler runs, `current_call()` is its call, also in what it awaits: clients forward the request id from there.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import structlog

from tutelage.errors import Status

__all__ = ["ANONYMOUS", "Call", "Caller", "Layer", "calls_logged", "current_call", "request_id_from"]

REQUEST_ID_KEY = "x-request-id"
"""Metadata that carries a request id from caller to caller."""

DEVICE_ID_KEY = "x-device-id"
"""Metadata in which a device says which one it is. It is written to logs and believed by nobody."""

FRAME_BYTES = 1 << 20
"""Of HTTP/2: a chunk of a package in one frame instead of sixty-four, a third faster on a loopback."""

LOOKAHEAD_BYTES = 4 << 20
"""What may be on its way in one stream before the reader has asked for it."""

_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")

# Asked every few seconds by whatever watches the service: worth a line only where somebody looks for it.
_QUIET_SERVICES = ("grpc.health.", "grpc.reflection.")


@dataclass(frozen=True)
class Caller:
    """Who makes a call, as far as that was proven."""

    names: tuple[str, ...] = ()
    """Names in the client's certificate: URIs, then DNS names, or else the common name. Empty: nothing was proven."""

    @property
    def authenticated(self) -> bool:
        """Whether the client showed a certificate that one of our authorities signed."""
        return bool(self.names)

    @property
    def name(self) -> str:
        """The first name; `anonymous` without one."""
        return self.names[0] if self.names else "anonymous"


ANONYMOUS = Caller()
"""A client without a certificate."""


@dataclass
class Call:
    """One call while a server answers it."""

    service: str
    """Full name, `tutelage.api.registry.v1.ModelRegistryService`; `unknown` for what nobody serves."""
    method: str
    """`GetVersion`; `unknown` for what nobody serves, so that names stay a closed set."""
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What the client sent along, texts only, keys in lower case."""
    caller: Caller = ANONYMOUS
    request_id: str = ""
    """Taken over from the caller, else made here; the same in all logs along the way."""
    status: Status = Status.OK
    """How it ended; true once the handler has finished."""


Layer = Callable[[Call], AbstractContextManager[None]]
"""What happens around every call."""

_current: ContextVar[Call | None] = ContextVar("tutelage_call", default=None)


def current_call() -> Call | None:
    """The call that is being answered here; None outside of one."""
    return _current.get()


@contextmanager
def call_current(call: Call) -> Iterator[None]:
    """A layer: `call` is the current one, and its request id is in every event that is logged meanwhile."""
    token = _current.set(call)
    try:
        with structlog.contextvars.bound_contextvars(request_id=call.request_id):
            yield
    finally:
        _current.reset(token)


@contextmanager
def calls_logged(call: Call) -> Iterator[None]:
    """A layer: one event a call with its method, status and seconds; never anything of its messages."""
    begun = time.perf_counter()
    try:
        yield
    finally:
        log = structlog.get_logger()
        write = log.debug if call.service.startswith(_QUIET_SERVICES) else log.info
        write(
            "call answered",
            service=call.service,
            method=call.method,
            code=call.status.value,
            seconds=round(time.perf_counter() - begun, 6),
            caller=call.caller.name,
            **_device(call.metadata),
        )


def request_id_from(metadata: Mapping[str, str]) -> str:
    """The caller's request id, or a new one where it sent none or nothing fit to be written to a log."""
    sent = metadata.get(REQUEST_ID_KEY, "")
    return sent if _ID.fullmatch(sent) else uuid.uuid4().hex


def _device(metadata: Mapping[str, str]) -> dict[str, str]:
    sent = metadata.get(DEVICE_ID_KEY, "")
    return {"device_id": sent} if _ID.fullmatch(sent) else {}
