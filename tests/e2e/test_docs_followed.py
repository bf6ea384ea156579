"""Pages of commands are followed from top to bottom, beside real services; every answer has the form that it shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from real_servers import program
from source_tree import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("page", ["device", "grpcurl"])
def test_the_page_can_be_followed_and_says_what_is_true(page: str):
    path = f"{os.environ['PATH']}:{Path(program('grpcurl')).parent}"
    command = [sys.executable, str(ROOT / f"docs/follow_{page}.py"), "--check"]
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=220)
    assert done.returncode == 0, done.stderr
