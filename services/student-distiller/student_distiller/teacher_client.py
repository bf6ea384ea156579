"""The teacher that answers now: its name, its space, and its features of captures, through teacher-inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tutelage.api.teacher.v1 import teacher_pb2, teacher_pb2_grpc
from tutelage.channel import Channel, ChannelSettings, idempotent_methods
from tutelage.errors import Code, ServiceError, SpaceMismatchError

__all__ = ["ExtractedFeature", "TeacherClient", "TeacherIdentity"]

MOST_CAPTURES = 256
"""In one request; the contract of ExtractFeatures."""

MOST_REQUEST_BYTES = 12 << 20
"""Captures of one request: with all that frames them well below the 16 MiB of a message."""

ANSWER_SIZE = np.dtype("<f4")
"""How a vector travels."""

_METHODS = idempotent_methods(teacher_pb2.DESCRIPTOR.services_by_name["TeacherInferenceService"])


@dataclass(frozen=True)
class TeacherIdentity:
    """Which teacher answers."""

    name: str
    space: str


@dataclass(frozen=True)
class ExtractedFeature:
    """What the teacher saw in one capture."""

    vector: npt.NDArray[np.float32]
    """Unit length; empty where the capture is not usable."""
    reason: str
    """Why it is not usable; empty where it is."""


class TeacherClient:
    """Calls teacher-inference; a context manager.

    Every method may raise what the service's catalogue has, among it `service-unavailable` (retryable).
    """

    def __init__(self, settings: ChannelSettings, timeout: timedelta) -> None:
        """Give each call `timeout` in all, tries included.

        Raises:
            SettingsError: The certificates cannot be used.
        """
        self._channel = Channel(settings, idempotent=_METHODS)
        # Our channel stands in for one of grpc.aio under the generated stub.
        self._stub = teacher_pb2_grpc.TeacherInferenceServiceStub(cast(Any, self._channel))
        self._timeout_s = timeout.total_seconds()

    async def identity(self, timeout: timedelta) -> TeacherIdentity:
        """Who answers now."""
        answer = await self._stub.GetTeacher(teacher_pb2.GetTeacherRequest(), timeout=timeout.total_seconds())
        return TeacherIdentity(answer.teacher.name, answer.teacher.teacher_space)

    async def extract(self, pngs: Sequence[bytes], space: str) -> list[ExtractedFeature]:
        """The teacher's features of captures, in their order, however many; asked for in as few requests as they fit.

        Raises:
            SpaceMismatchError: Another teacher than that of `space` answers.
        """
        found: list[ExtractedFeature] = []
        for batch in _batches(pngs):
            request = teacher_pb2.ExtractFeaturesRequest(captures=batch)
            answer = await self._stub.ExtractFeatures(request, timeout=self._timeout_s)
            if answer.teacher_space != space:
                raise SpaceMismatchError(space, answer.teacher_space)
            if len(answer.features) != len(batch):
                raise ServiceError(
                    Code.SERVICE_FAILED, f"{len(answer.features)} features of {len(batch)} captures came: see its log"
                )
            found += [
                ExtractedFeature(np.frombuffer(item.vector, ANSWER_SIZE).astype(np.float32), item.reason)
                for item in answer.features
            ]
        return found

    async def close(self) -> None:
        """End the connection."""
        await self._channel.close()


def _batches(pngs: Sequence[bytes]) -> list[list[bytes]]:
    """Captures side by side, as many as one request carries."""
    batches: list[list[bytes]] = []
    size = 0
    for png in pngs:
        if not batches or len(batches[-1]) == MOST_CAPTURES or size + len(png) > MOST_REQUEST_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(png)
        size += len(png)
    return batches
