"""A device's store with something in it, and a look at its bytes from outside: for the tests of the store's modules."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from device_sim.records import DecisionRecord
from device_sim.sampling import Kind, Observation, Outcome, Sampler, SampleRules, judge
from device_sim.store import Store
from tutelage.biometrics.matching import Decision
from tutelage.captures import Pixels
from tutelage.errors import Code, StorageError

KEY = bytes(range(32))


def opened(path: Path, **changes: object) -> Store:
    return Store.open(path, **{"key": KEY, "clock": itertools.count(1_000_000.0).__next__, **changes})


def seen(store: Store, score: float, **changes: object) -> Observation:
    decision = Decision.ACCEPT if score >= 30 else Decision.REJECT
    given = {"id": store.next_decision_id(), "time_s": 1000.0, "attempt": "a1", "person": "anna"}
    given |= {"extrapolated": False, "decision": decision, "score": score, "reference_score": score}
    return Observation(**{**given, **changes})


def record_of(observation: Observation, outcome: Outcome, **changes: object) -> DecisionRecord:
    given = {"cosine": 0.625, "margin": 0.25, "space": "sha256:ab", "generation": "v3+7"}
    return DecisionRecord(observation=observation, outcome=outcome, **{**given, **changes})


def keep_first(store: Store, pixels: Pixels, score: float = 40.0, **changes: object) -> int:
    """Record an accepted capture and keep it; returns the sample's id."""
    observation = seen(store, score, **changes)
    (sample_id,) = store.record(record_of(observation, judge(SampleRules(), observation, ())), {observation.id: pixels})
    return sample_id


def keep_second(store: Store, capture: Callable[[], Pixels], **changes: object) -> tuple[int, ...]:
    """Record three failures of one attempt and keep all three captures; returns the samples' ids."""
    sampler, held = Sampler(SampleRules()), {}
    for score in (20.0, 10.0, 15.0):
        observation = seen(store, score, **changes)
        held[observation.id] = capture()
        outcome = sampler.observe(observation)
        kept = store.record(record_of(observation, outcome), held if outcome.kind is Kind.SECOND else {})
    return kept


def keep_nothing(store: Store, **changes: object) -> int:
    """Record a boring capture; returns the decision's id."""
    observation = seen(store, 70.0, **changes)
    store.record(record_of(observation, judge(SampleRules(), observation, ())), {})
    return observation.id


def code_of(action: Callable[[], object]) -> Code:
    with pytest.raises(StorageError) as caught:
        action()
    return caught.value.code


def on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(path.name + "*")))


def raw_rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    raw = sqlite3.connect(path)
    found = raw.execute(sql).fetchall()
    raw.close()
    return found


def raw_change(path: Path, *statements: str) -> None:
    raw = sqlite3.connect(path)
    with raw:
        for sql in statements:
            raw.execute(sql)
    raw.close()


def bytes_on_disk(path: Path) -> int:
    return path.stat().st_size + (path.parent / (path.name + "-wal")).stat().st_size


def fill(store: Store, capture: Callable[[], Pixels]) -> tuple[int, StorageError]:
    """Enrol until it fails; how many persons were acknowledged, and the failure."""
    for done in range(10_000):
        try:
            store.enrol(f"p{done}", [capture()])
        except StorageError as error:
            return done, error
    pytest.fail("it never got full")
