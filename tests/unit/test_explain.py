from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from device_sim.explain import explain_decision, explain_sample
from device_sim.records import DecisionRecord, State
from device_sim.sampling import Observation, Sampler, SampleRules
from device_sim.store import Store
from tutelage.biometrics.matching import Decision
from tutelage.errors import UsageError
from tutelage.labelling import LabelAnswer

START_S = 1_767_608_000.0
SAME = "Made again from the recorded numbers, the rules give the same answer."


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "device.db"


@pytest.fixture
def store(path: Path):
    with Store.open(path, key=bytes(32), clock=lambda: START_S) as opened:
        yield opened


def feed(store: Store, *scores: float, generation: str = "v3+7", person: str | None = "anna") -> list[int]:
    """Recognise one capture a second and keep what the rules keep; returns the ids of the samples."""
    sampler, held, kept = Sampler(SampleRules()), {}, []
    for second, score in enumerate(scores):
        own = store.next_decision_id()
        decision = Decision.ACCEPT if score >= 30 else Decision.REJECT if person else Decision.UNKNOWN
        seen = Observation(
            own,
            START_S + second,
            "a-7",
            person,
            score,
            score > 40,
            decision,
            score,
            duplicate_cosine=0.81,
            kept_today=3,
        )
        outcome = sampler.observe(seen)
        held[own] = np.arange(256, dtype=np.uint8).reshape(16, 16)
        wanted = {"first": (own,), "second": outcome.captures, "nothing": ()}[outcome.kind]
        record = DecisionRecord(seen, 0.6125, 0.2, "sha256:ab", generation, outcome)
        kept += store.record(record, {of: held[of] for of in wanted})
    return kept


def test_a_first_sample_is_explained_in_plain_words(store: Store):
    (sample,) = feed(store, 41.26)
    assert explain_sample(store, sample) == [
        "Sample 1 was captured on 2026-01-05 10:13:20 UTC and kept as a first sample.",
        "Generation v3+7 answered accept in attempt a-7: nearest was anna with cosine 0.6125, score 41.3 "
        "(extrapolated beyond what was measured).",
        "Rule sample-interval: score 41.3 lies in the sample interval 33 to 60.",
        "Limits: 3 of 10 allowed samples of the person that day; the nearest kept sample had cosine 0.8100 "
        "(limit 0.995); score against the original references 41.3 (limit 33).",
        "Label: anna, said by the device itself, which matched that person.",
        "It is fresh: no training has seen it yet.",
        SAME,
    ]


def test_a_second_sample_names_its_attempt_and_waits_for_a_label(store: Store):
    samples = feed(store, 70.0, 20.0, 12.0, 5.0)
    lines = explain_sample(store, samples[0])
    assert lines[1].endswith("cosine 0.6125, score 20.0 (within what was measured).")
    assert lines[2:6] == [
        "Rule repeated-failure: 3 consecutive scores below 30 within 30 s, the last one 5.0.",
        "The captures of that failed attempt, all of one person, are those of decisions 2, 3, 4.",
        "Limits: 0 of 300 allowed second samples that day.",
        "Label: none yet; the teacher has not answered.",
    ]
    assert lines[-1] == SAME


def test_it_says_who_said_so_and_what_became_of_it(store: Store):
    samples = feed(store, 20.0, 12.0, 5.0)
    store.label(samples[:2], LabelAnswer("ben", 0.93, 0.21, {"ben": 0.93}, "placement borrowed", "sha256:cd"))
    store.label(samples[2:], LabelAnswer(None, 0.0, 0.0, {}, "no face was found", "sha256:cd"))
    store.mark(samples[:1], State.USED, note="learnt by v3+8", training_set=5)
    store.mark(samples[1:2], State.QUARANTINED, note="anna was recognised there a minute before")
    used, quarantined, abstained = (explain_sample(store, i) for i in samples)
    taught = (
        "Label: ben, said by the teacher of space sha256:cd with confidence 0.93 and margin 0.21: placement borrowed."
    )
    assert used[5:-1] == [
        taught,
        "A training has learnt from it.",
        "It belongs to training set 5.",
        "Reason given: learnt by v3+8.",
    ]
    assert quarantined[5:-1] == [
        taught,
        "It is quarantined: kept, but neither learnt from nor judged with.",
        "Reason given: anna was recognised there a minute before.",
    ]
    assert abstained[5] == "Label: none; the teacher of space sha256:cd abstained: no face was found."


def test_a_dropped_sample_can_still_be_explained(store: Store):
    (sample,) = feed(store, 35.0)
    store.mark([sample], State.DROPPED, note="its place in the store was needed")
    assert explain_sample(store, sample)[-3:] == [
        "Its capture was dropped and cannot be restored.",
        "Reason given: its place in the store was needed.",
        SAME,
    ]


def test_where_nobody_is_enrolled_nobody_is_named(store: Store):
    samples = feed(store, 0.0, 0.0, 0.0, person=None, generation="")
    assert explain_sample(store, samples[0])[1] == (
        "Space sha256:ab answered unknown in attempt a-7: nobody was enrolled."
    )


def test_a_capture_that_was_not_kept_is_explained_too(store: Store):
    feed(store, 70.0)
    assert explain_decision(store, 1) == [
        "Decision 1 was made on 2026-01-05 10:13:20 UTC.",
        "Generation v3+7 answered accept in attempt a-7: nearest was anna with cosine 0.6125, score 70.0 "
        "(extrapolated beyond what was measured).",
        "Not kept by the rule above-interval: score 70.0 is not below 60: boring.",
        SAME,
    ]


def test_every_kind_of_verdict_replays_from_the_store(store: Store):
    feed(store, 70.0, 31.0, 20.0, 20.0, float("nan"), 20.0, 20.0, 20.0, 45.0)
    assert [explain_decision(store, i)[-1] for i in range(1, 10)] == [SAME] * 9


def test_a_changed_record_does_not_go_unnoticed(store: Store, path: Path):
    (sample,) = feed(store, 41.0)
    raw = sqlite3.connect(path)
    with raw:
        raw.execute("UPDATE decisions SET score = 70.0")
    raw.close()
    assert explain_sample(store, sample)[-1] == (
        "Made again from the recorded numbers, the rules say above-interval: the record was changed."
    )


def test_an_unknown_sample_is_said_so(store: Store):
    with pytest.raises(UsageError, match="99"):
        explain_sample(store, 99)
