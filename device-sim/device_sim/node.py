"""A device as a process: what callers may ask of it, and the chores that it does by itself meanwhile.

`device` does the work; here is what only a process needs: names for what is not there, a page of samples, how all
stands, and which chore to wake after whom.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from device_sim.chores import ChoreThread
from device_sim.contact import Contact
from device_sim.device import Device
from device_sim.explain import explain_sample
from device_sim.generations import Booted
from device_sim.pointer import Entry
from device_sim.recognition import RunningModel
from device_sim.records import DecisionRecord, Sample, State
from device_sim.sampling import Kind
from device_sim.training import Training
from tutelage.biometrics.matching import Decision
from tutelage.captures import Pixels
from tutelage.errors import Code, InputError, PackageError, PersonError, UsageError

__all__ = ["DeviceStatus", "Explained", "Node", "Verified"]


@dataclass(frozen=True)
class Verified:
    """What a claimed person's capture was answered."""

    decision: Decision
    score: float
    extrapolated: bool
    generation: str


@dataclass(frozen=True)
class Explained:
    """Why a sample was kept and what became of it."""

    sample: Sample
    own: DecisionRecord
    """The decision about its capture."""
    end: DecisionRecord
    """The decision that kept it."""
    lines: Sequence[str]


@dataclass(frozen=True)
class DeviceStatus:
    """How a device stands."""

    student: Entry
    released: Entry
    previous: Entry | None
    space: str
    accept_score: float
    persons: int
    samples: Mapping[tuple[Kind, State], int]
    store_bytes: int
    max_store_bytes: int
    labels_missing: Sequence[str]
    training_missing: Sequence[str]
    training: Training | None
    watching: bool
    latest_event_id: int
    pending_erasures: int
    teacher: Contact | None
    """How the teacher answers; None where there is none."""
    registry: Contact | None
    """How the registry answers; None where there is none."""


class Node:
    """One device and its chores; safe for several threads."""

    def __init__(self, device: Device, chores: Mapping[str, ChoreThread], contacts: Mapping[str, Contact]) -> None:
        """Let `device` answer; `chores`, by name, are started by whoever made them.

        `contacts` are those with the `teacher` and the `registry`, as far as there are such.
        """
        self.device, self._chores, self._contacts = device, chores, contacts
        self._training = threading.Lock()

    def verify(self, person: str, capture: Pixels) -> Verified:
        """Whether a capture is of the claimed `person`.

        Raises:
            PersonError: the person is not enrolled.
        """
        with self.device.activity.busy():
            model = self.device.model
            score = _score(model, person, capture)
        decision = model.rule.decide(score)
        return Verified(decision, score, bool(model.calibration.extrapolated(score)), model.version)

    def samples(
        self, states: Collection[State], kinds: Collection[Kind], *, after: int, limit: int
    ) -> tuple[Sequence[Sample], bool]:
        """The oldest samples with an id above `after`, at most `limit`, and whether there are more.

        Without `states` or `kinds` those of all.
        """
        kept = self.device.store.samples(*(states or State))
        found = [s for s in kept if s.id > after and (not kinds or s.kind in kinds)]
        return found[:limit], len(found) > limit

    def explain(self, sample_id: int) -> Explained:
        """Why a sample was kept and what became of it.

        Raises:
            InputError: `sample-unknown`, there is no such sample, or it is no longer kept.
        """
        store = self.device.store
        try:
            sample = store.sample(sample_id)
            own, end = store.decision(sample.decision_id), store.decision(sample.attempt_end)
            return Explained(sample, own, end, explain_sample(store, sample_id))
        except UsageError as error:
            raise InputError(
                Code.SAMPLE_UNKNOWN, f"there is no sample {sample_id}: it never was, or is no longer kept"
            ) from error

    def train_now(self) -> tuple[str, Sequence[str]]:
        """Start or go on with a training if the training condition holds; its generation, or else what is missing.

        Raises:
            StorageError, TrainingError: as `Device.start_training`.
        """
        with self._training:
            begun = self.device.resume_training() or self.device.start_training()
        if not isinstance(begun, Training):
            return "", begun
        self._wake("training")
        return begun.descent.generation, ()

    def rollback(self, reason: str) -> Booted:
        """Go back to the last good student.

        Raises:
            PackageError: `student-missing`, there is nothing to go back to; the present student stays.
            StorageError: `storage-failed`; the present student stays.
        """
        try:
            booted = self.device.revert(reason)
        except PackageError as error:
            raise PackageError(Code.STUDENT_MISSING, error.message) from error
        self._wake("check-in")
        return booted

    def status(self) -> DeviceStatus:
        """How the device stands now."""
        device, store = self.device, self.device.store
        # Without the lock of slow work: who asks how a busy device stands should not wait until it is idle.
        pointer, training, model = device.generations.pointer, device.training, device.model
        labels, trainings = (*self._no_teacher(), *device.labels_missing()), device.training_missing()
        if pointer is None:
            raise PackageError(Code.STUDENT_MISSING, "this device has no student: install a released one")
        return DeviceStatus(
            student=pointer.current.package,
            released=pointer.current.released,
            previous=None if pointer.previous is None else pointer.previous.package,
            space=model.recogniser.space,
            accept_score=device.settings.sampling.accept_score,
            persons=len(store.persons()),
            samples=Counter((sample.kind, sample.state) for sample in store.samples(*State)),
            store_bytes=store.used_bytes,
            max_store_bytes=device.settings.sampling.max_bytes,
            labels_missing=labels,
            training_missing=trainings,
            training=training,
            watching=device.reception.watching,
            latest_event_id=store.latest_event_id(),
            pending_erasures=device.pending_removals(),
            teacher=self._contacts.get("teacher"),
            registry=self._contacts.get("registry"),
        )

    def _no_teacher(self) -> tuple[str, ...]:
        return () if "labels" in self._chores else ("no teacher is set whom the device could ask",)

    def _wake(self, chore: str) -> None:
        if chore in self._chores:
            self._chores[chore].wake()


def _score(model: RunningModel, person: str, capture: Pixels) -> float:
    try:
        return model.verify(person, capture)
    except InputError as error:
        if error.code is not Code.DATA_INSUFFICIENT:
            raise
        raise PersonError(person) from error
