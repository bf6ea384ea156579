"""A server that runs models, as all backends that ask one see it: a channel, a token, and whose fault a failure is.

What such a server refuses is no fault of the caller whose captures were sent on: it runs the wrong model, or was set
up in another way than this program. So a refusal becomes `service-failed` for the operator; what may pass stays so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from teacher_inference.backends import BackendSettings, ended_by_close, ending
from tutelage.channel import Channel, ChannelSettings
from tutelage.errors import CATALOGUE, Code, ServiceError, SettingsError, TutelageError

__all__ = ["ModelServer"]

T = TypeVar("T")


class ModelServer:
    """Where a model runs; connects on the first call."""

    def __init__(self, settings: BackendSettings) -> None:
        """Reach the server as `settings` say.

        Raises:
            SettingsError: there is no address, or the certificates cannot be used.
        """
        if settings.address is None:
            raise SettingsError("a server that runs models needs an address")
        self.channel: Any = Channel(ChannelSettings(settings.address, settings.tls))
        """For generated stubs."""
        self._address = settings.address
        token = settings.token
        self._metadata = (("authorization", f"Bearer {token.value.decode('ascii')}"),) if token else ()
        self._closed = False

    async def call(self, method: Callable[..., Awaitable[T]], request: Any, timeout: float) -> T:
        """The answer of a stub's `method`.

        Raises:
            ServiceError: `service-unavailable`, `deadline-exceeded`, `message-too-large` or `service-failed`.
        """
        if self._closed:
            raise ending()
        try:
            with ended_by_close():
                return await method(request, timeout=timeout, metadata=self._metadata)
        except TutelageError as error:
            raise self._explained(error) from error

    def _explained(self, error: TutelageError) -> ServiceError:
        if error.code is Code.CALL_CANCELLED:  # by the server
            return ServiceError(Code.SERVICE_UNAVAILABLE, f"the server at {self._address} broke the call off")
        kept = CATALOGUE[error.code].retryable or error.code is Code.MESSAGE_TOO_LARGE
        code = error.code if kept else Code.SERVICE_FAILED
        return ServiceError(code, f"the server at {self._address} did not run the teacher: {error.message}")

    async def close(self) -> None:
        """End the connection; running calls fail as `service-unavailable`."""
        self._closed = True
        await self.channel.close()
