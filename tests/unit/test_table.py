from __future__ import annotations

import io
from dataclasses import replace

import pytest
from demo_result import RESULT, result_with
from rich.console import Console, RenderableType

from device_sim.headline import findings, headline
from device_sim.results import Rates, TableRow
from device_sim.table import MAX_TRAININGS, rates_table, result_table, trainings_table


def shown(part: RenderableType, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(part, highlight=False)
    return console.file.getvalue()


def row(text: str, name: str) -> list[str]:
    """Cells of the one line that begins with `name`."""
    (line,) = (line for line in text.splitlines() if line.strip().startswith(name))
    return line.strip().removeprefix(name).replace(" %", "%").split()


def test_every_rate_stands_in_its_column():
    text = shown(rates_table(RESULT.table))
    assert row(text, "frozen student") == ["6.9%", "51.7%", "95.1%", "61.2%", "0.28%", "0.56%"]
    assert row(text, "self-distilled") == ["4.9%", "4.2%", "97.2%", "97.9%", "0.29%", "0%"]
    assert row(text, "teacher") == ["0%", "0.35%", "100%", "99.90%", "–", "–"]


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_table_fits_a_terminal_with_nothing_cut(width: int):
    text = shown(rates_table(RESULT.table), width)
    assert "…" not in text
    assert len(row(text, "frozen student")) == 6


def test_a_training_is_a_row_with_its_costs():
    text = shown(trainings_table(RESULT.trainings))
    assert row(text, "device 0, day 5, v1+1") == ["52", "100", "8.4", "s", "320", "MiB", "passed"]
    assert row(text, "device 1, day 9, v1+2") == ["57", "37", "2", "min", "05", "s", "1.4", "GiB", "failed"]
    assert row(text, "device 1, day 11, v1+3") == ["58", "0", "1", "min", "00", "s", "4.0", "KiB", "killed"]


def test_many_trainings_become_one_row_a_verdict_with_medians():
    passed, failed, _ = RESULT.trainings
    many = (*(replace(passed, seconds=float(n), samples=n) for n in range(MAX_TRAININGS)), failed)
    text = shown(trainings_table(many))
    assert row(text, "12 trainings, medians") == ["5.5", "100", "5.5", "s", "320", "MiB", "passed"]
    assert row(text, "1 training, medians") == ["57", "37", "2", "min", "05", "s", "1.4", "GiB", "failed"]
    assert "killed" not in text


def test_as_many_trainings_as_fit_are_rows():
    text = shown(trainings_table(RESULT.trainings[:1] * MAX_TRAININGS))
    assert text.count("device 0, day 5, v1+1") == MAX_TRAININGS


def test_the_whole_says_headline_and_findings():
    text = shown(result_table(RESULT), width=400)
    assert headline(RESULT) in text
    for sentence in findings(RESULT):
        assert f"• {sentence}" in text


def test_without_trainings_there_is_no_table_of_them():
    text = shown(result_table(result_with(trainings=())))
    assert "No training ran." in text
    assert "peak memory" not in text


def test_names_can_neither_style_nor_steer_the_terminal():
    hostile = TableRow("[red]x[/red]\x1b[2J", Rates(0.5, 0.5), Rates(0.5, 0.5))
    training = replace(RESULT.trainings[0], generation="[link=x]v1\x1b]0;")
    text = shown(rates_table((hostile,))) + shown(trainings_table((training,)))
    assert "\x1b" not in text
    assert "[red]x[/red]�[2J" in text
    assert "[link=x]v1�]0;" in text
