"""Opening a backend: from settings to something that extracts, once it has said which teacher it runs.

A server may start later than this program, so it gets time to answer for the first time. Whoever runs a teacher without
joining the captures of several callers by itself is wrapped into `BatchingBackend`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from teacher_inference.backends import Backend, BackendKind, BackendSettings
from teacher_inference.batching import BatchingBackend
from teacher_inference.in_process import InProcessBackend
from teacher_inference.open_inference import OpenInferenceBackend
from teacher_inference.torchserve import TorchServeBackend
from tutelage.errors import CATALOGUE, SpaceMismatchError, TutelageError

__all__ = ["open_backend", "open_bare_backend"]

JOINS_CALLERS = frozenset({BackendKind.OPEN_INFERENCE})
"""Triton, MLServer and KServe batch across requests, each with settings of its own."""

PAUSE_S = 0.5
"""Between two tries to reach a server that is not there yet."""


async def open_backend(settings: BackendSettings) -> Backend:
    """What `settings` describe, with the captures of its callers joined into batches.

    Raises:
        TutelageError: as `open_bare_backend`.
    """
    backend = await open_bare_backend(settings)
    return backend if settings.kind in JOINS_CALLERS else BatchingBackend(backend, settings.batching)


async def open_bare_backend(settings: BackendSettings) -> Backend:
    """The same, one batch for each call.

    Raises:
        SettingsError: the settings do not lead to a teacher.
        SpaceMismatchError: the teacher is not the one that `settings.space` names.
        ServiceError: the server did not answer in `start_timeout`, or it runs no teacher.
        TutelageError: as `open_teacher`, in process.
    """
    backend = await _opened(settings)
    if settings.space and backend.space != settings.space:
        await backend.close()
        raise SpaceMismatchError(settings.space, backend.space)
    return backend


async def _opened(settings: BackendSettings) -> Backend:
    match settings.kind:
        case BackendKind.IN_PROCESS:
            return await InProcessBackend.open(settings)
        case BackendKind.TORCHSERVE:
            return await _once_there(lambda left: TorchServeBackend.open(settings, timeout=left), settings)
        case BackendKind.OPEN_INFERENCE:
            return await _once_there(lambda left: OpenInferenceBackend.open(settings, timeout=left), settings)


async def _once_there(open_once: Callable[[float], Awaitable[Backend]], settings: BackendSettings) -> Backend:
    """Try again while the failure may pass and there is time."""
    until = time.monotonic() + settings.start_timeout.total_seconds()
    while True:
        try:
            return await open_once(max(until - time.monotonic(), PAUSE_S))
        except TutelageError as error:
            if not CATALOGUE[error.code].retryable or time.monotonic() + PAUSE_S > until:
                raise
        await asyncio.sleep(PAUSE_S)
