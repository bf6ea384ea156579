"""Sections of docs/results.md on what a training costs a device, and what it buys for that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from page_tables import made_line, table


def cost_section(found: Mapping[str, Any]) -> str:
    """What a self-distillation costs a device."""

    def shown(cell: Mapping[str, float], unit: float, digits: int) -> str:
        return (
            f"{cell['median'] / unit:.{digits}f} ({cell['min'] / unit:.{digits}f} to {cell['max'] / unit:.{digits}f})"
        )

    training, settings = found["training"], found["settings"]
    rows = [
        ["seconds, from the start of the process to its result", shown(training["seconds"], 1, 1)],
        ["seconds of the loop", shown(training["loop_seconds"], 1, 1)],
        ["most memory ever held, MiB", shown(training["peak_bytes"], 2**20, 0)],
    ]
    steps = [[name, shown(one["seconds"], 1e-3, 1), shown(one["ratio"], 1, 2)] for name, one in found["step"].items()]
    parts = [
        "## What a training costs a device",
        f"{settings['samples']} samples of {settings['persons']} persons, "
        f"{settings['self_distillation']['steps']} steps, one thread; "
        f"median (least to greatest) of {settings['repeats']} runs.",
        table(["one training", ""], rows),
        table(["one step", "ms", "ratio to plain fine-tuning"], steps),
        f"Load average {found['load']['before'][0]:.1f} before, {found['load']['after'][0]:.1f} after. "
        + made_line(found["made"]),
    ]
    return "\n\n".join(parts) + "\n"


def sparse_section(found: Mapping[str, Any]) -> str:
    """What a part of the student learns, beside all of it."""

    def shown(figure: Mapping[str, float], unit: float, digits: int) -> str:
        return f"{figure['mean'] / unit:.{digits}f} ± {figure['sd'] / unit:.{digits}f}"

    summary, settings = found["summary"], found["settings"]
    shares = ("misses", "strangers", "misses_alike")
    rows = [
        [way, f"{by['steps']['mean']:.0f}", shown(by["seconds"], 1, 1), *(shown(by[name], 0.01, 1) for name in shares)]
        for way, by in summary.items()
    ]
    head = [
        "trained",
        "steps",
        "processor s",
        "misses, %",
        "strangers in, %",
        "misses, %, where 1 in 40 strangers comes in",
    ]
    whole, part = (summary[way]["misses_alike"]["mean"] for way in ("all layers", "sparse, as long"))
    said = "It is no gain" if part >= whole else "It is a gain"
    parts = [
        "## Training a part of the student",
        "*Sparse* trains adapters, the last two stages and all normalisations (after Lin et al. 2022), the setting "
        f"`late_only`. From {settings['samples']} samples of {settings['persons']} persons on a worn sensor; measured "
        f"on {settings['probes']} other captures and {settings['strangers']} strangers, mean ± standard deviation over "
        "sites; *as long* has as many steps as fit into the time that all layers take.",
        table(head, rows),
        f"{said} by the second here, so it is off by default: a step of it is not much cheaper, for what "
        f"normalisations of early layers learn has to be carried back to them. {made_line(found['made'])}",
    ]
    return "\n\n".join(parts) + "\n"
