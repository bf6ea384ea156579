"""Writes docs/speed.md from the JSON files of the services' benchmarks; `--check` only tells whether it is up to date.

No figure in that page is written by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "speed.md"
HEAD = """# How fast the services are

Made by `docs/generate_speed.py` from `benchmarks/results/`; each section says with what its file was made. What is
compared ran on one machine in one run, in turns; a ratio is made of two figures of the same turn. Servers and their
clients shared the two cores. Goals are those of [the architecture](architecture.md#budgets).
"""
QUEUES = {"tutelage": "ours, `tutelage.queues`", "celery": "Celery", "rq": "RQ", "dramatiq": "dramatiq"}


def made_line(found: Mapping[str, Any]) -> str:
    """How a file came to be."""
    made = found["made"]
    load = f"; load average {found['load']['before'][0]:.1f} before it" if "load" in found else ""
    return f"Commit {made['commit']}; {made['machine']}; torch {made['torch']}; {made['date'][:10]}{load}."


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def ratio(found: Mapping[str, float]) -> str:
    """`0.95 (0.90 to 1.02)`: middle, least and most."""
    middle = found.get("median", found.get("mean", 0.0))
    return (
        f"{middle:.2f} ({found.get('min', found.get('least', 0)):.2f} to {found.get('max', found.get('most', 0)):.2f})"
    )


def labels(found: Mapping[str, Any]) -> str:
    """Labels a second, by what runs the teacher and who asks."""
    rates, ratios = found["results"]["captures_a_second"], found["results"]["ratios"]
    ways = [[name, f"{rate['mean']:,.0f} ± {rate['sd']:,.0f}"] for name, rate in rates.items()]
    goals = [[name, ratio(ratios[name]), f"{goal:g}"] for name, goal in found["wanted"].items()]
    return "\n\n".join(
        [
            f"Captures a second, mean ± standard deviation of {found['repeats']} turns of {found['seconds']:g} s; the "
            f"teacher has {found['threads']} threads.",
            table(["way", "captures a second"], ways),
            table(["ratio", "mean (least to most)", "goal, at least"], goals),
        ]
    )


def registry(found: Mapping[str, Any]) -> str:
    """Transfers beside the bare client, and check-ins."""
    rows = []
    for way, moved in found["results"]["transfers"].items():
        rates = moved["megabytes_a_second"]
        middle = [f"{rates[who]['median']:.0f}" for who in ("registry", "bare")]
        rows.append([way, *middle, ratio(moved["ratio"]), f"{found['wanted']['transfer_ratio_least']:g}"])
    waits, settings = found["results"]["check_ins"], found["settings"]
    head = ["way", "registry, MB/s", "bare minio client, MB/s", "ratio, median (least to most)", "goal, at least"]
    return "\n\n".join(
        [
            f"A package of {settings['megabytes']} MB, {settings['repeats']} turns. A *next* download comes out of the "
            "registry's memory, as it does for all of a fleet but the first device.",
            table(head, rows),
            f"Check-ins of {settings['devices']:,} devices, every {settings['check_in_every_s']} s each, for "
            f"{settings['seconds']:g} s: p50 {waits['p50_ms']:.1f} ms, p90 {waits['p90_ms']:.1f} ms, "
            f"p99 {waits['p99_ms']:.1f} ms (goal: at most {found['wanted']['check_in_p99_ms_most']} ms).",
        ]
    )


def queues(found: Mapping[str, Any]) -> str:
    """An empty job, beside queue libraries."""
    middle = found["median_ms"]
    rows = [
        [f"{words} {found['versions'].get(name, '')}".strip()]
        + [f"{middle[name][way]:.1f}" for way in ("one_by_one_ms", "in_a_row_ms")]
        for name, words in QUEUES.items()
    ]
    best = found["ratio_to_best"]
    return "\n\n".join(
        [
            f"Medians of {len(found['repeats'])} turns of {found['jobs']} jobs each; [what is measured, and with what "
            "guarantees](queues.md).",
            table(["queue", "one by one, ms a job", "in a row, ms a job"], rows),
            "Ours over the best of the others in the same turn, median (least to most), goal at most 1: one by one "
            f"{ratio(best['one_by_one_ms'])}, in a row {ratio(best['in_a_row_ms'])}.",
        ]
    )


SECTIONS = {
    "labels": ("Labels: `benchmarks/labels.py`", labels),
    "registry": ("Versions and check-ins: `benchmarks/registry.py`", registry),
    "queue_overhead": ("Jobs: `benchmarks/queue_overhead.py`", queues),
}


def render() -> str:
    """The page."""
    parts = [HEAD]
    for name, (title, section) in SECTIONS.items():
        found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        parts.append(f"## {title}\n\n{made_line(found)}\n\n{section(found)}\n")
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Exit status: 0, or 1 where `--check` found the page out of date."""
    if "--check" not in arguments:
        PAGE.write_text(render(), encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == render():
        return 0
    print(f"{PAGE.name} is out of date: run `make fmt`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
