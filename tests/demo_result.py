"""An invented result of a simulation, whole and plausible, for the tests of what is made from results."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import numpy as np

from device_sim.results import (
    FROZEN,
    SELF_DISTILLED,
    TEACHER,
    DayPoint,
    DetCurve,
    EventLine,
    KeptCapture,
    LabelCounts,
    Made,
    Rates,
    Result,
    SampleCounts,
    TableRow,
    Training,
)
from tutelage.captures import encode_png

PNG = base64.b64encode(encode_png(np.arange(256, dtype=np.uint8).reshape(16, 16))).decode()


def result_with(**changes: Any) -> Result:
    """The invented result, with some fields changed."""
    return replace(RESULT, **changes)


def rates_changed(began: float | None, worn: float | None, ended: float | None, strangers: float = 0.002) -> Result:
    """The invented result, with these misses of the frozen student (before, after) and the self-distilled one."""
    rows = (
        TableRow(FROZEN, Rates(began, 0.95, 0.003), Rates(worn, 0.6, 0.004)),
        TableRow(SELF_DISTILLED, Rates(0.05, 0.97, 0.003), Rates(ended, 0.98, strangers)),
    )
    return result_with(table=rows)


RESULT = Result(
    kind="synthetic",
    title="Fingers & sensors",
    made=Made("abc1234", "2 x Some Processor", "3.11.9", "2.13.0", (1, 7), "2026-01-05T12:00:00+00:00"),
    settings={"notes": ["Distilled on for 30 steps."], "device": {"sampling": {"accept_score": 31.0}}, "persons": 12},
    table=(
        TableRow(FROZEN, Rates(0.069, 0.951, 0.0028), Rates(0.517, 0.612, 0.0056)),
        TableRow(SELF_DISTILLED, Rates(0.049, 0.972, 0.0029), Rates(0.042, 0.979, 0.0)),
        TableRow(TEACHER, Rates(0.0, 1.0, None), Rates(0.0035, 0.999, None)),
    ),
    labels=LabelCounts(asked=83, stored=71, abstained=12, precision=0.9859),
    samples=SampleCounts(first=1324, second=73, dropped={"below-interval": 211, "near-duplicate": 13}),
    trainings=(
        Training(0, 5, "v1+1", 52, 100, 8.4, 336_000_000, "passed", ("misses 2 of 12, before 6", "references 0 of 36")),
        Training(1, 9, "v1+2", 57, 37, 125.2, 1_500_000_000, "failed", ("strangers 3 of 200 above 0 of 200",)),
        Training(1, 11, "v1+3", 58, 0, 60.0, 4096, "killed", ()),
    ),
    timeline={
        "device 0": (
            DayPoint(0, 0.05, 0.07, 0.07, "v1"),
            DayPoint(1, 0.2, 0.2, None, "v1"),
            DayPoint(2, 0.4, 0.5, 0.06, "v1+1"),
        ),
        "device 1": (DayPoint(0, None, 0.1, 0.1, "v1"), DayPoint(2, None, 0.3, 0.3, "v1")),
    },
    scores={
        "genuine, frozen, new sensor": (35.0, 47.0, 61.0, 45.5),
        "genuine, frozen, worn": (11.0, 29.0, 31.0),
        "genuine, self-distilled, worn": (33.0, 47.5),
        "strangers, self-distilled, worn": (0.0, 1.0, 1.5, 9.0),
    },
    det={
        FROZEN: DetCurve((1.0, 0.1, 0.001, 0.0), (0.0, 0.2, 0.6, 1.0)),
        SELF_DISTILLED: DetCurve((0.2, 0.001), (0.01, 0.03)),
    },
    kept=(
        KeptCapture(PNG, 0, 3, "first", "anna", 41.25, "sample-interval"),
        KeptCapture(PNG, 1, 4.5, "second", "", None, "the teacher abstained"),
    ),
    events=(
        EventLine(5, 0, "gate-passed", "misses 2 of 12, before 6"),
        EventLine(9, 1, "gate-failed", "strangers 3 of 200 above 0 of 200"),
    ),
)
