"""How alike the students of one and of several processes are, and what sharing costs.

    python benchmarks/shared_distillation.py [--json OUT] [--processes K] [--steps S] [--batch B]

The same student is distilled on synthetic fingerprints, from the shipped teacher and from the same first weights:

- `one`: by one process.
- `nudged`: by one process, the first layer's weights being larger by one unit in the last place. What it differs from
  `one` is what a training makes of rounding alone, as between two kinds of processor.
- `shared`: by K processes that torchrun started on this machine, each on one thread.

Compared are features of captures of persons whom no student has met: the cosines to those of `one`, and the error
rates. Seconds are the median of a step; the load averages before and after say what else the machine did.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from device_sim.models import shipped
from device_sim.provenance import made
from device_sim.synthetic import GOOD_SENSORS, FingerprintBatches
from tutelage.biometrics.error_summary import summarise
from tutelage.biometrics.features import Features
from tutelage.nn.batches import InputBatches
from tutelage.nn.distil import CachedTeaching, Distillation, distil
from tutelage.nn.process_group import joined
from tutelage.nn.students import READOUTS, TINY, Recogniser, Student, load_student, save_weights
from tutelage.nn.teachers import ResidualTeacher

SEED = 72
PERSONS, EACH = 32, 12
UNSEEN_FIRST, UNSEEN = 10_000, 32
"""Numbers of persons that only measure."""
STEPS_A_LOOK = 10
"""A distillation tells its progress after so many steps."""


def captures(first: int, persons: int) -> tuple[Tensor, Tensor]:
    """Inputs (N, 1, 64, 64) of about `EACH` captures of each person, and labels (N,)."""
    source = FingerprintBatches(SEED, persons, GOOD_SENSORS, first=first)
    batches = [source.batch(step, persons) for step in range(EACH)]
    return torch.cat([inputs for inputs, _ in batches]), torch.cat([labels for _, labels in batches])


def distilled(weights: Path, steps: int, batch: int, nudge: bool) -> None:
    """What each process does: distil, and write weights and the seconds of a step beside them."""
    torch.set_num_threads(1)
    teacher = shipped().teacher
    assert isinstance(teacher, ResidualTeacher)
    inputs, labels = captures(0, PERSONS)
    teaching = CachedTeaching.of(InputBatches(inputs, labels, SEED), teacher.vectors(inputs).clone())
    torch.manual_seed(SEED)
    student = Student(TINY)
    if nudge:
        with torch.no_grad():
            student.stem.weight.mul_(1 + torch.finfo(torch.float32).eps)
    looks: list[float] = []
    with joined(os.environ, "cpu") as group:
        settings = Distillation(steps=steps, batch=batch, seed=SEED)
        distil(student, teaching, settings, group=group, progress=lambda *_: looks.append(time.perf_counter()))
        if group.leads:
            weights.write_bytes(save_weights(student))
            seconds = statistics.median(np.diff(looks[:-1])) / STEPS_A_LOOK
            weights.with_suffix(".json").write_text(json.dumps(seconds))


def run(name: str, folder: Path, words: argparse.Namespace) -> dict[str, Any]:
    """One distillation in processes of its own: its student's readouts of the unseen captures, and seconds a step."""
    weights = folder / f"{name}.safetensors"
    start = [sys.executable]
    if name == "shared":
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(words.processes)]
    own = [__file__, "--part", str(weights), "--steps", str(words.steps), "--batch", str(words.batch)]
    subprocess.run(
        [*start, *own, *(["--nudge"] if name == "nudged" else [])],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    student = load_student(TINY, weights.read_bytes())
    return {"student": student, "seconds_a_step": json.loads(weights.with_suffix(".json").read_text())}


def compared(students: dict[str, Student]) -> dict[str, Any]:
    """Cosines to the features of `one`, and error rates, by student and readout."""
    inputs, labels = captures(UNSEEN_FIRST, UNSEEN)
    persons = [f"p{label:03d}" for label in labels.tolist()]
    read = {name: Recogniser.of(student, "fused").every_readout(inputs.numpy()) for name, student in students.items()}
    found: dict[str, Any] = {}
    for name, vectors in read.items():
        for readout in READOUTS:
            cosines = (vectors[readout] * read["one"][readout]).sum(1)
            errors = asdict(summarise(Features(vectors[readout], readout), persons))
            row = {"cosine_min": float(cosines.min()), "cosine_median": float(np.median(cosines)), "errors": errors}
            found.setdefault(name, {})[readout] = row
    return found


def show(found: dict[str, Any], seconds: dict[str, float], processes: int) -> None:
    table = Table(title=f"against one process; shared by {processes}")
    for heading in ("student", "readout", "cosine, least", "cosine, median", "EER", "TAR at FMR 1e-2", "s a step"):
        table.add_column(heading, justify="right")
    for name, rows in found.items():
        for readout, row in rows.items():
            rates = (row["errors"]["eer"], row["errors"]["tar_1e2"])
            cells = [f"{row['cosine_min']:.5f}", f"{row['cosine_median']:.5f}", *(_percent(rate) for rate in rates)]
            table.add_row(name, readout, *cells, f"{seconds[name]:.3f}")
    Console(width=120).print(table)


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate * 100:.2f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--nudge", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.part is not None:
        distilled(words.part, words.steps, words.batch, words.nudge)
        return
    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: run(name, Path(folder), words) for name in ("one", "nudged", "shared")}
    seconds = {name: one["seconds_a_step"] for name, one in runs.items()}
    found = compared({name: one["student"] for name, one in runs.items()})
    show(found, seconds, words.processes)
    if words.json:
        document = {
            "benchmark": "shared_distillation",
            "made": asdict(made([SEED], datetime.now(UTC).isoformat(timespec="seconds"))),
            "load": {"before": before, "after": os.getloadavg(), "meaning": "1, 5 and 15 minutes, this included"},
            "settings": {
                "processes": words.processes,
                "steps": words.steps,
                "batch": words.batch,
                "persons": PERSONS,
                "captures_a_person": EACH,
                "persons_measured": UNSEEN,
            },
            "seconds_a_step": seconds,
            "students": found,
        }
        words.json.parent.mkdir(parents=True, exist_ok=True)
        words.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
