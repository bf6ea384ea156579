"""Commands on data sets in the object store: put captures where the distiller's jobs read them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.cohorts import read_data
from tutelage.commands.progress import shown_progress
from tutelage.commands.training import Data, JsonOption, Seed, printable
from tutelage.data_sets import Pushed, push_data_set
from tutelage.manifest import Manifest, Split
from tutelage.sealing import read_key
from tutelage.settings import PREFIX, read_settings
from tutelage.stores import ObjectsSettings, prepared_objects

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Keep data sets in the object store, for the distiller's jobs.")

KEY_VARIABLE = f"{PREFIX}DISTILLER_DATA_KEY_FILE"
"""As the distiller reads it: one environment suits both."""

KeyFile = Annotated[
    Path,
    typer.Option(metavar="KEYFILE", envvar=KEY_VARIABLE, help="The fleet's data key, which seals every capture."),
]


@app.callback()
def _group() -> None:
    """Keep data sets in the object store, for the distiller's jobs."""


@app.command()
def push(data: Data, *, key: KeyFile, seed: Seed = 0, as_json: JsonOption = False) -> None:
    """Put the captures of the splits `distil` and `cloud` into the object store, sealed, and print their digest.

    The same command goes on where it was stopped: what is in the store already is not sent again.
    """
    data_key = read_key(key)
    objects = prepared_objects(read_settings(ObjectsSettings, os.environ, f"{PREFIX}STORES_OBJECTS_"))
    manifest = read_data(data, seed)
    with shown_progress("pushing captures", "captures") as progress:
        pushed = push_data_set(
            objects, manifest.select(Split.DISTIL), data_key, lambda done, total: progress(done, total, {})
        )
    if as_json:
        typer.echo(json.dumps(_document(pushed, manifest), indent=2))
        return
    for reason in [*(item.reason for item in pushed.skipped), *(item.reason for item in manifest.skipped)]:
        typer.echo(f"skipped: {printable(reason)}", err=True)
    found = pushed.data_set
    typer.echo(
        f"{data}: {len(found.captures):,} captures of {found.persons:,} persons, "
        f"{found.size_bytes:,} bytes sealed; {pushed.sent:,} sent"
    )
    typer.echo(found.digest)


def _document(pushed: Pushed, manifest: Manifest) -> dict[str, Any]:
    found = pushed.data_set
    return {
        "data_set": found.digest,
        "captures": len(found.captures),
        "persons": found.persons,
        "bytes": found.size_bytes,
        "sent": pushed.sent,
        "skipped_images": [{"path": str(item.row.path), "reason": item.reason} for item in pushed.skipped],
        "skipped_persons": [{"person": item.person, "reason": item.reason} for item in manifest.skipped],
    }
