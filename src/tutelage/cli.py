"""The command `tutelage`: which sub-commands there are, and how a failure becomes an exit status.

The library's own commands are groups below `tutelage.commands`. Other distributions add theirs through the entry point
group `tutelage.commands`, which is how the device brings `demo` and `evaluate` although the library never imports the
device. A command from an entry point is imported when it is called or listed, not before, so that a quick command stays
quick.

Whatever a command raises ends in one line on standard error and one documented status: a `TutelageError` in the exit
code of its catalogue entry, an interruption in 130, a reader that went away in 141. An exception that nobody mapped is
a defect and keeps its traceback.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, TextIO

import structlog
import typer
from typer.core import TyperGroup

from tutelage import __version__
from tutelage.commands import data_set, manifest, package, queue, teacher
from tutelage.commands.distil import distil
from tutelage.commands.entry import load_command
from tutelage.commands.up import up
from tutelage.errors import TutelageError
from tutelage.log import LOG_LEVELS, configure_logging

__all__ = ["COMMAND_GROUP", "CommandLine", "build_command", "main"]

COMMAND_GROUP = "tutelage.commands"
"""Entry point group in which distributions register further sub-commands."""

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""

EXIT_BROKEN_PIPE = 141
"""128 + SIGPIPE: the reader of our output left, as in `tutelage ... | head -1`."""

DEFAULT_LOG_LEVEL = "warning"
"""Commands tell their story themselves; events are for those who ask for them."""


class CommandLine(TyperGroup):
    """The group of all sub-commands; loads those of entry points late and ends failures in their exit codes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.entries: dict[str, EntryPoint] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of our own commands in their order, then those of entry points by name."""
        own = super().list_commands(ctx)
        return [*own, *sorted(self.entries.keys() - set(own))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command called `cmd_name` or None; our own cannot be replaced by an entry point."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in self.entries:
            return own
        return load_command(self.entries[cmd_name])

    def invoke(self, ctx: Any) -> Any:
        """Run what was asked for; failures become `typer.Exit` with their documented status."""
        # Before the words of the caller are known: unconfigured, events would go to standard output.
        configure_logging(DEFAULT_LOG_LEVEL, sys.stderr)
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except TutelageError as error:
            structlog.get_logger().debug("command failed", code=error.code, exc_info=error)
            typer.echo(f"error [{error.code}]: {error.message}", err=True)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            _discard_output(sys.stdout)
            raise typer.Exit(EXIT_BROKEN_PIPE) from None
        return result


def build_command(entries: Iterable[EntryPoint]) -> CommandLine:
    """Assemble the whole command line from our own groups and the further commands that `entries` name."""
    # Typer's own tracebacks can show local variables, which may be captures or keys.
    app = typer.Typer(cls=CommandLine, no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_options)
    app.add_typer(package.app, name="package")
    app.add_typer(manifest.app, name="manifest")
    app.add_typer(teacher.app, name="teacher")
    app.add_typer(data_set.app, name="data-set")
    app.add_typer(queue.app, name="queue")
    app.command()(distil)
    app.command()(up)
    command = typer.main.get_command(app)
    assert isinstance(command, CommandLine)  # noqa: S101 - narrows the type that `cls` decides
    command.entries = {entry.name: entry for entry in entries}
    return command


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line on `arguments` (those of the process by default) and exit.

    Raises:
        SystemExit: Always; its code is the exit status.
    """
    build_command(entry_points(group=COMMAND_GROUP)).main(args=arguments, prog_name="tutelage")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tutelage {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[  # noqa: ARG001 - its callback acts on it
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    log_level: Annotated[
        str, typer.Option(metavar="LEVEL", help=f"Which events to write to standard error: {', '.join(LOG_LEVELS)}.")
    ] = DEFAULT_LOG_LEVEL,
) -> None:
    """Teach once in the cloud, keep learning at the edge."""
    configure_logging(log_level, sys.stderr)


def _discard_output(stream: TextIO) -> None:
    """Point `stream` at nothing, or the interpreter would complain again when it flushes at exit."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:  # noqa: PTH123 - not a path of ours
        os.dup2(nothing.fileno(), stream.fileno())
