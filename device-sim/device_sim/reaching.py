"""How a command reaches a device: its address beside the options by which all services are reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Protocol

import typer

from tutelage.commands.reaching import Way, way, with_options_of

__all__ = ["Asked", "Reached", "device_reached"]

Address = Annotated[
    str, typer.Option(metavar="HOST:PORT", envvar="TUTELAGE_DEVICE_ADDRESS", help="Where the device takes calls.")
]


class Asked(Protocol):
    """A device that answers calls."""

    def ask(self, method: str, request: Any) -> Any:
        """The answer of the call named `method`."""

    def close(self) -> None:
        """End the connection."""


class Reached(Asked, Protocol):
    """The device that a command asks: `device_sim.device_client.DeviceClient`, which needs the extra `grpc`."""

    def events(self, request: Any) -> Iterator[Any]:
        """Events as they come, without end."""


def _device(reached: Callable[[], Way], *, address: Address = "127.0.0.1:50061") -> Any:
    """A client of the device at `address`.

    Raises:
        SettingsError: An option cannot be used.
        ServiceError: Nobody answers there.
        MissingExtraError: What calls need is not installed.
    """
    how = reached()
    from device_sim.device_client import DeviceClient  # noqa: PLC0415 - needs what `reached` has looked for

    return DeviceClient(how.to(address), timeout=how.timeout)


device_reached = with_options_of(way, _device)
"""A client of the device that options lead to, as `_device` makes it."""
