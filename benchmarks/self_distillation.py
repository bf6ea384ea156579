"""What a self-distillation costs a device: seconds, memory, and its steps against those of plain fine-tuning.

    python benchmarks/self_distillation.py [--json OUT] [--repeats N] [--steps S] [--samples M]

- `training`: the shipped student learns from 64 samples of 16 persons on a worn sensor, in a real worker process on one
  thread with the device's default settings. Measured are the seconds from its start to its result, those of the
  training loop alone, and the most memory the process ever held.
- `step`: one step of each preset against one step of plain fine-tuning of the same network: the same batches and
  augmentation, cross-entropy of the last exit, nothing else. In each repeat all run one after the other, in another
  order each time, and a preset's ratio is to the plain steps of the same repeat.

Each is repeated; written are the values of all repeats with median, least and greatest. The load averages before and
after say what else the machine did.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional

from device_sim.job import Descent, TrainingJob
from device_sim.learning import Labelled, LearningRules, training_set
from device_sim.models import shipped
from device_sim.provenance import made
from device_sim.recognition import Enrolled
from device_sim.site import SiteSize, Taken, synthetic_site
from device_sim.training import Budget, Training
from tutelage.nn.batches import Augmentation
from tutelage.nn.losses import PRESETS
from tutelage.nn.self_distil import SelfDistillation, TrainingSet, self_distil
from tutelage.nn.students import CosineHeads, Student, save_weights

SEED = 71
PERSONS, REFERENCES = 16, 3
WARM_UP = 3
"""Steps of each run that are not counted."""
WANTED = {"training_s": 60.0, "training_bytes": 512 * 2**20, "step_ratio": 1.2}
PLAIN = "plain fine-tuning"

Steps = Callable[[int], list[float]]


def ground(samples: int) -> tuple[Student, TrainingSet]:
    """The shipped student, and what a device on a worn sensor would have it learn from."""
    models = shipped()
    size = SiteSize(persons=PERSONS, references=REFERENCES, probes=-(-samples // PERSONS), strangers=0, wear=0.5)
    site = synthetic_site(SEED, 0, size, models.impostors)
    kept: Taken = site.probes_worn
    rows = np.random.default_rng(SEED).permutation(len(kept))[:samples]
    labelled = [Labelled(kept.captures[i], kept.persons[i], taught=True) for i in rows]
    references = list(zip(site.references.persons, site.references.captures, strict=True))
    enrolled = Enrolled.of(references, models.student.spec.side).against(models.impostors.negatives)
    return models.student, training_set(labelled, enrolled, LearningRules())


def train_once(student: Student, taught: TrainingSet, folder: Path) -> dict[str, float]:
    """One training in a worker process, as a device runs it."""
    budget = Budget(seconds=3600.0, memory_bytes=2**40)
    job = TrainingJob(
        Descent("v1+1", "sha256:" + "0" * 64, 1),
        student.spec,
        save_weights(student),
        taught,
        SelfDistillation(),
        budget.threads,
        budget.memory_bytes,
    )
    training = Training.prepare(folder / "job", job, os.urandom(32), budget)
    started = time.perf_counter()
    training.start()
    summary = training.wait().summary
    seconds = time.perf_counter() - started
    training.discard()
    return {"seconds": seconds, "loop_seconds": summary["seconds"], "peak_bytes": summary["peak_bytes"]}


def preset_steps(preset: str, student: Student, taught: TrainingSet) -> Steps:
    """Seconds of each step of a self-distillation with `preset`."""

    def run(steps: int) -> list[float]:
        looks = [time.perf_counter()]
        settings = SelfDistillation(preset=preset, steps=steps, seed=SEED)
        self_distil(copy.deepcopy(student), taught, settings, progress=lambda *_: looks.append(time.perf_counter()))
        return list(np.diff(looks[1:]))

    return run


def plain_steps(student: Student, taught: TrainingSet) -> Steps:
    """Seconds of each step of fine-tuning the last exit, written down as plainly as it can be."""

    def run(steps: int) -> list[float]:
        network, settings = copy.deepcopy(student).train().requires_grad_(), SelfDistillation()
        inputs = torch.from_numpy(np.concatenate([taught.inputs, taught.references]))
        labels = torch.from_numpy(np.concatenate([taught.targets.argmax(1), taught.reference_labels]))
        generator = torch.Generator().manual_seed(SEED)
        heads = CosineHeads.drawn(taught.targets.shape[1], student.spec.dimension, settings.scale, generator)
        trainable = [*network.parameters(), *heads.parameters()]
        optimizer = torch.optim.SGD(trainable, settings.learning_rate, settings.momentum)
        looks = [time.perf_counter()]
        for _ in range(steps):
            rows = torch.randint(len(inputs), (settings.batch,), generator=generator)
            features = network(Augmentation().apply(inputs[rows], generator))
            loss = functional.cross_entropy(heads(features)[-1], labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(trainable, settings.clip)
            optimizer.step()
            looks.append(time.perf_counter())
        return list(np.diff(looks[1:]))

    return run


def step_rounds(student: Student, taught: TrainingSet, steps: int, repeats: int) -> dict[str, list[float]]:
    """Median seconds of a step, by method, one for each repeat."""
    methods: dict[str, Steps] = {PLAIN: plain_steps(student, taught)}
    methods |= {preset: preset_steps(preset, student, taught) for preset in PRESETS}
    found: dict[str, list[float]] = {name: [] for name in methods}
    for repeat in range(repeats):
        for place in np.random.default_rng([SEED, repeat]).permutation(len(methods)):
            name = list(methods)[place]
            found[name].append(statistics.median(methods[name](steps + WARM_UP)[WARM_UP:]))
    return found


def spread(values: Sequence[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": list(values)}


def step_results(rounds: dict[str, list[float]]) -> dict[str, Any]:
    """Seconds of a step and its ratio to a plain step of the same repeat, by method."""
    ratios = {
        name: [own / plain for own, plain in zip(seconds, rounds[PLAIN], strict=True)]
        for name, seconds in rounds.items()
    }
    return {name: {"seconds": spread(rounds[name]), "ratio": spread(ratios[name])} for name in rounds}


def show(training: dict[str, Any], step: dict[str, Any], load: Sequence[Sequence[float]]) -> None:
    console = Console(width=120)
    table = Table(title=f"load average {load[0][0]:.1f} to {load[1][0]:.1f}; median (least to greatest)")
    for heading in ("one training", "seconds", "seconds of the loop", "peak MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    columns = (("seconds", 1.0, 1), ("loop_seconds", 1.0, 1), ("peak_bytes", 2.0**20, 0))
    table.add_row("64 samples, one thread", *(_cell(training[key], unit, digits) for key, unit, digits in columns))
    console.print(table)
    table = Table()
    for heading in ("one step", "ms", "to a plain step"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, found in step.items():
        table.add_row(name, _cell(found["seconds"], 1e-3, 1), _cell(found["ratio"], 1.0, 2))
    console.print(table)


def _cell(found: dict[str, Any], unit: float, digits: int) -> str:
    median, least, greatest = (f"{found[key] / unit:.{digits}f}" for key in ("median", "min", "max"))
    return f"{median} ({least} to {greatest})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="counted steps of each method in a repeat (default 20)")
    parser.add_argument("--samples", type=int, default=64)
    words = parser.parse_args()
    if min(words.repeats, words.steps, words.samples) < 1:
        parser.error("--repeats, --steps and --samples must be at least 1")
    torch.set_num_threads(1)
    before = os.getloadavg()
    student, taught = ground(words.samples)
    with tempfile.TemporaryDirectory() as folder:
        trainings = [train_once(student, taught, Path(folder)) for _ in range(words.repeats)]
    training = {key: spread([one[key] for one in trainings]) for key in trainings[0]}
    step = step_results(step_rounds(student, taught, words.steps, words.repeats))
    load = (before, os.getloadavg())
    show(training, step, load)
    if words.json:
        about = made([SEED], datetime.now(UTC).isoformat(timespec="seconds"))
        document = {
            "benchmark": "self_distillation",
            "made": asdict(about),
            "load": {
                "before": load[0],
                "after": load[1],
                "meaning": "1, 5 and 15 minutes; the benchmark is part of it",
            },
            "settings": {
                "samples": words.samples,
                "persons": PERSONS,
                "references_a_person": REFERENCES,
                "classes": int(taught.targets.shape[1]),
                "repeats": words.repeats,
                "steps": words.steps,
                "self_distillation": asdict(SelfDistillation()),
            },
            "wanted": WANTED,
            "training": training,
            "step": step,
        }
        words.json.parent.mkdir(parents=True, exist_ok=True)
        words.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
