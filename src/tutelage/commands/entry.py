"""Sub-commands that other distributions bring through entry points.

An entry point names a function with typer annotations, or a `typer.Typer` with several. One that cannot be imported
must not take the rest of the command line with it, and its user needs one sentence rather than a traceback: its place
is taken by a command that ends in that sentence whatever words it is called with.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import typer
from rich.markup import escape

from tutelage.errors import Code, TutelageError

__all__ = ["load_command"]


def load_command(entry: EntryPoint) -> Any:
    """Import what `entry` names and return it as a command; one that fails when called, if that is impossible."""
    try:
        return _as_command(entry.name, entry.load())
    except Exception as error:  # whatever foreign code does while it is imported
        return _broken_command(entry.name, _failure(entry, error))


def _as_command(name: str, loaded: Any) -> Any:
    if isinstance(loaded, typer.Typer):
        app = loaded
    else:
        app = typer.Typer(add_completion=False)
        app.command(name)(loaded)
    command = typer.main.get_command(app)
    command.name = name
    return command


def _failure(entry: EntryPoint, error: Exception) -> TutelageError:
    if isinstance(error, TutelageError):
        return error
    origin = entry.dist.name if entry.dist is not None else entry.value
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return TutelageError(
        Code.EXTRA_MISSING,
        f"command '{entry.name}' of {origin} cannot be loaded ({reason}): reinstall {origin} with all it needs",
    )


def _broken_command(name: str, failure: TutelageError) -> Any:
    app = typer.Typer(add_completion=False)

    @app.command(
        name,
        help=escape(f"Not available: {failure.message}"),
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def fail() -> None:
        raise failure

    return typer.main.get_command(app)
