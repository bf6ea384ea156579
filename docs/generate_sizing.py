"""Writes the sizing tables of docs/kubernetes.md from benchmarks/results/cluster.json; `--check` only compares.

No figure between the two marks is written by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from generate_speed import made_line
from page_tables import table

ROOT = Path(__file__).resolve().parent.parent
RESULT, PAGE = ROOT / "benchmarks" / "results" / "cluster.json", ROOT / "docs" / "kubernetes.md"
START, END = "<!-- sizing: made by docs/generate_sizing.py -->", "<!-- end of sizing -->"
DEVICE = "device-sim"
ABOUT = """{made} The teacher's backend is `{backend}`; each figure is the median of {samples} readings of the metrics
server, with the least and the most. At rest nobody comes; devices check in, and look whether there is something to do.
With visits, {persons} persons come to each device, whose sensor is worn ({wear:g}), {pause:g} s after the visit before,
so that labels are asked for and students are trained. Visitors are not counted."""
TABLES = (
    ("Processor time, thousandths of a core:", "millicores"),
    ("Memory that Kubernetes counts (working set), MiB:", "mebibytes"),
)


def sizing(found: Mapping[str, Any]) -> str:
    """What stands between the marks."""
    about = ABOUT.format(made=made_line(found), **found["settings"])
    tables = [f"{title}\n\n{_table(found['results'], unit)}" for title, unit in TABLES]
    return "\n\n".join([about, *tables])


def _table(columns: Sequence[Mapping[str, Any]], unit: str) -> str:
    """A column for each number of devices at rest and with visits; a row for each component, and for one device."""
    parts = sorted({name for column in columns for name in column["components"]} - {DEVICE})
    rows = [[name, *(_cell(column["components"].get(name), unit, 1) for column in columns)] for name in parts]
    each = [_cell(column["components"].get(DEVICE), unit, column["devices"]) for column in columns]
    total = [f"{sum(part[unit]['median'] for part in column['components'].values()):,.0f}" for column in columns]
    return table(["", *map(_heading, columns)], [*rows, [f"{DEVICE}, each", *each], ["all, medians", *total]])


def _heading(column: Mapping[str, Any]) -> str:
    devices = f"{column['devices']} device{'s' * (column['devices'] != 1)}"
    return f"{devices}, {column['visits_a_minute']:.1f} visits/min" if column["visited"] else f"{devices}, at rest"


def _cell(part: Mapping[str, Any] | None, unit: str, share: int) -> str:
    """`12 (10 to 15)`, of each of `share` Pods."""
    if part is None:
        return "–"
    middle, least, most = (part[unit][key] / share for key in ("median", "min", "max"))
    return f"{middle:,.0f} ({least:,.0f} to {most:,.0f})"


def render(page: str, found: Mapping[str, Any]) -> str:
    """The page with the tables of now."""
    before, _, rest = page.partition(START)
    return f"{before}{START}\n\n{sizing(found)}\n\n{END}{rest.partition(END)[2]}"


def main(arguments: list[str]) -> int:
    """Exit status: 0, or 1 where `--check` found the page out of date."""
    page = PAGE.read_text(encoding="utf-8")
    made = render(page, json.loads(RESULT.read_text(encoding="utf-8")))
    if "--check" not in arguments:
        PAGE.write_text(made, encoding="utf-8")
        return 0
    if made == page:
        return 0
    print(f"{PAGE.name} is out of date: run `make fmt`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
