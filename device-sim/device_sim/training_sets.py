"""Training sets: which samples are learnt from together, which are held back, and what becomes of them afterwards.

All labelled samples no training has seen become one numbered set. A part of it is held back for the gate, by whole
attempts, since captures of one moment are alike; the rest is learnt from, together with what earlier sets were. When
the training is over:

- the gate let the student pass, or refused it for its latency alone: the samples are *used*, and replayed in every
  later training;
- the gate refused it, or the training came to nothing: they are *used* too, and the refusal is noted. They are tried
  again, but only once enough new samples have come to start another training: the same samples would make the same
  student. After as many refusals as there are `NOTES` they are *quarantined*, so that one set of wrong labels cannot
  keep a device from learning for ever;
- held-back samples stay held back: a later student must not lose them either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from device_sim.gate import Verdict
from device_sim.records import Sample, State
from device_sim.store import Store

HELD_BACK = 4
"""Every fourth attempt is held back."""
MIN_ATTEMPTS = 2
"""Attempts to hold back, at least: the captures of one alone are nearly one capture."""
MAX_LEARNT = 1000
"""Latest samples learnt from at once: more would take the worker's memory, and no training draws so many."""
NOTES = (
    "learnt from",
    "learnt from, and the student was refused",
    "learnt from, and the student was refused twice in a row",
)
"""Note of a used sample, by the refusals since the last training with it that passed."""
UNLEARNT = "the student that had learnt from it was deleted"
"""Note of a sample that is fresh again."""
_ONCE_TOO_OFTEN = f"in {len(NOTES)} trainings in a row whose student was refused"


@dataclass(frozen=True)
class Division:
    """Fresh samples divided."""

    learnt: tuple[Sample, ...]
    held_back: tuple[Sample, ...]

    def missing(self, held_before: int, needed: int) -> tuple[str, ...]:
        """What the gate would lack, with `held_before` samples held back earlier and `needed` in all; empty if none."""
        attempts = len({sample.attempt_end for sample in self.held_back})
        held = held_before + len(self.held_back)
        lacks = []
        if attempts < MIN_ATTEMPTS:
            lacks.append(f"{attempts} of {MIN_ATTEMPTS} attempts to hold back for the gate")
        if held < needed:
            lacks.append(f"{held} of {needed} samples to hold back for the gate")
        return tuple(lacks)


def divide(samples: Sequence[Sample]) -> Division:
    """`samples` with a known person, divided so that the part held back has kinds and persons as the whole has them."""
    attempts: dict[int, list[Sample]] = {}
    for sample in samples:
        attempts.setdefault(sample.attempt_end, []).append(sample)
    # Sorted, every fourth takes its share of each kind and person, whatever order they came in.
    ordered = sorted(attempts.values(), key=lambda group: (group[0].kind, person_of(group[0]), group[0].attempt_end))
    held = {group[0].attempt_end for i, group in enumerate(ordered) if i % HELD_BACK == HELD_BACK - 1}
    return Division(
        tuple(s for s in samples if s.attempt_end not in held), tuple(s for s in samples if s.attempt_end in held)
    )


class TrainingSets:
    """The training sets of one store."""

    def __init__(self, store: Store) -> None:
        """Keep nothing but what the store keeps."""
        self._store = store

    def known(self, *states: State) -> list[Sample]:
        """Samples in `states` that are known to be of somebody who is enrolled here, oldest first."""
        enrolled = set(self._store.persons())
        return [s for s in self._store.samples(*states) if person_of(s) in enrolled]

    def next_number(self) -> int:
        """Number for the next set, never given before."""
        return 1 + max((s.training_set or 0 for s in self._store.samples(*State)), default=0)

    def begin(self, number: int, division: Division) -> None:
        """Give set `number` to a division's samples: from now on, those held back are."""
        self._mark(division.held_back, State.HELD_BACK, "held back for the gate", number)
        self._mark(division.learnt, State.FRESH, "", number)

    def to_learn(self, fresh: Iterable[Sample]) -> list[Sample]:
        """What a training with `fresh` learns from: them and the used ones, the latest of all."""
        samples = sorted([*self.known(State.USED), *fresh], key=lambda sample: sample.id)
        return samples[-MAX_LEARNT:]

    def being_learnt(self, number: int) -> list[Sample]:
        """The samples of set `number` that wait for the outcome of their training."""
        return [s for s in self.known(State.FRESH) if s.training_set == number]

    def learnt(self, number: int) -> None:
        """Set `number` and what was used before were learnt from, and nothing speaks against them."""
        used = self.to_learn(self.being_learnt(number))
        changed = [s for s in used if s.state is State.FRESH or _refusals(s)]
        self._mark(changed, State.USED, NOTES[0])

    def refused(self, number: int) -> None:
        """Nothing came of set `number` and of what was used before, through their fault or nobody's."""
        by_refusals: dict[int, list[Sample]] = {}
        for sample in self.to_learn(self.being_learnt(number)):
            if sample.state is State.FRESH or _refusals(sample):
                by_refusals.setdefault(_refusals(sample) + 1, []).append(sample)
        for refusals, samples in by_refusals.items():
            if refusals < len(NOTES):
                self._mark(samples, State.USED, NOTES[refusals])
            else:
                self._mark(samples, State.QUARANTINED, _ONCE_TOO_OFTEN)

    def unlearnt(self, latest: int) -> None:
        """Sets after number `latest` were learnt by students that are gone: what others gave them is fresh again."""
        gone = [s for s in self.known(State.USED) if (s.training_set or 0) > latest and s.note == NOTES[0]]
        self._mark(gone, State.FRESH, UNLEARNT)

    def _mark(self, samples: Iterable[Sample], state: State, note: str, number: int | None = None) -> None:
        self._store.mark([s.id for s in samples], state, note=note, training_set=number)


def blames_samples(verdict: Verdict) -> bool:
    """Whether a refusal may be the samples' fault."""
    return any(not check.passed and check.name != "latency" for check in verdict.checks)


def person_of(sample: Sample) -> str:
    """Person of the sample's label; empty where nobody was named."""
    return (sample.label.person or "") if sample.label is not None else ""


def _refusals(sample: Sample) -> int:
    return NOTES.index(sample.note) if sample.state is State.USED and sample.note in NOTES else 0
