"""Makes the backends that the contract suite tests, and closes them; captures to extract."""

from __future__ import annotations

from dataclasses import replace

from drawn_persons import draw_captures

from teacher_inference.backends import Backend, BackendKind, BackendSettings, Device
from teacher_inference.opening import open_backend, open_bare_backend
from tutelage.captures import encode_png
from tutelage.settings import Address

PNGS = tuple(encode_png(pixels) for person in range(8) for pixels in draw_captures(person, 8))
"""64 captures of eight persons, in their order."""


def at(kind: BackendKind, port: int, **more) -> BackendSettings:
    """Settings of a server on this machine."""
    return BackendSettings(kind=kind, address=Address("127.0.0.1", port), **more)


class BackendMaker:
    """Opens backends of one kind."""

    def __init__(self, settings: BackendSettings, *, joined: bool = False):
        self.settings, self._open = settings, open_backend if joined else open_bare_backend
        self._opened: list[Backend] = []

    async def __call__(self, **changed) -> Backend:
        backend = await self._open(replace(self.settings, **changed))
        self._opened.append(backend)
        return backend

    async def close(self) -> None:
        for backend in self._opened:
            await backend.close()


IN_PROCESS = BackendSettings(threads=1, device=Device.CPU)

SERVERS = {BackendKind.TORCHSERVE: "torchserve_server", BackendKind.OPEN_INFERENCE: "mlserver_server"}
"""The fixture of each kind's real server."""

WITHIN_S = 30.0
"""Deadline of calls that are to be answered."""
