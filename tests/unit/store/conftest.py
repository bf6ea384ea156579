"""A device's store on the disk, and captures to put into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from device_store import opened

from tutelage.captures import Pixels


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store lies in the folder of its device."""
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(path: Path):
    with opened(path) as new:
        yield new


@pytest.fixture
def capture(rng: np.random.Generator) -> Callable[[], Pixels]:
    """Noise of 64 x 64, which no compression makes smaller: about 4 KiB each."""
    return lambda: rng.integers(0, 256, (64, 64), dtype=np.uint8)
