"""The commands that the pages show: lines in fenced blocks that begin like one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCED = re.compile(r"^```(?:sh|bash|console)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
_STARTS = ("make ", "tutelage ", ".venv/bin/tutelage ", "python ", ".venv/bin/python ")


def commands_of(page: Path) -> list[str]:
    """Every command on `page` once, in the page's order, comments cut off; a synopsis with its further lines is one."""
    found: list[str] = []
    for block in _FENCED.findall(page.read_text()):
        joined = re.sub(r"\\\n|\n {4}", " ", block)
        lines = (line.removeprefix("$ ").split("  #")[0].strip() for line in joined.splitlines())
        found += [line for line in lines if line.startswith(_STARTS)]
    return list(dict.fromkeys(found))


def is_synopsis(line: str) -> bool:
    """Whether `line` says what a command takes instead of giving it."""
    return "[" in line
