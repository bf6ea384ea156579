"""One device lives through its year: visits by day, labels and trainings by night, and all that goes wrong between.

Nothing is spared the device. A power cut leaves it what lies on the disk at that instant, and it is started from there;
without a network its calls fail; a released version is installed while people come. Its rivals stand beside it and meet
the same captures.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import structlog

from device_sim.device import Device
from device_sim.fleet import NIGHT_S, POLL_S, Release, SimulatedClock, boot, unpack
from device_sim.recognition import Recognition, RunningModel
from device_sim.results import FROZEN, SELF_DISTILLED
from device_sim.training import Training
from device_sim.year.books import TEMPLATE, Books
from device_sim.year.place import Place, Visit
from device_sim.year.rivals import AdaptedTemplates, Eyes, FrozenStudent, Rival, released_model
from device_sim.year.settings import YearSettings
from device_sim.year.timetable import Resident
from device_sim.year.uplink import Uplink
from device_sim.year.visits import Beside, courses_of, taken_by_device
from tutelage.captures import Pixels
from tutelage.errors import ServiceError, TutelageError
from tutelage.package import read_package

MORNING_S, VISIT_S = 21_600.0, 600.0
"""When the first visitor of a day comes, and how long until the next one."""
CUT_TRAINING = 3
"""Every so many-th power cut waits for a training and hits it."""

_log = structlog.get_logger()


@dataclass
class Life:
    """A device, its place, its rivals and its books."""

    settings: YearSettings
    place: Place
    releases: Sequence[Release]
    """All of the year; the first is what the device is put up with."""
    uplink: Uplink
    folder: Path
    books: Books = field(default_factory=Books)
    clock: SimulatedClock = field(default_factory=SimulatedClock)
    device: Device = field(init=False)
    beside: Beside = field(init=False)
    enrolled: dict[str, Resident] = field(init=False, default_factory=dict)
    _references: dict[str, list[Pixels]] = field(init=False, default_factory=dict)
    _installed: int = field(init=False, default=0)
    _cuts: int = field(init=False, default=0)
    _cut_training: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Put the device up; nobody is enrolled yet."""
        unpack(self.folder, self.releases[0])
        self.device = self._booted(self.folder)
        released, rules = self._released(), self.settings.device.sampling
        rivals: dict[str, Rival] = {
            FROZEN: FrozenStudent(Eyes.of(released)),
            TEMPLATE: AdaptedTemplates(released, rules, self.settings.device.learning),
        }
        self.beside = Beside(released, rivals)

    def close(self) -> None:
        """Put the device down."""
        self.device.stop()
        self.device.store.close()

    def play(self, day: int) -> None:
        """Everything that happens on `day`, its night included."""
        self.clock.set(day, 0.0)
        self._change(day)
        visits = list(self.place.visits(day, list(self.enrolled.values())))
        cuts = self._cuts_before(day, len(visits))
        for turn, visit in enumerate(visits):
            self.clock.set(day, MORNING_S + turn * VISIT_S)
            if turn in cuts:
                self._cut_power(day, "between two visitors")
            self._receive(visit, f"{day}.{turn}")
        self._night(day)
        self._check()

    # Changes of a day

    def _change(self, day: int) -> None:
        """The sensor, the network, the released version and the persons of `day`."""
        table = self.place.timetable
        self.uplink.online = table.online(day)
        if day and day in table.sensors:
            self.books.tell(day, "sensor-replaced", f"sensor {table.sensor(day) + 1} of {len(table.sensors)} is new")
        for outage in table.outages:
            if day == outage.start:
                self.books.tell(day, "network-out", f"for {outage.end - outage.start} days")
        if day in (table.attack.start, table.attack.end):
            self.books.tell(day, "attack", "begins" if day == table.attack.start else "is over")
        self._install(day)
        self._come_and_go(day)

    def _install(self, day: int) -> None:
        """Install the version that is out by now, where there is a network to fetch it."""
        out = sum(released <= day for released in self.place.timetable.releases)
        if out > self._installed and self.uplink.online:
            self._installed = out
            self.device.install(self.releases[out].package)
            self.beside.renew(self._released())

    def _come_and_go(self, day: int) -> None:
        """Erase who leaves and enrol who joins; without a network, who joins waits for it."""
        here = {resident.name: resident for resident in self.place.residents(day)}
        leaving, joining = self.enrolled.keys() - here.keys(), sorted(here.keys() - self.enrolled.keys())
        if self.uplink.online and self.device.pending_removals():
            self.device.finish_removals()
        for name in sorted(leaving):
            self._erase(name, day)
        joined = [name for name in joining if self._enrol(here[name], day)]
        if joined and day:
            self.books.tell(day, "joined", f"{len(joined)} enrolled on the sensor as it is")
        if leaving or joined:
            self.beside.renew(self._released())

    def _enrol(self, resident: Resident, day: int) -> bool:
        references = self.place.references(resident, day)
        try:
            self.device.enrol(resident.name, references)
        except ServiceError:
            return False
        self.books.enrolments[resident.name] += 1
        self.enrolled[resident.name], self._references[resident.name] = resident, references
        return True

    def _erase(self, name: str, day: int) -> None:
        """Erase who leaves; without a network the teacher hears of it later."""
        del self.enrolled[name], self._references[name]
        self.books.erased.add(name)
        try:
            self.device.erase(name)
        except ServiceError:
            self.books.tell(day, "left", "erased here; the teacher is told once it can be reached")
        else:
            self.books.tell(day, "left", "erased here and at the teacher")

    # Visits

    def _receive(self, visit: Visit, attempt: str) -> None:
        """One visit, before all recognisers."""
        courses = courses_of(visit, self.beside)
        for k in range(self.settings.device.sampling.retries):
            if all(course.over for course in courses.values()):
                break
            capture, features = visit.tries(k), None
            if not courses[SELF_DISTILLED].over:
                answer = self._answered(capture, attempt)
                if answer is not None:
                    courses[SELF_DISTILLED].took(taken_by_device(answer), capture)
                    features = answer.features
            self.beside.look(capture, courses, features)
        self.beside.end(courses)
        self.books.visit(visit.who, {name: course.ending for name, course in courses.items()})

    def _answered(self, capture: Pixels, attempt: str) -> Recognition | None:
        """The device's answer; None where it gave none, which is counted."""
        self.books.captures += 1
        self.clock.now_s += 2.0
        try:
            return self.device.recognise(capture, attempt)
        except TutelageError as error:
            self.books.unanswered += 1
            _log.error("a capture was not answered", code=error.code.value, reason=error.message)
            return None

    # Nights

    def _night(self, day: int) -> None:
        """Labels where the teacher can be reached, then a training where one is due."""
        self.clock.set(day, NIGHT_S)
        try:
            self.device.fetch_labels()
            for rival in self.beside.rivals.values():
                rival.asked(self.uplink)
        except ServiceError:
            self.books.offline_nights += 1
        training = self._begun()
        if training is not None and self._cut_training:
            self._cut_training = False
            self._halfway(training)
            self._cut_power(day, "in the middle of a training")
            training = self._begun()
        if training is not None:
            self.device.finish_training(training)

    def _begun(self) -> Training | None:
        begun = self.device.resume_training() or self.device.start_training()
        return begun if isinstance(begun, Training) else None

    @staticmethod
    def _halfway(training: Training) -> None:
        """Wait until half of the steps are done."""
        while training.running() and 2 * training.last.get("step", 0) < training.last.get("steps", 1):
            time.sleep(POLL_S)

    # Power

    def _cuts_before(self, day: int, visits: int) -> frozenset[int]:
        """Before which of a day's visits the power fails; some cuts are put off to hit a training."""
        turns: set[int] = set()
        rng = np.random.default_rng([self.settings.seed, self.place.timetable.number, 25, day])
        for _ in range(self.place.timetable.power_cuts.count(day)):
            self._cuts += 1
            if self._cuts % CUT_TRAINING == 0:
                self._cut_training = True
            elif visits:
                turns.add(int(rng.integers(visits)))
        return frozenset(turns)

    def _cut_power(self, day: int, when: str) -> None:
        """Nothing is left but what lies on the disk at this instant."""
        copy = self.folder.with_name(f"{self.folder.name}.copy")
        shutil.copytree(self.folder, copy)
        self.close()  # whatever this still writes is thrown away with the folder
        shutil.rmtree(self.folder)
        copy.rename(self.folder)
        self.device = self._booted(self.folder)
        self.books.boots += 1
        self.books.tell(day, "power-cut", when)

    def _booted(self, folder: Path) -> Device:
        device = self.settings.device
        return boot(folder, self.releases[0], labeller=self.uplink, settings=device, clock=self.clock)

    # Promises

    def _released(self) -> RunningModel:
        """The released student, with who is enrolled now."""
        release = self.releases[self._installed]
        references = [(name, capture) for name, captures in self._references.items() for capture in captures]
        package = read_package(release.package, trusted=[release.trusted])
        return released_model(package, references, self.settings.device.sampling)

    def _check(self) -> None:
        """Count whom the device should know and does not, and whom it should not and does."""
        model = self.device.model
        known = set(self.device.store.persons()) & set(model.gallery.persons)
        self.books.lost += len(self.enrolled.keys() - known)
        self.books.remembered += len(self.books.erased & {*self.device.store.persons(), *model.gallery.persons})
        self.books.mixed += model.gallery.features.space != model.recogniser.space
