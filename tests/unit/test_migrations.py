"""Stores that former releases wrote: brought up to date with all they tell, and with nobody's name left in plain."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from device_store import code_of, raw_change, raw_rows
from old_stores.make_store import KEY, PERSONS, life_of, make_store

from device_sim import schema
from device_sim.database import Database
from device_sim.store import Store
from tutelage.errors import Code, StorageError

OLD = sorted((Path(__file__).parents[1] / "old_stores").glob("layout-*.sqlite"))
NAMES = [name.encode() for name in (*PERSONS, "only the teacher knows")]


@pytest.fixture(params=OLD, ids=lambda path: path.stem)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copy(request.param, tmp_path / "store.sqlite"))


def opened(path: Path, key: bytes = KEY) -> Store:
    return Store.open(path, key=key, clock=lambda: 2_000_000.0)


def test_there_is_a_store_of_every_former_layout():
    assert [path.stem for path in OLD] == [f"layout-{n}" for n in range(1, len(schema.MIGRATIONS))]
    for number, path in enumerate(OLD, 1):
        assert raw_rows(path, "PRAGMA user_version") == [(number,)]


def test_an_old_store_tells_what_one_made_now_tells(old: Path, tmp_path: Path):
    make_store(tmp_path / "new.sqlite")
    with opened(old) as store, opened(tmp_path / "new.sqlite") as new:
        assert life_of(store) == life_of(new)
        assert store.persons() == tuple(sorted(PERSONS))
    assert raw_rows(old, "PRAGMA user_version") == [(len(schema.MIGRATIONS),)]
    assert raw_rows(old, "PRAGMA foreign_key_check") == []
    assert raw_rows(old, "PRAGMA integrity_check") == [("ok",)]


def test_no_name_is_left_in_plain_words(old: Path):
    before = old.read_bytes()
    assert all(name in before for name in NAMES if b'"' not in name and b"\\xc3" not in name[:3])
    assert any(name in before for name in NAMES)
    with opened(old):
        pass
    after = b"".join(path.read_bytes() for path in old.parent.glob("store.sqlite*"))
    assert [name for name in NAMES if name in after] == []


def test_references_do_not_change_afterwards(old: Path):
    opened(old).close()
    with pytest.raises(Exception, match="references never change"):
        raw_change(old, "UPDATE reference_captures SET enrolled_s = 0")


def test_a_wrong_key_leaves_an_old_store_as_it_was(old: Path):
    before = old.read_bytes()
    assert code_of(lambda: opened(old, bytes(32))) is Code.KEY_WRONG
    assert old.read_bytes() == before
    assert raw_rows(old, "PRAGMA user_version") == [(int(OLD[0].stem[-1]),)]


def test_what_cannot_be_scrubbed_now_is_scrubbed_at_the_next_start(old: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: Database) -> None:
        raise StorageError(Code.STORAGE_FULL, "the disk is full: free some space")

    with monkeypatch.context() as patched:
        patched.setattr(Database, "scrub", full)
        with opened(old) as store:
            assert store.persons() == tuple(sorted(PERSONS))
    assert raw_rows(old, "SELECT scrub_due FROM meta") == [(1,)]
    opened(old).close()
    assert raw_rows(old, "SELECT scrub_due FROM meta") == [(0,)]
