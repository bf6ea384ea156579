"""Students follow each other for years: nobody is enrolled again, nothing is compared across spaces, nobody waits.

A hundred persons, ten released versions and twenty local generations in a row, while captures keep coming: from another
thread, which never waits for a swap.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from lived_device import swapped
from toy_device import FLEET_KEY, SETTINGS, STUDENT, PixelTeacher, ToyLife, finger, name_of
from toy_networks import TOY, one_hot

from device_sim.conditions import TrainingCondition
from device_sim.events import EventKind
from device_sim.gate import GateRules
from device_sim.sampling import SampleRules
from tutelage.biometrics.matching import Decision
from tutelage.captures import Pixels, to_input
from tutelage.errors import TutelageError
from tutelage.nn.packaging import Origin, Strangers, package_student
from tutelage.nn.self_distil import SelfDistillation, TrainingSet, self_distil
from tutelage.nn.students import Student, load_student

PERSONS, RELEASES, LOCAL_EACH = 100, 10, 2
CALM = replace(
    SETTINGS,
    sampling=SampleRules(sample_low=30.0, sample_high=1000.0, max_duplicate_cosine=1.0, per_person_per_day=1000),
    training=TrainingCondition(min_fresh=12, min_gap_s=0.0),
    # The least that makes another student: what is tried here is the swap, not what a training brings.
    self_distillation=SelfDistillation(
        preset="classify", steps=2, batch=16, learning_rate=1e-6, frozen_statistics=True
    ),
    gate=GateRules(max_latency_ratio=100.0, reference_slack=10.0, nominal=False),
)


@pytest.fixture(autouse=True)
def _torch_as_before():
    """Trainings in this process leave torch as a worker wants it."""
    yield
    torch.use_deterministic_algorithms(False)


@cache
def further_student(version: int) -> Student:
    """The toy student, or one distilled a little further from the version before it."""
    if version == 1:
        return load_student(TOY, STUDENT.read_bytes())
    persons, each = 30, 4
    first = 500 + 100 * version
    captures = [finger(first + p, k) for p in range(persons) for k in range(each)]
    inputs, labels = to_input(captures, 16), np.repeat(np.arange(persons), each)
    known = TrainingSet(
        inputs, one_hot(labels, persons), np.ones(len(inputs), np.float32), inputs[::each], np.arange(persons)
    )
    settings = SelfDistillation(preset="classify", steps=4, batch=32, learning_rate=0.02, seed=version)
    return self_distil(further_student(version - 1), known, settings).student


@cache
def release(version: int) -> bytes:
    strangers = Strangers([finger(2000 + i, 0) for i in range(80)], [f"impostor-{i:03d}" for i in range(80)])
    origin = Origin("toy", f"v{version}", PixelTeacher().space, "2026-01-01T00:00:00")
    signer = Ed25519PrivateKey.from_private_bytes(bytes(32))
    return package_student(further_student(version), "fused", strangers, origin, signer=signer, seal_key=FLEET_KEY)


@dataclass
class Visitors:
    """Persons who show what they enrolled with, again and again, while students change."""

    life: ToyLife
    references: Sequence[tuple[str, Pixels]]
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    generations: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def come(self) -> None:
        for turn, (person, capture) in enumerate(self._again()):
            try:
                answer = self.life.device.answer(capture, f"visitor-{turn}")
            except TutelageError as error:
                self.failures.append(f"{person}: {error.message}")
                continue
            self.answered += 1
            found = answer.recognition
            if found.match.person != person or found.decision is not Decision.ACCEPT:
                self.failures.append(f"{answer.generation}: {person} taken for {found.match.person}, {found.score:.1f}")
            if answer.generation not in self.generations[-1:]:
                self.generations.append(answer.generation)

    def _again(self) -> Iterator[tuple[str, Pixels]]:
        while not self.over.is_set():
            for reference in self.references:
                if self.over.wait(0.003):  # they come and go: whoever trains needs the processor too
                    return
                yield reference


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[ToyLife]:
    life = ToyLife(tmp_path, CALM)
    yield life.enrolled(PERSONS)
    life.close()


@pytest.mark.slow
def test_a_hundred_persons_stay_enrolled_through_ten_versions_and_twenty_generations(crowd: ToyLife):
    device = crowd.device
    references = [(name_of(p), finger(p, k)) for p in range(PERSONS) for k in range(2)]
    enrolments = [event.id for event in device.store.events() if event.kind is EventKind.ENROLLED]
    visitors = Visitors(crowd, references)
    coming = threading.Thread(target=visitors.come)
    coming.start()
    spaces: list[str] = []
    try:
        for version in range(2, RELEASES + 2):
            device.install(release(version))
            spaces.append(checked_space(crowd))
            for _ in range(LOCAL_EACH):
                for person in range(12):
                    crowd.attempt((7 * version + person) % PERSONS)
                swapped(crowd)
                spaces.append(checked_space(crowd))
    finally:
        visitors.over.set()
        coming.join()
    assert visitors.failures == []
    assert visitors.answered > len(references)
    assert len(set(spaces)) == RELEASES * (1 + LOCAL_EACH)
    assert [event.id for event in device.store.events() if event.kind is EventKind.ENROLLED] == enrolments
    assert str(device.generations.current) == f"v{RELEASES + 1}+{LOCAL_EACH}"
    assert len(visitors.generations) > RELEASES


def checked_space(life: ToyLife) -> str:
    """The running student's space, in which every person's every reference must lie."""
    model = life.device.model
    assert set(model.gallery.persons) == {name_of(p) for p in range(PERSONS)}
    assert len(model.gallery.persons) == 2 * PERSONS
    assert model.gallery.features.space == model.recogniser.space
    return model.gallery.features.space
