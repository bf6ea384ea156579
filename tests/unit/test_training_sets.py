"""Training sets: what is held back, what is learnt, and what becomes of it; never for ever, never lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from device_store import keep_first, keep_second, opened
from toy_device import finger

from device_sim.gate import Check, GateRules, Verdict
from device_sim.records import Sample, State
from device_sim.store import Store
from device_sim.training_sets import MAX_LEARNT, NOTES, Division, TrainingSets, blames_samples, divide
from tutelage.labelling import LabelAnswer


@pytest.fixture
def store(tmp_path: Path):
    with opened(tmp_path / "store") as store:
        for person in ("anna", "bert"):
            store.enrol(person, [finger(0, 0)])
        yield store


def fill(store: Store, first: int, second: int, person: str = "anna") -> None:
    for _ in range(first):
        keep_first(store, finger(0, 1), person=person)
    for _ in range(second):
        answer = LabelAnswer(person, 0.9, 0.3, {person: 0.9}, "", "t")
        store.label(keep_second(store, lambda: finger(0, 2), person=person), answer)


def states(store: Store) -> Counter[tuple[str, str]]:
    return Counter((s.state.value, s.note) for s in store.samples(*State))


def begun(store: Store) -> tuple[TrainingSets, int]:
    sets = TrainingSets(store)
    number = sets.next_number()
    sets.begin(number, divide(sets.known(State.FRESH)))
    return sets, number


def test_whole_attempts_are_held_back_in_the_shares_of_kinds_and_persons(store: Store):
    fill(store, 8, 8, "anna")
    fill(store, 8, 8, "bert")
    division = divide(TrainingSets(store).known(State.FRESH))
    assert len(division.learnt) + len(division.held_back) == 64
    held = Counter((s.kind.value, s.label.person) for s in division.held_back)
    assert held == {("first", "anna"): 2, ("first", "bert"): 2, ("second", "anna"): 6, ("second", "bert"): 6}
    assert not {s.attempt_end for s in division.learnt} & {s.attempt_end for s in division.held_back}


def test_the_division_does_not_depend_on_the_order_of_the_samples(store: Store):
    fill(store, 9, 5)
    samples = TrainingSets(store).known(State.FRESH)
    assert {s.id for s in divide(samples).held_back} == {s.id for s in divide(samples[::-1]).held_back} != set()


def test_what_the_gate_would_lack_is_said(store: Store):
    fill(store, 7, 0)
    few = divide(TrainingSets(store).known(State.FRESH))
    assert few.missing(held_before=0, needed=5) == (
        "1 of 2 attempts to hold back for the gate",
        "1 of 5 samples to hold back for the gate",
    )
    fill(store, 1, 0)
    enough = divide(TrainingSets(store).known(State.FRESH))
    assert enough.missing(held_before=0, needed=5) == ("2 of 5 samples to hold back for the gate",)
    assert enough.missing(held_before=3, needed=5) == ()
    assert Division((), ()).missing(100, 5) == ("0 of 2 attempts to hold back for the gate",)


def test_only_samples_whose_person_is_known_and_enrolled_count(store: Store):
    fill(store, 1, 1)
    keep_first(store, finger(0, 1), person="gone")
    keep_second(store, lambda: finger(0, 2))  # nobody was asked
    store.label(keep_second(store, lambda: finger(0, 2)), LabelAnswer(None, 0.0, 0.0, {}, "too dark", "t"))
    known = TrainingSets(store).known(State.FRESH)
    assert [(s.kind.value, s.label.person) for s in known] == [("first", "anna"), *[("second", "anna")] * 3]


def test_sets_are_numbered_and_no_number_comes_twice(store: Store):
    fill(store, 8, 0)
    sets, first = begun(store)
    assert first == 1
    assert {s.training_set for s in store.samples(*State)} == {1}
    assert sets.next_number() == 2
    store.mark([s.id for s in store.samples(*State)], State.DROPPED, note="gone")
    assert sets.next_number() == 2


def test_samples_that_come_while_it_trains_belong_to_no_set(store: Store):
    fill(store, 8, 0)
    sets, number = begun(store)
    fill(store, 3, 0)
    sets.learnt(number)
    assert states(store) == {("used", NOTES[0]): 6, ("held-back", "held back for the gate"): 2, ("fresh", ""): 3}


def test_used_samples_are_learnt_again_with_the_next_set_and_held_back_ones_never(store: Store):
    fill(store, 8, 0)
    sets, number = begun(store)
    sets.learnt(number)
    fill(store, 8, 0)
    division = divide(sets.known(State.FRESH))
    learnt = sets.to_learn(division.learnt)
    assert len(learnt) == 12
    assert {s.state for s in learnt} == {State.USED, State.FRESH}
    assert [s.id for s in learnt] == sorted(s.id for s in learnt)


def test_a_refused_set_is_tried_again_but_not_for_ever(store: Store):
    fill(store, 8, 0)
    sets, number = begun(store)
    seen = []
    for _ in range(len(NOTES)):
        sets.refused(number)
        seen.append({s.state.value: s.note for s in store.samples(State.USED, State.QUARANTINED) if s.id <= 6})
        fill(store, 4, 0)
        number = sets.next_number()
        sets.begin(number, divide(sets.known(State.FRESH)))
    assert seen[0] == {"used": NOTES[1]}
    assert seen[1] == {"used": NOTES[2]}
    assert seen[2] == {"quarantined": "in 3 trainings in a row whose student was refused"}


def test_a_training_that_passes_clears_what_was_refused_before(store: Store):
    fill(store, 8, 0)
    sets, number = begun(store)
    sets.refused(number)
    fill(store, 4, 0)
    number = sets.next_number()
    sets.begin(number, divide(sets.known(State.FRESH)))
    sets.learnt(number)
    assert {s.note for s in store.samples(State.USED)} == {NOTES[0]}


def test_what_passed_once_is_not_blamed_for_later_refusals(store: Store):
    fill(store, 8, 0)
    sets, number = begun(store)
    sets.learnt(number)
    for _ in range(len(NOTES)):
        fill(store, 4, 0)
        number = sets.next_number()
        sets.begin(number, divide(sets.known(State.FRESH)))
        sets.refused(number)
    proven = [s for s in store.samples(*State) if s.training_set == 1 and s.state is not State.HELD_BACK]
    assert {(s.state, s.note) for s in proven} == {(State.USED, NOTES[0])}


def test_a_training_learns_from_the_latest_samples_alone_when_there_are_too_many(store: Store):
    fill(store, 1, 0)
    (one,) = store.samples(State.FRESH)
    many = [replace(one, id=i) for i in range(1, MAX_LEARNT + 3)]
    assert [s.id for s in TrainingSets(store).to_learn(many)] == list(range(3, MAX_LEARNT + 3))


def verdict(*failed: str) -> Verdict:
    names = ("held-back", "persons", "references", "strangers", "strangers-near", "other-persons", "latency")
    checks = tuple(Check(name, name not in failed, "", {}) for name in names)
    return Verdict(not failed, checks, GateRules())


@pytest.mark.parametrize(
    ("failed", "blamed"),
    [((), False), (("latency",), False), (("held-back",), True), (("strangers", "latency"), True)],
)
def test_latency_is_not_the_samples_fault(failed: tuple[str, ...], blamed: bool):
    assert blames_samples(verdict(*failed)) is blamed


def test_an_empty_store_has_nothing_to_learn(store: Store):
    sets = TrainingSets(store)
    assert (sets.known(*State), sets.next_number(), sets.to_learn([]), divide([])) == ([], 1, [], Division((), ()))
    sets.learnt(1)
    sets.refused(1)
    assert store.samples(*State) == ()


def test_eviction_in_between_is_no_matter(store: Store):
    fill(store, 8, 0)
    sets, number = begun(store)
    fresh: list[Sample] = sets.being_learnt(number)
    store.mark([fresh[0].id], State.DROPPED, note="its place in the store was needed")
    sets.learnt(number)
    assert len(store.samples(State.USED)) == len(fresh) - 1
