"""One service at an address as a check sees it: whether it is healthy, what it answers; errors say whose they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor

from tutelage.api.device.v1 import device_pb2, device_pb2_grpc
from tutelage.api.distiller.v1 import distiller_pb2, distiller_pb2_grpc
from tutelage.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tutelage.api.teacher.v1 import teacher_pb2, teacher_pb2_grpc
from tutelage.channel import Channel, ChannelSettings, idempotent_methods, serving
from tutelage.errors import Code, ServiceError, TutelageError, error_for
from tutelage.waiting_channel import WaitingChannel

__all__ = ["DEVICE", "DISTILLER", "REGISTRY", "TEACHER", "CalledService", "Contract"]


@dataclass(frozen=True)
class Contract:
    """What a service answers by."""

    part: str
    """Which part of the whole it is."""
    service: ServiceDescriptor
    stub: Callable[[Any], Any]


TEACHER = Contract(
    "teacher",
    teacher_pb2.DESCRIPTOR.services_by_name["TeacherInferenceService"],
    teacher_pb2_grpc.TeacherInferenceServiceStub,
)
REGISTRY = Contract(
    "registry",
    registry_pb2.DESCRIPTOR.services_by_name["ModelRegistryService"],
    registry_pb2_grpc.ModelRegistryServiceStub,
)
DISTILLER = Contract(
    "distiller",
    distiller_pb2.DESCRIPTOR.services_by_name["StudentDistillerService"],
    distiller_pb2_grpc.StudentDistillerServiceStub,
)
DEVICE = Contract("device", device_pb2.DESCRIPTOR.services_by_name["DeviceService"], device_pb2_grpc.DeviceServiceStub)


class _Stubs:
    """What a channel is asked: the calls of a contract, and health."""

    def __init__(self, contract: Contract, channel: Channel) -> None:
        self.own, self.serving = contract.stub(channel), partial(serving, channel)


class CalledService:
    """Calls one service; a context manager. Whatever it raises names the part and its address."""

    def __init__(self, contract: Contract, settings: ChannelSettings, *, timeout: timedelta) -> None:
        """Call the service that `settings` lead to, with `timeout` for each call, tries included.

        Raises:
            SettingsError: The certificates cannot be used.
        """
        self.part, self._contract, self._address, self._timeout = contract.part, contract, settings.address, timeout
        idempotent = idempotent_methods(contract.service)
        self._channel = WaitingChannel(settings, partial(_Stubs, contract), idempotent=idempotent)

    def ask(self, method: str, request: Any) -> Any:
        """The answer of the call named `method`.

        Raises:
            TutelageError: As the service's catalogue has it.
        """
        with self._named():
            return self._channel.ask(getattr(self._channel.stub.own, method), request, timeout=self._timeout)

    def check_health(self) -> None:
        """Return where it says that it serves.

        Raises:
            ServiceError: `service-unavailable`, it does not, or nobody answers there; `service-wrong`, somebody else.
        """
        with self._named():
            if not self._serving():
                raise ServiceError(Code.SERVICE_UNAVAILABLE, "it is not ready, or ends: its log says why")

    def _serving(self) -> bool:
        name = self._contract.service.full_name
        try:
            return bool(self._channel.ask(self._channel.stub.serving, name, timeout=self._timeout))
        except ServiceError as error:
            if error.code not in {Code.SERVICE_FAILED, Code.CALL_UNKNOWN}:
                raise
            raise ServiceError(
                Code.SERVICE_WRONG, f"whoever answers there does not know {name}: check the address ({error.message})"
            ) from error

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except TutelageError as error:
            raise error_for(error.code, f"the {self.part} at {self._address}: {error.message}") from error

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def __enter__(self) -> CalledService:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
