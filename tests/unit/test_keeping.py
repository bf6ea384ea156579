"""What is kept of the answers: first and second samples, duplicates, and never more captures in memory than needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from device_store import opened
from toy_device import finger, name_of, toy_model

from device_sim.keeping import Keeper
from device_sim.recognition import Neighbours, Recognition, RunningModel
from device_sim.records import DecisionRecord
from device_sim.sampling import NO_NEIGHBOUR, Kind, Rule, SampleRules
from device_sim.store import Store
from tutelage.biometrics.matching import Decision, Match
from tutelage.errors import StorageError

TIME = iter(range(1_000_000)).__next__


class Live:
    def live(self, capture) -> bool:
        return True


class Dead:
    def live(self, capture) -> bool:
        return False


@pytest.fixture(scope="module")
def model() -> RunningModel:
    return toy_model()


@pytest.fixture
def store(tmp_path: Path):
    with opened(tmp_path / "store") as store:
        yield store


def keeper_of(store: Store, model: RunningModel, *, liveness=None, whole_attempts: bool = True, **rules) -> Keeper:
    return Keeper(
        store,
        SampleRules(**rules),
        whole_attempts=whole_attempts,
        liveness=liveness or Live(),
        clock=TIME,
        neighbours=Neighbours(model.recogniser.space),
    )


def answered(model: RunningModel, score: float, person: str | None = "p00", press: int = 0) -> Recognition:
    """A real answer with another score: what the rules look at."""
    features = model.features([finger(0, press)])
    match = Match(person, 0.5, None, -1.0) if person else Match(None, -1.0, None, -1.0)
    decision = Decision.ACCEPT if score >= 30 else Decision.REJECT
    return Recognition(match, score if person else float("-inf"), False, decision, features)


def keep(keeper: Keeper, model: RunningModel, score: float, attempt: str = "a", **changes) -> DecisionRecord:
    answer = answered(model, score, **changes)
    return keeper.keep(answer, "v1", finger(0, changes.get("press", 0)), attempt)


def test_a_first_sample_is_kept_with_its_capture_and_where_it_was_answered(store: Store, model: RunningModel):
    record = keep(keeper_of(store, model), model, 40.0, press=3)
    (sample,) = store.samples("fresh")
    assert (sample.kind, sample.label.person, sample.decision_id) == (Kind.FIRST, "p00", record.observation.id)
    assert (store.sample_capture(sample.id) == finger(0, 3)).all()
    stored = store.decision(record.observation.id)
    assert (stored.generation, stored.space) == ("v1", model.recogniser.space)


def test_all_captures_of_a_failed_attempt_are_kept_at_its_end(store: Store, model: RunningModel):
    keeper = keeper_of(store, model)
    for press in range(3):
        assert store.samples("fresh") == ()
        keep(keeper, model, 15.0, press=press)
    kept = store.samples("fresh")
    assert [s.kind for s in kept] == [Kind.SECOND] * 3
    for press, sample in enumerate(kept):
        assert (store.sample_capture(sample.id) == finger(0, press)).all()


def test_without_whole_attempts_only_the_last_capture_is_kept(store: Store, model: RunningModel):
    keeper = keeper_of(store, model, whole_attempts=False)
    for press in range(3):
        keep(keeper, model, 15.0, press=press)
    (sample,) = store.samples("fresh")
    assert (store.sample_capture(sample.id) == finger(0, 2)).all()


def test_no_more_captures_wait_in_memory_than_a_run_of_failures_has(store: Store, model: RunningModel):
    keeper = keeper_of(store, model, second_per_day=2)
    for turn in range(40):
        record = keep(keeper, model, 15.0 if turn % 7 else 70.0, attempt=f"a{turn // 11}")
        assert len(keeper._recent) <= 3
        assert set(keeper._recent) <= set(record.outcome.captures)
    assert store.second_today(0.0) <= 4


def test_the_cosine_to_the_nearest_kept_sample_is_looked_at_and_recorded(store: Store, model: RunningModel):
    keeper = keeper_of(store, model)
    first = keep(keeper, model, 40.0, press=3)
    again = keep(keeper, model, 40.0, press=3)
    other = keep(keeper, model, 40.0, press=4)
    stranger = keep(keeper, model, 40.0, press=3, person="p01")
    assert first.observation.duplicate_cosine == NO_NEIGHBOUR
    assert (again.outcome.rule, again.outcome.kind) == (Rule.NEAR_DUPLICATE, Kind.NOTHING)
    assert again.observation.duplicate_cosine == pytest.approx(1.0, abs=1e-5)
    both = model.features([finger(0, 3), finger(0, 4)]).vectors
    assert other.observation.duplicate_cosine == pytest.approx(float(both[0] @ both[1]), abs=1e-5)
    assert other.outcome.kind is Kind.FIRST
    assert stranger.observation.duplicate_cosine == NO_NEIGHBOUR


def test_what_was_not_kept_is_nobodys_duplicate(store: Store, model: RunningModel):
    keeper = keeper_of(store, model)
    keep(keeper, model, 70.0, press=3)
    assert keep(keeper, model, 40.0, press=3).outcome.kind is Kind.FIRST


def test_what_does_not_live_is_not_kept(store: Store, model: RunningModel):
    record = keep(keeper_of(store, model, liveness=Dead()), model, 40.0)
    assert record.outcome.rule is Rule.NOT_LIVE
    assert store.samples("fresh") == ()


def test_an_answer_that_named_nobody_has_neither_cosine_nor_margin(store: Store, model: RunningModel):
    record = keep(keeper_of(store, model), model, 0.0, person=None)
    assert record.outcome.rule is Rule.NO_SCORE
    stored = store.decision(record.observation.id)
    assert stored.observation.person is None
    assert str(stored.cosine) == str(stored.margin) == "nan"


def test_after_a_failure_to_record_the_run_can_be_begun_anew(tmp_path: Path, model: RunningModel):
    store = opened(tmp_path / "other")
    keeper = keeper_of(store, model)
    keep(keeper, model, 15.0)
    store.close()
    with pytest.raises(StorageError):
        keep(keeper, model, 15.0)
    keeper.forget_run()
    assert keeper._recent == {}


def test_names_may_be_anything(store: Store, model: RunningModel):
    keep(keeper_of(store, model), model, 40.0, person=name_of(3) + " 'x' ü")
    assert store.samples("fresh")[0].label.person == "p03 'x' ü"
