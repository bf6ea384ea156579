"""How figures stand in the pages that are made from the JSON files of benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a person reads it."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def cell(value: Mapping[str, float] | None) -> str:
    """`93.1 ± 1.2`, in percent."""
    return "–" if value is None else f"{100 * value['mean']:.1f} ± {100 * value['sd']:.1f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def made_line(made: Mapping[str, Any]) -> str:
    """One sentence on how a file came to be."""
    seeds = ", ".join(map(str, made["seeds"]))
    return f"Commit {made['commit']}; {made['machine']}; torch {made['torch']}; seeds {seeds}; {made['date'][:10]}."
