"""Scrubbing beside recognition: when it is done, when it gives way, and that it gives way without harm."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from device_store import keep_nothing, opened, raw_rows

from device_sim.activity import Activity
from device_sim.scrubbing import PATIENCE_S, Scrubbing
from device_sim.store import Store


@pytest.fixture
def due(path: Path, rng: np.random.Generator):
    """A store in which somebody was just erased."""
    with opened(path) as store:
        for person in ("anna", "bert"):
            store.enrol(person, [rng.integers(0, 256, (64, 64), dtype=np.uint8)])
        store.forgetting.begin("anna", students=(), jobs=(), teacher=None)
        yield store


def test_it_is_done_at_once_where_nobody_is_at_the_door(due: Store):
    assert due.scrubbing.is_due
    due.scrubbing.scrub_quietly(Activity())
    assert not due.scrubbing.is_due


def test_it_waits_for_a_quiet_moment_and_at_last_for_none(due: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("device_sim.scrubbing._LOOK_S", 0.0)
    activity, now, looks = Activity(), [0.0], []

    def clock() -> float:
        looks.append(due.scrubbing.is_due)
        now[0] += 1.0
        return now[0]

    with activity.busy():  # somebody stands there all the time
        due.scrubbing.scrub_quietly(activity, clock=clock)
    assert len(looks) == PATIENCE_S + 1
    assert all(looks)
    assert not due.scrubbing.is_due


def test_nothing_is_waited_for_where_it_is_not_due(path: Path):
    activity = Activity()
    with opened(path) as store, activity.busy():
        began_s = time.monotonic()
        store.scrubbing.scrub_quietly(activity)
        assert time.monotonic() - began_s < PATIENCE_S / 2


def test_it_gives_way_and_is_done_later(path: Path, rng: np.random.Generator):
    with opened(path) as store:
        for person in range(40):  # so much that it takes a while
            store.enrol(f"p{person}", [rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)])
        store.forgetting.begin("p0", students=(), jobs=(), teacher=None)
        activity, ended = Activity(), []
        activity.watch(store._database.give_way)
        gave_way = False
        while not gave_way:  # until one comes in the middle of it
            scrubbing = threading.Thread(target=lambda: ended.append(store.scrubbing.scrub()))
            scrubbing.start()
            while not store._database._may_give_way and scrubbing.is_alive():
                pass
            with activity.busy():
                scrubbing.join()
            gave_way = not ended[-1]
            if not gave_way:
                with store._database.transaction() as connection:
                    Scrubbing.mark(connection)
        assert store.scrubbing.is_due
        keep_nothing(store)
        assert len(store.persons()) == 39
        assert store.reference_capture(40).shape == (256, 256, 3)
        assert store.scrubbing.scrub()
    assert raw_rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_who_comes_while_nothing_is_scrubbed_ends_nothing(due: Store):
    for _ in range(100):
        due._database.give_way()
        keep_nothing(due)
    assert len(due.decisions()) == 100
