from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from device_store import (
    KEY,
    code_of,
    keep_first,
    keep_nothing,
    keep_second,
    opened,
    record_of,
    seen,
)

from device_sim.events import EventKind
from device_sim.records import LabelSource, State
from device_sim.sampling import Kind, Outcome, Rule, Sampler, SampleRules, judge
from device_sim.store import Store
from tutelage.biometrics.matching import Decision
from tutelage.captures import Pixels
from tutelage.errors import Code, UsageError
from tutelage.labelling import LabelAnswer

DAY_S = 86_400.0


def test_references_come_back_unchanged_in_a_later_life(path: Path, rng: np.random.Generator):
    grey, colour = rng.integers(0, 256, (64, 48), dtype=np.uint8), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    with opened(path) as store:
        assert store.enrol("anna", [grey, colour]) == (1, 2)
        assert store.enrol("ben", [grey]) == (3,)
        assert store.enrol("anna", [colour]) == (4,)
    with opened(path) as store:
        assert store.persons() == ("anna", "ben")
        assert [(r.id, r.person) for r in store.references()] == [(1, "anna"), (2, "anna"), (3, "ben"), (4, "anna")]
        assert np.array_equal(store.reference_capture(1), grey)
        assert np.array_equal(store.reference_capture(4), colour)
        assert store.references()[0].enrolled_s == 1_000_000.0


def test_references_refuse_every_change(path: Path, capture: Callable[[], Pixels]):
    with opened(path) as store:
        store.enrol("anna", [capture()])
    with sqlite3.connect(path) as raw, pytest.raises(sqlite3.IntegrityError, match="references never change"):
        raw.execute("UPDATE reference_captures SET person = 'eve'")
    raw.close()


@pytest.mark.parametrize(("person", "count"), [("", 1), ("anna", 0)])
def test_nobody_is_enrolled_without_name_or_capture(
    store: Store, capture: Callable[[], Pixels], person: str, count: int
):
    with pytest.raises(UsageError):
        store.enrol(person, [capture()] * count)
    assert store.persons() == ()


def test_a_decision_comes_back_to_the_last_bit(store: Store):
    observation = seen(store, math.nextafter(41.7, 50), extrapolated=True, duplicate_cosine=0.1 + 0.2)
    outcome = Sampler(SampleRules()).observe(observation)
    kept_apart = record_of(observation, Outcome(Kind.NOTHING, Rule.NEAR_DUPLICATE, "x", outcome.numbers))
    store.record(kept_apart, {})
    assert store.decision(observation.id) == kept_apart
    assert store.decisions() == (kept_apart,)
    assert store.decisions(after=observation.id) == ()


def test_numpy_numbers_and_nobody_are_stored_as_plain_numbers_and_nobody(store: Store):
    observation = seen(store, np.float32(0.5), person=None, decision=Decision.UNKNOWN, kept_today=np.int64(0))
    outcome = judge(SampleRules(), observation, ())
    store.record(record_of(observation, outcome, cosine=math.nan, margin=math.nan), {})
    back = store.decision(observation.id)
    assert back.observation.person is None
    assert back.observation.score == 0.5
    assert math.isnan(back.cosine)
    assert math.isnan(back.margin)
    assert back.observation.kept_today == 0


def test_a_first_sample_is_labelled_with_the_person_matched(store: Store, capture: Callable[[], Pixels]):
    pixels = capture()
    sample = store.sample(keep_first(store, pixels))
    assert (sample.kind, sample.state, sample.score, sample.time_s) == (Kind.FIRST, State.FRESH, 40.0, 1000.0)
    assert sample.label is not None
    assert (sample.label.person, sample.label.source) == ("anna", LabelSource.MATCHED)
    assert (sample.label.confidence, sample.label.margin) == (1.0, 0.25)
    assert np.array_equal(store.sample_capture(sample.id), pixels)


def test_second_samples_of_one_attempt_belong_together_and_keep_their_own_scores(
    store: Store, capture: Callable[[], Pixels]
):
    keep_nothing(store)
    samples = [store.sample(i) for i in keep_second(store, capture)]
    assert [(s.decision_id, s.attempt_end, s.score) for s in samples] == [(2, 4, 20.0), (3, 4, 10.0), (4, 4, 15.0)]
    assert [s.label for s in samples] == [None] * 3
    assert {s.kind for s in samples} == {Kind.SECOND}


def test_the_teachers_answer_is_stored_with_second_samples_alone(store: Store, capture: Callable[[], Pixels]):
    first, second = keep_first(store, capture()), keep_second(store, capture)
    answer = LabelAnswer("ben", 0.875, 0.5, {"ben": 0.875, "anna": 0.125}, "", "teacher")
    assert store.label([first, *second], answer) == 3
    label = store.sample(second[0]).label
    assert label is not None
    assert (label.person, label.source, label.confidence, label.margin) == ("ben", LabelSource.TEACHER, 0.875, 0.5)
    assert label.answer == {"soft": {"ben": 0.875, "anna": 0.125}, "reason": "", "space": "teacher", "asked": 1}
    assert store.sample(first).label.person == "anna"


def test_an_abstention_is_told_from_no_answer(store: Store, capture: Callable[[], Pixels]):
    second = keep_second(store, capture)
    store.label(second[:1], LabelAnswer(None, 0.0, 0.01, {}, "two persons too alike", "teacher"))
    label = store.sample(second[0]).label
    assert label is not None
    assert (label.person, label.source) == (None, LabelSource.ABSTAINED)
    assert label.answer["reason"] == "two persons too alike"
    assert store.sample(second[1]).label is None


def test_dropping_a_sample_deletes_its_capture_for_good(store: Store, capture: Callable[[], Pixels]):
    sample_id = keep_first(store, capture())
    assert store.mark([sample_id], State.DROPPED, note="asked for") == 1
    assert store.mark([sample_id], State.FRESH, note="never mind") == 0
    with pytest.raises(UsageError):
        store.sample_capture(sample_id)
    assert (store.sample(sample_id).state, store.sample(sample_id).note) == (State.DROPPED, "asked for")


def test_states_and_training_sets_are_kept(store: Store, capture: Callable[[], Pixels]):
    ids = [keep_first(store, capture()) for _ in range(3)]
    store.mark(ids[:2], State.HELD_BACK, note="gate", training_set=4)
    store.mark(ids[:1], State.USED, note="learnt")
    assert [s.id for s in store.samples(State.FRESH)] == ids[2:]
    assert [s.id for s in store.samples(State.USED, State.HELD_BACK)] == ids[:2]
    assert store.sample(ids[0]).training_set == 4
    assert store.samples() == ()


def test_a_day_counts_what_was_kept_whatever_became_of_it(store: Store, capture: Callable[[], Pixels]):
    kept = [keep_first(store, capture(), time_s=t) for t in (DAY_S - 1, DAY_S, 2 * DAY_S - 1, 2 * DAY_S)]
    keep_first(store, capture(), time_s=DAY_S, person="ben")
    keep_second(store, capture, time_s=DAY_S)
    store.mark(kept[1:2], State.DROPPED, note="x")
    assert store.kept_today("anna", DAY_S + 5) == 2
    assert store.second_today(2 * DAY_S - 1) == 3
    assert store.second_today(2 * DAY_S) == 0


def test_events_tell_what_happened_in_order(store: Store, capture: Callable[[], Pixels]):
    store.enrol("anna", [capture()])
    first, second = keep_first(store, capture()), keep_second(store, capture)
    store.label(second, LabelAnswer("anna", 0.9, 0.3, {"anna": 0.9}, "", "teacher"))
    store.mark([first], State.QUARANTINED, note="the teacher disagrees")
    store.add_event(EventKind.GATE_FAILED, "misses rose", {"misses": 0.5}, "v3+8")
    events = store.events()
    kept = [EventKind.SAMPLE_KEPT] * 4
    labelled = [EventKind.LABEL_STORED] * 3
    assert [e.kind for e in events] == [
        EventKind.ENROLLED, *kept, *labelled, EventKind.SAMPLE_QUARANTINED, EventKind.GATE_FAILED,
    ]  # fmt: skip
    assert events[1].numbers == {"sample": first}
    assert events[1].reason == store.decision(1).outcome.reason
    assert (events[-1].reason, events[-1].numbers, events[-1].generation) == ("misses rose", {"misses": 0.5}, "v3+8")
    assert [e.time_s for e in events] == sorted(e.time_s for e in events)
    assert store.events(after=events[-2].id) == events[-1:]
    assert store.last_event(EventKind.ENROLLED) == events[0]
    assert store.last_event(EventKind.GATE_PASSED) is None


def test_only_what_the_rules_kept_can_be_recorded(store: Store, capture: Callable[[], Pixels]):
    for score, captures in ((70.0, [0]), (40.0, []), (40.0, [0, 1]), (10.0, [0])):
        observation = seen(store, score)
        decision = record_of(observation, judge(SampleRules(), observation, ()))
        with pytest.raises(UsageError):
            store.record(decision, {observation.id + i: capture() for i in captures})
    assert store.decisions() == ()


def test_a_second_sample_of_an_unknown_decision_keeps_nothing(store: Store, capture: Callable[[], Pixels]):
    observation = seen(store, 10.0, id=7)
    outcome = judge(SampleRules(), observation, (5, 6))
    with pytest.raises(UsageError, match="decision 5"):
        store.record(record_of(observation, outcome), {5: capture(), 7: capture()})
    assert store.decisions() == ()
    assert store.events() == ()


def test_what_is_not_there_is_said_so(store: Store):
    for action in (store.sample, store.decision, store.sample_capture, store.reference_capture):
        with pytest.raises(UsageError, match="99"):
            action(99)


def test_the_same_decision_twice_is_refused(store: Store):
    observation = seen(store, 70.0)
    decision = record_of(observation, judge(SampleRules(), observation, ()))
    store.record(decision, {})
    assert code_of(lambda: store.record(decision, {})) is Code.STORE_CORRUPT
    assert len(store.decisions()) == 1


def test_threads_take_turns(store: Store, capture: Callable[[], Pixels]):
    pixels = capture()
    threads = [threading.Thread(target=lambda n=n: store.enrol(f"p{n}", [pixels])) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.persons()) == 8
    assert sorted(r.id for r in store.references()) == list(range(1, 9))


def test_a_store_in_memory_does_the_same(capture: Callable[[], Pixels]):
    with Store.in_memory(key=KEY, clock=lambda: 5.0) as store:
        pixels = capture()
        store.enrol("anna", [pixels])
        assert np.array_equal(store.reference_capture(1), pixels)
