from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from device_sim.conditions import (
    LabelCondition,
    LabelState,
    TrainingCondition,
    TrainingState,
    label_state,
    training_state,
)
from device_sim.events import EventKind
from device_sim.occasion import Moment, Window
from device_sim.records import DecisionRecord, State
from device_sim.sampling import Observation, Sampler, SampleRules
from device_sim.store import Store
from tutelage.biometrics.matching import Decision
from tutelage.errors import UsageError
from tutelage.labelling import LabelAnswer

LABEL = LabelCondition(min_count=4, max_age_s=3600, min_gap_s=60)
TRAIN = TrainingCondition(min_fresh=32, min_persons=2, min_gap_s=3600)
READY = TrainingState(fresh=32, persons=2, since_last_s=math.inf, running=False)


@pytest.mark.parametrize(
    ("waiting", "oldest_s", "since_last_s", "lacks"),
    [
        (4, 0, math.inf, ()),
        (1, 3600, 60, ()),
        (1, math.inf, 60, ()),
        (0, 0, math.inf, ("no attempt waits for a label",)),
        (3, 3599, math.inf, ("3 of 4 attempts wait for a label, the oldest for 3599 of 3600 s",)),
        (4, 0, 59, ("the teacher was asked 59 s ago, 1 s are still to wait",)),
        (
            3,
            10,
            0,
            (
                "3 of 4 attempts wait for a label, the oldest for 10 of 3600 s",
                "the teacher was asked 0 s ago, 60 s are still to wait",
            ),
        ),
    ],
)
def test_a_label_condition_says_what_is_missing(
    waiting: int, oldest_s: float, since_last_s: float, lacks: tuple[str, ...]
):
    assert LABEL.missing(LabelState(waiting, oldest_s, since_last_s)) == lacks


@pytest.mark.parametrize(
    ("state", "lacks"),
    [
        (READY, ()),
        (TrainingState(31, 2, math.inf, False), ("31 of 32 labelled fresh samples",)),
        (TrainingState(40, 1, 3600, False), ("samples of 1 of 2 persons",)),
        (TrainingState(32, 2, 3599, False), ("a training was started 3599 s ago, 1 s are still to wait",)),
        (TrainingState(32, 2, 3600, True), ("the training under way has to end",)),
    ],
)
def test_a_training_condition_says_what_is_missing(state: TrainingState, lacks: tuple[str, ...]):
    assert TRAIN.missing(state) == lacks


def test_everything_that_is_missing_is_said_at_once():
    assert len(TRAIN.missing(TrainingState(0, 0, 0, True))) == 4


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock):
    with Store.in_memory(key=bytes(32), clock=clock) as opened:
        yield opened


def feed(store: Store, clock: Clock, rng: np.random.Generator, person: str, *scores: float) -> None:
    """Recognise captures one second apart and keep what the rules keep."""
    sampler, held = Sampler(SampleRules()), {}
    for score in scores:
        own = store.next_decision_id()
        decision = Decision.ACCEPT if score >= 30 else Decision.REJECT
        seen = Observation(own, clock(), "", person, score, False, decision, score)
        outcome = sampler.observe(seen)
        held[own] = rng.integers(0, 256, (16, 16), dtype=np.uint8)
        kept = {"first": (own,), "second": outcome.captures, "nothing": ()}[outcome.kind]
        record = DecisionRecord(seen, 0.5, 0.2, "space", "v1", outcome)
        store.record(record, {of: held[of] for of in kept})
        clock.now_s += 1


def test_a_label_state_counts_attempts_and_not_captures(store: Store, clock: Clock, rng: np.random.Generator):
    feed(store, clock, rng, "anna", 1, 1, 1, 1, 1, 1, 40)
    assert label_state(store, Moment(clock())) == LabelState(2, 7.0, math.inf, Moment(clock()))
    store.add_event(EventKind.LABELS_ASKED, "asked", {}, "")
    first_attempt = [s.id for s in store.samples(State.FRESH)][:3]
    store.label(first_attempt, LabelAnswer("anna", 0.9, 0.3, {"anna": 0.9}, "", "teacher"))
    clock.now_s += 5
    assert label_state(store, Moment(clock())) == LabelState(1, 9.0, 5.0, Moment(clock()))


def test_nothing_waits_in_an_empty_store(store: Store, clock: Clock):
    assert label_state(store, Moment(clock())) == LabelState(0, 0.0, math.inf, Moment(clock()))
    now = Moment(clock())
    assert training_state(store, now, running=False) == TrainingState(0, 0, math.inf, False, 0.0, now)


def test_a_training_state_counts_matched_and_taught_labels_but_no_abstentions(
    store: Store, clock: Clock, rng: np.random.Generator
):
    feed(store, clock, rng, "anna", 40, 41)
    feed(store, clock, rng, "ben", 1, 1, 1, 1, 1, 1)
    second = [s.id for s in store.samples(State.FRESH)][2:]
    store.label(second[:3], LabelAnswer("ben", 0.9, 0.3, {"ben": 0.9}, "", "teacher"))
    store.label(second[3:], LabelAnswer(None, 0.0, 0.0, {}, "nobody near enough", "teacher"))
    now = Moment(clock())
    assert training_state(store, now, running=True) == TrainingState(5, 2, math.inf, True, 8.0, now)
    store.mark([second[0]], State.USED, note="learnt", training_set=1)
    assert training_state(store, Moment(clock()), running=False).fresh == 4


def test_a_clock_set_back_a_year_stops_neither_labels_nor_training(
    store: Store, clock: Clock, rng: np.random.Generator
):
    feed(store, clock, rng, "anna", 1, 1, 1)
    store.add_event(EventKind.LABELS_ASKED, "asked", {}, "")
    store.add_event(EventKind.TRAINING_STARTED, "enough samples", {}, "v1+1")
    clock.now_s -= 365 * 86_400
    assert LABEL.missing(label_state(store, Moment(clock()))) == ()
    assert training_state(store, Moment(clock()), running=False).since_last_s == math.inf


@pytest.mark.parametrize(
    ("now_s", "wait_s"),
    [(1_000.0, 0.0), (1_099.9, 0.0), (1_100.0, 500.0), (1_599.0, 1.0), (1_600.0, 0.0), (999.0, 1.0), (-200.0, 0.0)],
)
def test_a_window_opens_again_every_period(now_s: float, wait_s: float):
    assert Window(start_s=1_000.0, length_s=100.0, period_s=600.0).opens_in_s(now_s) == pytest.approx(wait_s)


@pytest.mark.parametrize("length_s", [0.0, -1.0, 86_400.0, math.nan])
def test_a_window_is_open_for_some_of_its_period(length_s: float):
    with pytest.raises(UsageError, match="a window is open for some of its 86400 s"):
        Window(start_s=0.0, length_s=length_s)


def test_a_training_waits_for_its_window():
    windowed = replace(TRAIN, window=Window(start_s=0.0, length_s=3600.0))
    assert windowed.missing(replace(READY, moment=Moment(86_000.0))) == ("the training window opens in 400 s",)
    assert windowed.missing(replace(READY, moment=Moment(86_400.0))) == ()


def test_a_label_request_waits_for_its_occasion_too():
    quiet = replace(LABEL, min_idle_s=60.0, window=Window(start_s=0.0, length_s=3600.0))
    state = LabelState(4, 0.0, math.inf, Moment(86_000.0, idle_s=59.0))
    assert quiet.missing(state) == ("nobody recognised for 59 of 60 s", "the label window opens in 400 s")
    assert quiet.missing(replace(state, moment=Moment(86_400.0, idle_s=60.0))) == ()


def test_a_training_waits_until_nobody_was_recognised_for_a_while():
    quiet = replace(TRAIN, min_idle_s=60.0)
    assert quiet.missing(replace(READY, moment=Moment(idle_s=0.0))) == ("nobody recognised for 0 of 60 s",)
    assert quiet.missing(replace(READY, moment=Moment(idle_s=61.0))) == ()
    assert quiet.missing(READY) == (), "nobody ever was"


def test_what_the_platform_objects_is_waited_for_and_said(tmp_path: Path):
    file = tmp_path / "hold"
    held = replace(TRAIN, hold_file=str(file))
    assert held.missing(READY) == ()
    file.write_text(" battery at 12 %\n\x07of its capacity\n")
    assert held.missing(READY) == ("the platform says: battery at 12 % ?of its capacity",)
    file.write_text("hot " * 1000)
    assert len(held.missing(READY)[0]) < 110
    file.write_text(" \n")
    assert held.missing(READY) == ()
    file.unlink()
    file.mkdir()
    assert held.missing(READY) == ("the platform says: nothing, its file cannot be read (Is a directory)",)


def test_few_samples_that_are_old_are_learnt_from():
    aged = replace(TRAIN, max_age_s=100.0)
    few = replace(READY, fresh=3, oldest_s=99.0)
    assert aged.missing(few) == ("3 of 32 labelled fresh samples",)
    assert aged.missing(replace(few, oldest_s=100.0)) == ()
    assert aged.missing(replace(few, fresh=0, persons=2, oldest_s=0.0)) == ("0 of 32 labelled fresh samples",)


def test_who_abstained_is_asked_about_once_more_when_the_teacher_is_another(
    store: Store, clock: Clock, rng: np.random.Generator
):
    def waiting(space: str) -> int:
        return label_state(store, Moment(clock()), teacher_space=space).waiting

    feed(store, clock, rng, "anna", 1, 1, 1)
    ids = [s.id for s in store.samples(State.FRESH)]
    store.label(ids, LabelAnswer(None, 0.0, 0.0, {}, "nobody near enough", "old"))
    assert [waiting(space) for space in ("", "old", "new")] == [0, 0, 1]
    store.label(ids, LabelAnswer(None, 0.0, 0.0, {}, "nobody near enough", "new"))
    assert [waiting(space) for space in ("", "old", "new", "newest")] == [0, 0, 0, 0]
