"""`python -m model_registry` serves; `python -m model_registry rebuild` makes the index anew from the object store."""

from __future__ import annotations

import asyncio
import os
import sys

import structlog

from model_registry.service import PART, RegistrySettings, make_registry
from tutelage.errors import TutelageError
from tutelage.log import configure_logging
from tutelage.serving import ProgramSettings, run
from tutelage.settings import settings_or_exit
from tutelage.stores import open_stores

USAGE = "usage: python -m model_registry [rebuild]\n"
VERSIONS_A_LINE = 1000
"""Of the log, while the index is made anew."""


async def rebuild(program: ProgramSettings, settings: RegistrySettings) -> int:
    """How many versions the index has after it was made anew."""
    async with open_stores(program.stores) as stores:
        registry, _ = make_registry(settings, stores)
        return await registry.rebuild(_told)


def _told(count: int) -> None:
    """How far it is, now and then: how many there will be is not known."""
    if count % VERSIONS_A_LINE == 0:
        structlog.get_logger().info("rebuilding the index", versions=count)


def main(arguments: list[str]) -> int:
    """The exit status."""
    if not arguments:
        run(PART, os.environ)
        return 0
    if arguments != ["rebuild"]:
        sys.stderr.write(USAGE)
        return 2
    program = settings_or_exit(ProgramSettings, os.environ)
    configure_logging(program.log_level, sys.stderr)
    try:
        count = asyncio.run(rebuild(program, PART.read_settings(os.environ)))
    except TutelageError as error:
        sys.stderr.write(f"error [{error.code}]: {error.message}\n")
        return error.exit_code
    sys.stdout.write(f"{count} versions\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
