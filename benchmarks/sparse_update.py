"""Whether a device learns more in a second if it trains a part of its student only (sparse update, Lin et al. 2022).

    python benchmarks/sparse_update.py [--json OUT] [--seeds N] [--steps S]

Each seed is a site of its own with a worn sensor: the shipped student learns from 64 samples of 16 persons, and is
measured on other captures of the same persons and on strangers, at score 30 and, since what comes nearer to persons may
come nearer to strangers too, at whatever score lets one stranger of forty in. Three trainings of the same samples and
batches are compared:

- *all layers*, for the steps of a device;
- *sparse*, adapters, the last two stages and all normalisations, for as many steps;
- *sparse, as long*, for as many steps as take the processor time that all layers took.

Seconds are those of the training thread on a processor. Shown are means and standard deviations over seeds.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from device_sim.learning import Labelled, LearningRules, training_set
from device_sim.measuring import Eye
from device_sim.models import shipped
from device_sim.provenance import made
from device_sim.recognition import Enrolled
from device_sim.site import Site, SiteSize, Taken, synthetic_site
from tutelage.biometrics.matching import DecisionRule, Gallery
from tutelage.captures import to_input
from tutelage.nn.packaging import calibrate
from tutelage.nn.self_distil import SelfDistillation, self_distil
from tutelage.nn.students import Recogniser, Student

FIRST_SEED = 81
SIZE = SiteSize(persons=16, references=3, probes=16, strangers=320, wear=0.5)
LEARNT_ON = (16, 18)
"""Days whose captures are learnt from, two of each person: the sensor is as worn as it gets by then."""
READOUT = "exit4"
LET_IN = 1 / 40
"""Share of strangers at which misses are compared."""
FIGURES = ("steps", "seconds", "misses", "strangers", "misses_alike")
BEFORE, ALL, SPARSE, AS_LONG = "before", "all layers", "sparse", "sparse, as long"


@dataclass(frozen=True)
class Tried:
    """One training of one seed."""

    way: str
    seed: int
    steps: int
    seconds: float
    misses: float
    """At score 30."""
    strangers: float
    """At score 30."""
    misses_alike: float
    """Where `LET_IN` of the strangers come in."""


def eye_of(student: Student, site: Site) -> Eye:
    """What `student` recognises at `site`, calibrated in its own space."""
    recogniser, unseen = Recogniser.of(student, READOUT), site.impostors.unseen

    def inputs(taken: Taken) -> Any:
        return to_input(taken.captures, student.spec.side)

    calibration = calibrate(recogniser.features(inputs(Taken.of_strangers(unseen))), unseen.persons)
    gallery = Gallery(site.references.persons, recogniser.features(inputs(site.references)))
    return Eye(lambda taken: recogniser.features(inputs(taken)), gallery, calibration)


def errors_of(student: Student, site: Site) -> tuple[float, float, float]:
    """Misses, strangers, and misses where as many strangers come in, on the worn sensor."""
    accept = DecisionRule().accept_score
    seen = eye_of(student, site).look(site.probes_worn, site.strangers_worn, accept)
    alike = np.quantile(seen.strangers, 1.0 - LET_IN)
    shares = (seen.genuine < accept).mean(), (seen.strangers >= accept).mean(), (seen.genuine < alike).mean()
    misses, strangers, misses_alike = map(float, shares)
    return misses, strangers, misses_alike


def tried(seed: int, steps: int) -> list[Tried]:
    """All three trainings of one seed, and the student before them."""
    models = shipped()
    site = synthetic_site(seed, 0, SIZE, models.impostors)
    taken = [site.probes_on(day) for day in LEARNT_ON]
    samples = [Labelled(c, p, taught=True) for t in taken for p, c in zip(t.persons, t.captures, strict=True)]
    references = list(zip(site.references.persons, site.references.captures, strict=True))
    enrolled = Enrolled.of(references, models.student.spec.side).against(models.impostors.negatives)
    taught = training_set(samples, enrolled, LearningRules())

    def after(way: str, settings: SelfDistillation) -> Tried:
        student, began = copy.deepcopy(models.student), time.thread_time()
        self_distil(student, taught, settings)
        seconds = time.thread_time() - began
        return Tried(way, seed, settings.steps, seconds, *errors_of(student, site))

    whole = SelfDistillation(steps=steps, seed=seed)
    sparse = replace(whole, late_only=True)
    first, second = after(ALL, whole), after(SPARSE, sparse)
    longer = replace(sparse, steps=round(steps * first.seconds / second.seconds))
    return [Tried(BEFORE, seed, 0, 0.0, *errors_of(models.student, site)), first, second, after(AS_LONG, longer)]


def summary(rows: Sequence[Tried]) -> dict[str, dict[str, dict[str, float]]]:
    """By way and figure: mean and standard deviation over seeds."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for way in dict.fromkeys(row.way for row in rows):
        own = [row for row in rows if row.way == way]
        figures = {name: [float(getattr(row, name)) for row in own] for name in FIGURES}
        found[way] = {
            name: {"mean": fmean(values), "sd": stdev(values) if len(values) > 1 else 0.0}
            for name, values in figures.items()
        }
    return found


def show(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    table = Table(title="what is learnt, and the processor time it takes")
    for heading in ("", "steps", "seconds", "misses", "strangers", "misses where 1 of 40 strangers comes in"):
        table.add_column(heading, justify="right" if heading else "left")
    for way, figures in found.items():
        costs = f"{figures['steps']['mean']:.0f}", f"{figures['seconds']['mean']:.1f}"
        shares = (figures[name] for name in FIGURES[2:])
        table.add_row(way, *costs, *(f"{100 * s['mean']:.1f} ± {100 * s['sd']:.1f} %" for s in shares))
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=SelfDistillation().steps)
    words = parser.parse_args()
    if min(words.seeds, words.steps) < 1:
        parser.error("--seeds and --steps must be at least 1")
    torch.set_num_threads(1)
    seeds = list(range(FIRST_SEED, FIRST_SEED + words.seeds))
    rows = [row for seed in seeds for row in tried(seed, words.steps)]
    show(summary(rows))
    if words.json:
        about = asdict(made(seeds, datetime.now(UTC).isoformat(timespec="seconds")))
        settings = {"persons": SIZE.persons, "samples": 4 * SIZE.persons, "probes": SIZE.probes * SIZE.persons}
        content = {
            "benchmark": "sparse_update",
            "made": about,
            "settings": {
                **settings,
                "strangers": SIZE.strangers,
                "wear": SIZE.wear,
                "readout": READOUT,
                "let_in": LET_IN,
            },
            "summary": summary(rows),
            "rows": [asdict(row) for row in rows],
        }
        words.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
