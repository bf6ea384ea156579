"""What meets captures: the running student, who is enrolled, and all that follows an answer in order.

Any number of threads may ask. A capture is recognised without waiting for anybody; only what follows, to keep it and to
count it, is done one at a time and takes as long as one write to the store. Whoever replaces the student has prepared
everything before and holds the same turn for an instant, so that no capture is answered by a half-swapped model and
none is kept beside features of another space.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from device_sim.activity import Activity
from device_sim.attempts import AttemptCounter
from device_sim.keeping import Keeper
from device_sim.recognition import Neighbours, Recognition, RunningModel
from device_sim.records import DecisionRecord
from device_sim.watch import WatchDecision, WatchRules, WatchVerdict
from tutelage.biometrics.features import Features
from tutelage.biometrics.matching import Decision
from tutelage.captures import Pixels
from tutelage.errors import PackageError, StorageError

_log = structlog.get_logger()


@dataclass(frozen=True)
class Answer:
    """What a capture was answered, and what became of it."""

    recognition: Recognition
    generation: str
    """The student that recognised, like `v3+7`."""
    record: DecisionRecord | None
    """The decision as it was recorded; None where the store failed and nothing was."""
    watched: WatchVerdict | None = None
    """What ends the watch window, where this capture does."""


class Reception:
    """The one place in which a student answers and is replaced; safe for several threads."""

    def __init__(
        self, model: RunningModel, keeper: Keeper, attempts: AttemptCounter, rules: WatchRules, activity: Activity
    ) -> None:
        """Let `model` answer; `keeper` and `attempts` are from now on used by nobody else."""
        self.model, self.keeper, self.activity = model, keeper, activity
        self._attempts, self._rules = attempts, rules
        self._turn = threading.RLock()
        self._ending = False

    @property
    def watching(self) -> bool:
        """Whether a student that was swapped in is still being watched."""
        return self._attempts.verdict(self._rules) is not None

    def answer(self, capture: Pixels, attempt: str) -> Answer:
        """Recognise a capture and follow it up; the answer is given whatever the disk does.

        A failure to keep it is logged, and nothing is kept.
        """
        with self.activity.busy():
            model = self.model
            recognition = model.recognise(capture)
            with self._turn:
                if model is not self.model:  # replaced since: it must not be kept beside features of another space
                    model = self.model
                    recognition = model.recognise(capture)
                record = self._kept(recognition, model.version, capture, attempt)
                watched = self._watched(attempt, accepted=recognition.decision is Decision.ACCEPT)
        return Answer(recognition, model.version, record, watched)

    def _kept(self, recognition: Recognition, generation: str, capture: Pixels, attempt: str) -> DecisionRecord | None:
        try:
            return self.keeper.keep(recognition, generation, capture, attempt)
        except (StorageError, PackageError) as error:
            # What fails here must not cost a person at the door the answer.
            self.keeper.forget_run()
            _log.error("a capture was answered but not followed up", code=error.code.value, reason=error.message)
            return None

    def _watched(self, attempt: str, *, accepted: bool) -> WatchVerdict | None:
        """Count an answer in the watch window; its verdict where that ends it, told once."""
        ended = self._attempts.add(attempt, accepted=accepted)
        verdict = self._attempts.verdict(self._rules) if ended and not self._ending else None
        if verdict is None or verdict.decision is WatchDecision.KEEP_WATCHING:
            return None
        self._ending = True
        return verdict

    def replace(self, model: RunningModel, neighbours: Neighbours, counted: Callable[[AttemptCounter], None]) -> None:
        """Let `model` answer from the next capture on; `neighbours` are the samples kept, in its space.

        `counted` tells the watch window what kind of replacement it is.
        """
        with self._turn:
            self.model, self.keeper.neighbours = model, neighbours
            counted(self._attempts)
            self._ending = False

    def forget(self, model: RunningModel, neighbours: Neighbours) -> None:
        """Let the same student answer without somebody; captures of a run of failures that is not over go too."""
        with self._turn:
            self.model, self.keeper.neighbours = model, neighbours
            self.keeper.forget_run()

    def settle(self) -> None:
        """Stop watching."""
        with self._turn:
            self._attempts.settle()
            self._ending = False

    def enrolled(self, person: str, captures: Sequence[Pixels]) -> None:
        """Let the running student know `person` too, or by more references."""
        model = self.model.with_enrolled(person, captures)
        with self._turn:
            self.model = model

    def remember(self, person: str, features: Features) -> None:
        """Samples of `person` were kept by another way than an answer."""
        with self._turn:
            if features.space == self.keeper.neighbours.space:
                self.keeper.neighbours.add(person, features)
