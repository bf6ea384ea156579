"""What runs of the poisoning benchmark come to: rates of each way to recognise under each attack, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

ATTACKS = ("ten injections", "hostile tenth")
ROWS = (
    "frozen student",
    "adapted templates, no limits",
    "adapted templates, limits",
    "self-distilled, no limits, no gate",
    "self-distilled, limits, no gate",
    "device: limits and gate",
)
SHOWN = ("attackers_in", "attackers_near", "misses", "strangers_in")


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """By attack and row: rates over all seeds, and how many attackers get in beside the frozen student."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for attack in ATTACKS:
        counts = {row: [run["rows"][row] for run in runs if run["attack"] == attack] for row in ROWS}
        found[attack] = {row: _rates(counts[row], counts[ROWS[0]]) for row in ROWS}
    return found


def _rates(counts: Sequence[dict[str, int]], frozen: Sequence[dict[str, int]]) -> dict[str, Any]:
    pairs = {"attackers_in": ("admitted", "attackers"), "attackers_near": ("near", "attackers")}
    pairs |= {"as_victim": ("as_victim", "attackers")}
    pairs |= {"misses": ("missed", "genuine"), "strangers_in": ("strangers_admitted", "strangers")}
    rates: dict[str, Any] = {}
    for rate, (part, whole) in pairs.items():
        shares = [c[part] / c[whole] for c in counts]
        rates[rate] = {"mean": fmean(shares), "sd": stdev(shares) if len(shares) > 1 else 0.0}
    for count in ("admitted", "near", "attackers"):
        rates[count], rates[f"frozen_{count}"] = (sum(c[count] for c in part) for part in (counts, frozen))
    return rates


def beside(rates: dict[str, Any], count: str) -> str:
    """A count over the frozen student's."""
    return f"{rates[count] / rates[f'frozen_{count}']:.2f}" if rates[f"frozen_{count}"] else "–"


def show(found: dict[str, dict[str, dict[str, Any]]]) -> None:
    for attack, rows in found.items():
        table = Table(title=attack)
        for heading in ("", "attackers in", "near", "near, beside frozen", "misses", "strangers in"):
            table.add_column(heading, justify="right" if heading else "left")
        for row, rates in rows.items():
            cells = [f"{rates[n]['mean']:.1%} ± {rates[n]['sd']:.1%}" for n in SHOWN]
            table.add_row(row, *cells[:2], beside(rates, "near"), *cells[2:])
        Console(width=130).print(table)
