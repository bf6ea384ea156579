"""What the teacher is asked about, and what becomes of its answers.

An answer is stored with the samples of its attempt, whatever it says. It is learnt from only if the device can believe
it: if the running student finds the person absurd, or the device just then surely recognised somebody else in the same
attempt, the samples go into quarantine. An attempt about which the teacher abstained stays apart, and is asked about
once more when another teacher answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from device_sim.conditions import LabelCondition, label_state, waits_for_label
from device_sim.holdings import Holdings
from device_sim.learning import Labelled, LearningRules, plausible
from device_sim.occasion import Moment
from device_sim.reception import Reception
from device_sim.records import DecisionRecord, Sample, State
from device_sim.sampling import SampleRules
from device_sim.store import Store
from tutelage.biometrics.matching import Decision
from tutelage.captures import Pixels
from tutelage.labelling import LabelAnswer

IMPLAUSIBLE = "the running student finds this label implausible"
CONTRADICTED = "the device surely recognised somebody else in the same attempt"

Attempt = Sequence[tuple[Sample, Pixels]]
"""The samples that are of one person and are answered for together."""


class LabelRequests:
    """The attempts of one device that wait for a label; not safe for several threads."""

    def __init__(self, store: Store, condition: LabelCondition, learning: LearningRules, sampling: SampleRules) -> None:
        """Ask when `condition` holds; believe what `learning` and `sampling` let be believed."""
        self._store, self._holdings = store, Holdings(store)
        self._condition, self._learning, self._sampling = condition, learning, sampling
        self._teacher_space = ""

    def missing(self, moment: Moment) -> tuple[str, ...]:
        """What is missing before the teacher is asked; empty when the label condition holds."""
        return self._condition.missing(label_state(self._store, moment, teacher_space=self._teacher_space))

    def waiting(self) -> list[Attempt]:
        """The attempts to ask about, with their captures."""
        samples = [s for s in self._store.samples(State.FRESH) if waits_for_label(s, self._teacher_space)]
        attempts: dict[int, list[tuple[Sample, Pixels]]] = {}
        for sample, capture in self._holdings.opened(samples):
            attempts.setdefault(sample.attempt_end, []).append((sample, capture))
        return list(attempts.values())

    def take(self, attempt: Attempt, answer: LabelAnswer, reception: Reception) -> None:
        """Store the teacher's word on one attempt, and quarantine what cannot be believed."""
        self._teacher_space = answer.space
        ids = [sample.id for sample, _ in attempt]
        self._store.label(ids, answer)
        if answer.person is None:
            return
        captures = [capture for _, capture in attempt]
        if self._contradicted(attempt[-1][0], answer.person):
            self._store.mark(ids, State.QUARANTINED, note=CONTRADICTED)
            return
        labelled = [Labelled(capture, answer.person) for capture in captures]
        believed = plausible(reception.model, labelled, self._learning.plausible_rank)
        doubted = [i for i, ok in zip(ids, believed, strict=True) if not ok]
        self._store.mark(doubted, State.QUARANTINED, note=IMPLAUSIBLE)
        if answer.person in reception.model.gallery.persons:  # else erased, or known to the teacher alone
            reception.remember(answer.person, reception.model.features(captures))

    def _contradicted(self, sample: Sample, person: str) -> bool:
        """Whether somebody other than `person` was surely recognised in the attempt of `sample`."""
        return any(seen.observation.person != person for seen in self._sure_of_attempt(sample.attempt_end))

    def _sure_of_attempt(self, attempt_end: int) -> Iterator[DecisionRecord]:
        """Sure recognitions of the attempt whose failures ended with a decision, before and after.

        Where the sensor tells no attempts apart, those that followed within `contradiction_s` seconds.
        """
        near = self._store.decisions(after=attempt_end - 1 - self._sampling.retries * 4)
        end = next((record for record in near if record.observation.id == attempt_end), None)
        if end is None:  # no longer kept
            return
        name, end_s = end.observation.attempt, end.observation.time_s
        for record in near:
            seen = record.observation
            since_s = seen.time_s - end_s
            if since_s > self._sampling.attempt_window_s:
                return
            same = seen.attempt == name if name else 0.0 < since_s <= self._learning.contradiction_s
            if same and seen.decision is Decision.ACCEPT and seen.score >= self._sampling.sample_low:
                yield record
