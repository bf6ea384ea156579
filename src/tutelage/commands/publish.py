"""Commands that bring a student package to a fleet: `package adopt` and `package publish`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.commands.reaching import Way
from tutelage.errors import Code, MissingExtraError, ObjectError
from tutelage.files import atomic_write, read_bytes
from tutelage.package import MAX_PACKAGE_BYTES, read_package
from tutelage.sealing import read_key
from tutelage.signing import read_public_key, read_signer

if TYPE_CHECKING:
    from tutelage.registry_client import RegistryClient

__all__ = ["adopt", "publish"]

SHIPPED = "shipped"
"""Word for the student that comes with the library."""

FileArgument = Annotated[
    str,
    typer.Argument(metavar="FILE", help="A student package; `shipped` is the fingerprint student that comes along."),
]


def adopt(
    file: FileArgument,
    *,
    signer_file: Annotated[Path, typer.Option(help="PEM file of the Ed25519 key that your devices trust.")],
    seal_key_file: Annotated[Path, typer.Option(help="Key file of your fleet, to seal the package's strangers with.")],
    out: Annotated[Path, typer.Option(help="Where the package is written.")],
    trust: Annotated[Path | None, typer.Option(help="Public key of who signed FILE; of `shipped` it is known.")] = None,
    opened_with: Annotated[
        Path | None, typer.Option(help="Key file of its makers' fleet; of `shipped` it is known.")
    ] = None,
) -> None:
    """Make a student that others made one of your own fleet: sealed and signed anew, and otherwise the same."""
    from tutelage.adoption import SHIPPED_SEAL_KEY, SHIPPED_TRUST, adopted  # noqa: PLC0415 - needs what reads images

    with resources.as_file(SHIPPED_TRUST) as known_trust, resources.as_file(SHIPPED_SEAL_KEY) as known_key:
        package = read_package(_content(file), trusted=[read_public_key(trust or known_trust)])
        old_key = read_key(opened_with or known_key)
    data = adopted(package, opened_with=old_key, seal_key=read_key(seal_key_file), signer=read_signer(signer_file))
    atomic_write(out, data)
    typer.echo(f"{out}: {package.info.name} {package.info.version}, {len(data):,} bytes")


def publish(
    reached: Callable[[], Way],
    file: FileArgument,
    *,
    registry: Annotated[
        str, typer.Option(metavar="HOST:PORT", envvar="TUTELAGE_REGISTRY_ADDRESS", help="Where model-registry answers.")
    ] = "127.0.0.1:50051",
    channel: Annotated[str, typer.Option(help="Channel to point to the version; empty for none.")] = "",
    reason: Annotated[str, typer.Option(help="Why, for the channel's history.")] = "published by hand",
    first: Annotated[
        bool, typer.Option("--first", help="Do nothing where the channel points somewhere already.")
    ] = False,
) -> None:
    """Bring a package into the registry, and a channel to it; done twice it is done once."""
    try:
        from tutelage.registry_client import RegistryClient  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError("grpc", "calling a registry") from error
    how = reached()
    with RegistryClient(how.to(registry), timeout=how.timeout) as client:
        now = _pointed_to(client, channel) if channel else None
        if first and now is not None:
            typer.echo(f"{channel} points to {now} already")
            return
        version = client.publish(_content(file))
        typer.echo(f"{version.name} {version.version}: {version.digest}")
        if channel and now != version.digest:
            client.set_channel(channel, version.digest, expected=now, reason=reason)
            typer.echo(f"{channel} points to it")


def _content(file: str) -> bytes:
    if file != SHIPPED:
        return read_bytes(Path(file), at_most=MAX_PACKAGE_BYTES + 1)
    from tutelage.adoption import SHIPPED as PACKAGE  # noqa: PLC0415

    return PACKAGE.read_bytes()


def _pointed_to(client: RegistryClient, channel: str) -> str | None:
    """Digest of the version that `channel` points to; None where it was never set."""
    try:
        return client.wanted_of(channel).digest
    except ObjectError as error:
        if error.code is not Code.OBJECT_MISSING:
            raise
        return None
