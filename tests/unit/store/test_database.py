from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from device_store import (
    code_of,
    fill,
    keep_first,
    opened,
    raw_rows,
)

from device_sim.events import EventKind
from device_sim.records import State
from device_sim.store import MIN_BYTES
from tutelage.captures import Pixels
from tutelage.errors import Code, StorageError


def test_damage_to_any_tables_or_indexs_page_is_met_at_the_start(path: Path, capture: Callable[[], Pixels]):
    with opened(path) as store:
        store.enrol("anna", [capture()])
        keep_first(store, capture())
    whole = path.read_bytes()
    pages = {page for (page,) in raw_rows(path, "SELECT rootpage FROM sqlite_master WHERE rootpage > 0")}
    assert len(pages) > 10
    for page in pages | {1}:
        start = (page - 1) * 4096
        path.write_bytes(whole[:start] + b"\xa5" * 4096 + whole[start + 4096 :])
        assert code_of(lambda: opened(path)) is Code.STORE_CORRUPT


def test_a_flipped_bit_in_any_sealed_byte_is_met_when_the_capture_is_opened(path: Path, capture: Callable[[], Pixels]):
    with opened(path) as store:
        store.enrol("anna", [capture()])
    ((sealed,),) = raw_rows(path, "SELECT capture FROM reference_captures")
    whole = path.read_bytes()
    at = whole.index(sealed[1000:1032])
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with opened(path) as store:
        assert store.persons() == ("anna",)
        assert code_of(lambda: store.reference_capture(1)) is Code.STORE_CORRUPT


@pytest.mark.parametrize("content", [b"no database at all, but long enough to have a header" * 100, b"x" * 4096])
def test_a_file_that_is_no_database_is_left_alone(path: Path, content: bytes):
    path.write_bytes(content)
    assert code_of(lambda: opened(path)) is Code.STORE_CORRUPT
    assert path.read_bytes() == content


def test_a_truncated_file_is_met_at_the_start(path: Path, capture: Callable[[], Pixels]):
    with opened(path) as store:
        store.enrol("anna", [capture() for _ in range(10)])
    path.write_bytes(path.read_bytes()[: 5 * 4096])
    assert code_of(lambda: opened(path)) is Code.STORE_CORRUPT


def test_a_path_that_cannot_be_a_store_is_named(tmp_path: Path):
    with pytest.raises(StorageError, match="absent") as caught:
        opened(tmp_path / "absent" / "device.db")
    assert caught.value.code is Code.STORAGE_FAILED
    assert code_of(lambda: opened(tmp_path)) is Code.STORAGE_FAILED


def test_a_closed_store_says_so_with_a_typed_error(path: Path):
    store = opened(path)
    store.close()
    store.close()
    assert code_of(store.persons) is Code.STORAGE_FAILED


def test_a_full_database_takes_nothing_half(path: Path, capture: Callable[[], Pixels]):
    with opened(path) as store:
        # SQLite's own limit fails in the place where a full disk does.
        store._database.rows("PRAGMA max_page_count = 60")
        done, error = fill(store, capture)
        assert error.code is Code.STORAGE_FULL
        assert len(store.persons()) == len(store.references()) == done > 3
        store._database.rows("PRAGMA max_page_count = 600")
        store.enrol("late", [capture()])
    with opened(path) as store:
        assert len(store.references()) == done + 1


def test_a_full_disk_takes_nothing_half(tmp_path: Path, capture: Callable[[], Pixels]):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False, capture_output=True, timeout=10
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        with opened(disk / "device.db") as store:
            done, error = fill(store, capture)
            assert error.code is Code.STORAGE_FULL
            assert len(store.references()) == done > 10
        with opened(disk / "device.db") as store:
            assert [store.reference_capture(r.id).shape for r in store.references()] == [(64, 64)] * done
    finally:
        subprocess.run(["umount", disk], check=True, timeout=10)


_WRITERS = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from device_sim.records import DecisionRecord, State
from device_sim.sampling import Observation, SampleRules, judge
from device_sim.store import Store
from tutelage.biometrics.matching import Decision

def write(path, seed):
    store = Store.open(path, key=bytes(range(32)), clock=lambda: 1.0, max_bytes=2 * 2**20)
    rng = np.random.default_rng(seed)
    while True:
        own = store.next_decision_id()
        seen = Observation(own, 1.0, "", "anna", 40.0, False, Decision.ACCEPT, 40.0)
        record = DecisionRecord(seen, 0.5, 0.1, "space", "v1", judge(SampleRules(), seen, ()))
        (sample,) = store.record(record, {own: rng.integers(0, 256, (64, 64), dtype=np.uint8)})
        os.write(1, b"kept %d %d\\n" % (own, sample))
        if own % 3 == 0:
            store.mark([sample], State.USED, note="learnt", training_set=1)
            os.write(1, b"used %d %d\\n" % (own, sample))

for line in sys.stdin:
    seed, after_s = line.split()
    writer = os.fork()
    if not writer:
        write(Path(sys.argv[1]), int(seed))
    time.sleep(float(after_s))
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    os.write(1, b"killed\\n")
"""


def test_a_writer_killed_at_any_moment_loses_nothing_it_acknowledged(path: Path, rng: np.random.Generator):
    """The store starts out full, so that keeping, folding back the log and evicting are all met."""
    with opened(path, max_bytes=MIN_BYTES) as store:
        while not store.samples(State.DROPPED):
            keep_first(store, rng.integers(0, 256, (256, 256), dtype=np.uint8))
        before = last = len(store.decisions())
    with subprocess.Popen(
        [sys.executable, "-c", _WRITERS, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as writers:
        assert writers.stdin is not None
        assert writers.stdout is not None
        for life, after_s in enumerate(rng.uniform(0.02, 0.25, 60)):
            if life >= 6 and last > before + 40:  # on a busy machine a life is short
                break
            writers.stdin.write(f"{life} {after_s}\n")
            acknowledged = [line.split() for line in iter(writers.stdout.readline, "killed\n")]
            last = check_after_kill(path, acknowledged, last)
    assert last > before + 40


def check_after_kill(path: Path, acknowledged: list[list[str]], last_before: int) -> int:
    """Everything acknowledged is there and whole, and nothing is there twice; returns the last decision's id."""
    with opened(path, max_bytes=MIN_BYTES) as store:
        states = {sample.id: sample for sample in store.samples(*State)}
        for what, own, sample in acknowledged:
            assert states[int(sample)].decision_id == int(own) > last_before
            assert what == "kept" or states[int(sample)].state in {State.USED, State.DROPPED}
        alive = [i for i, sample in states.items() if sample.state is not State.DROPPED]
        assert all(store.sample_capture(i).shape[0] in {64, 256} for i in alive)
        assert len(store.decisions()) == len(states)
        assert sum(e.kind is EventKind.SAMPLE_KEPT for e in store.events()) == len(states)
        last = store.decisions()[-1].observation.id
        # One more may have been committed than the writer lived to say.
        assert last - max([int(own) for _, own, _ in acknowledged], default=last_before) in {0, 1}
        return last
