"""A toy device that lives its whole life - enrols, recognises, asks, trains, swaps, erases - until it is killed, often.

    python killed_life.py FOLDER TIMES SEED

Run as a program, it prints one line of JSON: how often it was killed within which act. Each life is a fork of this
process, which itself never computes: forking needs a process without threads. After each kill another fork boots what
is left and refuses anything but a whole device. A kill takes the worker too: trainings are done within the life.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from lived_device import WORN, trained_here
from toy_device import PERSONS, SETTINGS, Clock, ToyLife, finger, name_of, toy_release

from device_sim.events import EventKind
from device_sim.records import State
from device_sim.training import Training
from tutelage.errors import PackageError, UsageError
from tutelage.nn.self_distil import SelfDistillation

RELEASES = 6
"""Released versions beyond the first."""
LIVES = 40
"""Kills of one device; then a new one is put up, or the tale would only grow."""
FIRST_NEW = 100
"""Number of the first person who is enrolled by a life."""
QUICK = replace(
    SETTINGS,
    self_distillation=SelfDistillation(
        preset="classify", steps=30, batch=16, learning_rate=0.05, checkpoint_seconds=0.0
    ),
)


class Life:
    """One life of the device in a folder, and what it does of its own accord."""

    def __init__(self, folder: Path, seed: int, told: int) -> None:
        self._chance, self._told = random.Random(seed), told
        self._folder, self._seed = folder, seed
        with self._telling("boot"):
            self.toy = ToyLife(folder, settings=QUICK, clock=Clock(1_767_225_600.0 + 3600 * seed), presses=1000 * seed)
        self.device = self.toy.device

    def _telling(self, act: str) -> _Telling:
        return _Telling(self._told, act)

    def live(self) -> None:
        """Without end."""
        acts: list[tuple[Callable[[], None], int]] = [
            (self.attempt, 6), (self.enrol, 2), (self.label, 3), (self.train, 5), (self.install, 1), (self.revert, 1),
            (self.erase, 2),
        ]  # fmt: skip
        while True:
            self._chance.choices([act for act, _ in acts], [weight for _, weight in acts])[0]()

    def attempt(self) -> None:
        with self._telling("recognise"):
            for person in range(PERSONS):
                self.toy.attempt(person, WORN)

    def enrol(self) -> None:
        person = FIRST_NEW + self._seed % 50
        with self._telling(f"enrol {name_of(person)}"):
            self.device.enrol(name_of(person), [finger(person, k) for k in range(2)])

    def label(self) -> None:
        with self._telling("label"):
            self.device.fetch_labels()

    def train(self) -> None:
        with self._telling("train"):
            training = self.device.resume_training() or self.device.start_training()
            if isinstance(training, Training):
                self.device.finish_training(trained_here(training))

    def install(self) -> None:
        newer = range(self.device.generations.released.version + 1, 2 + RELEASES)
        if newer:
            version = self._chance.choice(newer)
            with self._telling(f"install v{version}"), contextlib.suppress(UsageError):  # it may have been reverted
                self.device.install((self._folder.parent / f"v{version}.tutelage").read_bytes())

    def revert(self) -> None:
        with self._telling("revert"), contextlib.suppress(PackageError, UsageError):  # there may be none to go back to
            self.device.revert("a test")

    def erase(self) -> None:
        new = [person for person in self.device.store.persons() if person >= name_of(FIRST_NEW)]
        if new:
            person = self._chance.choice(new)
            with self._telling(f"erase {person}"):
                self.device.erase(person)


class _Telling:
    """Tells whoever kills when an act begins and when it is done."""

    def __init__(self, told: int, act: str) -> None:
        self._told, self._act = told, act

    def __enter__(self) -> None:
        os.write(self._told, f"{self._act}\n".encode())

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            os.write(self._told, f"{self._act} done\n".encode())


def forked(work: Callable[[], None]) -> int:
    """Process id of a fork that does `work`."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def done(child: int) -> None:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "see its error above"


def put_up(folder: Path) -> None:
    """A device that has people and samples, and the releases that it may be sent."""
    for version in range(2, 2 + RELEASES):
        path = folder.parent / f"v{version}.tutelage"
        if not path.exists():
            path.write_bytes(toy_release(f"v{version}").package)
    life = ToyLife(folder, settings=QUICK).enrolled().live(4, WORN)
    life.device.fetch_labels()
    life.close()


def kill(folder: Path, seed: int, chance: random.Random) -> list[str]:
    """Let the device live and kill it in the midst of one of its first acts; what it told."""
    listening, told = os.pipe()
    child = forked(lambda: Life(folder, seed, told).live())
    os.close(told)
    with os.fdopen(listening) as reader:
        lines = [reader.readline() for _ in range(chance.randrange(1, 8))]
        began = [line.strip() for line in lines if not line.endswith("done\n")][-1]
        time.sleep(chance.random() ** 2 * _USUAL_S.get(began.split()[0], 0.05))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, "it ended by itself"
        lines += reader.readlines()
    return [line.strip() for line in lines if line.endswith("\n")]


_USUAL_S = {"boot": 0.5, "train": 1.5, "erase": 0.3, "install": 0.3, "recognise": 0.2, "label": 0.1, "enrol": 0.05}
"""About as long as an act takes."""


class Known:
    """What must be true of the device, from what it told."""

    def __init__(self) -> None:
        self.enrolled = {name_of(person) for person in range(PERSONS)}
        self.perhaps: set[str] = set()
        """Persons who were about to come or go when it was killed."""

    def hear(self, lines: list[str]) -> str:
        """Take in what a life told; the act in which it was killed, empty where it was between two."""
        under_way = ""
        for line in lines:
            words = line.split()
            under_way = "" if words[-1] == "done" else line
            if words[0] in ("enrol", "erase"):
                person = words[1]
                self.enrolled.discard(person)
                self.perhaps.discard(person)
                if words[-1] != "done":
                    self.perhaps.add(person)
                elif words[0] == "enrol":
                    self.enrolled.add(person)
        return under_way.split(" ")[0]

    def see(self, persons: set[str]) -> None:
        """Whoever may have come or gone has come or gone now."""
        self.enrolled, self.perhaps = persons, set()


def check(folder: Path, known: Known, seen: Path) -> None:
    """Boot what is left; refuse anything but a whole device, and write down who is enrolled."""
    with closing(sqlite3.connect(folder / "store.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    life = ToyLife(folder, settings=QUICK)
    device, store = life.device, life.device.store
    persons = set(store.persons())
    assert known.enrolled <= persons <= known.enrolled | known.perhaps, (known.enrolled, persons)
    references = Counter(reference.person for reference in store.references())
    assert set(references) == set(device.model.gallery.persons) == persons
    assert all(count >= 2 for count in references.values())
    assert device.model.version == str(device.generations.current)
    assert device.model.digest == device.generations.boot().package.digest
    check_once(life)
    life.close()
    seen.write_text(json.dumps(sorted(persons)))


def check_once(life: ToyLife) -> None:
    """Nothing was applied twice."""
    store = life.device.store
    samples = store.samples(*State)
    assert len({sample.decision_id for sample in samples}) == len(samples), "a capture was kept twice"
    events = store.events()
    for kind, name in ((EventKind.LABEL_STORED, "sample"), (EventKind.SAMPLE_KEPT, "sample")):
        told = [event.numbers[name] for event in events if event.kind is kind]
        assert len(told) == len(set(told)), f"{kind} twice"
    for kind in (EventKind.GATE_PASSED, EventKind.GENERATION_SWAPPED):
        told = [event.generation for event in events if event.kind is kind]
        assert len(told) == len(set(told)), f"{kind} twice"
    learning = {sample.training_set for sample in samples if sample.state in (State.USED, State.HELD_BACK)}
    assert None not in learning


def lives(root: Path, times: int, seed: int) -> Counter[str]:
    """Kill devices `times` times; how often within which act."""
    chance, killed = random.Random(seed), Counter[str]()
    for number in range(times):
        folder = root / f"device-{number // LIVES}"
        if number % LIVES == 0:
            shutil.rmtree(root / f"device-{number // LIVES - 1}", ignore_errors=True)
            folder.mkdir()
            done(forked(partial(put_up, folder)))
            known = Known()
        lines = kill(folder, number + 1, chance)
        act = known.hear(lines)
        killed[act or "between"] += 1
        try:
            done(forked(partial(check, folder, known, root / "seen.json")))
        except AssertionError:
            sys.stderr.write(f"kill {number}, in {act or 'no act'}: {lines}\n")
            raise
        known.see(set(json.loads((root / "seen.json").read_text())))
    return killed


def main() -> None:
    root, times, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    out, sys.stdout = sys.stdout, io.StringIO()
    out.write(json.dumps(lives(root, times, seed)))


if __name__ == "__main__":
    main()
