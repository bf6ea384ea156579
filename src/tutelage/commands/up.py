"""The command that serves all services that are installed, in one process: for a first look, tests and notebooks.

Everything that was not set lies in one folder: objects, and the keys that the services need, which are made the first
time. Queues live in the process; jobs that were not done are taken up again when it is started again. Settings of the
environment count as for each service alone, so that real servers can be given.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.commands.key_files import public_file
from tutelage.errors import MissingExtraError, SettingsError
from tutelage.files import create_file
from tutelage.sealing import make_key
from tutelage.settings import PREFIX, Address, read_settings
from tutelage.signing import make_signer, public_pem, read_signer

if TYPE_CHECKING:
    from tutelage.server import Server
    from tutelage.serving import Part

__all__ = ["environment_for", "up"]

SERVER_ADDRESS = PREFIX + "SERVER_ADDRESS"
OBJECTS_FOLDER, OBJECTS_ADDRESS = PREFIX + "STORES_OBJECTS_FOLDER", PREFIX + "STORES_OBJECTS_ADDRESS"

Folder = Annotated[
    Path,
    typer.Option("--folder", metavar="FOLDER", help="Where objects and keys lie that the environment does not set."),
]
ListenAt = Annotated[str, typer.Option("--address", metavar="HOST:PORT", help="Where calls are taken.")]


def up(folder: Folder = Path("out/up"), address: ListenAt = "127.0.0.1:50051") -> None:
    """Serve all installed services in one process until it is interrupted."""
    # As the program of teacher-inference: torch, which is loaded below, must not wait on processors that calls need.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        from tutelage.serving import ProgramSettings, installed_parts, serve  # noqa: PLC0415 - needs the extra `grpc`
    except ModuleNotFoundError as error:
        raise MissingExtraError("grpc", "serving") from error
    parts = installed_parts()
    if not parts:
        raise SettingsError("no service is installed: pip install ./services/model-registry, or the others")
    environ = environment_for(parts, folder, _checked(address), os.environ)
    program = read_settings(ProgramSettings, environ)
    own: list[Any] = [read_settings(part.settings, environ, PREFIX + part.prefix) for part in parts]

    def tell(server: Server) -> None:
        where = f"{address.rpartition(':')[0]}:{server.port}"
        typer.echo(f"serving at {where}: {', '.join(part.name for part in parts)}")
        typer.echo(f"objects and keys in {folder}; look around: grpcurl -plaintext {where} list", err=True)

    asyncio.run(serve(program, list(zip(parts, own, strict=True)), started=tell))


def environment_for(parts: Sequence[Part], folder: Path, address: str, environ: Mapping[str, str]) -> dict[str, str]:
    """`environ`, with what it leaves open set so that `parts` run together; missing keys are made in `folder`.

    Raises:
        StorageError: A key cannot be made or read.
    """
    keys = folder / "keys"
    keys.mkdir(parents=True, exist_ok=True)
    defaults = {SERVER_ADDRESS: address}
    if not environ.get(OBJECTS_ADDRESS):
        defaults[OBJECTS_FOLDER] = str(folder / "objects")
    for part in parts:
        prefix = PREFIX + part.prefix
        defaults |= {prefix + name: value.replace("{address}", address) for name, value in part.together.items()}
        for name, kind in part.keys.items():
            if not environ.get(prefix + name):
                defaults[prefix + name] = str(_key(keys, f"{part.prefix}{name}", kind))
    return {**defaults, **{name: value for name, value in environ.items() if value}}


def _key(folder: Path, name: str, kind: str) -> Path:
    """The key file of this kind; one signer serves all parts, and its public half is whom they trust."""
    signer = folder / "signer.pem"
    if kind == "sealing":
        path = folder / (name.removesuffix("_KEY_FILE").lower().replace("_", "-") + ".key")
        if not path.exists():
            make_key(path)
        return path
    if not signer.exists():
        make_signer(signer)
    public = public_file(signer)
    if not public.exists():
        create_file(public, public_pem(read_signer(signer).public_key()))
    return signer if kind == "signing" else public


def _checked(address: str) -> str:
    try:
        return str(Address.parse(address))
    except ValueError as error:
        raise SettingsError(f"--address is {address!r}: {error}") from error
