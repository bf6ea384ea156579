from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from device_store import (
    code_of,
    opened,
    raw_change,
    raw_rows,
)

from device_sim import schema
from tutelage.captures import Pixels
from tutelage.errors import Code


def test_another_programs_database_is_not_taken_over(path: Path):
    raw_change(path, "CREATE TABLE theirs (x)")
    assert code_of(lambda: opened(path)) is Code.STORE_CORRUPT
    assert raw_rows(path, "SELECT name FROM sqlite_master") == [("theirs",)]


def test_a_newer_layout_is_not_touched(path: Path):
    opened(path).close()
    raw_change(path, f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    assert code_of(lambda: opened(path)) is Code.STORAGE_FAILED


def test_an_empty_file_left_by_a_power_cut_becomes_a_store(path: Path):
    path.touch()
    with opened(path) as store:
        assert store.events() == ()


def test_an_older_layout_is_brought_up_to_date_whole_or_not_at_all(
    path: Path, capture: Callable[[], Pixels], monkeypatch: pytest.MonkeyPatch
):
    with opened(path) as store:
        store.enrol("anna", [capture()])
    added = "CREATE TABLE later (x);\nINSERT INTO later VALUES (1);\n"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, added + "INSERT INTO nowhere VALUES (1);\n"))
    assert code_of(lambda: opened(path)) is Code.STORAGE_FAILED
    layouts = len(schema.MIGRATIONS) - 1
    assert raw_rows(path, "PRAGMA user_version") == [(layouts,)]
    assert raw_rows(path, "SELECT name FROM sqlite_master WHERE name = 'later'") == []
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS[:layouts], added))
    with opened(path) as store:
        assert store.persons() == ("anna",)
    assert raw_rows(path, "PRAGMA user_version") == [(layouts + 1,)]
    assert raw_rows(path, "SELECT x FROM later") == [(1,)]
