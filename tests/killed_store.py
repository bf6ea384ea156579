"""Erasing, changing keys and migrating, cut off at each step and killed at random; ends with an error if harm is done.

Run as a program, it prints one line of JSON: how often each was cut off, and in which state it was met. Forking needs a
process without threads, which a test process is not.
"""

from __future__ import annotations

import itertools
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from device_store import keep_first, keep_second
from old_stores.make_store import life_of
from student_packages import CLOUD, DEVICE, student_package

from device_sim.erasure import Erasures
from device_sim.generations import Generations
from device_sim.job import CHECKPOINT, JOB
from device_sim.pointer import Generation
from device_sim.receipt import read_receipt
from device_sim.records import State
from device_sim.rotation import rotate_key, settle_jobs
from device_sim.store import Store
from device_sim.training_sets import NOTES, UNLEARNT
from tutelage.captures import Pixels
from tutelage.errors import Code, PersonError, StorageError
from tutelage.sealing import open_sealed, seal

KEY, NEW = bytes(range(32)), bytes(range(100, 132))
GONE, OTHERS = "gone-for-good", ("anna", "bert")
OLD = Path(__file__).parent / "old_stores" / "layout-1.sqlite"
EXIT_AT_POINT = 9
TOUCHES = frozenset({"open", "os.remove", "os.rename", "os.mkdir", "os.link", "os.rmdir"})
"""What the interpreter announces before it touches the file system (PEP 578)."""


class FileTeacher:
    """Knows persons by files in a folder, so that what it was told outlives a process."""

    space = "file/teacher"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def enrol(self, person: str, captures: Sequence[Pixels]) -> None:
        (self.folder / person.encode().hex()).touch()

    def remove(self, person: str) -> None:
        try:
            (self.folder / person.encode().hex()).unlink()
        except FileNotFoundError as error:
            raise PersonError(person) from error


@dataclass
class Kept:
    """All that a device keeps in a folder, without what recognises."""

    folder: Path
    key: bytes = KEY

    def __post_init__(self) -> None:
        clock = itertools.count(1_000_000.0 + time.time()).__next__
        self.store = Store.open(self.folder / "store.sqlite", key=self.key, clock=clock)
        own = DEVICE.public_key()
        self.generations = Generations(self.folder / "students", cloud_keys=[CLOUD.public_key()], device_key=own)
        jobs = self.folder / "jobs"
        self.erasures = Erasures(self.store, self.generations, jobs=jobs, signer=DEVICE, clock=clock)
        self.teacher = FileTeacher(self.folder / "teacher")

    def started(self) -> Kept:
        """As a device starts."""
        settle_jobs(self.folder / "jobs", self.key)
        self.erasures.resume()
        self.generations.boot()
        return self

    def erase(self) -> None:
        self.erasures.begin(GONE, self.teacher)
        self.finish()

    def finish(self) -> None:
        self.erasures.settle()
        self.erasures.tell(self.teacher)

    def close(self) -> None:
        self.store.close()


def captures(seed: int) -> Callable[[], Pixels]:
    rng = np.random.default_rng(seed)
    return lambda: rng.integers(0, 256, (24, 24), dtype=np.uint8)


def make_base(folder: Path) -> None:
    """A device whose students, job and store all have something of the person who will be gone."""
    for name in ("students", "teacher", "jobs/v1+2"):
        (folder / name).mkdir(parents=True)
    kept, capture = Kept(folder), captures(1)
    released = kept.generations.install(student_package("v1"))
    for person in (*OTHERS, GONE):
        kept.store.enrol(person, [capture(), capture()])
        kept.teacher.enrol(person, [])
        keep_first(kept.store, capture(), person=person)
        keep_second(kept.store, capture, person=person)
    first, second = Generation(1, 1), Generation(1, 2)
    kept.store.add_lessons(first, 1, (*OTHERS, GONE), parent=Generation(1), kept=())
    kept.generations.promote(student_package("v1+1", parent=released.digest))
    labelled = [s.id for s in kept.store.samples(State.FRESH) if s.label is not None]
    kept.store.mark(labelled, State.USED, note=NOTES[0], training_set=1)
    kept.store.add_lessons(second, 2, (*OTHERS, GONE), parent=first, kept=[first])
    for name in (JOB, CHECKPOINT):
        (folder / "jobs" / "v1+2" / name).write_bytes(seal(name.encode() * 500, KEY, purpose=name))
    kept.close()


# What must hold, whenever it was cut off


def check_erased(folder: Path) -> str:
    """The person is whole or gone, everybody else is whole, and the student verifies."""
    kept = Kept(folder).started()
    try:
        whole = GONE in kept.store.persons()
        if not whole:
            kept.finish()
        for person in OTHERS:
            references = [r for r in kept.store.references() if r.person == person]
            assert len([kept.store.reference_capture(r.id) for r in references]) == 2, "references were lost"
            own = [s for s in kept.store.samples(State.FRESH, State.USED) if s.label and s.label.person == person]
            assert len([kept.store.sample_capture(s.id) for s in own]) == 1, "samples were lost"
        assert str(kept.generations.boot().generation) == ("v1+1" if whole else "v1")
        assert (folder / "jobs" / "v1+2").exists() == whole
        assert len(list((folder / "students").glob("*.tutelage"))) == (2 if whole else 1)
        assert kept.erasures.pending() == 0
        if not whole:
            check_gone(kept)
        return "whole" if whole else "erased"
    finally:
        kept.close()


def check_gone(kept: Kept) -> None:
    erased = kept.erasures.erased(GONE)
    receipt = read_receipt(erased.receipt, trusted=[DEVICE.public_key()])
    assert (len(receipt.references), len(receipt.samples)) == (2, 4), receipt
    assert ([s.generation for s in receipt.students], receipt.jobs) == (["v1+1"], ("v1+2",)), receipt
    told = [event for event in kept.store.events() if event.kind.value == "person-erased"]
    assert len(told) == 1, "it was erased twice"
    assert not (kept.teacher.folder / GONE.encode().hex()).exists()
    assert kept.store.samples(State.USED) == ()
    assert [s.note for s in kept.store.samples(State.FRESH) if s.label is not None] == [UNLEARNT] * 2
    kept.close()
    files = b"".join(path.read_bytes() for path in kept.folder.rglob("*") if path.is_file())
    assert GONE.encode() not in files
    kept.__post_init__()


def check_rotated(folder: Path) -> str:
    """One of the keys opens all there is, and the other nothing."""
    try:
        kept, key = Kept(folder), KEY
    except StorageError as error:
        if error.code is not Code.KEY_WRONG:
            raise
        kept, key = Kept(folder, NEW), NEW
    try:
        kept.started()
        assert kept.store.persons() == tuple(sorted((*OTHERS, GONE)))
        life = life_of(kept.store)
        assert len(life["references"]) == 6
        assert len(life["captures"]) == 12
        for name in (JOB, CHECKPOINT):
            path = folder / "jobs" / "v1+2" / name
            assert open_sealed(path.read_bytes(), key, purpose=name) == name.encode() * 500
        assert len(list((folder / "jobs" / "v1+2").iterdir())) == 2, "leftovers"
    finally:
        kept.close()
    done = rotate_key(folder / "store.sqlite", folder / "jobs", old=KEY, new=NEW, clock=time.time)
    assert (done.parts > 0) == (key == KEY)
    return "old key" if key == KEY else "new key"


def check_migrated(folder: Path) -> str:
    """The old store tells the same as one that was never cut off."""
    ours = Store.open(folder / "store.sqlite", key=KEY, clock=time.time)
    whole = shutil.copytree(folder, folder.with_name(folder.name + "-whole"))
    shutil.copy(OLD, whole / "store.sqlite")
    for name in ("store.sqlite-wal", "store.sqlite-shm"):
        (whole / name).unlink(missing_ok=True)
    with ours, Store.open(whole / "store.sqlite", key=KEY, clock=time.time) as other:
        life = life_of(ours)
        assert life == life_of(other)
        assert len(life["references"]) == 8
    files = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"only the teacher knows" not in files
    shutil.rmtree(whole)
    return "migrated"


def erase(folder: Path) -> None:
    kept = Kept(folder)
    try:
        kept.started().erase()
    finally:
        kept.close()


def rotate(folder: Path) -> None:
    rotate_key(folder / "store.sqlite", folder / "jobs", old=KEY, new=NEW, clock=time.time)


def migrate(folder: Path) -> None:
    Store.open(folder / "store.sqlite", key=KEY, clock=time.time).close()


ACTIONS = {"erase": (erase, check_erased), "rotate": (rotate, check_rotated), "migrate": (migrate, check_migrated)}


# Cutting off


def stop_at(point: int, folder: Path, act: Callable[[Path], None]) -> bool:
    """Act in a process that ends before its `point`-th statement or touch of a file; whether it got there."""
    child = os.fork()
    if child == 0:
        left = point

        def step(*_: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os._exit(EXIT_AT_POINT)

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event in TOUCHES and str(arguments[0]).startswith(str(folder)):
                step()

        def traced(*words: object, **more: object) -> sqlite3.Connection:
            connection = connect(*words, **more)
            connection.set_trace_callback(step)
            return connection

        connect, sqlite3.connect = sqlite3.connect, traced
        sys.addaudithook(hook)
        acted(act, folder)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, EXIT_AT_POINT), "it failed by itself"
    return status == EXIT_AT_POINT


def acted(act: Callable[[Path], None], folder: Path) -> None:
    """Act, and end this process."""
    try:
        act(folder)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def kill_at_random(folder: Path, act: Callable[[Path], None], within_s: float, rng: random.Random) -> None:
    listening, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(listening)
        os.write(told, b".")
        acted(act, folder)
    os.close(told)
    os.read(listening, 1)
    os.close(listening)
    time.sleep(rng.uniform(0.0, within_s))
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, -signal.SIGKILL), "it failed by itself"


def base_of(root: Path, name: str) -> Path:
    base = root / f"{name}-base"
    base.mkdir(parents=True)
    if name == "migrate":
        shutil.copy(OLD, base / "store.sqlite")
    else:
        make_base(base)
    return base


def cut_everywhere(root: Path, name: str) -> dict[str, int]:
    """Cut one action off before each of its steps; how often each state was met."""
    (act, check), base, met = ACTIONS[name], base_of(root, name), Counter[str]()
    for point in itertools.count(1):
        folder = shutil.copytree(base, root / f"{name}-{point}")
        reached = stop_at(point, folder, act)
        met[check(folder)] += 1
        shutil.rmtree(folder)
        if not reached:
            return dict(met)
    raise AssertionError("it never ends")


def kill_often(root: Path, name: str, times: int, rng: random.Random) -> dict[str, int]:
    (act, check), base, met = ACTIONS[name], base_of(root, name), Counter[str]()
    whole = shutil.copytree(base, root / f"{name}-whole")
    began_s = time.monotonic()
    assert not stop_at(10**9, whole, act)
    within_s = 1.3 * (time.monotonic() - began_s)
    for number in range(times):
        folder = shutil.copytree(base, root / f"{name}-{number}")
        kill_at_random(folder, act, within_s, rng)
        met[check(folder)] += 1
        shutil.rmtree(folder)
    return dict(met)


def main() -> None:
    root, times = Path(sys.argv[1]), int(sys.argv[2])
    rng = random.Random(1)
    met = {name: {"everywhere": cut_everywhere(root / "cut", name)} for name in ACTIONS}
    for name in ACTIONS:
        met[name]["at random"] = kill_often(root / "killed", name, times, rng)
    sys.stdout.write(json.dumps(met))


if __name__ == "__main__":
    main()
