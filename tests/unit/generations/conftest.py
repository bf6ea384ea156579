"""A device's folder of students, empty or grown."""

from __future__ import annotations

from pathlib import Path

import pytest
from student_line import V3, V3_1, V3_2, opened

from device_sim.generations import Generations


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "device" / "students"


@pytest.fixture
def grown(folder: Path) -> Generations:
    """v3 was installed, v3+1 and v3+2 were promoted."""
    generations = opened(folder)
    generations.install(V3)
    generations.promote(V3_1)
    generations.promote(V3_2)
    return generations
