"""Commands on what a device keeps, beside its calls: changing its key while it does not run, and checking receipts.

Heavy imports wait until a command runs, so that `tutelage --help` stays quick.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["receipt", "rotate_key"]

AsJson = Annotated[bool, typer.Option("--json", help="Print what is said as JSON.")]


def rotate_key(
    folder: Annotated[Path, typer.Argument(help="Folder of the device, which must not run.")] = Path("out/device"),
    *,
    key_file: Annotated[Path | None, typer.Option(help="File of the present key; FOLDER/store.key by default.")] = None,
    new_key_file: Annotated[
        Path | None,
        typer.Option(help="File of the new key, made if it is missing; by default it takes the old one's place."),
    ] = None,
) -> None:
    """Seal everything a device keeps with another key; to be called again if the power went meanwhile."""
    from device_sim.folder_lock import locked  # noqa: PLC0415
    from device_sim.key_files import rotate_key_file  # noqa: PLC0415
    from tutelage.sealing import key_id, read_key  # noqa: PLC0415

    with locked(folder):
        done, kept = rotate_key_file(folder, key_file or folder / "store.key", new_key_file, clock=time.time)
    said = f"{done.parts} parts of the store and {done.files} files of jobs are sealed anew"
    finished = "the change of keys that was cut off is finished"
    typer.echo(f"{said if done.parts else finished}; the key is {key_id(read_key(kept))} in {kept}")


def receipt(
    file: Annotated[Path, typer.Argument(help="Receipt of an erasure, as the device gave it.")],
    *,
    key: Annotated[Path, typer.Option("--key", help="PEM file of the device's public key, or of its signer.")],
    as_json: AsJson = False,
) -> None:
    """Check the receipt of an erasure and tell what it says."""
    from device_sim.receipt import MAX_RECEIPT_BYTES, read_receipt  # noqa: PLC0415
    from device_sim.typed_json import plain  # noqa: PLC0415
    from tutelage.files import read_bytes  # noqa: PLC0415

    said = read_receipt(read_bytes(file, at_most=MAX_RECEIPT_BYTES), trusted=[_public_key(key)])
    if as_json:
        typer.echo(json.dumps(plain(said)))
        return
    students = ", ".join(entry.generation for entry in said.students) or "none"
    typer.echo(f"signed by {said.device}; asked for on {said.asked}, done on {said.done}")
    typer.echo(f"person: {said.person}")
    typer.echo(f"erased: {len(said.references)} references, {len(said.samples)} samples, {said.decisions} names")
    typer.echo(f"students deleted: {students}; then recognised: {said.student.generation}")
    typer.echo("the teacher removed the person" if said.teacher == "removed" else "the teacher did not know the person")


def _public_key(path: Path) -> Ed25519PublicKey:
    """The public half of a key, whichever half the file holds.

    Raises:
        StorageError: `storage-failed`, there is no such file; `key-wrong`, it holds no Ed25519 key.
    """
    from tutelage.errors import Code, StorageError  # noqa: PLC0415
    from tutelage.signing import read_public_key, read_signer  # noqa: PLC0415

    try:
        return read_public_key(path)
    except StorageError as error:
        if error.code is not Code.KEY_WRONG:
            raise
        return read_signer(path).public_key()
