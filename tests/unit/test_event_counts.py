"""Counts of events only grow, over restarts and although old events make room."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from device_sim.event_counts import EventCounts
from device_sim.events import EventKind
from device_sim.store import Store

KEY = bytes(range(32))


def told(store: Store, kind: EventKind, times: int) -> None:
    for _ in range(times):
        store.add_event(kind, "a test", {}, "v1")


def test_counts_go_on_after_a_restart_and_what_is_counted_once_is_not_counted_again(tmp_path: Path):
    path = tmp_path / "counts.json"
    with Store.in_memory(key=KEY, clock=lambda: 1.0) as store:
        told(store, EventKind.GATE_PASSED, 2)
        counts = EventCounts(store, path)
        assert dict(counts.now()) == {"gate-passed": 2}
        told(store, EventKind.GATE_PASSED, 1)
        told(store, EventKind.ENROLLED, 3)
        assert dict(counts.now()) == dict(EventCounts(store, path).now()) == {"gate-passed": 3, "enrolled": 3}


def test_what_made_room_stays_counted(tmp_path: Path):
    path = tmp_path / "counts.json"
    with Store.in_memory(key=KEY, clock=lambda: 1.0) as store:
        told(store, EventKind.GATE_FAILED, 5)
        EventCounts(store, path).now()
        with store._database.transaction() as connection:
            connection.execute("DELETE FROM events WHERE id <= 4")
        told(store, EventKind.GATE_FAILED, 1)
        assert dict(EventCounts(store, path).now()) == {"gate-failed": 6}


def test_two_threads_count_nothing_twice(tmp_path: Path):
    with Store.in_memory(key=KEY, clock=lambda: 1.0) as store, ThreadPoolExecutor(4) as threads:
        counts = EventCounts(store, tmp_path / "counts.json")
        for _ in range(20):
            told(store, EventKind.GATE_PASSED, 1)
            list(threads.map(lambda _: counts.now(), range(4)))
        assert dict(counts.now()) == {"gate-passed": 20}


def test_a_damaged_file_counts_what_is_still_there(tmp_path: Path):
    path = tmp_path / "counts.json"
    with Store.in_memory(key=KEY, clock=lambda: 1.0) as store:
        told(store, EventKind.ENROLLED, 2)
        for damage in ("{", "[]", '{"last": "x"}'):
            path.write_text(damage)
            assert dict(EventCounts(store, path).now()) == {"enrolled": 2}
