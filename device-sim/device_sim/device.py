"""The device: recognises, keeps what is worth learning from, asks for labels, trains, judges, swaps and reverts.

This module is the main path of a device, top to bottom; each step is one method and stands in the store as an event
with its reason. The parts it plays on are elsewhere: rules (`sampling`, `conditions`), what meets captures
(`reception`, `recognition`, `keeping`, `attempts`), what is kept (`store`, `holdings`), labels (`learning`), training
sets and their fate (`trainings`, `training_sets`), the worker (`training`), students and how they follow each other
(`succession`, `gate`, `watch`, `generations`).

Threads: any number may recognise; they wait for each other only as long as one write to the store takes. Whatever
changes who is enrolled, what is learnt or which student recognises is done one at a time, under the lock `work`, and
never makes a recognition wait: what is slow is prepared beside the running student. Nobody holds `work` while the
teacher is asked or the worker trains. Who is enrolled is changed here and at the teacher together, under the lock
`persons`, which is taken before `work`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import structlog

from device_sim.activity import Activity
from device_sim.device_settings import DeviceKeys, DeviceSettings
from device_sim.erasure import REASON, Erased, Erasures
from device_sim.events import EventKind
from device_sim.gate import Verdict
from device_sim.generations import Booted, Generations
from device_sim.holdings import Holdings
from device_sim.label_requests import LabelRequests
from device_sim.occasion import Moment
from device_sim.reception import Answer, Reception
from device_sim.recognition import Recognition, RunningModel
from device_sim.rotation import settle_jobs
from device_sim.sampling import Liveness, PassThroughLiveness
from device_sim.store import Store
from device_sim.succession import Succession
from device_sim.training import Training
from device_sim.training_sets import TrainingSets
from device_sim.trainings import Trainings
from device_sim.watch import WatchVerdict
from tutelage.captures import Pixels, check_capture
from tutelage.errors import StorageError, TutelageError
from tutelage.labelling import Labeller
from tutelage.package import StudentPackage

POLL_S = 0.05
"""How often a training that is waited for is looked at."""

_log = structlog.get_logger()


def _at_once(work: Callable[[], None]) -> None:
    work()


class Device:
    """One device; safe for several threads."""

    work: threading.RLock
    """Held by whoever changes who is enrolled, what is learnt or which student recognises."""
    persons: threading.RLock
    """Held by whoever enrols or erases, also while the teacher is told of it."""

    def __init__(
        self,
        store: Store,
        generations: Generations,
        labeller: Labeller,
        keys: DeviceKeys,
        *,
        jobs: Path,
        settings: DeviceSettings | None = None,
        liveness: Liveness | None = None,
        clock: Callable[[], float],
        later: Callable[[Callable[[], None]], object] = _at_once,
    ) -> None:
        """Boot from the newest package that can be trusted; every enrolled person is enrolled at once.

        The labeller is asked for nothing: one that forgets at a restart has to be told of the persons again. `later`
        runs what nobody at the door should wait for, by default at once; in the order given, one after the other.

        Raises:
            PackageError: there is no package to boot from.
            StorageError: the store failed, or a reference in it is damaged.
        """
        self.store, self.generations, self.labeller = store, generations, labeller
        self.settings = settings or DeviceSettings()
        self.work, self.persons = threading.RLock(), threading.RLock()
        self._clock, self._later = clock, later
        self._holdings, self._sets = Holdings(store), TrainingSets(store)
        own = self.settings
        self._labels = LabelRequests(store, own.labels, own.learning, own.sampling)
        self._erasures = Erasures(store, generations, jobs=jobs, signer=keys.signer, clock=clock)
        settle_jobs(jobs, keys.store)
        self._erasures.resume()
        self._succession = Succession(
            store, generations, keys, self.settings, liveness=liveness or PassThroughLiveness(), clock=clock
        )
        self._trainings = Trainings(store, self._succession, keys, self.settings, jobs=jobs, clock=clock)

    @property
    def model(self) -> RunningModel:
        """What answers captures; replaced as a whole."""
        return self.reception.model

    @property
    def reception(self) -> Reception:
        """What meets captures."""
        return self._succession.reception

    @property
    def activity(self) -> Activity:
        """How long nobody was recognised."""
        return self.reception.activity

    @property
    def package(self) -> StudentPackage:
        """The package whose student answers."""
        return self._succession.package

    @property
    def training(self) -> Training | None:
        """The training under way."""
        return self._trainings.current

    # Recognition

    def enrol(self, person: str, captures: Sequence[Pixels]) -> int:
        """Make `person` known here and to the teacher; who is known gets further references; how many there are now.

        Raises:
            CaptureError: one of the captures is none; nobody was enrolled.
            InputError: the teacher cannot use any of the captures; nobody was enrolled.
            StorageError: the store is full or failed; nobody was enrolled.
        """
        captures = [check_capture(capture) for capture in captures]
        with self.persons:
            known = self._holdings.references_of(person)
            self.labeller.enrol(person, [*known, *captures])
            try:
                with self.work:
                    self.store.enrol(person, captures)
                    self.reception.enrolled(person, captures)
            except StorageError:
                if known:
                    self.labeller.enrol(person, known)
                else:
                    self.labeller.remove(person)
                raise
        return len(known) + len(captures)

    def erase(self, person: str) -> Erased:
        """Erase `person` for good, here and at the teacher; a repeated call gives the first one's receipt.

        Raises:
            PersonError: neither the device nor the teacher knows anybody of that name, and nobody of it was erased.
            PackageError: there is no student that never learnt from the person; all else on the device is erased.
            StorageError: nothing was erased, or the next call or start goes on.
            TutelageError: the teacher does not answer; the device's part is done, and the next call goes on.
        """
        with self.persons:
            with self.work:
                self._erasures.begin(person, self.labeller)
                self._succession.forget(person)
                self._settle_erasures()
            self.store.scrubbing.scrub_quietly(self.activity)
            self._erasures.tell(self.labeller)
            return self._erasures.erased(person)

    def pending_removals(self) -> int:
        """Persons who were erased here, while the device or the teacher has still something to do."""
        return self._erasures.pending()

    def finish_removals(self) -> None:
        """Go on with the erasures that are not done.

        Raises:
            TutelageError: as `erase`; the next call goes on.
        """
        with self.persons:
            with self.work:
                self._settle_erasures()
            self.store.scrubbing.scrub_quietly(self.activity)
            self._erasures.tell(self.labeller)

    def _settle_erasures(self) -> None:
        self._trainings.give_up(self._erasures.to_give_up())
        self._erasures.settle()
        # Not by what `settle` did: where this failed before, it has to be made good.
        if self._succession.package.digest != self.generations.required.current.package.digest:
            self._succession.fall_back(self.generations.boot(), REASON, {})

    def recognise(self, capture: Pixels, attempt: str = "") -> Recognition:
        """What `answer` says of a capture."""
        return self.answer(capture, attempt).recognition

    def answer(self, capture: Pixels, attempt: str = "") -> Answer:
        """Answer a capture, then decide whether to keep it; `attempt` tells one person's tries from the next one's.

        The answer is given whatever the disk does: a failure to keep anything is logged, and nothing is kept.

        Raises:
            CaptureError: it is no capture; nothing is recorded.
        """
        answer = self.reception.answer(check_capture(capture), attempt)
        if answer.watched is not None:
            self._later(partial(self._conclude, answer.generation, answer.watched))
        return answer

    def _conclude(self, watched: str, verdict: WatchVerdict) -> None:
        """End a watch window; nobody who is recognised hears of a failure."""
        try:
            with self.work:
                self._succession.conclude(watched, verdict)
        except StorageError as error:
            _log.error("the watch of a student could not be ended", code=error.code.value, reason=error.message)

    # Labels

    def labels_missing(self) -> tuple[str, ...]:
        """What is missing before the teacher is asked; empty when the label condition holds."""
        return self._labels.missing(Moment(self._clock(), self.activity.idle_s))

    def fetch_labels(self) -> tuple[str, ...]:
        """Ask the teacher about all waiting attempts if the label condition holds; what is missing if not."""
        with self.work:
            if missing := self.labels_missing():
                return missing
            attempts = self._labels.waiting()
            enrolled = frozenset(self.store.persons())
        answers = self.labeller.label([[capture for _, capture in attempt] for attempt in attempts])
        with self.work:
            self._tell(EventKind.LABELS_ASKED, "the label condition holds", {"attempts": len(attempts)})
            gone = enrolled.difference(self.store.persons())
            for attempt, answer in zip(attempts, answers, strict=True):
                # Who was erased while the teacher thought comes back by no answer; the attempt is asked about again.
                if gone.isdisjoint((answer.person or "", *answer.soft)):
                    self._labels.take(attempt, answer, self.reception)
        return ()

    # Training, gate and swap

    def training_missing(self) -> tuple[str, ...]:
        """What is missing before a training starts; empty when one would. Waits for nobody."""
        return self._trainings.missing()

    def start_training(self) -> Training | tuple[str, ...]:
        """Start the worker if the training condition holds; what is missing if not.

        An unfinished training that nobody resumed gives way to the new one.

        Raises:
            StorageError: the job cannot be written; no sample has changed.
            TrainingError: `training-killed`, no process can be started now; `resume_training` may try again.
        """
        with self.work:
            return self._trainings.start()

    def resume_training(self) -> Training | None:
        """Take up the training that was left unfinished, from its checkpoint; one that leads nowhere is discarded.

        Raises:
            TrainingError: `training-killed`, no process can be started now.
        """
        with self.work:
            return self._trainings.resume()

    def finish_training(self, training: Training) -> Verdict | TutelageError:
        """Wait for the worker, let the gate judge, and swap if it passes; the running student stays if anything fails.

        What may go better another time is left for `resume_training`.
        """
        while training.running():
            time.sleep(POLL_S)
        with self.work:
            return self._trainings.finish(training)

    def stop(self) -> None:
        """End a training under way, as before the device is put down; its job stays for `resume_training`."""
        with self.work:
            self._trainings.stop()

    # Other students

    def install(self, package: bytes, *, digest: str | None = None) -> None:
        """Let a released version recognise, with every person enrolled in its space; the former student stays behind.

        Raises:
            PackageError: `package-*`, it is damaged, not signed by a cloud key, no released version, or not the one
                of this `digest`.
            UsageError: it is older than the present version, or was reverted here.
            StorageError: the present student goes on.
        """
        with self.work:
            self._succession.install(package, digest)

    def revert(self, reason: str, numbers: Mapping[str, float] | None = None) -> Booted:
        """Go back to the last good generation, or to the released version; `numbers` are what the `reason` rests on.

        Raises:
            PackageError: there is nothing to go back to; the present student stays.
            StorageError: `storage-failed`; the present student stays.
        """
        with self.work:
            return self._succession.revert(reason, numbers or {})

    def _tell(self, kind: EventKind, reason: str, numbers: Mapping[str, float]) -> None:
        self.store.add_event(kind, reason, numbers, self.model.version)
