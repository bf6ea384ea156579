"""A device's store while a person is erased, its key is changed, or an old layout is brought up to date.

The power goes at each statement and each touch of a file, the process is killed at random, and the disk is full at each
write.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from killed_store import ACTIONS, base_of
from small_disk import small_disk

from tutelage.errors import Code, StorageError

KILLS = int(os.environ.get("DEVICE_KILLS", "10"))
PAGE = 4096
STATES = {"erase": {"whole", "erased"}, "rotate": {"old key", "new key"}, "migrate": {"migrated"}}


@pytest.mark.timeout(300 + 10 * KILLS)
def test_whenever_it_is_cut_off_nothing_is_lost_and_nothing_is_done_twice(tmp_path: Path):
    program = Path(__file__).parents[1] / "killed_store.py"
    environment = {**os.environ, "PYTHONPATH": str(program.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", str(program), str(tmp_path), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    met = json.loads(done.stdout)
    for name, states in STATES.items():
        assert set(met[name]["everywhere"]) == states
        assert sum(met[name]["everywhere"].values()) > 50
        assert sum(met[name]["at random"].values()) == KILLS
        assert set(met[name]["at random"]) <= states


@contextmanager
def filled_but(folder: Path, free: int) -> Iterator[None]:
    """The disk of `folder` with so many bytes free."""
    left = shutil.disk_usage(folder).free - free
    ballast = folder.parent / "ballast"
    ballast.write_bytes(bytes(max(left, 0)))
    try:
        yield
    finally:
        ballast.unlink()


@pytest.mark.parametrize("name", ACTIONS)
def test_a_disk_that_is_full_at_any_write_costs_nothing(tmp_path: Path, name: str):
    act, check = ACTIONS[name]
    base = base_of(tmp_path, name)
    met: dict[str, int] = {}
    with small_disk(tmp_path / "disk", "4m") as disk:
        for pages in range(200):
            folder = shutil.copytree(base, disk / "device")
            with filled_but(folder, pages * PAGE):
                try:
                    act(folder)
                    complete = True
                except StorageError as error:
                    complete = False
                    if error.code not in (Code.STORAGE_FULL, Code.STORAGE_FAILED):
                        raise
            state = check(folder)
            met[state] = met.get(state, 0) + 1
            shutil.rmtree(folder)
            if complete:
                break
        else:
            pytest.fail("it never had enough room")
    assert pages > 3
    assert set(met) == STATES[name]
