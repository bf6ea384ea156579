"""Every command that a page shows exists, takes the options it shows, and the two of the README's first screen work."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```(?:sh|bash|console)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
STARTS = ("make ", "tutelage ", ".venv/bin/tutelage ", "python ", ".venv/bin/python ")


def shown_commands() -> list[tuple[str, str]]:
    """Page and command of every line in a fenced block that begins like a command, comments cut off."""
    found = []
    for page in PAGES:
        for block in FENCED.findall(page.read_text()):
            lines = block.replace("\\\n", " ").splitlines()
            wanted = (line.removeprefix("$ ").split("  #")[0].strip() for line in lines)
            found += [(page.name, line) for line in wanted if line.startswith(STARTS)]
    return sorted(set(found))


COMMANDS = shown_commands()


def test_pages_show_commands() -> None:
    assert ("README.md", "make demo") in COMMANDS
    assert ("README.md", "make test") in COMMANDS


@pytest.mark.parametrize(("page", "line"), [c for c in COMMANDS if c[1].startswith("make ")])
def test_make_knows_the_target_of_a_shown_command(page: str, line: str) -> None:
    words = shlex.split(line)
    found = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"{page}: {line}: {found.stderr}"


@pytest.mark.parametrize(("page", "line"), [c for c in COMMANDS if not c[1].startswith("make ")])
def test_a_shown_command_takes_the_options_it_is_shown_with(page: str, line: str) -> None:
    words = shlex.split(line.split(" | ", maxsplit=1)[0])
    start = [sys.executable, "-m", "tutelage"] if words[0].endswith("tutelage") else [sys.executable]
    command = [w for w in words[1:] if not w.startswith("-") or w == "-m"]
    shown = [w.split("=")[0] for w in words[1:] if w.startswith("--")]
    helped = None
    for count in range(min(len(command), 3), 0, -1):  # group and command, or script, then --help
        helped = subprocess.run(
            [*start, *command[:count], "--help"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if helped.returncode == 0:
            break
    assert helped is not None
    assert helped.returncode == 0, f"{page}: {line}: {helped.stderr}"
    plain = re.sub(r"\x1b\[[0-9;]*m", "", helped.stdout)
    missing = [option for option in shown if option not in plain]
    assert not missing, f"{page}: {line}: unknown {missing}"
