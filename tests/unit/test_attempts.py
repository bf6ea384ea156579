"""How attempts end, and what the watch is told: every ending counted once, restarts and reverts included."""

from __future__ import annotations

import pytest
from device_store import record_of, seen

from device_sim.attempts import AttemptCounter
from device_sim.sampling import SampleRules, judge
from device_sim.store import Store
from device_sim.watch import Tally, WatchDecision, WatchRules

RULES = WatchRules(window_captures=60, min_captures=10)


def counted(counter: AttemptCounter) -> Tally:
    """What is known of the attempts before a swap made now."""
    counter.swapped()
    return counter._before


def fail(counter: AttemptCounter, attempt: str, times: int = 3) -> list[bool]:
    return [counter.add(attempt, accepted=False) for _ in range(times)]


def test_an_attempt_ends_with_acceptance_or_with_the_last_retry():
    counter = AttemptCounter(retries=3)
    assert counter.add("a", accepted=True)
    assert fail(counter, "b") == [False, False, True]
    assert [counter.add("c", accepted=False), counter.add("c", accepted=True)] == [False, True]
    assert counted(counter) == Tally(captures=6, attempts=3, failed=1, retried=2)


def test_who_gives_up_before_the_last_retry_has_failed():
    counter = AttemptCounter(retries=3)
    assert fail(counter, "a", 2) == [False, False]
    assert counter.add("b", accepted=True)
    assert counted(counter) == Tally(captures=3, attempts=2, failed=1, retried=1)


def test_giving_up_is_an_ending_of_its_own_even_if_the_next_capture_ends_nothing():
    counter = AttemptCounter(retries=3)
    fail(counter, "a", 1)
    assert counter.add("b", accepted=False)


def test_a_sensor_that_knows_no_attempts_has_one_after_the_other():
    counter = AttemptCounter(retries=2)
    ends = [counter.add("", accepted=accepted) for accepted in (True, False, False, False, True)]
    assert ends == [True, False, True, False, True]
    assert counted(counter) == Tally(captures=5, attempts=3, failed=1, retried=2)


def test_only_the_latest_attempts_are_the_measure():
    counter = AttemptCounter(retries=1, window=4)
    for accepted in (False,) * 10 + (True,) * 3:
        counter.add("", accepted=accepted)
    assert counted(counter) == Tally(captures=4, attempts=4, failed=1, retried=0)


def test_nothing_is_watched_before_a_swap_and_after_it_is_settled():
    counter = AttemptCounter(retries=3)
    counter.add("a", accepted=True)
    assert counter.verdict(RULES) is None
    counter.swapped()
    assert counter.verdict(RULES).decision is WatchDecision.KEEP_WATCHING
    counter.settle()
    assert counter.verdict(RULES) is None


def test_a_watch_reverts_a_student_that_fails_and_passes_one_that_does_not():
    for accepted, decision in ((False, WatchDecision.REVERT), (True, WatchDecision.PASSED)):
        counter = AttemptCounter(retries=1)
        for _ in range(60):
            counter.add("", accepted=True)
        counter.swapped()
        for _ in range(60):
            counter.add("", accepted=accepted)
        assert counter.verdict(RULES).decision is decision


def test_what_was_counted_under_a_reverted_student_is_no_measure_for_the_next():
    counter = AttemptCounter(retries=3)
    for i in range(20):
        counter.add(f"a{i}", accepted=True)
    counter.swapped()
    for i in range(8):
        fail(counter, f"b{i}")
    fail(counter, "c", 1)  # still open
    counter.reverted()
    assert counter.verdict(RULES) is None
    counter.add("d", accepted=True)
    assert counted(counter) == Tally(captures=21, attempts=21, failed=0, retried=0)


@pytest.fixture
def store():
    with Store.in_memory(key=bytes(32), clock=iter(range(1, 10_000)).__next__) as store:
        yield store


def decided(store: Store, score: float, generation: str, attempt: str) -> None:
    observation = seen(store, score, attempt=attempt)
    store.record(record_of(observation, judge(SampleRules(), observation, ()), generation=generation), {})


def test_a_watch_goes_on_after_a_restart_where_it_was(store: Store):
    for i in range(5):
        decided(store, 70.0, "v1", f"a{i}")
    for i in range(4):
        decided(store, 20.0, "v1+1", f"b{i}")
    counter = AttemptCounter.replayed(1, store.decisions(), watched="v1+1")
    assert counter._before == Tally(captures=5, attempts=5, failed=0, retried=0)
    assert counter._since == Tally(captures=4, attempts=4, failed=4, retried=0)


def test_a_watch_of_which_nothing_was_seen_yet_goes_on_too(store: Store):
    decided(store, 70.0, "v1", "a")
    counter = AttemptCounter.replayed(1, store.decisions(), watched="v1+1")
    assert (counter._before.attempts, counter._since) == (1, Tally())


def test_without_an_open_watch_the_past_is_only_counted(store: Store):
    decided(store, 70.0, "v1+1", "a")
    counter = AttemptCounter.replayed(1, store.decisions(), watched="")
    assert counter.verdict(RULES) is None
    assert counted(counter).attempts == 1
