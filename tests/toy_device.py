"""A device so small that its whole life takes seconds: 16 x 16 patterns, a toy student, a teacher of pixels.

Everything on the way is the real thing: store, packages, seals, signatures, worker process. Only the images are small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch.nn import functional
from toy_networks import TOY, one_hot, toy_student

from device_sim.conditions import LabelCondition, TrainingCondition
from device_sim.device import Device
from device_sim.device_settings import DeviceKeys, DeviceSettings
from device_sim.fleet import Release
from device_sim.gate import GateRules
from device_sim.generations import Generations
from device_sim.job import Descent, TrainingJob
from device_sim.recognition import Enrolled, Recognition, RunningModel
from device_sim.store import Store
from tutelage.biometrics.features import Features
from tutelage.biometrics.matching import Decision, DecisionRule
from tutelage.captures import Pixels, to_input
from tutelage.labelling import AbstentionPolicy, Extraction, GalleryLabeller
from tutelage.nn.packaging import Origin, Strangers, package_student
from tutelage.nn.self_distil import SelfDistillation, TrainingSet, self_distil
from tutelage.nn.students import Student, load_student, save_weights
from tutelage.package import read_package
from tutelage.signing import make_signer, read_signer

STORE_KEY, FLEET_KEY = bytes(range(32)), bytes(range(32, 64))
PERSONS = 6


def name_of(person: int) -> str:
    return f"p{person:02d}"


@cache
def _pattern(person: int) -> np.ndarray:
    drawn = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(1000 + person))
    return functional.interpolate(drawn, (16, 16), mode="bicubic", align_corners=True)[0, 0].numpy()


def finger(person: int, press: int, wear: float = 0.0) -> Pixels:
    """Capture number `press` of a person on a sensor that is worn 0..1: fainter, and soiled the same way each time.

    The student of `toy_release` misses some 10 % at wear 0, 60 % at 0.4, nearly all at 1. Taught by `PixelTeacher` at
    0.4 it misses about 20 % there and passes the gate: 24 of 24 trainings from weights changed by one in 10,000 did.
    """
    noise = 0.35 * np.random.default_rng([person, press, 5]).standard_normal((16, 16))
    image = (1 - 0.6 * wear) * (_pattern(person) + noise) + wear * 1.6 * _pattern(-7)
    return np.clip(128 + 40 * image, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class PixelTeacher:
    """Sees smoothed pixels less the soil it knows of: a teacher that is right on any sensor."""

    name: str = "pixels"
    space: str = "pixels/teacher"

    def extract(self, captures: Sequence[Pixels]) -> Extraction:
        inputs = torch.from_numpy(to_input(captures, 16))
        seen = functional.avg_pool2d(inputs, 4).flatten(1).numpy()
        soil = functional.avg_pool2d(torch.from_numpy(to_input([_soil()], 16)), 4).flatten(1).numpy()
        soil = soil / np.linalg.norm(soil)
        seen = seen - (seen @ soil.T) * soil
        vectors = (seen / np.linalg.norm(seen, axis=1, keepdims=True)).astype(np.float32)
        count = len(captures)
        return Extraction(Features(vectors, self.space), np.ones(count, bool), ("",) * count, ("",) * count)


def _soil() -> Pixels:
    return np.clip(128 + 40 * _pattern(-7), 0, 255).astype(np.uint8)


STUDENT = Path(__file__).with_name("toy_student.safetensors")
"""What `trained_student` once gave. On another processor the same steps end elsewhere, for what one rounds up the next
rounds down, and every number of the tests with them: so they all start from this one."""


def trained_student() -> Student:
    """A toy student that knows fingers on new sensors."""
    persons, each = 40, 8
    captures = [finger(500 + p, k) for p in range(persons) for k in range(each)]
    inputs, labels = to_input(captures, 16), np.repeat(np.arange(persons), each)
    known = TrainingSet(
        inputs, one_hot(labels, persons), np.ones(len(inputs), np.float32), inputs[::each], np.arange(persons)
    )
    settings = SelfDistillation(preset="classify", steps=30, batch=32, learning_rate=0.1)
    return self_distil(toy_student(9), known, settings).student


@cache
def toy_release(version: str = "v1") -> Release:
    """The toy student of the file `STUDENT`, released and signed."""
    student = load_student(TOY, STUDENT.read_bytes())
    signer = Ed25519PrivateKey.from_private_bytes(bytes(32))
    strangers = Strangers([finger(2000 + i, 0) for i in range(80)], [f"impostor-{i:03d}" for i in range(80)])
    origin = Origin("toy", version, PixelTeacher().space, "2026-01-01T00:00:00")
    data = package_student(student, "fused", strangers, origin, signer=signer, seal_key=FLEET_KEY)
    return Release(data, signer.public_key(), FLEET_KEY)


REFERENCES = [(name_of(p), finger(p, k)) for p in range(PERSONS) for k in range(2)]


def toy_model(
    references: Sequence[tuple[str, Pixels]] = tuple(REFERENCES), rule: DecisionRule | None = None
) -> RunningModel:
    """The student of `toy_release` with `references` enrolled."""
    release = toy_release()
    package = read_package(release.package, trusted=[release.trusted])
    return RunningModel.of(package, Enrolled.of(references, TOY.side), rule or DecisionRule())


SETTINGS = DeviceSettings(
    labels=LabelCondition(min_count=1, max_age_s=0.0, min_gap_s=0.0),
    training=TrainingCondition(min_fresh=16, min_gap_s=0.0),
    self_distillation=SelfDistillation(preset="classify", steps=60, batch=16, learning_rate=0.05),
    gate=GateRules(max_latency_ratio=3.0),  # a tenth of a toy's millisecond is noise
)


@dataclass
class Clock:
    """Time that goes on by itself, a tenth of a second a look."""

    now_s: float = 1_767_225_600.0

    def __call__(self) -> float:
        self.now_s += 0.1
        return self.now_s


@dataclass
class ToyLife:
    """One device in a folder, which can be put down and started again."""

    folder: Path
    settings: DeviceSettings = SETTINGS
    policy: AbstentionPolicy = field(default_factory=lambda: AbstentionPolicy(0.5, 0.05))
    clock: Clock = field(default_factory=Clock)
    device: Device = field(init=False)
    presses: int = 100

    def __post_init__(self) -> None:
        if (self.folder / "device.key").exists():
            self._boot()
            self._teach_labeller()
            return
        make_signer(self.folder / "device.key")
        self._generations().install(toy_release().package)
        self._boot()

    def enrolled(self, persons: int = PERSONS, references: int = 2) -> ToyLife:
        for person in range(persons):
            self.device.enrol(name_of(person), [finger(person, k) for k in range(references)])
        return self

    def restart(self, settings: DeviceSettings | None = None) -> Device:
        """As after a power cut: nothing but the disk is left."""
        self.settings = settings or self.settings
        self.device.stop()
        self.device.store.close()
        self._boot()
        self._teach_labeller()
        return self.device

    def _teach_labeller(self) -> None:
        """A labeller in this process forgets everybody at a restart."""
        for person in self.device.store.persons():
            references = [r for r in self.device.store.references() if r.person == person]
            self.device.labeller.enrol(person, [self.device.store.reference_capture(r.id) for r in references])

    def close(self) -> None:
        self.device.stop()
        self.device.store.close()

    def attempt(self, person: int, wear: float = 0.0) -> list[Recognition]:
        """One person tries up to three times, and leaves when accepted."""
        answers: list[Recognition] = []
        self.presses += 10
        while len(answers) < 3 and not (answers and answers[-1].decision is Decision.ACCEPT):
            answers.append(self.device.recognise(finger(person, self.presses + len(answers), wear), str(self.presses)))
        return answers

    def live(self, rounds: int, wear: float, persons: int = PERSONS) -> ToyLife:
        for _ in range(rounds):
            for person in range(persons):
                self.attempt(person, wear)
        return self

    def kinds(self) -> list[str]:
        return [event.kind.value for event in self.device.store.events()]

    def _generations(self) -> Generations:
        own = read_signer(self.folder / "device.key").public_key()
        return Generations(self.folder / "students", cloud_keys=[toy_release().trusted], device_key=own)

    def _boot(self) -> None:
        store = Store.open(self.folder / "store.sqlite", key=STORE_KEY, clock=self.clock)
        try:
            self.device = Device(
                store,
                self._generations(),
                GalleryLabeller(PixelTeacher(), self.policy),
                DeviceKeys(STORE_KEY, FLEET_KEY, read_signer(self.folder / "device.key")),
                jobs=self.folder / "jobs",
                settings=self.settings,
                clock=self.clock,
            )
        except BaseException:
            store.close()
            raise


def toy_job(**changed: object) -> TrainingJob:
    """A job of a second, from `toy_training_set`-like fingers; `changed` are fields of the settings or the job."""
    captures = [finger(p, 50 + k, 0.4) for p in range(4) for k in range(6)]
    inputs, labels = to_input(captures, 16), np.repeat(np.arange(4), 6)
    references = to_input([finger(p, 0) for p in range(4)], 16)
    taught = TrainingSet(inputs, one_hot(labels, 4), np.ones(24, np.float32), references, np.arange(4))
    job = TrainingJob(
        descent=Descent("v1+1", "sha256:" + "0" * 64, 1),
        spec=TOY,
        weights=save_weights(toy_student(1)),
        training_set=taught,
        settings=SelfDistillation(steps=12, batch=16, checkpoint_seconds=0.0),
        threads=1,
        memory_bytes=2**31,
    )
    own = {name: value for name, value in changed.items() if name in job.__dataclass_fields__}
    settings = replace(job.settings, **{name: value for name, value in changed.items() if name not in own})
    return replace(job, settings=settings, **own)


if __name__ == "__main__":
    torch.set_num_threads(1)
    STUDENT.write_bytes(save_weights(trained_student()))
