"""The commands that docs/commands.md shows, run one after the other on real images as a reader would; only shorter."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from shown_commands import ROOT, commands_of, is_synopsis

ORL = ROOT.parent / "shared" / "data" / "orl-faces"
PERSONS, IMAGES = 12, 6
SHORTER = {
    "teacher train": ["--steps", "2", "--batch", "8"],
    # Half of the cloud's persons held out are just enough to calibrate with.
    "distil": ["--steps", "2", "--batch", "8", "--held-out", "0.5"],
}


def shown() -> list[list[str]]:
    """Words of every command, in the page's order, on the set of faces."""
    lines = commands_of(ROOT / "docs" / "commands.md")
    commands = [line for line in lines if line.startswith("tutelage ") and not is_synopsis(line)]
    return [shlex.split(line.replace("DATA", "orl-faces"))[1:] for line in commands]


@pytest.mark.slow
@pytest.mark.needs("dlib")
@pytest.mark.skipif(not ORL.is_dir(), reason=f"the images are not at {ORL}")
def test_the_page_can_be_followed_from_top_to_bottom(tmp_path: Path) -> None:
    for person in sorted(path for path in ORL.iterdir() if path.is_dir())[:PERSONS]:
        (tmp_path / "orl-faces" / person.name).mkdir(parents=True)
        for image in sorted(person.iterdir())[:IMAGES]:
            (tmp_path / "orl-faces" / person.name / image.name).symlink_to(image)
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
