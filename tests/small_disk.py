"""A disk of a few kilobytes, for tests of full disks; where it cannot be mounted they are skipped, and fail in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """`folder` as a file system of its own that holds `size`, like `512k`."""
    folder.mkdir(parents=True, exist_ok=True)
    mount, unmount = shutil.which("mount") or "mount", shutil.which("umount") or "umount"
    command = [mount, "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run([unmount, str(folder)], check=True)
