"""Backends: what runs a teacher, whatever that is, behind one interface.

Captures go in as the PNG files that devices send, a whole batch at a time; features in the teacher's space come out.
One backend runs a torch teacher in a thread of this process; the others ask a server that runs models, TorchServe
(`docs/teachers/torchserve.md`) or any that speaks version 2 of the Open Inference Protocol
(`docs/teachers/open-inference.md`). `teacher_inference.opening.open_backend` makes the one that settings describe.

What every backend guarantees, and one suite of tests checks for all of them:

- One entry a capture, in order. A capture that cannot be used, or is no PNG file, is reported and never raised.
- Features are unit rows in the space that the backend was opened with; an answer that is anything else is refused
  (`service-failed`, or `space-mismatch`), however the server came by it.
- A call ends by its deadline. What may pass by itself (`service-unavailable`, `deadline-exceeded`) is told apart from
  what will not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Protocol

from tutelage.errors import Code, ServiceError
from tutelage.labelling import Extraction
from tutelage.settings import Address, Range, Secret
from tutelage.tls import ClientTls

__all__ = ["Backend", "BackendKind", "BackendSettings", "BatchingSettings", "Device", "ended_by_close", "ending"]


class BackendKind(StrEnum):
    """What runs the teacher."""

    IN_PROCESS = "in-process"
    """A thread of this process."""
    TORCHSERVE = "torchserve"
    """A TorchServe server."""
    OPEN_INFERENCE = "open-inference"
    """A server that speaks version 2 of the Open Inference Protocol."""


class Device(StrEnum):
    """Where torch computes."""

    AUTO = "auto"
    """On a CUDA device where there is one."""
    CPU = "cpu"
    CUDA = "cuda"


class Backend(Protocol):
    """Runs one teacher; for one event loop."""

    @property
    def kind(self) -> BackendKind:
        """What runs the teacher."""

    @property
    def name(self) -> str:
        """What people call the teacher."""

    @property
    def space(self) -> str:
        """Id of the embedding space of every feature."""

    async def extract(self, captures: Sequence[bytes], *, timeout: float) -> Extraction:
        """One entry a capture, in order; `captures` are PNG files, `timeout` is in seconds.

        Raises:
            ServiceError: `service-unavailable` or `deadline-exceeded`, both may pass; `message-too-large`, the captures
                are more bytes than a server takes; `service-failed`, the server refused or gave a wrong answer.
            SpaceMismatchError: the server runs another teacher than when the backend was opened.
        """

    async def check(self) -> None:
        """Return once whatever runs the teacher says that it can; for health.

        Raises:
            ServiceError: as `extract`.
        """

    async def close(self) -> None:
        """Let go of thread or connection; calls that cannot end any more end as `service-unavailable`."""


@dataclass(frozen=True)
class BatchingSettings:
    """How captures of several callers become one batch, for backends that do not do that by themselves."""

    captures: Annotated[int, Range(1, 1024)] = 64
    """Captures in a joined batch; the call of one caller is never cut up, however many it has."""
    wait: Annotated[timedelta, Range(0, 1)] = timedelta(milliseconds=3)
    """Seconds that a batch waits for callers who took part in the last one; a lone caller never waits."""
    queued: Annotated[int, Range(1)] = 1024
    """Captures that may wait for their batch; further ones are turned away as `service-unavailable`."""
    at_once: Annotated[int, Range(1, 64)] = 1
    """Batches that the backend is given at once: as many as the server has workers."""


@dataclass(frozen=True)
class BackendSettings:
    """Which teacher runs, and what runs it."""

    kind: BackendKind = BackendKind.IN_PROCESS
    """What runs the teacher: `in-process`, `torchserve` or `open-inference`."""
    teacher: str = "fingerprint"
    """In process: `fingerprint`, `face` or the path of a teacher file. Servers know which teacher they run."""
    device: Device = Device.AUTO
    """In process: where torch computes, `auto`, `cpu` or `cuda`."""
    threads: Annotated[int, Range(0, 1024)] = 0
    """In process: threads that torch computes with; 0 lets torch choose."""
    address: Address | None = None
    """Where the server takes gRPC calls, as host:port; needed unless the teacher runs in process."""
    tls: ClientTls = field(default_factory=ClientTls)
    """How the server is recognised, and how this client proves itself."""
    token: Secret | None = None
    """File with a bearer token for the server, sent with every call."""
    model: str = "teacher"
    """Name of the model at the server."""
    model_version: str = ""
    """Version of the model at the server; absent: the server's default."""
    space: str = ""
    """Space that the teacher must have. Absent: whatever it says of itself, which not every server can."""
    start_timeout: Annotated[timedelta, Range(0, 3_600)] = timedelta(seconds=60)
    """Seconds that a server gets to answer for the first time: it may start later than this program."""
    batching: BatchingSettings = field(default_factory=BatchingSettings)
    """How captures of several callers become one batch."""

    def __post_init__(self) -> None:
        """Refuse a server without an address."""
        if self.kind is not BackendKind.IN_PROCESS and self.address is None:
            raise ValueError(f"kind {self.kind} needs the server's address")
        if not self.model:
            raise ValueError("a model at a server has a name")


def ending() -> ServiceError:
    """What a closed backend answers."""
    return ServiceError(Code.SERVICE_UNAVAILABLE, "the teacher was closed: this program is ending")


@contextmanager
def ended_by_close() -> Iterator[None]:
    """Around what closing cancels: for whoever awaits it that is a failure, for it was not cancelled itself.

    Raises:
        ServiceError: `service-unavailable`.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ending() from error
