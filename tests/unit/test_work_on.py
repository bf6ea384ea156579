"""What a process of a cluster's job leaves behind when it cannot even begin."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from student_distiller.work_on import work_on
from tutelage.errors import CATALOGUE, Code

JOB = ("0" * 32, "1" * 32, "0.0")


@pytest.fixture(autouse=True)
def _old_handler():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A termination log as Kubernetes makes it: there and empty."""
    path = tmp_path / "termination-log"
    path.touch()
    return path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Variables of a Pod whose stores nobody reaches, and need not."""
    for name in ("access", "secret"):
        (tmp_path / name).write_text("x")
    prefix = "TUTELAGE_STORES_"
    return {
        f"{prefix}REDIS_ADDRESS": "127.0.0.1:1",
        f"{prefix}REDIS_TLS": "false",
        f"{prefix}OBJECTS_ADDRESS": "127.0.0.1:1",
        f"{prefix}OBJECTS_ACCESS_KEY_FILE": str(tmp_path / "access"),
        f"{prefix}OBJECTS_SECRET_KEY_FILE": str(tmp_path / "secret"),
        **{f"TUTELAGE_DISTILLER_{name}_FILE": str(tmp_path / "no-key") for name in ("SIGNER", "SEAL_KEY", "DATA_KEY")},
        "TUTELAGE_DISTILLER_SCRATCH": str(tmp_path),
    }


def ended(words: tuple[str, ...], environ: dict[str, str], log: Path) -> int:
    with pytest.raises(SystemExit) as caught:
        work_on(words, environ, log)
    return caught.value.code


def test_missing_settings_are_its_last_words(log: Path, capsys: pytest.CaptureFixture[str]):
    assert ended(JOB, {}, log) == CATALOGUE[Code.SETTING_INVALID].exit_code
    words = json.loads(log.read_bytes())
    assert words["code"] == "setting-invalid"
    assert "TUTELAGE_DISTILLER_SIGNER_FILE is missing" in words["message"]
    assert "error [setting-invalid]" in capsys.readouterr().err


def test_so_is_a_key_that_is_not_there(log: Path, environ: dict[str, str]):
    assert ended(JOB, environ, log) == CATALOGUE[Code.STORAGE_FAILED].exit_code
    assert "no-key" in json.loads(log.read_bytes())["message"]


@pytest.mark.parametrize("words", [(), JOB[:2], (*JOB[:2], "soon"), (*JOB, "more")])
def test_so_are_words_it_does_not_take(log: Path, environ: dict[str, str], words: tuple[str, ...]):
    assert ended(words, environ, log) == CATALOGUE[Code.USAGE].exit_code
    assert json.loads(log.read_bytes())["code"] == "usage"


def test_outside_of_a_container_no_log_is_made(tmp_path: Path):
    ended(JOB, {}, tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_the_command_of_a_pod_leads_here():
    command = [sys.executable, "-m", "student_distiller", "work-on", *JOB]
    finished = subprocess.run(command, check=False, capture_output=True, text=True, env=dict(os.environ))
    assert finished.returncode == CATALOGUE[Code.SETTING_INVALID].exit_code
    assert "TUTELAGE_DISTILLER_DATA_KEY_FILE is missing" in finished.stderr
