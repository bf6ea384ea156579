"""docs/device.md is followed from top to bottom, against a real device; every answer has the form that it shows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import ROOT

PROGRAMS = Path.home() / ".cache/test-cluster/bin"


@pytest.mark.slow
def test_the_page_can_be_followed_and_says_what_is_true():
    path = f"{os.environ['PATH']}:{PROGRAMS}"
    if not shutil.which("grpcurl", path=path):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("grpcurl is not installed")
    command = [sys.executable, str(ROOT / "docs/follow_device.py"), "--check"]
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=220)
    assert done.returncode == 0, done.stderr
