"""How much easier attackers get in by poisoning what a device learns from, with and without the limits on samples.

    python benchmarks/poison.py [--seeds N] [--json OUT]

Two attacks on a device at which ten persons are enrolled, for two days on a worn sensor, among their genuine attempts:

- `ten injections` (Lovisotto et al. 2020): each of three attackers gets ten captures in, each as near to the attacker
  as is still kept. Adapted templates are attacked in feature space, as in the paper: a feature between the victim's
  template, as it is by then, and the attacker's. A student learns from pixels, so the device is shown the attacker's
  own finger, changed pixel by pixel, with the running student's gradients at hand, until its feature lies there. No
  sensor would see such a capture of a finger; whoever can inject pixels can.
- `hostile tenth`: a tenth of all attempts are of the three attackers, whose fakes carry more and more of the ridges
  of a victim, up to two fifths.

Then the device asks the teacher, trains, and judges what it has trained. Measured is how many of the attackers' plain
captures, which were used for nothing else, are accepted as anybody, by

- the frozen student;
- adapted templates, without limits and with them;
- the student trained on what was kept without limits (every accepted capture is kept, whatever its score, as often as
  it comes), and with them, each before the gate judged it;
- the device: with limits, behind its gate.

A capture gets in at score 30; counted is also how many come near, to score 20, which ten times as many strangers do:
an approach shows there first. Beside it misses of the persons and acceptances of strangers, on the same sensor.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _poison_rates import ATTACKS, ROWS, show, summary
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import Tensor
from torch.nn import functional

from device_sim.conditions import LabelCondition, TrainingCondition
from device_sim.device import Device
from device_sim.device_settings import DeviceSettings
from device_sim.drift import conditions_at_wear
from device_sim.fleet import NIGHT_S, SimulatedClock, boot, unpack
from device_sim.gate import GateRules
from device_sim.masters import grow_masters
from device_sim.models import Models, shipped
from device_sim.provenance import made
from device_sim.recognition import RunningModel
from device_sim.records import State
from device_sim.sampling import SampleRules
from device_sim.sensor import Condition, Presses, Sensor
from device_sim.training import Training
from device_sim.year.place import mixture
from device_sim.year.rivals import AdaptedTemplates, Eyes, Taken, released_model
from tutelage.biometrics.features import Features
from tutelage.biometrics.matching import Decision
from tutelage.captures import Pixels
from tutelage.labelling import GalleryLabeller
from tutelage.nn.batches import standardise
from tutelage.nn.packaging import Origin, package_student
from tutelage.nn.self_distil import SelfDistillation
from tutelage.nn.students import load_student
from tutelage.package import read_package

PERSONS, ATTACKERS, STRANGERS = 10, 3, 60
INJECTIONS = 10
DAYS, VISITS = 2, 40
"""Days of an attack, and attempts a day."""
WEAR = 0.35
REFERENCES, PROBES, PLAIN = 3, 8, 40
"""Captures a person for enrolment and for measuring, and of each attacker for measuring."""
HOSTILE_SHARE, FIRST_SHARE, LAST_SHARE = 0.1, 0.1, 0.4
LIMITS = SampleRules()
UNLIMITED = SampleRules(sample_low=30.0, sample_high=10_000.0, per_person_per_day=10_000, max_duplicate_cosine=1.0)
NEAR = 20.0
CRAFT_STEPS, CRAFT_RATE, CRAFT_PENALTY = 120, 0.01, 0.002
_ATTACKERS_FROM, _STRANGERS_FROM = 600, 700


@dataclass(frozen=True)
class Scene:
    """The people before one device, and every capture they make."""

    seed: int

    @cached_property
    def masters(self) -> dict[int, Tensor]:
        wanted = [*range(PERSONS), *self.attackers, *range(_STRANGERS_FROM, _STRANGERS_FROM + STRANGERS)]
        return dict(zip(wanted, grow_masters(1000 + self.seed, wanted), strict=True))

    @property
    def attackers(self) -> range:
        """Numbers of the attackers; the victim of each is the person of the same place."""
        return range(_ATTACKERS_FROM, _ATTACKERS_FROM + ATTACKERS)

    def captures(self, number: int, presses: Sequence[int], wear: float, master: Tensor | None = None) -> list[Pixels]:
        finger = self.masters[number] if master is None else master
        drawn = Presses.of(1000 + self.seed, number, presses)
        condition = conditions_at_wear(wear) if wear else Condition()
        return Sensor(1000 + self.seed, 0).capture(finger.expand(len(drawn), -1, -1), drawn, condition)

    @cached_property
    def references(self) -> list[tuple[str, Pixels]]:
        return [(name(p), c) for p in range(PERSONS) for c in self.captures(p, range(REFERENCES), 0.0)]

    @cached_property
    def probes(self) -> list[tuple[str, Pixels]]:
        return [(name(p), c) for p in range(PERSONS) for c in self.captures(p, range(500, 500 + PROBES), WEAR)]

    @cached_property
    def plain(self) -> list[Pixels]:
        """What attackers show in the end: nothing but their own fingers."""
        return [c for a in self.attackers for c in self.captures(a, range(500, 500 + PLAIN), WEAR)]

    @cached_property
    def strangers(self) -> list[Pixels]:
        return [self.captures(_STRANGERS_FROM + i, [500], WEAR)[0] for i in range(STRANGERS)]


def name(person: int) -> str:
    return f"person-{person:02d}"


@dataclass(frozen=True)
class Attempt:
    """One attempt: the captures of its tries."""

    tries: tuple[Pixels, ...]
    hostile: bool


def attempts(scene: Scene, attack: str, model: RunningModel, rules: SampleRules) -> Iterator[list[Attempt]]:
    """The attempts of each day."""
    rng = np.random.default_rng([scene.seed, 31])
    injected = injections(scene, model, rules) if attack == ATTACKS[0] else []
    for day in range(DAYS):
        genuine = [Attempt(tries_of(scene, int(rng.integers(PERSONS)), day * 1000 + t), False) for t in range(VISITS)]
        if attack == ATTACKS[0]:
            hostile = [Attempt((c,), True) for c in injected[day::DAYS]]
        else:
            hostile = [fake(scene, day, i) for i in range(round(HOSTILE_SHARE / (1 - HOSTILE_SHARE) * VISITS))]
        mixed = [*genuine, *hostile]
        order = rng.permutation(len(genuine))
        places = np.sort(rng.choice(len(mixed), len(hostile), replace=False)).tolist()
        turns = iter([genuine[i] for i in order])
        coming = iter(hostile)
        yield [next(coming) if i in places else next(turns) for i in range(len(mixed))]


def tries_of(scene: Scene, person: int, turn: int) -> tuple[Pixels, ...]:
    return tuple(scene.captures(person, range(10_000 + 10 * turn, 10_003 + 10 * turn), WEAR))


def fake(scene: Scene, day: int, turn: int) -> Attempt:
    """An attempt with a fake that carries some of the victim's ridges, the later the more."""
    attacker = turn % ATTACKERS
    share = FIRST_SHARE + (LAST_SHARE - FIRST_SHARE) * (day + turn / VISITS) / DAYS
    master = mixture(scene.masters[scene.attackers[attacker]], scene.masters[attacker], share)
    base = 20_000 + 1000 * day + 10 * turn
    return Attempt(tuple(scene.captures(scene.attackers[attacker], range(base, base + 3), WEAR, master)), True)


def injections(scene: Scene, model: RunningModel, rules: SampleRules) -> list[Pixels]:
    """Ten captures of each attacker, in the order in which they are shown: the attackers take turns."""
    made_for = [crafted(scene, place, model, rules) for place in range(ATTACKERS)]
    return [made_for[place][i] for i in range(INJECTIONS) for place in range(ATTACKERS)]


def crafted(scene: Scene, place: int, model: RunningModel, rules: SampleRules) -> list[Pixels]:
    """Captures of one attacker whose features lie on the way from the victim's reference to the attacker's own."""
    own = scene.captures(scene.attackers[place], range(9000, 9000 + INJECTIONS), WEAR)
    victim = model.features([c for p, c in scene.references if p == name(place)][:1]).vectors[0]
    towards = model.features(own).vectors.mean(0)
    across = towards - (towards @ victim) * victim
    across = across / np.linalg.norm(across)
    # A little inside what is kept: the pixels are rounded, and the optimum is only nearly reached.
    furthest = math.acos(min(1.0, model.calibration.cosine_at(rules.sample_low + 3.0)))
    angles = furthest * np.linspace(0.55, 1.0, INJECTIONS)
    targets = np.cos(angles)[:, None] * victim + np.sin(angles)[:, None] * across
    return drawn_towards(model, own, torch.from_numpy(targets.astype(np.float32)))


def drawn_towards(model: RunningModel, captures: Sequence[Pixels], targets: Tensor) -> list[Pixels]:
    """`captures` changed, each as little as it takes, until their features are near `targets` (N, D)."""
    start = torch.from_numpy(np.stack(captures).astype(np.float32) / 255.0)[:, None]
    pixels = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([pixels], CRAFT_RATE)
    student = model.recogniser.student.eval()
    for _ in range(CRAFT_STEPS):
        optimiser.zero_grad()
        away = (1 - (last_feature(student, standardise(pixels)) * targets).sum(1)).sum()
        (away + CRAFT_PENALTY * (pixels - start).square().sum()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
    return [(p * 255 + 0.5).astype(np.uint8) for p in pixels.detach().numpy()[:, 0]]


def last_feature(student: Any, inputs: Tensor) -> Tensor:
    features: Tensor = student(inputs)[-1]
    return functional.normalize(features, dim=1)


def released(models: Models, scene: Scene, rules: SampleRules) -> RunningModel:
    """The released student with the scene's persons enrolled."""
    package = read_package(models.release.package, trusted=[models.release.trusted])
    return released_model(package, scene.references, rules)


@dataclass
class Stage:
    """A device with a labeller in a folder, and adapted templates beside it, under some rules."""

    scene: Scene
    models: Models
    rules: SampleRules
    folder: Path

    def __post_init__(self) -> None:
        self.settings = DeviceSettings(
            sampling=self.rules,
            labels=LabelCondition(min_count=1, max_age_s=0.0, min_gap_s=0.0),
            training=TrainingCondition(min_fresh=16, min_gap_s=0.0),
            self_distillation=SelfDistillation(steps=100),
            gate=GateRules(max_latency_ratio=100.0),
        )
        self.clock = SimulatedClock()
        unpack(self.folder, self.models.release)
        labeller = GalleryLabeller(self.models.teacher, self.models.policy)
        self.device: Device = boot(
            self.folder, self.models.release, labeller=labeller, settings=self.settings, clock=self.clock
        )
        for person in range(PERSONS):
            self.device.enrol(name(person), [c for p, c in self.scene.references if p == name(person)])
        self.frozen = released(self.models, self.scene, self.rules)
        limited = self.rules is LIMITS
        self.templates = AdaptedTemplates(self.frozen, self.rules, self.settings.learning, anchored=limited)
        self.injected = [0] * ATTACKERS
        self.hostile: set[int] = set()

    def live(self, attack: str) -> None:
        """All attempts of the attack, and each night's labels."""
        for day, todays in enumerate(attempts(self.scene, attack, self.frozen, self.rules)):
            for turn, attempt in enumerate(todays):
                self.clock.set(day, 600.0 * turn)
                self._attempt(attempt, f"{day}.{turn}")
                self._to_templates(attempt)
            self.clock.set(day, NIGHT_S)
            self.device.fetch_labels()
            self.templates.asked(self.device.labeller)

    def _attempt(self, attempt: Attempt, word: str) -> None:
        for capture in attempt.tries:
            if attempt.hostile:
                self.hostile.add(self.device.store.next_decision_id())
            self.clock.now_s += 2.0
            if self.device.recognise(capture, word).decision is Decision.ACCEPT:
                return

    def _to_templates(self, attempt: Attempt) -> None:
        if attempt.hostile and len(attempt.tries) == 1:
            self._inject(attempt.tries[0])
            return
        for capture in attempt.tries:
            features = self.frozen.features([capture])
            (taken,) = self.templates.eyes.take(features)
            if taken.accepted:
                self.templates.accepted(taken, features, capture)
                return
        if len(attempt.tries) == self.rules.retries:
            self.templates.failed(attempt.tries)

    def _inject(self, capture: Pixels) -> None:
        """A feature as near to the next attacker's as is still learnt for the victim, straight into the templates."""
        place = sum(self.injected) % ATTACKERS
        self.injected[place] += 1
        own = self.frozen.features(self.scene.captures(self.scene.attackers[place], range(9000, 9003), WEAR))
        rows = [i for i, person in enumerate(self.templates.eyes.gallery.persons) if person == name(place)]
        template = self.templates.eyes.gallery.features.vectors[rows].mean(0)
        for share in np.linspace(1.0, 0.0, 101):
            between = share * own.vectors.mean(0) + (1 - share) * template / np.linalg.norm(template)
            features = Features((between / np.linalg.norm(between))[None], own.space)
            (taken,) = self.templates.eyes.take(features)
            if taken.person == name(place) and self.templates.learns(taken, features):
                self.templates.accepted(taken, features, capture)
                return

    def kept(self) -> dict[str, int]:
        """Samples that a training would learn from, and those of them that attackers made."""
        samples = [s for s in self.device.store.samples(*State) if s.label is not None and s.label.person]
        return {"kept": len(samples), "kept_hostile": sum(s.decision_id in self.hostile for s in samples)}

    def trained(self) -> tuple[RunningModel, RunningModel, str]:
        """The trained student before any gate, what recognises after it, and the verdict."""
        begun = self.device.start_training()
        if not isinstance(begun, Training):
            return self.frozen, self.device.model, "; ".join(begun)
        weights = begun.wait().weights
        outcome = self.device.finish_training(begun)
        return self._ungated(weights), self.device.model, " ".join(getattr(outcome, "reasons", ())) or "passed"

    def _ungated(self, weights: bytes) -> RunningModel:
        """The student of `weights`, calibrated as a package of it would be."""
        release = self.models.release
        package = read_package(release.package, trusted=[release.trusted])
        student = load_student(self.frozen.recogniser.student.spec, weights)
        origin = Origin("ungated", "v2", package.info.teacher_space, package.info.created)
        signer = Ed25519PrivateKey.generate()
        data = package_student(
            student, package.info.readout, self.models.impostors, origin, signer=signer, seal_key=release.fleet_key
        )
        return released_model(read_package(data, trusted=[signer.public_key()]), self.scene.references, self.rules)

    def close(self) -> None:
        self.device.stop()
        self.device.store.close()


def measured(scene: Scene, model: RunningModel, eyes: Eyes) -> dict[str, int]:
    """Counts of captures accepted, of those that no recogniser learnt from."""
    owners = [name(place) for place in range(ATTACKERS) for _ in range(PLAIN)]
    plain = eyes.take(model.features(scene.plain))
    probes = eyes.take(model.features([c for _, c in scene.probes]))
    strangers = eyes.take(model.features(scene.strangers))
    return {
        "attackers": len(plain),
        "admitted": sum(t.accepted for t in plain),
        "near": sum(t.score >= NEAR for t in plain),
        "as_victim": sum(t.accepted and t.person == owner for t, owner in zip(plain, owners, strict=True)),
        "genuine": len(probes),
        "missed": sum(not right(t, person) for t, (person, _) in zip(probes, scene.probes, strict=True)),
        "strangers": len(strangers),
        "strangers_admitted": sum(t.accepted for t in strangers),
    }


def right(taken: Taken, person: str) -> bool:
    return taken.accepted and taken.person == person


def played(seed: int, attack: str, folder: Path) -> dict[str, Any]:
    """Both devices of one seed under one attack."""
    scene, rows, about = Scene(seed), {}, {}
    for words, rules in (("no limits", UNLIMITED), ("limits", LIMITS)):
        stage = Stage(scene, shipped(), rules, folder / f"{seed}-{ATTACKS.index(attack)}-{words.replace(' ', '-')}")
        try:
            stage.live(attack)
            about[words] = stage.kept()
            rows[ROWS[0]] = measured(scene, stage.frozen, Eyes.of(stage.frozen))
            rows[f"adapted templates, {words}"] = measured(scene, stage.frozen, stage.templates.eyes)
            ungated, running, about[words]["gate"] = stage.trained()
            rows[f"self-distilled, {words}, no gate"] = measured(scene, ungated, Eyes.of(ungated))
            if rules is LIMITS:
                rows[ROWS[-1]] = measured(scene, running, Eyes.of(running))
        finally:
            stage.close()
    return {"seed": seed, "attack": attack, "kept": about, "rows": {row: rows[row] for row in ROWS}}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--seeds", type=int, default=6, help="devices under each attack (default 6)")
    words = parser.parse_args()
    if words.seeds < 1:
        parser.error("--seeds must be at least 1")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        runs = [played(seed, attack, Path(folder)) for seed in range(words.seeds) for attack in ATTACKS]
    found = summary(runs)
    show(found)
    if words.json:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        about = {"benchmark": "poison", "made": asdict(made(range(words.seeds), now))}
        words.json.parent.mkdir(parents=True, exist_ok=True)
        words.json.write_text(json.dumps(about | {"summary": found, "runs": runs}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
