"""A teacher that may be away for weeks: enrolling goes on, and whom it could not be told of it is told later.

Names of persons lie nowhere in plain, so the disk remembers only *that* somebody is untold: after a restart it is told
of everybody again, which changes nothing for those it knows. It also remembers which teacher was told: another has a
space of its own, knows nobody, and is told of everybody from the references. Nobody is enrolled anew for that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from device_sim.contact import Contact
from tutelage.captures import Pixels
from tutelage.errors import CATALOGUE, Code, InputError, PersonError, ServiceError, TutelageError
from tutelage.files import PRIVATE_MODE, atomic_write, read_bytes, storage_error
from tutelage.labelling import LabelAnswer, Labeller

__all__ = ["PatientLabeller"]

_log = structlog.get_logger()


class PatientLabeller:
    """A `Labeller` whose teacher may not answer, or not be there at all; safe for several threads."""

    def __init__(self, teacher: Labeller | None, marker: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Ask `teacher`; the file `marker` is there while it was not told of somebody, and `marker`.space names it.

        `clock` tells seconds since the epoch.
        """
        self.contact = Contact(clock)
        """How the teacher answers."""
        self._teacher, self._marker, self._lock = teacher, marker, threading.Lock()
        self._told_file = marker.with_name(f"{marker.name}.space")
        self._untold: set[str] = set()
        self._everybody = marker.exists()
        self._reached = True

    @property
    def has_teacher(self) -> bool:
        """Whether there is anybody to ask."""
        return self._teacher is not None

    @property
    def untold(self) -> bool:
        """Whether the teacher has to be told of somebody."""
        with self._lock:
            return self._everybody or bool(self._untold)

    @property
    def space(self) -> str:
        """Id of the teacher's embedding space.

        Raises:
            ServiceError: `service-unavailable`, there is no teacher, or it does not answer.
        """
        asked = self._asked()
        with self.contact.calling():
            return asked.space

    def meet(self) -> bool:
        """Whether the teacher is another than the one that was told of persons; then all are told to it by `tell`.

        Raises:
            ServiceError: `service-unavailable`, there is no teacher, or it does not answer.
            StorageError: it could not be noted.
        """
        space = self.space.encode()
        if self._told_file.exists() and space == read_bytes(self._told_file, at_most=len(space) + 1):
            return False
        with self._lock:
            self._mark()
            self._everybody = True
            atomic_write(self._told_file, space, mode=PRIVATE_MODE)
        return True

    def enrol(self, person: str, captures: Sequence[Pixels]) -> None:
        """Make `person` known to the teacher, now or when it can be reached.

        Raises:
            InputError: `data-insufficient`, the teacher cannot use any of the captures.
            StorageError: it could not be noted that the teacher was not told.
        """
        with self._lock:
            away = self._teacher is None or not self._reached
        if not away:
            try:
                self._enrolled(person, captures)
            except TutelageError as error:
                if not CATALOGUE[error.code].retryable:
                    raise
                self._reached = False
            else:
                with self._lock:
                    self._untold.discard(person)
                return
        self._note(person)

    def _enrolled(self, person: str, captures: Sequence[Pixels]) -> None:
        asked = self._asked()
        with self.contact.calling():
            asked.enrol(person, captures)

    def _note(self, person: str) -> None:
        with self._lock:
            self._mark()
            self._untold.add(person)

    def _mark(self) -> None:
        if not self._marker.exists():
            atomic_write(self._marker, b"", mode=PRIVATE_MODE)

    def remove(self, person: str) -> None:
        """Forget everything about `person`.

        Raises:
            PersonError: the teacher does not know the person, or there is none.
            TutelageError: it cannot be reached.
        """
        if self._teacher is None:
            raise PersonError(person)
        with self.contact.calling():
            self._teacher.remove(person)
        with self._lock:
            self._untold.discard(person)

    def label(self, attempts: Sequence[Sequence[Pixels]]) -> list[LabelAnswer]:
        """One answer an attempt, in order.

        Raises:
            TutelageError: the teacher does not answer.
        """
        asked = self._asked()
        with self.contact.calling():
            answers = asked.label(attempts)
        self._reached = True
        return answers

    def tell(self, persons: Callable[[], Sequence[str]], references: Callable[[str], Sequence[Pixels]]) -> int:
        """Tell the teacher of everybody whom it was not told of; returns of how many.

        `persons` are all who are enrolled, `references` gives the captures of one of them.

        Raises:
            TutelageError: the teacher does not answer; those that are left are told another time.
        """
        if not self.untold:
            return 0
        with self._lock:
            waiting = set(persons()) if self._everybody else set(self._untold)
        for person in sorted(waiting):
            self._tell_of(person, references(person))
        with self._lock:
            self._untold -= waiting
            self._everybody = False
            if not self._untold:
                self._unmark()
        return len(waiting)

    def _tell_of(self, person: str, captures: Sequence[Pixels]) -> None:
        if not captures:  # erased since
            return
        try:
            self._enrolled(person, captures)
        except InputError as error:
            _log.warning("the teacher cannot use a person's references", code=error.code.value)
        self._reached = True

    def _unmark(self) -> None:
        try:
            self._marker.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, self._marker, "removed") from error

    def _asked(self) -> Labeller:
        if self._teacher is None:
            raise ServiceError(Code.SERVICE_UNAVAILABLE, "this device has no teacher: set the teacher's address")
        return self._teacher
