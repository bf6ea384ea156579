"""How rules of the gate change a device's year: the same persons, days and captures, judged otherwise.

    python benchmarks/year_rules.py [--seeds N] [--days D] [--json OUT]

A training is judged as in the year of `tutelage simulate year`, but for three choices:

- *how much of the way* is tried: the trained student alone, or, where the gate refuses it, also the students a half and
  a quarter of the way from the running student to it in the space of weights (Wortsman et al. 2022), each judged by
  the same gate;
- *slack*: whether a reference may fall short of the accept score by the spread of a calibration before it counts as
  missed;
- *lowered scores*: whether a student's scores are lowered by what strangers came nearer than to the released version.

Each seed is one device of its own, which lives through its year once under every rule. Shown are means and standard
deviations over seeds, at score 30; rates beside the frozen student are of the same captures. Strangers are 120 people
for each device, twice those of a year, for what is compared is rare.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from device_sim.device_settings import DeviceSettings
from device_sim.gate import GateRules
from device_sim.learning import LearningRules
from device_sim.provenance import made
from device_sim.results import FROZEN, SELF_DISTILLED
from device_sim.year.books import TEMPLATE
from device_sim.year.fleet import play_year
from device_sim.year.settings import YearSettings, year_device
from device_sim.year.summary import pages_of, rates_over

WHOLE, PARTS = (1.0,), LearningRules().shares
SLACK, ANCHOR = GateRules().reference_slack, GateRules().anchor_share
RULES: Mapping[str, tuple[tuple[float, ...], float, float]] = {
    "all of the way": (WHOLE, 0.0, 0.0),
    "or part of it, slack": (PARTS, SLACK, 0.0),
    "or part of it, slack, lowered scores": (PARTS, SLACK, ANCHOR),
}
STRANGERS = 120
"""At each device, to measure with."""
COUNTS = ("swaps", "refused", "taken back")
SHOWN = (
    "misses",
    "misses over frozen",
    "templates' misses over frozen",
    "strangers in",
    "strangers in, frozen",
    "on a new sensor",
    "on a new sensor, frozen",
    *COUNTS,
)


@dataclass(frozen=True)
class Lived:
    """One device's year under one rule."""

    rule: str
    seed: int
    found: dict[str, float]


def device_under(rule: str) -> DeviceSettings:
    """A device of the simulated year with one of `RULES`."""
    shares, slack, anchor = RULES[rule]
    device = year_device()
    learning, gate = (
        replace(device.learning, shares=shares),
        replace(device.gate, reference_slack=slack, anchor_share=anchor),
    )
    return replace(device, learning=learning, gate=gate)


def live(rule: str, seed: int, days: int) -> Lived:
    """The year of one device, in this process."""
    torch.set_num_threads(1)
    settings = YearSettings(seed=seed, devices=1, days=days, strangers=STRANGERS, device=device_under(rule))
    with tempfile.TemporaryDirectory() as folder:
        year = play_year(settings, Path(folder), lambda *_: None, processes=1)
    frozen, ours, templates = (rates_over(pages_of(year), name) for name in (FROZEN, SELF_DISTILLED, TEMPLATE))
    kept = year.devices[0].pages[-1].kept
    found = {
        "misses": ours.missed,
        "misses over frozen": ours.missed / frozen.missed,
        "templates' misses over frozen": templates.missed / frozen.missed,
        "strangers in": ours.strangers,
        "strangers in, frozen": frozen.strangers,
        "on a new sensor": ours.strangers_new,
        "on a new sensor, frozen": frozen.strangers_new,
        "swaps": kept.generations,
        "refused": kept.refused,
        "taken back": kept.reverted,
    }
    return Lived(rule, seed, found)


def summary(lives: Sequence[Lived]) -> dict[str, dict[str, dict[str, float]]]:
    """By rule and figure: mean and standard deviation over seeds."""
    return {
        rule: {name: _spread(life.found[name] for life in lives if life.rule == rule) for name in SHOWN}
        for rule in dict.fromkeys(life.rule for life in lives)
    }


def _spread(values: Iterable[float]) -> dict[str, float]:
    known = list(values)
    return {"mean": fmean(known), "sd": stdev(known) if len(known) > 1 else 0.0}


def show(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """The table of a summary."""
    table = Table(title="a year under other rules", title_justify="left")
    for heading in ("", *SHOWN):
        table.add_column(heading, justify="right" if heading else "left")
    for rule, figures in found.items():
        table.add_row(rule, *(_cell(name, figures[name]) for name in SHOWN))
    Console(width=150).print(table)


def _cell(name: str, spread: Mapping[str, float]) -> str:
    if name in COUNTS:
        return f"{spread['mean']:.1f} ± {spread['sd']:.1f}"
    if name.endswith("over frozen"):
        return f"{spread['mean']:.2f} ± {spread['sd']:.2f}"
    return f"{spread['mean']:.1%} ± {spread['sd']:.1%}"


def main() -> None:
    """Live all years, show them, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=11, help="others than the year of docs/year.md is made of")
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--json", type=Path)
    words = parser.parse_args()
    seeds = range(words.first_seed, words.first_seed + words.seeds)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(live, rule, seed, words.days) for seed in seeds for rule in words.rules]
        lives = [task.result() for task in _announced(tasks)]
    found = summary(lives)
    show(found)
    if words.json:
        about: dict[str, Any] = {"benchmark": "year_rules", "days": words.days, "rules": RULES}
        about["made"] = asdict(made(seeds, datetime.now(UTC).isoformat(timespec="seconds")))
        text = json.dumps(about | {"summary": found, "years": [asdict(life) for life in lives]}, indent=1)
        words.json.parent.mkdir(parents=True, exist_ok=True)
        words.json.write_text(text + "\n", encoding="utf-8")


def _announced(tasks: Sequence[Any]) -> Iterable[Any]:
    """The tasks, with a line for each that is done: a year takes minutes."""
    for place, task in enumerate(tasks, start=1):
        life: Lived = task.result()
        print(f"{place} of {len(tasks)}: {life.rule}, seed {life.seed}: misses {life.found['misses']:.1%}", flush=True)
        yield task


if __name__ == "__main__":
    main()
