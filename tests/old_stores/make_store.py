"""A store with a life in it, made by the calls that every release of the device has had: for the tests of migrations.

`layout-N.sqlite` beside this file was made by the last release that wrote layout N, from a checkout of it:

    PYTHONPATH=CHECKOUT/device-sim:CHECKOUT/src python tests/old_stores/make_store.py tests/old_stores/layout-N.sqlite

`life_of` then tells the same of an old store that was brought up to date as of one made now.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from device_sim.events import EventKind
from device_sim.records import DecisionRecord, Sample, State
from device_sim.sampling import Kind, Observation, Sampler, SampleRules
from device_sim.store import Store
from tutelage.biometrics.matching import Decision
from tutelage.labelling import LabelAnswer

KEY = bytes(range(32))
PERSONS = ("anna", "Bérénice", "person-0123456789abcdef", 'o\'neil \\ "x"')
"""Names with what a careless migration would trip over: accents, quotes, and the looks of a pseudonym."""


def capture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)


def make_store(path: Path) -> None:
    with Store.open(path, key=KEY, clock=itertools.count(1_000_000.0).__next__) as store:
        for number, person in enumerate(PERSONS):
            store.enrol(person, [capture(10 * number), capture(10 * number + 1)])
        numbers = itertools.count(100)
        samples = [_failed_attempt(store, person, numbers) for person in (*PERSONS, None)]
        firsts = [_accepted(store, person, next(numbers)) for person in PERSONS]
        soft = {PERSONS[1]: 0.7, PERSONS[0]: 0.2, "only the teacher knows": 0.1}
        store.label(samples[0], LabelAnswer(PERSONS[1], 0.7, 0.4, soft, "", "teacher/1"))
        store.label(samples[1], LabelAnswer(None, 0.0, 0.1, soft, "two persons too alike", "teacher/1"))
        store.label(samples[2], LabelAnswer("only the teacher knows", 0.9, 0.5, {}, "", "teacher/1"))
        store.mark(firsts[:2], State.USED, note="learnt from", training_set=1)
        store.mark(firsts[2:3], State.HELD_BACK, note="held back for the gate", training_set=1)
        store.mark(samples[3][:1], State.DROPPED, note="asked for")
        store.add_event(EventKind.TRAINING_STARTED, "the training condition holds", {"samples": 2, "x": 0.1}, "v3+8")


def _failed_attempt(store: Store, person: str | None, numbers: itertools.count[int]) -> tuple[int, ...]:
    sampler, held, kept = Sampler(SampleRules()), {}, ()
    for score in (20.0, 10.0, 15.0):
        seen = _seen(store, person, score, Decision.REJECT)
        held[seen.id] = capture(next(numbers))
        outcome = sampler.observe(seen)
        record = DecisionRecord(seen, 0.625, 0.25, "sha256:ab", "v3+7", outcome)
        kept = store.record(record, held if outcome.kind is Kind.SECOND else {})
    return kept


def _accepted(store: Store, person: str, number: int) -> int:
    seen = _seen(store, person, 40.0 + number / 7, Decision.ACCEPT)
    record = DecisionRecord(seen, 0.9, float("nan"), "sha256:ab", "v3+7", Sampler(SampleRules()).observe(seen))
    return store.record(record, {seen.id: capture(number)})[0]


def _seen(store: Store, person: str | None, score: float, decision: Decision) -> Observation:
    at_s = 1000.0 + store.next_decision_id()
    return Observation(store.next_decision_id(), at_s, "a1", person, score, False, decision, reference_score=score)


def life_of(store: Store) -> dict[str, Any]:
    """Everything that a store tells, captures as bytes; the numbers that are no number as words."""
    samples = store.samples(*State)
    return {
        "persons": store.persons(),
        "references": [(r, store.reference_capture(r.id).tobytes()) for r in store.references()],
        "decisions": [repr(decision) for decision in store.decisions()],
        "samples": [repr(_as_first_told(sample)) for sample in samples],
        "captures": {s.id: store.sample_capture(s.id).tobytes() for s in samples if s.state is not State.DROPPED},
        "events": [repr(event) for event in store.events()],
        "kept today": [store.kept_today(person, 1000.0) for person in PERSONS],
        "next": store.next_decision_id(),
    }


def _as_first_told(sample: Sample) -> Sample:
    """A sample without what later releases tell of a label besides."""
    if sample.label is None:
        return sample
    answer = {name: sample.label.answer[name] for name in ("soft", "reason", "space") if name in sample.label.answer}
    return replace(sample, label=replace(sample.label, answer=answer))


if __name__ == "__main__":
    make_store(Path(sys.argv[1]))
