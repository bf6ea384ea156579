"""A visit before a device and its rivals: all look at the same captures, each until it accepts.

Whoever comes tries until the device accepts, as often as it lets anybody. A rival that needs further captures gets the
ones that the same finger would have made next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from device_sim.recognition import Recognition, RunningModel
from device_sim.results import SELF_DISTILLED
from device_sim.year.books import Ending
from device_sim.year.place import Visit, Who
from device_sim.year.rivals import Rival, Taken
from tutelage.biometrics.features import Features
from tutelage.biometrics.matching import Decision
from tutelage.captures import Pixels


@dataclass
class Course:
    """How a visit goes with one recogniser."""

    visit: Visit
    verdicts: list[bool] = field(default_factory=list)
    """Of each capture looked at, whether it counts: accepted as the right person, or, of a stranger, as anybody."""
    captures: list[Pixels] = field(default_factory=list)
    over: bool = False
    """Whether a capture was accepted, so that no further one is looked at."""

    def took(self, taken: Taken, capture: Pixels) -> None:
        """A capture was looked at."""
        right = taken.person == self.visit.person or self.visit.who is not Who.GENUINE
        self.verdicts.append(taken.accepted and right)
        self.captures.append(capture)
        self.over = taken.accepted

    @property
    def ending(self) -> Ending:
        """How it ended; a visit that nobody looked at was missed."""
        return Ending(any(self.verdicts[:1]), any(self.verdicts))


def taken_by_device(answer: Recognition) -> Taken:
    """Whom a device takes a capture for."""
    return Taken(answer.match.person, answer.score, answer.decision is Decision.ACCEPT)


@dataclass
class Beside:
    """Rivals beside a device, and the released student whose features they recognise by."""

    released: RunningModel
    rivals: Mapping[str, Rival]

    def renew(self, released: RunningModel) -> None:
        """Let the rivals recognise by another release, or other persons."""
        self.released = released
        for rival in self.rivals.values():
            rival.renewed(released)

    def look(self, capture: Pixels, courses: Mapping[str, Course], known: Features | None) -> None:
        """Let rivals look whose visit is not over; `known` are the device's features, which may be of their space."""
        waiting = [name for name in self.rivals if not courses[name].over]
        if not waiting:
            return
        space = self.released.gallery.features.space
        features = known if known is not None and known.space == space else self.released.features([capture])
        for name in waiting:
            taken = self.rivals[name].eyes.take(features)[0]
            courses[name].took(taken, capture)
            if taken.accepted:
                self.rivals[name].accepted(taken, features, capture)

    def end(self, courses: Mapping[str, Course]) -> None:
        """The visit is over: what failed may be learnt from."""
        for name, rival in self.rivals.items():
            if not courses[name].over:
                rival.failed(courses[name].captures)


def courses_of(visit: Visit, beside: Beside) -> dict[str, Course]:
    """A course for the device and each rival."""
    return {name: Course(visit) for name in (*beside.rivals, SELF_DISTILLED)}
