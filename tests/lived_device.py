"""What is done with a toy device that has lived a while, and what is looked at: for the tests of a device's loop."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from dataclasses import replace

from toy_device import PERSONS, STORE_KEY, ToyLife, finger, name_of

from device_sim.device import Device
from device_sim.events import EventKind
from device_sim.gate import Verdict
from device_sim.job import JOB, RESULT, TrainingJob, open_result, seal_result
from device_sim.records import State
from device_sim.training import Training
from device_sim.worker import work
from tutelage.biometrics.matching import Decision
from tutelage.errors import Code, TutelageError

WORN = 0.4
STRANGERS = range(7000, 7100)


def begun(device: Device) -> Training:
    training = device.start_training()
    assert isinstance(training, Training), training
    return training


DONE: dict[str, tuple[bytes, dict]] = {}
"""Results by what was trained: tests that need the same student do not train it anew."""


def trained_here(training: Training) -> Training:
    """The same job done in this process, which has torch loaded already: the result lies there as a worker's does."""
    training.kill()
    job = TrainingJob.open((training.folder / JOB).read_bytes(), STORE_KEY)
    same = f"{job.settings} {job.training_set.digest()} {hashlib.sha256(job.weights).hexdigest()}"
    if same not in DONE:
        # This process holds all that other tests loaded: the worker's budget is not meant for it.
        (training.folder / JOB).write_bytes(replace(job, memory_bytes=2**36).sealed(STORE_KEY))
        work(training.folder, STORE_KEY, io.StringIO())
        DONE[same] = open_result((training.folder / RESULT).read_bytes(), STORE_KEY)
    (training.folder / RESULT).write_bytes(seal_result(*DONE[same], STORE_KEY))
    training.start()
    return training


def swapped(life: ToyLife) -> Verdict:
    verdict = life.device.finish_training(trained_here(begun(life.device)))
    assert isinstance(verdict, Verdict), verdict
    assert verdict.passed, verdict.reasons
    return verdict


def having(life: ToyLife, **changes: object) -> ToyLife:
    """The same device with other settings from now on."""
    life.restart(replace(life.settings, **changes))
    return life


def accepted(device: Device, wear: float) -> int:
    """Of 60 captures, those accepted as who they are; nothing is kept."""
    answers = [
        (name_of(p), device.model.recognise(finger(p, 900 + k, wear))) for p in range(PERSONS) for k in range(10)
    ]
    return sum(a.decision is Decision.ACCEPT and a.match.person == p for p, a in answers)


def states(life: ToyLife) -> Counter[str]:
    return Counter(s.state.value for s in life.device.store.samples(*State))


def reasons(life: ToyLife, kind: EventKind) -> list[str]:
    return [event.reason for event in life.device.store.events() if event.kind is kind]


def code_of(outcome: Verdict | TutelageError) -> Code:
    assert isinstance(outcome, TutelageError), outcome
    return outcome.code
