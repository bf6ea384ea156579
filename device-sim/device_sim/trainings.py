"""The trainings of a device: when one may start, what it is made of, how one that was left is taken up, how it ends.

One at a time is under way, in a worker of its own (`training`); this module prepares its job, follows it across
restarts, and sees to it that no sample is lost or learnt twice whatever becomes of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from device_sim.conditions import training_state
from device_sim.device_settings import DeviceKeys, DeviceSettings
from device_sim.events import EventKind
from device_sim.gate import Verdict
from device_sim.holdings import Holdings
from device_sim.job import Descent, TrainingJob
from device_sim.learning import training_set
from device_sim.occasion import Moment
from device_sim.pointer import Generation
from device_sim.records import Sample, State
from device_sim.store import Store
from device_sim.succession import Succession
from device_sim.training import Training
from device_sim.training_sets import Division, TrainingSets, blames_samples, divide
from tutelage.errors import CATALOGUE, Code, StorageError, TrainingError, TutelageError
from tutelage.nn.students import save_weights

MAX_RESUMPTIONS = 3
"""Times that one training is taken up again: what failed so often would fail for ever."""


class Trainings:
    """One device's trainings; not safe for several threads."""

    current: Training | None = None
    """The one under way."""

    def __init__(
        self,
        store: Store,
        succession: Succession,
        keys: DeviceKeys,
        settings: DeviceSettings,
        *,
        jobs: Path,
        clock: Callable[[], float],
    ) -> None:
        """Keep jobs in the folder `jobs`, each in one of its own."""
        self._store, self._succession, self._keys, self._settings = store, succession, keys, settings
        self._jobs, self._clock = jobs, clock
        self._holdings, self._sets = Holdings(store), TrainingSets(store)

    def missing(self) -> tuple[str, ...]:
        """What is missing before a training starts; empty when the training condition holds and the gate can judge."""
        return self._missing(divide(self._sets.known(State.FRESH)))

    def _missing(self, division: Division) -> tuple[str, ...]:
        moment = Moment(self._clock(), self._succession.reception.activity.idle_s)
        state = training_state(self._store, moment, running=self.current is not None)
        held = len(self._sets.known(State.HELD_BACK))
        missing = self._settings.training.missing(state)
        return missing or division.missing(held, self._settings.gate.min_held_back) or self._strangers_missing()

    def _strangers_missing(self) -> tuple[str, ...]:
        """What the gate would lack to judge whether strangers come in."""
        found, needed = len(self._succession.strangers.unseen.captures), self._settings.gate.min_strangers
        return () if found >= needed else (f"{found} of {needed} captures of strangers for the gate",)

    def start(self) -> Training | tuple[str, ...]:
        """Start the worker if nothing is missing, else say what is; an unfinished training that was left gives way.

        Raises:
            StorageError: the job cannot be written; no sample has changed.
            TrainingError: `training-killed`, no process can be started now; `resume` may try again.
        """
        division = divide(self._sets.known(State.FRESH))
        if missing := self._missing(division):
            return missing
        for folder in self._folders():
            self._discard(folder, "a new training takes its place")
        job = self._job(self._sets.to_learn(division.learnt))
        self._write_lessons(job.descent)
        folder = self._jobs / job.descent.generation
        training = Training.prepare(folder, job, self._keys.store, self._settings.budget)
        self._sets.begin(job.descent.training_set, division)
        numbers = {
            "samples": len(job.training_set.inputs),
            "held_back": len(division.held_back),
            "references": len(job.training_set.references),
            "training_set": job.descent.training_set,
        }
        self._store.add_event(
            EventKind.TRAINING_STARTED, "the training condition holds", numbers, job.descent.generation
        )
        training.start(self._succession.reception.activity)
        self.current = training
        return training

    def _write_lessons(self, descent: Descent) -> None:
        """Before anything of a training is on the disk the store knows whom it learns from: all who are enrolled."""
        generation, parent = Generation.parse(descent.generation), Generation.parse(self._succession.model.version)
        kept = {entry.named for entry in self._succession.generations.required.entries()}
        self._store.add_lessons(generation, descent.training_set, self._store.persons(), parent=parent, kept=kept)

    def _job(self, samples: Sequence[Sample]) -> TrainingJob:
        """The running student, to be trained on `samples` as the next generation."""
        succession, settings = self._succession, self._settings
        student = succession.model.recogniser.student
        enrolled = self._holdings.enrolled(student.spec.side).against(succession.strangers.negatives)
        generation = str(succession.generations.next_generation)
        return TrainingJob(
            descent=Descent(generation, succession.package.digest, self._sets.next_number()),
            spec=student.spec,
            weights=save_weights(student),
            training_set=training_set(self._holdings.labelled(samples), enrolled, settings.learning),
            settings=settings.self_distillation,
            threads=settings.budget.threads,
            memory_bytes=settings.budget.memory_bytes,
        )

    def resume(self) -> Training | None:
        """Take up the training that was left unfinished, from its checkpoint; one that leads nowhere is discarded.

        Raises:
            TrainingError: `training-killed`, no process can be started now.
        """
        for folder in self._folders() if self.current is None else ():
            try:
                training = Training.found(folder, self._keys.store, self._settings.budget)
            except StorageError as error:
                self._discard(folder, error.message)
                continue
            if futile := self._futile(training.descent):
                self._discard(folder, futile)
                continue
            self._store.add_event(EventKind.TRAINING_RESUMED, "it was left unfinished", {}, training.descent.generation)
            training.start(self._succession.reception.activity)
            self.current = training
            return training
        return None

    def _futile(self, descent: Descent) -> str:
        """Why a training that was left unfinished leads nowhere; empty if it may lead somewhere."""
        succession = self._succession
        following = str(succession.generations.next_generation)
        if descent.parent != succession.package.digest or descent.generation != following:
            return "another student recognises by now"
        if not self._sets.being_learnt(descent.training_set):
            return "its samples are gone"
        if self._resumptions() >= MAX_RESUMPTIONS:
            self._sets.refused(descent.training_set)
            return f"it was resumed {MAX_RESUMPTIONS} times"
        return ""

    def _resumptions(self) -> int:
        """How often the latest training was taken up again."""
        started = self._store.last_event(EventKind.TRAINING_STARTED)
        since = self._store.events(after=started.id if started else 0)
        return sum(event.kind is EventKind.TRAINING_RESUMED for event in since)

    def _folders(self) -> list[Path]:
        """Folders of jobs that were left, each named by its generation."""
        return sorted(path for path in self._jobs.glob("*") if path.is_dir())

    def _discard(self, folder: Path, reason: str) -> None:
        self._store.add_event(EventKind.TRAINING_FAILED, reason, {}, folder.name)
        shutil.rmtree(folder, ignore_errors=True)

    def finish(self, training: Training) -> Verdict | TutelageError:
        """Wait for the worker, let the gate judge, and swap if it passes; the running student stays if anything fails.

        What may go better another time is left for `resume`.
        """
        if training is not self.current:  # its folder may be another training's by now
            return TrainingError(Code.TRAINING_KILLED, "the training was given up before its end: train again")
        number = training.descent.training_set
        try:
            verdict = self._succession.judge(training.descent, training.wait())
        except TutelageError as error:
            step = float(training.last.get("step", 0))
            self._store.add_event(EventKind.TRAINING_FAILED, error.message, {"step": step}, training.descent.generation)
            if not CATALOGUE[error.code].retryable:
                self._sets.refused(number)
                training.discard()
            return error
        finally:
            if self.current is training:  # else it was given up, and another may be under way
                self.current = None
            training.kill()
        if blames_samples(verdict):
            self._sets.refused(number)
        else:
            self._sets.learnt(number)
        training.discard()
        return verdict

    def give_up(self, generations: Collection[str]) -> None:
        """End the training under way if it makes one of these `generations`; its job is somebody else's to remove."""
        if self.current is not None and self.current.descent.generation in generations:
            self.stop()

    def stop(self) -> None:
        """End a training under way, as before the device is put down; its job stays for `resume`."""
        if self.current is not None:
            self.current.kill()
            self.current = None
