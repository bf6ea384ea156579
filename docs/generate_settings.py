"""Writes the table of settings into the README of each service and of the device.

With `--check` it only tells whether the tables are current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from device_sim.node_settings import NodeProgram
from tutelage.serving import Part, ProgramSettings, installed_parts
from tutelage.settings import PREFIX, settings_table

ROOT = Path(__file__).parents[1]
HEADING = "## Settings\n\n"


def tables() -> Iterator[tuple[Path, str]]:
    """Each README and its table."""
    yield ROOT / "device-sim" / "README.md", settings_table(NodeProgram)
    for part in installed_parts():
        yield ROOT / "services" / part.name / "README.md", table(part)


def table(part: Part) -> str:
    """Every variable that the service reads: its own first, then those that all services have."""
    shared = settings_table(ProgramSettings).splitlines(keepends=True)[2:]
    return settings_table(part.settings, PREFIX + part.prefix) + "".join(shared)


def with_table(readme: str, rows: str) -> str:
    """`readme` with the table `rows` below its heading."""
    before, heading, rest = readme.partition(HEADING)
    after = "".join(line for line in rest.splitlines(keepends=True) if not line.startswith("|"))
    return before + heading + rows + after


def main(arguments: list[str]) -> int:
    """Exit status: 0, or 1 where `--check` found a README out of date or without the heading."""
    late = []
    for path, rows in tables():
        before = path.read_text(encoding="utf-8")
        after = with_table(before, rows)
        if HEADING not in before or ("--check" in arguments and before != after):
            late.append(path.parent.name)
        elif before != after:
            path.write_text(after, encoding="utf-8")
    if late:
        print(f"the table of settings is out of date: {', '.join(late)}: run `make fmt`", file=sys.stderr)
    return int(bool(late))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
