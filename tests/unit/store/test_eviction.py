from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from device_store import (
    bytes_on_disk,
    fill,
    keep_first,
    keep_nothing,
    keep_second,
    opened,
)

from device_sim import eviction
from device_sim.events import EventKind
from device_sim.records import State
from device_sim.store import MIN_BYTES, Store
from tutelage.captures import Pixels
from tutelage.errors import Code, UsageError
from tutelage.labelling import LabelAnswer


@pytest.fixture
def large(rng: np.random.Generator) -> Callable[[], Pixels]:
    """Noise of 128 x 128: about 16 KiB each."""
    return lambda: rng.integers(0, 256, (128, 128), dtype=np.uint8)


def test_the_store_stays_within_its_bound_and_never_gives_up_a_reference(path: Path, large: Callable[[], Pixels]):
    largest = 0
    with opened(path, max_bytes=MIN_BYTES) as store:
        store.enrol("anna", [large() for _ in range(20)])
        for _ in range(150):
            keep_first(store, large())
            largest = max(largest, bytes_on_disk(path))
        assert MIN_BYTES // 2 < largest <= MIN_BYTES
        assert len([store.reference_capture(r.id) for r in store.references()]) == 20
        dropped, fresh = store.samples(State.DROPPED), store.samples(State.FRESH)
        assert len(dropped) + len(fresh) == 150
        assert len(fresh) > 50
        told = [e for e in store.events() if e.kind is EventKind.SAMPLE_DROPPED]
        assert sum(e.numbers["samples"] for e in told) == len(dropped)
        assert {s.note for s in dropped} == {eviction.NOTE}


def test_what_is_used_or_boring_goes_first_and_the_useful_last(path: Path, large: Callable[[], Pixels]):
    with opened(path, max_bytes=MIN_BYTES) as store:
        second = keep_second(store, large)
        abstained = keep_second(store, large)
        store.label(abstained, LabelAnswer(None, 0.0, 0.0, {}, "nobody", "teacher"))
        held_back, used = (
            [keep_first(store, large()) for _ in range(3)],
            [keep_first(store, large()) for _ in range(3)],
        )
        boring, plain = (
            [keep_first(store, large(), 59.0) for _ in range(3)],
            [keep_first(store, large()) for _ in range(3)],
        )
        store.mark(held_back, State.HELD_BACK, note="gate")
        store.mark(used, State.USED, note="learnt")
        groups = {"used": used, "abstained": abstained, "boring": boring, "plain": plain, "held_back": held_back}
        groups["second"] = second
        gone: list[str] = []
        while "held_back" not in gone:
            store.enrol("anna", [large()])
            gone += [n for n, ids in groups.items() if n not in gone and all(dropped(store, i) for i in ids)]
        assert gone == ["used", "abstained", "boring", "plain", "held_back"]
        assert not any(dropped(store, i) for i in second)


def dropped(store: Store, sample_id: int) -> bool:
    return store.sample(sample_id).state is State.DROPPED


def test_when_only_references_are_left_no_more_is_taken_and_nothing_is_lost(path: Path, large: Callable[[], Pixels]):
    with opened(path, max_bytes=MIN_BYTES) as store:
        done, error = fill(store, large)
        assert error.code is Code.STORAGE_FULL
        assert len(store.persons()) == len(store.references()) == done > 50
        assert bytes_on_disk(path) <= MIN_BYTES


def test_history_is_bounded_too_and_ids_are_never_used_twice(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(eviction, "HISTORY_KEPT", 20)
    with opened(path, max_bytes=MIN_BYTES) as store:
        ids = [keep_nothing(store, attempt="long " * 8000) for _ in range(100)]
        assert ids == list(range(1, 101))
        assert 20 <= len(store.decisions()) < 60
        assert store.decisions()[-1].observation.id == 100
        assert bytes_on_disk(path) <= MIN_BYTES
        with pytest.raises(UsageError, match="no longer kept"):
            store.decision(1)


def test_the_history_of_a_kept_capture_is_not_evicted(
    path: Path, capture: Callable[[], Pixels], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(eviction, "HISTORY_KEPT", 20)
    with opened(path, max_bytes=MIN_BYTES) as store:
        second = keep_second(store, capture)
        store.mark(second[-1:], State.DROPPED, note="x")
        for _ in range(100):
            keep_nothing(store, attempt="long " * 8000)
        assert {d.observation.id for d in store.decisions()} >= {1, 2, 3}
        assert store.sample_capture(second[0]).shape == (64, 64)


def test_a_bound_without_room_for_anything_is_refused(path: Path):
    with pytest.raises(UsageError, match=str(MIN_BYTES)):
        opened(path, max_bytes=MIN_BYTES - 1)
