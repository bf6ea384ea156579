"""Commands on manifests: is this description of a data set sound, and make one from a folder of persons."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tutelage.manifest import Loaded, Manifest, Split, load_captures, read_manifest, split_folder, write_manifest

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Describe data sets: who is on which image, and what it is used for.")

JsonOption = Annotated[bool, typer.Option("--json", help="Write one JSON document instead of a table.")]


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV with the columns path,person,split,condition.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Check every rule of a manifest and read every image; list the images that would be skipped."""
    manifest = read_manifest(file)
    summary = _summary(manifest, load_captures(manifest.rows))
    _show(summary, title=str(file), as_json=as_json)


@app.command()
def split(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder with one sub-folder of images a person.")],
    *,
    out: Annotated[Path, typer.Option(metavar="CSV", help="Where to write the manifest.")],
    seed: Annotated[int, typer.Option(help="Chooses which persons go where.")] = 0,
    enrol: Annotated[int, typer.Option(min=1, help="Images a person that become references.")] = 1,
    stream: Annotated[int, typer.Option(min=0, help="Images a person that a device meets in use.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Write a person-disjoint manifest of a folder of images: half of the persons for the cloud, half for devices."""
    manifest = split_folder(folder, seed=seed, enrol=enrol, stream=stream)
    write_manifest(manifest, out)
    _show(_summary(manifest, None), title=str(out), as_json=as_json)


def _summary(manifest: Manifest, loaded: Loaded | None) -> dict[str, Any]:
    images = Counter(row.split for row in manifest.rows)
    skipped = [] if loaded is None else loaded.skipped
    return {
        "images": len(manifest.rows),
        "persons": len({row.person for row in manifest.rows}),
        "splits": {
            split.value: {"images": count, "persons": len({r.person for r in manifest.rows if r.split is split})}
            for split in Split
            if (count := images[split])
        },
        "conditions": dict(sorted(Counter(row.condition for row in manifest.rows).items())),
        "skipped_images": [{"path": str(item.row.path), "reason": item.reason} for item in skipped],
        "skipped_persons": [{"person": item.person, "reason": item.reason} for item in manifest.skipped],
    }


def _show(summary: dict[str, Any], *, title: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    typer.echo(title)
    table = Table("split")
    table.add_column("persons", justify="right")
    table.add_column("images", justify="right")
    for name, counts in summary["splits"].items():
        table.add_row(name, str(counts["persons"]), str(counts["images"]))
    Console().print(table)
    conditions = [f"{_printable(name) or '(none)'} {count}" for name, count in summary["conditions"].items()]
    typer.echo(f"images a condition: {', '.join(conditions)}")
    for item in summary["skipped_images"] + summary["skipped_persons"]:
        typer.echo(f"skipped: {item['reason']}")


def _printable(text: str) -> str:
    """`text` as it is where it cannot play tricks on a terminal."""
    return text if text.isprintable() else ascii(text)
