"""Commands on teachers of one's own: train one on captures of many persons, and see what a teacher file says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cohorts import Cohort, check_persons, held_out, read_cohort
from tutelage.commands.progress import shown_progress
from tutelage.commands.training import (
    Batch,
    Checkpoint,
    CheckpointEvery,
    Created,
    Data,
    Device,
    DeviceOption,
    JsonOption,
    Seed,
    check_targets,
    checkpoint_beside,
    drop_checkpoint,
    iso_time,
    listed,
    rates_table,
    resumable,
    shown_next,
    skipped_json,
    skipped_lines,
    torch_needed,
)
from tutelage.files import atomic_write
from tutelage.manifest import Split

if TYPE_CHECKING:
    from tutelage.biometrics.error_summary import ErrorSummary

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Train a teacher, and look into teacher files.")

FEWEST_TO_HOLD_OUT = 6
"""Persons: with fewer, two held out would be missed more than their measurement is worth."""

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A teacher file.")]


@app.command()
def train(
    data: Data,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the teacher.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 4500,
    batch: Batch = 128,
    seed: Seed = 0,
    share: Annotated[
        float, typer.Option("--held-out", min=0, max=0.9, help="Share of the persons who only measure; 0: nobody.")
    ] = 0.2,
    device: DeviceOption = Device.AUTO,
    checkpoint: Checkpoint = None,
    checkpoint_every: CheckpointEvery = 250,
    name: Annotated[str | None, typer.Option(help="What to call it.", show_default="the name of FILE")] = None,
    created: Created = None,
    as_json: JsonOption = False,
) -> None:
    """Train a teacher on the persons of the splits `teacher` and `cloud`, and measure it on some it never met.

    The same command goes on from its checkpoint if it was stopped; the checkpoint goes once the teacher is written.
    """
    with torch_needed("training a teacher"):
        from tutelage.nn.teacher_release import release_teacher  # noqa: PLC0415
        from tutelage.nn.teacher_sources import processor  # noqa: PLC0415
        from tutelage.nn.teachers import ResidualTeacher  # noqa: PLC0415
        from tutelage.nn.train_teacher import TeacherTraining  # noqa: PLC0415
    kept = checkpoint or checkpoint_beside(out)
    check_targets(out, kept)
    where, when = processor(device), iso_time(created)
    intake = read_cohort(data, Split.TEACHER, seed)
    skipped_lines(intake)
    taught, unseen = _divided(intake.cohort, share, seed)
    training = TeacherTraining(steps=steps, batch=batch, seed=seed, checkpoint_every=checkpoint_every)
    with resumable(kept) as resumed, shown_progress("training the teacher") as progress:
        release = release_teacher(
            taught,
            unseen,
            training,
            name=name or out.stem,
            created=when,
            device=where,
            checkpoint=kept,
            progress=progress,
        )
    atomic_write(out, release.data)
    drop_checkpoint(kept)
    summary = {
        "file": str(out),
        "bytes": len(release.data),
        "space": ResidualTeacher.load(out).space,
        "resumed": resumed,
        "persons": len(taught.names),
        "captures": len(taught),
        "held_out": asdict(release.errors) if release.errors else None,
        **skipped_json(intake),
    }
    _show_trained(summary, release.errors, data=data, as_json=as_json)


@app.command()
def show(file: FileArgument, *, as_json: JsonOption = False) -> None:
    """Print what a teacher file says of itself: architecture, how it was made, its space."""
    with torch_needed("reading a teacher"):
        from tutelage.nn.teachers import ResidualTeacher  # noqa: PLC0415
    teacher = ResidualTeacher.load(file)
    document: dict[str, Any] = {
        "name": teacher.name,
        "space": teacher.space,
        "parameters": sum(tensor.numel() for tensor in teacher.network.parameters()),
        "bytes": file.stat().st_size,
        "architecture": asdict(teacher.network.spec),
        "made": dict(teacher.made),
    }
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    listed(_flat(document))


def _flat(fields: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Fields of fields under dotted names."""
    found: dict[str, Any] = {}
    for key, value in fields.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return found


def _divided(cohort: Cohort, share: float, seed: int) -> tuple[Cohort, Cohort]:
    """Who trains the teacher and who measures it; nobody measures where persons are few, or a share of 0 was asked."""
    check_persons(cohort, 2, "training a teacher")
    few = len(cohort.names) < FEWEST_TO_HOLD_OUT
    unseen = frozenset[str]() if few or share == 0 else held_out(cohort.names, share, seed)
    taught = [person for person in cohort.names if person not in unseen]
    return cohort.rows(cohort.rows_of(taught)), cohort.rows(cohort.rows_of(unseen))


def _show_trained(summary: Mapping[str, Any], errors: ErrorSummary | None, *, data: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    file = summary["file"]
    typer.echo(f"{file}: {summary['bytes']:,} bytes, space {summary['space']}")
    typer.echo(f"trained on {summary['captures']} captures of {summary['persons']} persons")
    if errors is None:
        typer.echo(f"nobody was held out, so nothing was measured: that takes {FEWEST_TO_HOLD_OUT} persons or more")
    else:
        rates_table({"teacher": errors}, "model")
    shown_next([f"tutelage distil {data} --teacher {file} --out student.tutelage"])
