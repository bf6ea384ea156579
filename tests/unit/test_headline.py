from __future__ import annotations

import pytest
from demo_result import RESULT, rates_changed, result_with

from device_sim.headline import findings, headline
from device_sim.results import LabelCounts, Rates, TableRow


@pytest.mark.parametrize(
    ("began", "worn", "ended", "sentence"),
    [
        (
            0.069,
            0.517,
            0.042,
            "Drift raised the frozen student's misses from 6.9 % to 51.7 %; "
            "self-distillation on the devices brought them down to 4.2 %, below where they began.",
        ),
        (
            0.1,
            0.5,
            0.2,
            "Drift raised the frozen student's misses from 10.0 % to 50.0 %; "
            "self-distillation on the devices brought them down to 20.0 %, which is 75 % of what was lost.",
        ),
        (
            0.1,
            0.5,
            0.104,
            "Drift raised the frozen student's misses from 10.0 % to 50.0 %; "
            "self-distillation on the devices brought them down to 10.4 %, where they began.",
        ),
        (
            0.1,
            0.5,
            0.497,
            "Drift raised the frozen student's misses from 10.0 % to 50.0 %; "
            "self-distillation did not help: 49.7 % with it.",
        ),
        (
            0.1,
            0.3,
            0.4,
            "Drift raised the frozen student's misses from 10.0 % to 30.0 %; "
            "self-distillation did not help but harmed: 40.0 % with it.",
        ),
        (
            0.1,
            0.102,
            0.1,
            "Drift cost the frozen student nothing: its misses were 10.0 % before and 10.2 % after; "
            "self-distillation did not help: 10.0 % with it.",
        ),
        (
            0.2,
            0.1,
            0.05,
            "The frozen student's misses fell from 20.0 % to 10.0 % in spite of the drift; "
            "self-distillation on the devices brought them down to 5.0 %.",
        ),
    ],
)
def test_the_sentence_follows_the_numbers(began: float, worn: float, ended: float, sentence: str):
    assert headline(rates_changed(began, worn, ended)) == sentence


@pytest.mark.parametrize("misses", [(None, 0.5, 0.1), (0.1, None, 0.1), (0.1, 0.5, None)])
def test_what_was_not_measured_is_not_judged(misses: tuple[float | None, float | None, float | None]):
    assert headline(rates_changed(*misses)).startswith("Whether self-distillation helped was not measured")


def test_a_table_without_a_student_is_not_judged():
    assert "lacks a student" in headline(result_with(table=RESULT.table[:1]))


def test_more_strangers_are_called_more():
    (sentence,) = (s for s in findings(rates_changed(0.1, 0.5, 0.1, strangers=0.0031)) if "Strangers" in s)
    assert sentence == (
        "Strangers are accepted in 0.31 % of their attempts after self-distillation, MORE than by the frozen student: "
        "0.30 % before the drift and 0.40 % after it."
    )


def test_findings_hold_every_number():
    said = " ".join(findings(RESULT))
    for number in (
        "61.2 %",
        "97.9 %",
        "0 %",
        "0.28 %",
        "0.56 %",
        "0.35 %",
        "83 labels",
        "71 times",
        "12 times",
        "98.6 %",
    ):
        assert number in said
    assert "Of 3 trainings on the devices 1 passed the gate, 1 failed it, 1 ended before it." in said


def test_findings_of_next_to_nothing():
    nothing = Rates(None, None, None)
    rows = tuple(TableRow(row.name, nothing, nothing) for row in RESULT.table)
    bare = result_with(table=rows, labels=LabelCounts(0, 0, 0, None), trainings=())
    assert findings(bare) == ("The teacher was never asked for a label.", "No training ran.")
