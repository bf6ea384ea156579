"""A device's key changes: everything opens with the new one, nothing with the old one, and nothing is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from device_store import KEY, code_of, keep_first, keep_second, on_disk, opened, raw_change, raw_rows
from toy_device import toy_job

from device_sim import rotation, schema
from device_sim.job import JOB, RESULT, TrainingJob, open_result, seal_result
from device_sim.key_files import rotate_key_file
from device_sim.records import State
from device_sim.resealing import DAMAGED
from device_sim.rotation import NEXT, rotate_key, settle_jobs
from tutelage.captures import Pixels
from tutelage.errors import Code, UsageError
from tutelage.labelling import LabelAnswer
from tutelage.sealing import KEY_BYTES, make_key, read_key

NEW = bytes(range(100, 132))
CLOCK = iter(range(2_000_000, 3_000_000)).__next__


@pytest.fixture
def filled(path: Path, capture: Callable[[], Pixels]) -> dict[str, object]:
    """A store with something in every sealed column; what it holds."""
    with opened(path) as store:
        store.enrol("anna", [capture(), capture()])
        store.enrol("bert", [capture()])
        store.enrol("gone", [capture()])
        keep_first(store, capture())
        store.label(keep_second(store, capture), LabelAnswer("bert", 0.9, 0.4, {"bert": 0.9, "anna": 0.1}, "", "t"))
        store.forgetting.begin("gone", students=(), jobs=(), teacher=None)
        return content(store)


def content(store) -> dict[str, object]:
    (erasure,) = store.forgetting.unfinished()
    samples = store.samples(*State)
    return {
        "persons": store.persons(),
        "references": [(r, store.reference_capture(r.id).tobytes()) for r in store.references()],
        "samples": [(s, store.sample_capture(s.id).tobytes()) for s in samples if s.state is not State.DROPPED],
        "decisions": [d.observation for d in store.decisions()],
        "erased": store.forgetting.name(erasure),
    }


def sealed_columns(path: Path) -> dict[str, set[str]]:
    """Ids of the keys that each BLOB column of the store is sealed with, as the bytes themselves say."""
    found: dict[str, set[str]] = {}
    for (table,) in raw_rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'"):
        for _, column, kind, *_ in raw_rows(path, f"PRAGMA table_info({table})"):
            if kind == "BLOB" and column != "receipt":
                sql = f"SELECT hex(substr({column}, 6, 8)) FROM {table} WHERE {column} IS NOT NULL"
                found[f"{table}.{column}"] = {str(row[0]) for row in raw_rows(path, sql)}
    return found


def test_everything_opens_with_the_new_key_and_nothing_with_the_old_one(path: Path, filled: dict[str, object]):
    before = sealed_columns(path)
    assert all(len(keys) == 1 for keys in before.values()), before
    done = rotate_key(path, path.parent / "jobs", old=KEY, new=NEW, clock=CLOCK)
    assert done.parts == 2 + 2 + 3 + 4 + 1  # check value, digests' key; names; references; captures; the name to tell
    after = sealed_columns(path)
    assert set(after) == set(before)
    assert {key for keys in after.values() for key in keys} != {key for keys in before.values() for key in keys}
    assert len({key for keys in after.values() for key in keys}) == 1
    assert code_of(lambda: opened(path)) is Code.KEY_WRONG
    with opened(path, key=NEW) as store:
        assert content(store) == filled
        assert store.events()[-1].kind.value == "key-rotated"
        assert store.forgetting.latest("gone") is not None  # digests are the same


def test_nothing_sealed_with_the_old_key_is_left_in_file_or_log(path: Path, filled: dict[str, object]):
    old = [bytes(row[0]) for row in raw_rows(path, "SELECT capture FROM reference_captures")]
    pieces = [sealed[at : at + 24] for sealed in old for at in range(0, len(sealed) - 24, 256)]
    assert all(piece in on_disk(path) for piece in pieces[:3])
    rotate_key(path, path.parent / "jobs", old=KEY, new=NEW, clock=CLOCK)
    assert not [piece for piece in pieces if piece in on_disk(path)]


def test_references_cannot_be_changed_afterwards_either(path: Path, filled: dict[str, object]):
    sql = "SELECT sql FROM sqlite_master WHERE name = 'references_never_change'"
    before = raw_rows(path, sql)
    rotate_key(path, path.parent / "jobs", old=KEY, new=NEW, clock=CLOCK)
    assert raw_rows(path, sql) == before != []
    assert raw_rows(path, "PRAGMA user_version") == [(len(schema.MIGRATIONS),)]


def test_a_wrong_key_and_the_same_key_change_nothing(path: Path, filled: dict[str, object]):
    before = sealed_columns(path)
    jobs = path.parent / "jobs"
    assert code_of(lambda: rotate_key(path, jobs, old=bytes(32), new=NEW, clock=CLOCK)) is Code.KEY_WRONG
    assert code_of(lambda: rotate_key(path, jobs, old=KEY, new=b"short", clock=CLOCK)) is Code.KEY_WRONG
    with pytest.raises(UsageError, match="make another"):
        rotate_key(path, jobs, old=KEY, new=KEY, clock=CLOCK)
    with pytest.raises(UsageError, match="no store"):
        rotate_key(path.parent / "none", jobs, old=KEY, new=NEW, clock=CLOCK)
    assert sealed_columns(path) == before
    with opened(path) as store:
        assert content(store) == filled


def test_a_device_that_runs_keeps_its_key(path: Path, filled: dict[str, object], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("device_sim.database._BUSY_TIMEOUT_S", 0.05)
    with opened(path) as running:
        assert (
            code_of(lambda: rotate_key(path, path.parent / "jobs", old=KEY, new=NEW, clock=CLOCK))
            is Code.STORAGE_FAILED
        )
        assert content(running) == filled
    with opened(path) as store:
        assert content(store) == filled


def test_a_damaged_sample_is_dropped_and_a_damaged_reference_refuses(path: Path, filled: dict[str, object]):
    raw_change(path, "UPDATE samples SET capture = zeroblob(length(capture)) WHERE id = 1")
    rotate_key(path, path.parent / "jobs", old=KEY, new=NEW, clock=CLOCK)
    with opened(path, key=NEW) as store:
        assert (store.sample(1).state, store.sample(1).note) == (State.DROPPED, DAMAGED)
    raw_change(
        path,
        "DROP TRIGGER references_never_change",
        "UPDATE reference_captures SET capture = zeroblob(length(capture)) WHERE id = 1",
        "CREATE TRIGGER references_never_change BEFORE UPDATE ON reference_captures BEGIN SELECT RAISE(ABORT, ''); END",
    )
    assert code_of(lambda: rotate_key(path, path.parent / "jobs", old=NEW, new=KEY, clock=CLOCK)) is Code.STORE_CORRUPT
    opened(path, key=NEW).close()


# Jobs


@pytest.fixture
def job(path: Path) -> Path:
    folder = path.parent / "jobs" / "v1+1"
    folder.mkdir(parents=True)
    (folder / JOB).write_bytes(toy_job().sealed(KEY))
    (folder / RESULT).write_bytes(seal_result(b"weights", {"seconds": 1.0}, KEY))
    return folder


def test_a_job_goes_on_under_the_new_key(path: Path, filled: dict[str, object], job: Path):
    assert rotate_key(path, job.parent, old=KEY, new=NEW, clock=CLOCK).files == 2
    assert sorted(file.name for file in job.iterdir()) == [JOB, RESULT]
    assert TrainingJob.open((job / JOB).read_bytes(), NEW).training_set.digest() == toy_job().training_set.digest()
    assert open_result((job / RESULT).read_bytes(), NEW) == (b"weights", {"seconds": 1.0})


def test_a_damaged_job_does_not_stand_in_the_way(path: Path, filled: dict[str, object], job: Path):
    (job / RESULT).write_bytes((job / RESULT).read_bytes()[:-1] + b"?")
    assert rotate_key(path, job.parent, old=KEY, new=NEW, clock=CLOCK).files == 1
    assert [file.name for file in job.iterdir()] == [JOB]


@pytest.mark.parametrize("when", ["before the commit", "after the commit", "in the middle of the jobs"])
def test_a_rotation_that_was_cut_off_is_undone_or_finished(
    path: Path, filled: dict[str, object], job: Path, when: str, monkeypatch: pytest.MonkeyPatch
):
    class Cut(BaseException):
        pass

    def cut(*_: object) -> None:
        raise Cut

    with monkeypatch.context() as cutting:
        if when == "before the commit":
            cutting.setattr("device_sim.store.reseal", cut)
        elif when == "after the commit":
            settle = rotation.settle_jobs
            cutting.setattr(rotation, "settle_jobs", lambda jobs, key: settle(jobs, key) if key == KEY else cut())
        else:
            whole, begun = rotation.replace_shredded, []

            def replace_one(*files: Path) -> None:
                begun.append(files)
                whole(*files) if len(begun) == 1 else cut()

            cutting.setattr(rotation, "replace_shredded", replace_one)
        with pytest.raises(Cut):
            rotate_key(path, job.parent, old=KEY, new=NEW, clock=CLOCK)
    right = KEY if when == "before the commit" else NEW
    assert list(job.glob(f"*{NEXT}"))
    with opened(path, key=right) as store:
        assert content(store) == filled
    copy = shutil.copytree(path.parent, path.parent.with_name(path.parent.name + "-again"))
    settle_jobs(job.parent, right)
    assert sorted(file.name for file in job.iterdir()) == [JOB, RESULT]
    assert TrainingJob.open((job / JOB).read_bytes(), right).training_set.digest() == toy_job().training_set.digest()
    assert open_result((job / RESULT).read_bytes(), right) == (b"weights", {"seconds": 1.0})
    # The same call finishes it as well.
    done = rotate_key(copy / path.name, copy / "jobs", old=KEY, new=NEW, clock=CLOCK)
    assert (done.parts > 0) == (right == KEY)
    assert TrainingJob.open((copy / "jobs" / "v1+1" / JOB).read_bytes(), NEW).descent.generation == "v1+1"
    with opened(copy / path.name, key=NEW) as store:
        assert content(store) == filled


# Files of keys


def test_a_new_key_takes_the_old_ones_place(path: Path, filled: dict[str, object]):
    key_file = path.parent / "store.key"
    key_file.write_text(KEY.hex())
    done, kept = rotate_key_file(path.parent, key_file, None, clock=CLOCK)
    assert (done.parts > 0, kept) == (True, key_file)
    assert [file.name for file in path.parent.glob("store.key*")] == ["store.key"]
    new = read_key(key_file)
    assert len(new) == KEY_BYTES
    assert new != KEY
    with opened(path, key=new) as store:
        assert content(store) == filled


def test_a_key_that_is_named_stays_where_it_is_and_so_does_the_old_one(path: Path, filled: dict[str, object]):
    old_file, new_file = path.parent / "old.key", path.parent / "new.key"
    old_file.write_text(KEY.hex())
    new = make_key(new_file)
    assert rotate_key_file(path.parent, old_file, new_file, clock=CLOCK)[1] == new_file
    assert (read_key(old_file), read_key(new_file)) == (KEY, new)
    opened(path, key=new).close()


def test_a_power_cut_before_the_old_key_was_replaced_loses_neither(path: Path, filled: dict[str, object]):
    key_file = path.parent / "store.key"
    key_file.write_text(KEY.hex())
    new = make_key(path.parent / "store.key.new")
    rotate_key(path, path.parent / "jobs", old=KEY, new=new, clock=CLOCK)
    done, kept = rotate_key_file(path.parent, key_file, None, clock=CLOCK)
    assert (done.parts, read_key(kept)) == (0, new)
    opened(path, key=read_key(key_file)).close()
