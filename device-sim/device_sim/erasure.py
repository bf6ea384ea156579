"""Erasures: a person is gone from a device for good, and from the teacher, whatever happens on the way.

The steps, each of which can be repeated and is, after a power cut, by the next start (`settle`):

1. one transaction of the store takes references, captures and name, and writes down what is still to be done
   (`forgetting`);
2. trainings that learn from the person are overwritten and removed with their jobs and checkpoints;
3. the device goes back to the newest student that never learnt from the person, nor from a student that did; in the
   worst case that is the released version. The packages of the others are overwritten and removed. What other persons
   gave them to learn is fresh again, so that the next training learns it without the erased one;
4. the store's file is written anew and its log emptied, so that nothing of deleted rows is left in them;
5. the teacher is told. Until it answers, the device keeps the name, sealed, for that alone;
6. the receipt is signed and kept; asked again, the device gives the same one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_sim.events import EventKind
from device_sim.forgetting import Erasure, Removal, Stage
from device_sim.generations import Generations
from device_sim.pointer import Entry, Generation
from device_sim.receipt import Receipt, read_receipt
from device_sim.shredder import shred_folder
from device_sim.store import Store
from device_sim.training_sets import TrainingSets
from tutelage.errors import PackageError, PersonError, StorageError, UsageError
from tutelage.labelling import Labeller
from tutelage.signing import signer_id

_log = structlog.get_logger()

REASON = "an erased person was learnt from"
"""Why a device goes back, as events tell it."""


@dataclass(frozen=True)
class Erased:
    """What became of a person who was erased."""

    receipt: bytes
    """The receipt's file."""
    contents: Receipt
    """What it says."""

    @property
    def references(self) -> int:
        """References erased."""
        return len(self.contents.references)

    @property
    def samples(self) -> int:
        """Samples whose captures were erased."""
        return len(self.contents.samples)

    @property
    def decisions(self) -> int:
        """Decisions that lost the name."""
        return self.contents.decisions

    @property
    def generation(self) -> str:
        """The student that recognised when the device held nothing more, like `v3+7`."""
        return self.contents.student.generation

    @property
    def digest(self) -> str:
        """Digest of that student's package."""
        return self.contents.student.digest

    @property
    def deleted(self) -> tuple[str, ...]:
        """Students that were deleted because they had learnt from the person, the oldest first."""
        return tuple(entry.generation for entry in self.contents.students)

    @property
    def teacher_knew(self) -> bool:
        """Whether the teacher knew the person."""
        return self.contents.teacher == "removed"


class Erasures:
    """The erasures of one device; not safe for several threads."""

    def __init__(
        self,
        store: Store,
        generations: Generations,
        *,
        jobs: Path,
        signer: Ed25519PrivateKey,
        clock: Callable[[], float],
    ) -> None:
        """Erase from `store`, from the packages of `generations` and from the folder `jobs`; `signer` vouches."""
        self._store, self._generations, self._jobs = store, generations, jobs
        self._rows, self._sets = store.forgetting, TrainingSets(store)
        self._signer, self._clock = signer, clock

    def begin(self, person: str, labeller: Labeller) -> None:
        """Take `person` from the store; what else there is follows in `settle` and `tell`.

        Nothing is done for who was erased already.

        Raises:
            PersonError: neither the device nor the teacher knows anybody of that name.
            StorageError: nothing was erased.
            TutelageError: the device knows nobody of that name, and the teacher does not answer.
        """
        known = self._rows.knows(person)
        if not known:
            if self._rows.latest(person) is not None:
                return
            labeller.remove(person)
        students = self._generations.required.entries()
        self._rows.begin(person, students=students, jobs=self._in_the_making(), teacher=None if known else "removed")

    def to_give_up(self) -> frozenset[str]:
        """Names of the students in the making that learn from a person who is being erased."""
        return frozenset(name for erasure in self._begun() for name in erasure.removal.jobs)

    def resume(self) -> None:
        """As `settle`, for a start: what cannot be done now is told to the log, and tried again later."""
        try:
            if self.settle():
                self._store.add_event(EventKind.GENERATION_REVERTED, REASON, {}, str(self._generations.current))
            self._store.scrubbing.scrub()
        except (PackageError, StorageError) as error:
            _log.error("an erasure could not be finished", code=error.code.value, reason=error.message)

    def settle(self) -> bool:
        """Remove the students and trainings that learnt from who is being erased; whether another student recognises.

        Raises:
            PackageError: there is no student that never learnt from the person; the present one stays.
            StorageError: `storage-full`, `storage-failed`; the next call goes on.
        """
        if not (begun := self._begun()):
            return False
        for name in self.to_give_up():
            shred_folder(self._jobs / name)
        changed = self._step_back({entry for erasure in begun for entry in erasure.removal.students})
        for erasure in begun:
            self._rows.cleared(erasure, self._generations.required.current.package)
        return changed

    def _step_back(self, unwanted: Collection[Entry]) -> bool:
        """Delete the `unwanted` packages; whether one of them recognised."""
        before = self._generations.required.current
        if not unwanted:
            return False
        booted = self._generations.delete(unwanted)
        self._sets.unlearnt(self._store.latest_set(booted.generation))
        return before != self._generations.required.current

    def tell(self, labeller: Labeller) -> None:
        """Scrub the store, let the teacher forget everybody who was erased here, and sign the receipts.

        Whoever writes to the store while it is scrubbed waits: `Scrubbing.scrub_quietly`, before this, does not.

        Raises:
            StorageError: as the store; nothing is receipted that is not scrubbed.
            TutelageError: the teacher does not answer; the next call goes on.
        """
        self._store.scrubbing.scrub()
        for erasure in self._rows.unfinished():
            if erasure.stage is not Stage.CLEARED:
                continue
            removal = erasure.removal
            if removal.teacher is None:
                try:
                    labeller.remove(self._rows.name(erasure))
                    removal = replace(removal, teacher="removed")
                except PersonError:
                    removal = replace(removal, teacher="absent")
            self._rows.done(erasure, removal, self._receipt(erasure, removal).signed(self._signer))

    def pending(self) -> int:
        """Erasures that are not done."""
        return len(self._rows.unfinished())

    def erased(self, person: str) -> Erased:
        """What became of a person who was erased.

        Raises:
            UsageError: nobody of that name was, or it is not done.
        """
        erasure = self._rows.latest(person)
        if erasure is None or erasure.receipt is None:
            raise UsageError("there is no receipt for this person: erase them first")
        own = self._signer.public_key()
        return Erased(erasure.receipt, read_receipt(erasure.receipt, trusted=[own]))

    def _begun(self) -> list[Erasure]:
        return [erasure for erasure in self._rows.unfinished() if erasure.stage is Stage.BEGUN]

    def _in_the_making(self) -> list[Generation]:
        """The students whose trainings lie in the folder of jobs."""
        return [each for path in self._jobs.glob("*/") for each in _generations_named(path.name)]

    def _receipt(self, erasure: Erasure, removal: Removal) -> Receipt:
        assert removal.student is not None  # noqa: S101 - it was written when the device was cleared
        assert removal.teacher is not None  # noqa: S101 - the teacher has answered
        return Receipt(
            person=f"hmac-sha256:{erasure.digest}",
            device=signer_id(self._signer.public_key()),
            asked=_iso(removal.asked_s),
            done=_iso(self._clock()),
            references=removal.references,
            samples=removal.samples,
            decisions=removal.decisions,
            students=removal.students,
            jobs=removal.jobs,
            student=removal.student,
            teacher=removal.teacher,
        )


def _generations_named(name: str) -> Iterator[Generation]:
    """The generation that a folder is named by; none where somebody else put a folder of another name there."""
    with contextlib.suppress(UsageError):
        yield Generation.parse(name)


def _iso(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat()
