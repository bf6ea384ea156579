"""A device at an address, for callers that wait: the calls of DeviceService, and errors that say what to do next.

with DeviceClient(ChannelSettings(address), timeout=timedelta(seconds=10)) as device:
    status = device.ask("GetStatus", pb.GetStatusRequest())
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from tutelage.api.device.v1 import device_pb2 as pb
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceStub
from tutelage.channel import ChannelSettings, idempotent_methods
from tutelage.errors import Code, ServiceError
from tutelage.waiting_channel import WaitingChannel

__all__ = ["DeviceClient"]

CONNECT_S = 3.0
"""A device that has not taken a connection by then is not there; devices are near."""

STREAM_S = 30 * 86_400.0
"""Deadline of a stream of events: longer than anybody watches a terminal."""

_METHODS = idempotent_methods(pb.DESCRIPTOR.services_by_name["DeviceService"])


class DeviceClient:
    """Calls one device; a context manager.

    Every method may raise what the device's catalogue has; `service-unavailable` says how to reach it.
    """

    def __init__(self, settings: ChannelSettings, *, timeout: timedelta) -> None:
        """Call the device that `settings` lead to, with `timeout` for each call, tries included.

        Raises:
            SettingsError: The certificates cannot be used.
            ServiceError: `service-unavailable`, nobody takes connections there.
        """
        self._settings, self._timeout = settings, timeout
        self._find()
        self._channel = WaitingChannel(settings, DeviceServiceStub, idempotent=_METHODS)

    def _find(self) -> None:
        address = self._settings.address
        try:
            socket.create_connection((address.host.strip("[]"), address.port), timeout=CONNECT_S).close()
        except OSError as error:
            raise ServiceError(
                Code.SERVICE_UNAVAILABLE,
                f"no device answers at {address}: start one with `python -m device_sim`, or name its --address",
            ) from error

    def ask(self, method: str, request: Any) -> Any:
        """The answer of the call named `method`."""
        with self._explained():
            return self._channel.ask(getattr(self._channel.stub, method), request, timeout=self._timeout)

    def events(self, request: pb.WatchEventsRequest) -> Iterator[pb.Event]:
        """Events as they come, without end."""
        with self._explained():
            stream = self._channel.stub.WatchEvents
            for answer in self._channel.listen(stream, request, timeout=timedelta(seconds=STREAM_S)):
                yield answer.event

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What gRPC says of a connection that fails becomes what to do about it."""
        try:
            yield
        except ServiceError as error:
            if error.code is not Code.SERVICE_UNAVAILABLE or "UNAVAILABLE" not in error.message:
                raise
            speaks = "with TLS" if self._settings.tls.enabled else "in plain text"
            raise ServiceError(
                error.code,
                f"something answers at {self._settings.address}, but no device that can be called {speaks} with these "
                "certificates: check --tls, --ca-file, --certificate-file, --key-file and --server-name",
            ) from error

    def close(self) -> None:
        """End the connection; calls that still run fail as `call-cancelled`."""
        self._channel.close()

    def __enter__(self) -> DeviceClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
