"""Commands on student packages: what a file says of itself, and whether that may be believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.archive import unpack
from tutelage.canonical import parse_canonical
from tutelage.commands.publish import adopt, publish
from tutelage.commands.reaching import way, with_options_of
from tutelage.errors import Code, PackageError
from tutelage.files import read_bytes
from tutelage.package import MANIFEST, MAX_PACKAGE_BYTES, read_package
from tutelage.signing import read_public_key

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Look into student packages and verify them.")

app.command()(adopt)
app.command()(with_options_of(way, publish))

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A student package.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Write one JSON document instead of lines.")]


@app.command()
def show(file: FileArgument, *, as_json: JsonOption = False) -> None:
    """Print what a package says of itself. Nothing is checked: that takes a key, see `verify`."""
    text = _manifest_bytes(file)
    try:
        manifest = parse_canonical(text)
    except ValueError as error:
        raise _unreadable(file) from error
    if not isinstance(manifest, dict):
        raise _unreadable(file)
    digest = "sha256:" + hashlib.sha256(text).hexdigest()
    _show(digest, manifest, verified=False, as_json=as_json)


@app.command()
def verify(
    file: FileArgument,
    *,
    trust: Annotated[
        list[Path], typer.Option(metavar="KEYFILE", help="Ed25519 public key in PEM whose word counts; repeatable.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Check every byte of a package and that a trusted key signed it; print what it says of itself."""
    package = read_package(file, trusted=[read_public_key(key) for key in trust])
    _show(package.digest, package.manifest, verified=True, as_json=as_json)


def _manifest_bytes(file: Path) -> bytes:
    data = read_bytes(file, at_most=MAX_PACKAGE_BYTES + 1)
    if len(data) > MAX_PACKAGE_BYTES:
        raise _unreadable(file)
    members = unpack(data)
    if MANIFEST not in members:
        raise PackageError(Code.PACKAGE_INCOMPLETE, f"{file} lacks {MANIFEST}: it is no student package")
    return bytes(members[MANIFEST])


def _unreadable(file: Path) -> PackageError:
    return PackageError(Code.PACKAGE_CORRUPT, f"{file} is not a student package, or a damaged one: fetch it again")


def _show(digest: str, manifest: Mapping[str, Any], *, verified: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"digest": digest, "verified": verified, "manifest": dict(manifest)}, indent=2))
        return
    fields = {"verified": "yes" if verified else "no: use `tutelage package verify`", "digest": digest, **manifest}
    if isinstance(tensors := manifest.get("tensors"), dict):
        fields["tensors"] = str(len(tensors))
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        typer.echo(f"{_printable(name):{width}}  {_printable(value)}")


def _printable(value: Any) -> str:
    """Text as it is where it cannot play tricks on a terminal; everything else as ASCII JSON."""
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)
