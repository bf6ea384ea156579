"""The page about Kubernetes is followed from the installation to what it leaves; every answer has the form it shows."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from real_servers import program
from source_tree import ROOT


@pytest.mark.slow
def test_the_page_can_be_followed_and_says_what_is_true(cluster: str):
    if cluster != "dev":
        pytest.skip("the page installs images with the tag `dev`")
    program("grpcurl")
    command = [sys.executable, str(ROOT / "docs/follow_kubernetes.py"), "--check"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
