"""The end of a run in the terminal: the same numbers as the report, from the same result, in a few rich tables."""

from __future__ import annotations

from statistics import median

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from device_sim.headline import findings, headline
from device_sim.results import SELF_DISTILLED, Rates, Result, TableRow, Training
from device_sim.wording import day, percent, plural, printable, seconds, size

MAX_TRAININGS = 12
"""More are summed up instead: the report has them all."""

_VERDICT_STYLES = {"passed": "bold green", "failed": "bold yellow", "killed": "bold red"}


def result_table(result: Result) -> RenderableType:
    """Headline, error rates before and after the drift, findings, and what each training cost."""
    parts: list[RenderableType] = [Text(headline(result), style="bold"), Text(), rates_table(result.table), Text()]
    parts += [Text(f"• {sentence}") for sentence in findings(result)]
    if result.trainings:
        parts += [Text(), trainings_table(result.trainings)]
    return Group(*parts)


def print_result(result: Result, console: Console) -> None:
    """Write `result_table` to `console`."""
    console.print(result_table(result), highlight=False)


def rates_table(rows: tuple[TableRow, ...]) -> Table:
    """Misses at FMR 1e-3, rank-1 and strangers accepted, each before and after the drift, by student or teacher."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for measure in ("misses (FNMR)\nat FMR 1e-3", "rank-1", "strangers\naccepted"):
        table.add_column(f"{measure}\nbefore", justify="right", no_wrap=True, vertical="bottom")
        table.add_column("after", justify="right", no_wrap=True, vertical="bottom")
    for row in rows:
        style = "bold" if row.name == SELF_DISTILLED else ""
        table.add_row(Text(printable(row.name)), *map(Text, _cells(row.before, row.after)), style=style)
    return table


def trainings_table(trainings: tuple[Training, ...]) -> Table:
    """One row a training, or, where they are many, one row a verdict with medians."""
    many = len(trainings) > MAX_TRAININGS
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("trainings" if many else "training")
    for name in ("samples", "steps", "seconds", "peak memory"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in _by_verdict(trainings) if many else map(_one, trainings):
        table.add_row(*row)
    return table


def _cells(before: Rates, after: Rates) -> tuple[str, ...]:
    pairs = ((before.fnmr, after.fnmr), (before.rank1, after.rank1), (before.strangers, after.strangers))
    return tuple(percent(rate) for pair in pairs for rate in pair)


def _one(training: Training) -> tuple[Text, ...]:
    name = f"device {training.device}, day {day(training.day)}, {printable(training.generation)}"
    costs = str(training.samples), str(training.steps), seconds(training.seconds), size(training.peak_bytes)
    return (Text(name), *map(Text, costs), _verdict(training.verdict))


def _by_verdict(trainings: tuple[Training, ...]) -> list[tuple[Text, ...]]:
    rows = []
    for verdict in _VERDICT_STYLES:
        group = [training for training in trainings if training.verdict == verdict]
        if group:
            costs = (
                f"{median(t.samples for t in group):g}",
                f"{median(t.steps for t in group):g}",
                seconds(median(t.seconds for t in group)),
                size(median(t.peak_bytes for t in group)),
            )
            name = f"{plural(len(group), 'training')}, medians"
            rows.append((Text(name), *map(Text, costs), _verdict(verdict)))
    return rows


def _verdict(verdict: str) -> Text:
    return Text(verdict, style=_VERDICT_STYLES[verdict])
