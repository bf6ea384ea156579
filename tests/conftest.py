"""What holds for every test: a clean environment, fixed seeds, one thread, and skips for what is not installed."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

SEED = 20_240_607

NEED_MODEL_SERVERS = ("tests/contract/test_backends",)
"""How the ids of tests begin that start TorchServe or MLServer."""
SHARE_NOTHING = ("tests/e2e/test_docs_readme",)
"""How the ids begin of tests that are long and each for themselves."""

# Read by the numeric libraries when they are first imported: small tensors gain nothing from threads, and two workers
# with two threads each only wait for each other.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

# Tests that kill a device fork this process. A child must not tidy up a gRPC channel that an earlier test left to the
# garbage collector: it would wait for ever for a thread that only the parent has.
os.register_at_fork(after_in_child=gc.freeze)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if (kind := _kind(item.path.parent)) in ("integration", "e2e", "cluster", "faults"):
            item.add_marker(kind)
        for marker in item.iter_markers("needs"):
            if importlib.util.find_spec(marker.args[0]) is None:
                item.add_marker(pytest.mark.skip(reason=f"{marker.args[0]} is not installed"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One process of a parallel run gets all tests of a file, in the order of files; what is dear is made once.

    Servers that run teachers take seconds to start, so all files that need them go together.
    """
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - this hook is asked by xdist alone

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(NEED_MODEL_SERVERS):
                return "model servers"
            return nodeid if nodeid.startswith(SHARE_NOTHING) else nodeid.partition("::")[0]

    config.option.loadscopereorder = False  # or long files of few tests come last, when nobody is left to share with
    return ByFile(config, log)


@cache
def _kind(folder: Path) -> str:
    """Name of the folder beside this file that `folder` lies in, or is."""
    return folder.relative_to(Path(__file__).parent).parts[0]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch):
    """No test sees the caller's settings, colours or terminal; logging is unconfigured again afterwards."""
    for name in list(os.environ):
        if name.startswith("TUTELAGE_") or name in {"FORCE_COLOR", "PY_COLORS", "CLICOLOR_FORCE", "PYTHONUNBUFFERED"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "dumb")
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _fixed_torch() -> None:
    """Where a test module has imported torch: one thread, and the same global state for every test."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
        torch.manual_seed(SEED)


@pytest.fixture
def seed() -> int:
    """The one seed of the tests."""
    return SEED


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """A generator in the same state for every test."""
    return np.random.default_rng(seed)
