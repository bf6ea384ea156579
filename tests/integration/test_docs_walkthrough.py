"""The commands that docs/commands.md shows, run one after the other on real images as a reader would; only shorter."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ORL = ROOT.parent / "shared" / "data" / "orl-faces"
FENCED = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)
PERSONS = 20
SHORTER = {"teacher train": ["--steps", "2", "--batch", "8"], "distil": ["--steps", "2", "--batch", "8"]}


def shown() -> list[list[str]]:
    """Words of every command, in the page's order; synopses, which hold brackets, left out."""
    text = (ROOT / "docs" / "commands.md").read_text()
    lines = [line.strip().removeprefix("$ ") for block in FENCED.findall(text) for line in block.splitlines()]
    commands = [line for line in dict.fromkeys(lines) if line.startswith("tutelage ") and "[" not in line]
    return [shlex.split(line.replace("DATA", "orl-faces"))[1:] for line in commands]


@pytest.mark.slow
@pytest.mark.needs("dlib")
@pytest.mark.skipif(not ORL.is_dir(), reason=f"the images are not at {ORL}")
def test_the_page_can_be_followed_from_top_to_bottom(tmp_path: Path) -> None:
    (tmp_path / "orl-faces").mkdir()
    for person in sorted(ORL.iterdir())[:PERSONS]:
        (tmp_path / "orl-faces" / person.name).symlink_to(person)
    commands = shown()
    assert [" ".join(words[:2]) for words in commands[:2]] == ["teacher train", "distil orl-faces"]
    assert len(commands) >= 6
    for words in commands:
        extra = next((more for start, more in SHORTER.items() if " ".join(words).startswith(start)), [])
        done = subprocess.run(
            [sys.executable, "-m", "tutelage", *words, *extra],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr[-2000:]}"
        assert done.stdout.strip(), words
