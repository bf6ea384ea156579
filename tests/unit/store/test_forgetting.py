"""What an erasure does to the rows of a store: whose captures go, what stays readable, and on a store that is full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from device_store import fill, keep_first, keep_nothing, keep_second, opened, raw_rows

from device_sim import eviction
from device_sim.forgetting import NOTE, Erasure, Stage
from device_sim.pointer import Entry
from device_sim.pseudonyms import PREFIX
from device_sim.records import State
from device_sim.store import MIN_BYTES, Store
from tutelage.captures import Pixels
from tutelage.errors import Code
from tutelage.labelling import LabelAnswer

STUDENT = Entry("v1", "sha256:" + "0" * 64)


def begin(store: Store, name: str) -> Erasure:
    store.forgetting.begin(name, students=(), jobs=(), teacher=None)
    return store.forgetting.latest(name)


def finish(store: Store, erasure: Erasure, receipt: bytes = b"receipt") -> None:
    cleared = store.forgetting.cleared(erasure, STUDENT)
    store.forgetting.done(cleared, replace(cleared.removal, teacher="absent"), receipt)


def dropped(store: Store, *sample_ids: int) -> list[bool]:
    return [store.sample(i).state is State.DROPPED for i in sample_ids]


def test_references_and_samples_go_and_others_stay(store: Store, capture: Callable[[], Pixels]):
    for person in ("anna", "bert"):
        store.enrol(person, [capture(), capture()])
    own, other = keep_first(store, capture()), keep_first(store, capture(), person="bert")
    erasure = begin(store, "anna")
    assert (len(erasure.removal.references), len(erasure.removal.samples), erasure.removal.decisions) == (2, 1, 1)
    assert store.persons() == ("bert",)
    assert len(store.references()) == 2
    assert (dropped(store, own, other), store.sample(own).note) == ([True, False], NOTE)
    assert store.sample(own).label.person.startswith(PREFIX)
    assert store.sample(other).label.person == "bert"


def test_an_attempt_that_nobody_named_goes_where_the_person_was_the_nearest_once(
    store: Store, capture: Callable[[], Pixels]
):
    own, other = keep_second(store, capture), keep_second(store, capture, person="bert")
    named = keep_second(store, capture)
    store.label(named, LabelAnswer("bert", 0.9, 0.4, {"bert": 0.9, "anna": 0.1}, "", "t"))
    begin(store, "anna")
    assert dropped(store, *own) == [True] * 3
    assert dropped(store, *other, *named) == [False] * 6
    label = store.sample(named[0]).label
    assert label.person == "bert"
    assert [share for name, share in label.answer["soft"].items() if name.startswith(PREFIX)] == [0.1]


@pytest.mark.parametrize(("first", "gone"), [("anna", True), ("bert", False)])
def test_an_abstention_goes_where_the_person_was_the_nearest_in_its_evidence(
    store: Store, capture: Callable[[], Pixels], first: str, gone: bool
):
    store.enrol("anna", [capture()])
    attempt = keep_second(store, capture, person="cleo")
    second = {"anna": "bert", "bert": "anna"}[first]
    store.label(attempt, LabelAnswer(None, 0.0, 0.01, {first: 0.5, second: 0.5}, "two persons too alike", "t"))
    begin(store, "anna")
    assert dropped(store, *attempt) == [gone] * 3


def test_nothing_leads_from_a_pseudonym_to_the_name(store: Store, path: Path, capture: Callable[[], Pixels]):
    store.enrol("anna", [capture()])
    keep_first(store, capture())
    (before,) = raw_rows(path, "SELECT person FROM decisions")
    erasure = begin(store, "anna")
    assert raw_rows(path, "SELECT person FROM decisions") == [before]
    assert raw_rows(path, "SELECT count(*) FROM names") == [(0,)]
    assert store.decision(1).observation.person == before[0]
    assert store.forgetting.name(erasure) == "anna"  # for the teacher alone
    finish(store, erasure)
    assert raw_rows(path, "SELECT name FROM erasures") == [(None,)]
    store.enrol("anna", [capture()])
    keep_nothing(store)
    assert len(set(raw_rows(path, "SELECT person FROM decisions"))) == 2  # a new person, whom nothing joins to the old


def test_who_was_erased_is_found_again_by_the_receipt_alone(store: Store, capture: Callable[[], Pixels]):
    store.enrol("anna", [capture()])
    assert store.forgetting.knows("anna")
    assert not store.forgetting.knows("bert")
    erasure = begin(store, "anna")
    assert not store.forgetting.knows("anna")
    assert [e.id for e in store.forgetting.unfinished()] == [erasure.id]
    finish(store, erasure)
    assert store.forgetting.unfinished() == ()
    assert (store.forgetting.latest("anna").stage, store.forgetting.latest("anna").receipt) == (Stage.DONE, b"receipt")
    assert store.forgetting.latest("bert") is None


def test_a_store_that_is_full_of_references_can_still_forget(path: Path, capture: Callable[[], Pixels]):
    with opened(path, max_bytes=MIN_BYTES) as store:
        done, error = fill(store, capture)
        assert error.code is Code.STORAGE_FULL
        for person in range(20):
            finish(store, begin(store, f"p{person}"), bytes(500))
        store.enrol("the next", [capture()])
        assert len(store.persons()) == done - 20 + 1


def test_old_receipts_make_room_and_unfinished_erasures_never_go(
    path: Path, capture: Callable[[], Pixels], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(eviction, "RECEIPTS_KEPT", 3)
    with opened(path, max_bytes=MIN_BYTES) as store:
        unfinished = begin(store, "waits for the teacher")
        for number in range(20):
            finish(store, begin(store, f"p{number}"), bytes(60_000))
        fill(store, capture)
        kept = [number for number in range(20) if store.forgetting.latest(f"p{number}") is not None]
        assert kept == [17, 18, 19]
        assert store.forgetting.unfinished() == (unfinished,)
