"""Writes docs/speed.md from the JSON files of benchmarks; `--check` only tells whether it is up to date.

No figure in that page is written by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from page_tables import table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "speed.md"
HEAD = """# How fast devices and services are

Made by `docs/generate_speed.py` from `benchmarks/results/`; each section says with what its file was made. What is
compared ran on one machine in one run, in turns; a ratio is made of two figures of the same turn. Recognition had one
core, servers and their clients shared two. Goals are those of [the architecture](architecture.md#budgets).
"""
ABOUT_RECOGNITION = """Of a capture of 64 x 64 pixels, {persons} persons of {references_a_person} references each;
{repeats} turns of {calls} captures, ONNX Runtime {runtime}. *Ours* is what a device runs
([why](adr/0006-onnx-runtime-recognises.md)), *eager* is torch's bare forward of the same student, *exported* is ONNX
Runtime on what torch's exporter makes of it. End to end is from the pixels to the decision: input, forward, 1:N, score.
Processor time is what the answering thread used, whatever else the machine did."""

ABOUT_EARLY_EXITS = """**Early exits** are measured and not served. An exit is believed from the least score, at least
the accept score, at which it is wrong about none of the captures held back for this: there it accepts as many genuine
captures as the full student, or more, and no others. This is what it does on {captures} other captures of enrolled
persons and {strangers} of strangers; times are processor time end to end, over the full student's, in the last column
over that of the student in torch."""

EARLY_EXITS_SAY = """Where TAR and strangers are no worse, the best saves {best:.0f} % (goal: {goal:.0f} % or more).
Had the first exit answered everybody, it would have saved {bound:.0f} %: the first stage works on the largest maps and
takes about half of a compiled forward. If cutting the graph cost nothing, as many early answers would save {free:.0f} %
at best. With torch's eager layers, which all cost much the same, early exits save up to {eager:.0f} %, of a forward of
all exits that takes several times as long. And what is answered early is lost to learning, since the score of a first
sample is the full student's."""

ABOUT_TRAINING = """**Beside a training**, on the same core: people come one by one, {least:g} to {most:g} s apart, so
that the worker is at work whenever one comes; {calls} answers each. A device's worker *gives way*; one of the *lowest
priority* that does not is shown beside it."""
QUEUES = {"tutelage": "ours, `tutelage.queues`", "celery": "Celery", "rq": "RQ", "dramatiq": "dramatiq"}


def made_line(found: Mapping[str, Any]) -> str:
    """How a file came to be."""
    made = found["made"]
    load = f"; load average {found['load']['before'][0]:.1f} before it" if "load" in found else ""
    return f"Commit {made['commit']}; {made['machine']}; torch {made['torch']}; {made['date'][:10]}{load}."


def ratio(found: Mapping[str, float]) -> str:
    """`0.95 (0.90 to 1.02)`: middle, least and most."""
    middle = found.get("median", found.get("mean", 0.0))
    return (
        f"{middle:.2f} ({found.get('min', found.get('least', 0)):.2f} to {found.get('max', found.get('most', 0)):.2f})"
    )


def recognition(found: Mapping[str, Any]) -> str:
    """An answer of a device, and what it is compared with."""
    return "\n\n".join(
        [
            ABOUT_RECOGNITION.format(**found["settings"], runtime=found["versions"]["onnxruntime"]),
            _ways(found["ways"], found["wanted"]),
            _persons(found),
            _swap(found["swap"]),
            early_exits(found["early_exit"], found["wanted"]["early_exit_saves_least"]),
            beside_training(found),
        ]
    )


def _ways(found: Mapping[str, Any], wanted: Mapping[str, float]) -> str:
    """Times of each way, and ratios between them."""
    keys = ("mean_ms", "p50_ms", "p99_ms", "processor_ms")
    ways = [[name, *(f"{times[key]:.2f}" for key in keys)] for name, times in found["latency"].items()]
    goals = {"end to end, ours / end to end, eager", "end to end, ours / forward, eager"}
    ratios = [
        [
            name,
            ratio(both["wall"]),
            ratio(both["processor"]),
            f"{wanted['end_to_end_ratio_most']:g}" if name in goals else "",
        ]
        for name, both in found["ratios"].items()
    ]
    return "\n\n".join(
        [
            table(["way", "mean ms", "p50 ms", "p99 ms", "mean processor ms"], ways),
            table(["ratio of means", "median (least to most)", "of processor time", "goal, at most"], ratios),
        ]
    )


def _persons(found: Mapping[str, Any]) -> str:
    """What many persons add."""
    rows = [
        [each, ratio(crowd["added_ms"]["wall"]), ratio(crowd["added_ms"]["processor"])]
        for each, crowd in found["persons"].items()
    ]
    goal = found["wanted"]["persons_added_ms_most"]
    return "\n\n".join(
        [
            f"{found['settings']['many_persons']:,} persons more add to an answer (goal: less than {goal:g} ms):",
            table(["references of each", "ms, median (least to most)", "processor ms"], rows),
        ]
    )


def _swap(found: Mapping[str, Any]) -> str:
    """How long a swap takes."""
    whole, compiling, exporter = (1e3 * found[key]["median"] for key in ("whole", "compiling", "exporter"))
    return (
        f"A new student recognises {whole:.0f} ms after its package was verified; {compiling:.0f} ms are for loading, "
        f"compiling and trying it. Torch's exporter alone takes {exporter:,.0f} ms."
    )


def early_exits(found: Sequence[Mapping[str, Any]], goal: float) -> str:
    """What an early exit saves and costs."""
    shares = {"early": "answered early", "tar": "TAR", "tar_alone": "full student's TAR"}
    shares |= {"strangers": "strangers accepted", "strangers_alone": "by the full student"}
    shares |= {"first_lost": "first samples lost"}
    times = {"early": "time", "everybody": "if all were early", "nobody": "if none were", "eager early": "time, eager"}
    rows = [
        [row["student"], row["sensor"], row["exit"], f"{row['believed_from']:.1f}"]
        + [f"{100 * row[key]:.1f} %" for key in shares]
        + [f"{_over_full(row, way):.2f}" for way in times]
        for row in found
    ]
    equal = [row for row in found if row["tar"] >= row["tar_alone"] and row["strangers"] <= row["strangers_alone"]]
    best, eager = (min(_over_full(row, way) for row in equal) for way in ("early", "eager early"))
    free = max(row["early"] * (1 - _over_full(row, "everybody")) for row in found)
    bound = min(_over_full(row, "everybody") for row in found if row["exit"] == "exit1")
    return "\n\n".join(
        [
            ABOUT_EARLY_EXITS.format(captures=found[0]["captures"], strangers=found[0]["strangers_measured"]),
            table(["student", "sensor", "exit", "believed from", *shares.values(), *times.values()], rows),
            EARLY_EXITS_SAY.format(
                best=100 * (1 - best),
                goal=100 * goal,
                bound=100 * (1 - bound),
                free=100 * free,
                eager=100 * (1 - eager),
            ),
        ]
    )


def _over_full(row: Mapping[str, Any], way: str) -> float:
    """Processor time of one way over the full student's."""
    return float(row["ratios"][way]["processor"]["median"])


def beside_training(found: Mapping[str, Any]) -> str:
    """Answers while a worker trains on the same core."""
    (least, most), training = found["settings"]["pauses_s"], found["training"]
    rows = [
        [
            name,
            *(f"{times[key]:.2f}" for key in ("mean_ms", "p50_ms", "p99_ms", "p99_ratio")),
            ratio(times["mean_ratio"]),
        ]
        for name, times in training.items()
    ]
    return "\n\n".join(
        [
            ABOUT_TRAINING.format(least=least, most=most, calls=training["idle"]["calls"]),
            table(["worker", "mean ms", "p50 ms", "p99 ms", "p99 / idle", "mean / idle"], rows),
            f"Goal: p99 at most {found['wanted']['training_p99_ratio_most']:g} x idle.",
        ]
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
            upload_time(found),
            f"Check-ins of {settings['devices']:,} devices, every {settings['check_in_every_s']} s each, for "
            f"{settings['seconds']:g} s: p50 {waits['p50_ms']:.1f} ms, p90 {waits['p90_ms']:.1f} ms, "
            f"p99 {waits['p99_ms']:.1f} ms (goal: at most {found['wanted']['check_in_p99_ms_most']} ms).",
        ]
    )


def upload_time(found: Mapping[str, Any]) -> str:
    """Where the processor time of an upload goes, and what that allows."""
    spent, cores = found["results"]["upload_processor_ms"], found["settings"]["cores"]
    ours, bare = spent["registry"], spent["bare"]
    rate = found["results"]["transfers"]["upload"]["megabytes_a_second"]["bare"]["median"]
    least, bare_ms = sum(ours.values()) / cores, 1000 * found["settings"]["megabytes"] / rate
    return (
        f"An upload takes {sum(ours.values()):.0f} ms of processor time: {ours['client']:.0f} the client's, "
        f"{ours['registry']:.0f} the registry's, {ours['store']:.0f} MinIO's; the bare client's takes "
        f"{sum(bare.values()):.0f} ms. All three stand on the {cores} cores of this machine, which could do it in no "
        f"less than {least:.0f} ms; the bare client took {bare_ms:.0f} ms. So {bare_ms / least:.2f} is the most that "
        "could be reached here, if nobody ever waited. The registry's share is what a package costs to receive, to "
        "hash twice (file and member), to check and to send on."
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
    "recognition": ("Recognition: `benchmarks/recognition.py`", recognition),
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
