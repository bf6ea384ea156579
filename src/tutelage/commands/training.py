"""What the commands that train networks share: their options, resuming, and the table of error rates.

Standard output carries the result alone, so that it can be piped; whatever is said on the way goes to standard error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tutelage.cohorts import Intake
from tutelage.errors import Code, MissingExtraError, StorageError, UsageError

if TYPE_CHECKING:
    from tutelage.biometrics.error_summary import ErrorSummary

__all__ = [
    "Batch",
    "Checkpoint",
    "CheckpointEvery",
    "Created",
    "Data",
    "Device",
    "DeviceOption",
    "JsonOption",
    "Seed",
    "check_targets",
    "checkpoint_beside",
    "drop_checkpoint",
    "iso_time",
    "listed",
    "printable",
    "rates_table",
    "resumable",
    "shown_next",
    "skipped_json",
    "skipped_lines",
    "torch_needed",
]


class Device(StrEnum):
    """Where a training runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


Data = Annotated[Path, typer.Argument(metavar="DATA", help="A manifest (CSV), or a folder with a sub-folder a person.")]
Batch = Annotated[int, typer.Option(min=2, help="Captures in each step.")]
Seed = Annotated[
    int, typer.Option(min=0, max=2**31 - 1, help="Decides everything that is drawn: the same words, the same bytes.")
]
DeviceOption = Annotated[Device, typer.Option(help="Where to train; auto takes CUDA where there is one.")]
Checkpoint = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Where the state is kept while it trains.", show_default="beside the output"),
]
CheckpointEvery = Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")]
Created = Annotated[str | None, typer.Option(hidden=True, help="ISO 8601 time of making, for equal bytes.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Write one JSON document instead of a table.")]


@contextmanager
def torch_needed(purpose: str) -> Iterator[None]:
    """Around the import of what needs torch, which a command does when it is called and not before.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("torch", purpose) from error


def checkpoint_beside(out: Path) -> Path:
    """Where the checkpoint lies if nobody said: beside the output, under its name."""
    return out.parent / f"{out.name}.checkpoint"


def drop_checkpoint(checkpoint: Path) -> None:
    """Remove the checkpoint of a training whose outcome is written; one that cannot be removed does no harm."""
    with suppress(OSError):
        checkpoint.unlink()


def check_targets(*targets: Path) -> None:
    """Refuse places that could not be written hours later: the same twice, a folder, or one in no folder.

    Raises:
        UsageError: one of them is named twice.
        StorageError: `storage-failed`.
    """
    if len({path.absolute() for path in targets}) < len(targets):
        raise UsageError(f"one file cannot be two things: {', '.join(str(path) for path in targets)}")
    for path in targets:
        if path.is_dir():
            raise StorageError(Code.STORAGE_FAILED, f"{path} is a folder: name a file")
        if not path.parent.is_dir():
            raise StorageError(Code.STORAGE_FAILED, f"there is no folder {path.parent}: make it first")


def iso_time(given: str | None) -> str:
    """`given`, or now, as ISO 8601 text.

    Raises:
        UsageError: `given` is no such time.
    """
    if given is None:
        return datetime.now(UTC).isoformat(timespec="seconds")
    try:
        datetime.fromisoformat(given)
    except ValueError as error:
        raise UsageError(f"a time of making must be in ISO 8601: {given!r}") from error
    return given


@contextmanager
def resumable(checkpoint: Path) -> Iterator[bool]:
    """Say that a training goes on from `checkpoint` where there is one, and after an interruption how to go on.

    Yields whether there is one.
    """
    if resumed := checkpoint.is_file():
        typer.echo(f"goes on from checkpoint {checkpoint}", err=True)
    try:
        yield resumed
    except KeyboardInterrupt:
        if checkpoint.is_file():
            typer.echo(f"stopped: the same command goes on from checkpoint {checkpoint}", err=True)
        raise


def rates_table(rows: Mapping[str, ErrorSummary], first: str) -> None:
    """Print one row of rates for each model in `rows`, below the title `first`, and what they rest on."""
    table = Table(first)
    for title in ("rank-1", "EER", "TAR at FMR 1e-2", "TAR at FMR 1e-3"):
        table.add_column(title, justify="right")
    for name, errors in rows.items():
        rates = (errors.rank1, errors.eer, errors.tar_1e2, errors.tar_1e3)
        table.add_row(name, *(_percent(rate) for rate in rates))
    Console().print(table)
    basis = next(iter(rows.values()))
    typer.echo(
        f"{basis.captures} captures of {basis.persons} persons held out: "
        f"{basis.genuine:,} pairs of one person, {basis.impostor:,} of two"
    )
    if None in (basis.tar_1e2, basis.tar_1e3):
        typer.echo("- not measured: a TAR takes ten false matches at its FMR, so 1,000 pairs of two persons for 1e-2")


def skipped_json(intake: Intake) -> dict[str, Any]:
    """What was left out of a data set, for a JSON document."""
    return {
        "skipped_images": [{"path": str(item.row.path), "reason": item.reason} for item in intake.skipped],
        "skipped_persons": [{"person": item.person, "reason": item.reason} for item in intake.skipped_persons],
    }


def skipped_lines(intake: Intake) -> None:
    """Say at once what will be left out of a data set: it may be a reason not to wait for the rest."""
    for reason in [*(item.reason for item in intake.skipped), *(item.reason for item in intake.skipped_persons)]:
        typer.echo(f"skipped: {printable(reason)}", err=True)


def printable(value: object) -> str:
    """Text that can play no tricks on a terminal; anything but text as JSON."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if text.isprintable() else ascii(text)


def listed(lines: Mapping[str, object]) -> None:
    """Print fields one a line, their values below each other."""
    width = max(map(len, lines), default=0)
    for name, value in lines.items():
        typer.echo(f"{printable(name):<{width}}  {printable(value)}")


def shown_next(commands: Sequence[str]) -> None:
    """Print what one may do now."""
    typer.echo("next:")
    for command in commands:
        typer.echo(f"  {command}")


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate * 100:.1f} %"
