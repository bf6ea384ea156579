"""How a command reaches a service: options that are the same everywhere, and what is made of them.

Heavy imports wait until a command runs, so that `tutelage --help` stays quick.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from tutelage.errors import MissingExtraError, SettingsError
from tutelage.settings import Address

if TYPE_CHECKING:
    from tutelage.channel import ChannelSettings

__all__ = ["Way", "way", "with_options_of"]

Result = TypeVar("Result")


Tls = Annotated[bool, typer.Option("--tls", help="Speak TLS; any of the files below means it too.")]
CaFile = Annotated[Path | None, typer.Option(help="PEM file of who signed the other side's certificate.")]
CertificateFile = Annotated[Path | None, typer.Option(help="PEM file of your own certificate.")]
KeyFile = Annotated[Path | None, typer.Option(help="PEM file of its private key.")]
ServerName = Annotated[str | None, typer.Option(help="Name in the other side's certificate, if another.")]
Timeout = Annotated[float, typer.Option(min=0.1, max=600, metavar="SECONDS", help="For one call.")]


class Way:
    """How services are called, wherever they are."""

    def __init__(self, timeout: timedelta, settings: Callable[[str], ChannelSettings]) -> None:
        """Allow each call `timeout`; `settings` makes those of a channel to HOST:PORT, or raises `ValueError`."""
        self.timeout, self._settings = timeout, settings

    def to(self, address: str) -> ChannelSettings:
        """The way to the service at `address`, HOST:PORT.

        Raises:
            SettingsError: The address, or an option, cannot be used.
        """
        try:
            return self._settings(address)
        except ValueError as error:
            raise SettingsError(f"{address} cannot be called with these options: {error}") from error


def way(
    *,
    tls: Tls = False,
    ca_file: CaFile = None,
    certificate_file: CertificateFile = None,
    key_file: KeyFile = None,
    server_name: ServerName = None,
    timeout: Timeout = 30.0,
) -> Way:
    """How these options lead to services.

    Raises:
        MissingExtraError: What calls need is not installed.
    """
    try:
        from tutelage.channel import ChannelSettings  # noqa: PLC0415
        from tutelage.tls import ClientTls  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError("grpc", "calling a device or a service") from error
    enabled = tls or bool(ca_file or certificate_file)

    def settings(address: str) -> ChannelSettings:
        how = ClientTls(enabled, ca_file, certificate_file, key_file, server_name)
        return ChannelSettings(Address.parse(address), how)

    return Way(timedelta(seconds=timeout), settings)


def with_options_of(shared: Callable[..., Any], command: Callable[..., Result]) -> Callable[..., Result]:
    """`command` with the options of `shared` beside its own; its first argument becomes what calls `shared` by them."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    more = list(inspect.signature(shared, eval_str=True).parameters.values())

    @wraps(command)
    def run(**words: Any) -> Result:
        options = {parameter.name: words.pop(parameter.name) for parameter in more if parameter.name in words}
        return command(partial(shared, **options), **words)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *more)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run
