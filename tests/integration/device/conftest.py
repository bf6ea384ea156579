"""A toy device as it is put up, and one that has lived a while."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from lived_device import WORN
from toy_device import Clock, ToyLife


@pytest.fixture(autouse=True)
def _torch_as_before():
    """Trainings in this process leave torch as a worker wants it."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def life(tmp_path: Path):
    life = ToyLife(tmp_path)
    yield life
    life.close()


@pytest.fixture(scope="session")
def lived_once(tmp_path_factory: pytest.TempPathFactory) -> ToyLife:
    """A device that was enrolled and worn, whose attempts are labelled: put down, ready to train."""
    life = ToyLife(tmp_path_factory.mktemp("lived")).enrolled().live(6, WORN)
    assert life.device.fetch_labels() == ()
    life.close()
    return life


@pytest.fixture
def lived(lived_once: ToyLife, tmp_path: Path):
    """That device, started again in a copy of its folder."""
    shutil.copytree(lived_once.folder, tmp_path / "copy")
    life = ToyLife(tmp_path / "copy", clock=Clock(lived_once.clock.now_s), presses=lived_once.presses)
    yield life
    life.close()
