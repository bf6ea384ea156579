"""Visits: a public comes to a device over its calls, is enrolled, tries to be let in, and is counted.

Whoever comes tries up to three times, as a device lets anybody, and leaves when let in. What was counted is there
whatever happens to the device meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from device_sim.drift import conditions_at_wear
from device_sim.patience import Patience
from device_sim.public import Public, Visitor
from device_sim.reaching import Asked
from device_sim.sensor import Condition
from device_sim.site import STRANGER
from tutelage.api.device.v1 import device_pb2 as pb
from tutelage.captures import Pixels, encode_png
from tutelage.errors import PersonError

__all__ = ["Course", "Seen", "Visiting"]

TRIES = 3
"""Captures of one attempt: as many failures in a row make a second sample."""


@dataclass(frozen=True)
class Course:
    """How a run of visits goes."""

    visits: int = 100
    references: int = 3
    """Captures by which a person is enrolled, 1 to 16."""
    strangers: float = 0.02
    """Share of visits by people who are not enrolled, 0..1."""
    wear: float = 0.0
    """Of the sensor at the first visit, 0..1."""
    until_wear: float = 0.0
    """Of the sensor at the last visit."""
    first_visit: int = 0
    """Number of the first visit: by another one the same persons press other captures."""

    def condition(self, turn: int) -> Condition:
        """Condition of the sensor at visit 0 .. visits - 1 of this run."""
        share = turn / max(1, self.visits - 1)
        return conditions_at_wear(self.wear + share * (self.until_wear - self.wear))


@dataclass
class Seen:
    """What was seen of a run; counts are of visits unless something else is said."""

    first_visit: int = 0
    """Number of the first visit."""
    enrolled: int = 0
    """Persons whom the device did not know."""
    visits: int = 0
    """Visits that are over."""
    genuine: int = 0
    """By enrolled persons."""
    at_first: int = 0
    """Of those, accepted as who they are at the first capture."""
    accepted: int = 0
    """Accepted as who they are in the end."""
    mistaken: int = 0
    """Accepted as somebody else."""
    strangers: int = 0
    """By people who are not enrolled."""
    strangers_accepted: int = 0
    samples_kept: int = 0
    """Captures that the device kept to learn from, where it keeps failed attempts whole, as it does by default."""
    generation_before: str = ""
    generation_after: str = ""
    """The student that answered last."""

    @property
    def misses(self) -> float | None:
        """Share of genuine visits that were not accepted as who they are; None where there were none."""
        return 1 - self.accepted / self.genuine if self.genuine else None

    def as_json(self) -> dict[str, object]:
        """All counts, and the share of misses."""
        return {**{field.name: getattr(self, field.name) for field in fields(self)}, "misses": self.misses}


class Visiting:
    """Lets a public come to one device."""

    def __init__(
        self, opened: Callable[[], Asked], public: Public, patience: Patience, *, pause: Callable[[], None]
    ) -> None:
        """Call the device that `opened` gives when first asked; it may be away as long as `patience` lasts.

        `pause` is called between two visits.
        """
        self._open, self._public, self._patience, self._pause = opened, public, patience, pause
        self._device: Asked | None = None

    def generation(self) -> str:
        """Name of the student that recognises."""
        answer = self._ask("GetStatus", pb.GetStatusRequest())
        return str(answer.status.student.generation)

    def enrol(self, course: Course, seen: Seen, progress: Callable[[int, int], None]) -> None:
        """Make those persons known that the device does not know.

        Raises:
            TutelageError: As the device's calls; whoever was enrolled before stays so.
        """
        for place, name in enumerate(self._public.names):
            references = self._public.references(place, course.references)
            # Looked up again at each try: an answer that was lost on the way must not double the references.
            seen.enrolled += self._patience.with_(lambda: self._enrolled(name, references))  # noqa: B023 - called at once
            progress(place + 1, self._public.persons)

    def _enrolled(self, name: str, references: list[Pixels]) -> bool:
        captures = [encode_png(reference) for reference in references]
        try:
            self._reached().ask("Verify", pb.VerifyRequest(person=name, capture=captures[0]))
        except PersonError:
            self._reached().ask("Enrol", pb.EnrolRequest(person=name, captures=captures))
            return True
        return False

    def come(self, course: Course, seen: Seen, progress: Callable[[int, int], None]) -> None:
        """Let everybody of `course` come, one after the other; `seen` is counted up after each.

        Raises:
            TutelageError: As the device's calls; a visit that was cut off is not counted.
        """
        for turn in range(course.visits):
            visit = course.first_visit + turn
            visitor = self._public.visitor(visit, course.strangers)
            self._receive(visitor, f"visit-{self._public.site}-{visit}", course.condition(turn), seen)
            progress(turn + 1, course.visits)
            self._pause()

    def _receive(self, visitor: Visitor, attempt: str, condition: Condition, seen: Seen) -> None:
        """Let one person try until accepted, at most as often as a device lets anybody."""
        tried, answer = 0, pb.RecognizeResponse()
        while tried < TRIES and answer.recognition.decision != pb.DECISION_ACCEPT:
            capture = encode_png(visitor.tries(tried, condition))
            answer = self._ask("Recognize", pb.RecognizeRequest(capture=capture, attempt=attempt))
            seen.samples_kept += _kept(answer)
            seen.generation_after = answer.recognition.generation
            tried += 1
        _count(seen, visitor.person, answer.recognition, tried)

    def _ask(self, method: str, request: Any) -> Any:
        return self._patience.with_(lambda: self._reached().ask(method, request))

    def _reached(self) -> Asked:
        if self._device is None:
            self._device = self._open()
        return self._device

    def close(self) -> None:
        """End the connection."""
        if self._device is not None:
            self._device.close()

    def __enter__(self) -> Visiting:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _kept(answer: pb.RecognizeResponse) -> int:
    """Captures kept by this answer: those of a failed attempt are kept together, at its end."""
    if answer.outcome.kind == pb.SAMPLE_KIND_SECOND:
        return len(answer.outcome.run_decision_ids)
    return int(answer.outcome.kind == pb.SAMPLE_KIND_FIRST)


def _count(seen: Seen, person: str, last: pb.Recognition, tried: int) -> None:
    """Count a visit by what its last capture was answered."""
    let_in = last.decision == pb.DECISION_ACCEPT
    right = let_in and last.person == person
    seen.visits += 1
    if person == STRANGER:
        seen.strangers += 1
        seen.strangers_accepted += let_in
        return
    seen.genuine += 1
    seen.at_first += right and tried == 1
    seen.accepted += right
    seen.mistaken += let_in and not right
