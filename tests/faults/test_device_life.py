"""A device killed at any moment of its life starts with a verified student, loses nobody, and applies nothing twice.

Set DEVICE_KILLS for more kills than the default.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = int(os.environ.get("DEVICE_KILLS", "60"))


@pytest.mark.timeout(120 + 20 * KILLS)
def test_a_device_killed_at_any_moment_is_whole_again(tmp_path: Path):
    program = Path(__file__).parents[1] / "killed_life.py"
    seed = int.from_bytes(os.urandom(2))
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), str(KILLS), str(seed)],
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(program.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-4000:]}"
    killed = json.loads(done.stdout)
    assert sum(killed.values()) == KILLS
    assert {"boot", "recognise", "train"} <= set(killed), killed
