"""What a device keeps of what it answers: the sample rules judge every capture, and their verdict is carried out.

Every decision is recorded with all that was looked at; captures are kept only where the rules say so. Those of a run of
failures wait in memory until the run is over, since only its end decides about them: `retries` captures at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from device_sim.recognition import Neighbours, Recognition
from device_sim.records import DecisionRecord
from device_sim.sampling import NO_NEIGHBOUR, Kind, Liveness, Observation, Sampler, SampleRules
from device_sim.store import Store
from tutelage.captures import Pixels


class Keeper:
    """Follows the captures of one sensor in order; not safe for several threads."""

    def __init__(
        self,
        store: Store,
        rules: SampleRules,
        *,
        whole_attempts: bool,
        liveness: Liveness,
        clock: Callable[[], float],
        neighbours: Neighbours,
    ) -> None:
        """Start with no failures behind; with `whole_attempts` all captures of a failed attempt are kept."""
        self.neighbours = neighbours
        self._store, self._rules, self._whole_attempts = store, rules, whole_attempts
        self._liveness, self._clock = liveness, clock
        self.forget_run()

    def forget_run(self) -> None:
        """Let the next capture begin a new run of failures."""
        self._sampler = Sampler(self._rules)
        self._recent: dict[int, Pixels] = {}

    def keep(self, answer: Recognition, generation: str, capture: Pixels, attempt: str) -> DecisionRecord:
        """Record the answer that `generation` gave, and keep what the rules say.

        Raises:
            StorageError: nothing was recorded or kept; the run of failures has a hole in it now.
        """
        record = self._judged(answer, generation, capture, attempt)
        person = answer.match.person
        self._recent[record.observation.id] = capture
        self._store.record(record, self._captures_of(record))
        self._recent = {i: c for i, c in self._recent.items() if i in record.outcome.captures}
        if record.outcome.kind is Kind.FIRST and person is not None:
            self.neighbours.add(person, answer.features)
        return record

    def _judged(self, answer: Recognition, generation: str, capture: Pixels, attempt: str) -> DecisionRecord:
        """The rules' verdict on a capture, with everything they looked at."""
        now, match = self._clock(), answer.match
        person = match.person
        observation = Observation(
            id=self._store.next_decision_id(),
            time_s=now,
            attempt=attempt,
            person=person,
            score=answer.score,
            extrapolated=answer.extrapolated,
            decision=answer.decision,
            reference_score=answer.score,  # the gallery holds nothing but the original references
            duplicate_cosine=self.neighbours.nearest(person, answer.features) if person else NO_NEIGHBOUR,
            kept_today=self._store.kept_today(person, now) if person else 0,
            second_today=self._store.second_today(now),
            live=self._liveness.live(capture),
        )
        outcome = self._sampler.observe(observation)
        cosine, margin = (match.cosine, match.margin) if person else (math.nan, math.nan)
        return DecisionRecord(observation, cosine, margin, answer.features.space, generation, outcome)

    def _captures_of(self, record: DecisionRecord) -> dict[int, Pixels]:
        """The captures that the outcome of `record` keeps, by decision id."""
        if record.outcome.kind is Kind.NOTHING:
            return {}
        whole = record.outcome.kind is Kind.SECOND and self._whole_attempts
        wanted = record.outcome.captures if whole else (record.observation.id,)
        return {i: self._recent[i] for i in wanted if i in self._recent}
