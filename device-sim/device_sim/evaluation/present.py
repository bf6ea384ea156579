"""How a comparison is shown: a table for the terminal, the same as Markdown, and a plot of every exit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from tutelage.nn.students import READOUTS

RATES = {"rank1": "rank-1", "eer": "EER", "tar_1e2": "TAR at 1e-2", "tar_1e3": "TAR at 1e-3", "strangers": "strangers"}


def summary_table(summary: Mapping[str, Any], readout: str = "fused", state: str = "worn") -> Table:
    """Mean and standard deviation over seeds, percent, one row a case."""
    table = Table(title=f"{state} sensor, {readout}; percent, mean ± sd over seeds")
    table.add_column("case")
    for title in RATES.values():
        table.add_column(title, justify="right", no_wrap=True)
    for name, states in summary.items():
        cells = states[state].get(readout, {})
        table.add_row(name, *(cell(cells.get(rate)) for rate in RATES))
    return table


def markdown(summary: Mapping[str, Any], readouts: Sequence[str] = READOUTS, state: str = "worn") -> str:
    """One row a case: TAR at FMR 1e-3 of each exit, then rank-1, EER and strangers of the fused readout."""
    head = ["case", *(f"TAR {r}" for r in readouts), "rank-1 fused", "EER fused", "strangers fused"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, states in summary.items():
        by = states[state]
        cells = [cell(by[r]["tar_1e3"]) for r in readouts]
        cells += [cell(by["fused"].get(rate)) for rate in ("rank1", "eer", "strangers")]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def cell(value: Mapping[str, float] | None) -> str:
    """`93.1 ± 1.2`, percent."""
    return "–" if value is None else f"{100 * value['mean']:.1f} ± {100 * value['sd']:.1f}"


def exits_figure(
    summary: Mapping[str, Any], names: Sequence[str], rate: str = "tar_1e3", state: str = "worn"
) -> Figure:
    """`rate` of each readout with its spread, a line a case."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for i, name in enumerate(names):
        cells = [summary[name][state][r][rate] for r in READOUTS]
        places = [k + 0.04 * (i - len(names) / 2) for k in range(len(READOUTS))]
        means, sds = [100 * c["mean"] for c in cells], [100 * c["sd"] for c in cells]
        axes.errorbar(places, means, yerr=sds, marker="o", capsize=2, linewidth=1, label=name)
    axes.set_xticks(range(len(READOUTS)), READOUTS)
    axes.set_ylabel(f"{RATES[rate]}, %")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    return figure
