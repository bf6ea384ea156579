"""The tables of sizes in docs/kubernetes.md say what was measured, and nothing else of the page changes."""

from __future__ import annotations

import sys

from source_tree import ROOT

sys.path.insert(0, str(ROOT / "docs"))
from generate_sizing import END, START, render, sizing


def use(pods: int, millicores: float, mebibytes: float) -> dict:
    spread = {
        key: {"median": value, "min": value / 2, "max": value * 2}
        for key, value in (("millicores", millicores), ("mebibytes", mebibytes))
    }
    return {"pods": pods, **spread}


def found() -> dict:
    made = {"commit": "abc1234", "machine": "2 x processor", "torch": "2.0", "date": "2026-01-02T03:04:05+00:00"}
    rest = {"redis": use(1, 10, 8), "device-sim": use(3, 30, 600)}
    busy = {"redis": use(1, 20, 8), "device-sim": use(3, 900, 1500), "label-worker": use(1, 5, 100)}
    return {
        "made": made,
        "settings": {"backend": "torchserve", "samples": 4, "persons": 12, "wear": 0.6, "pause": 10.0},
        "results": [
            {"devices": 3, "visited": False, "visits_a_minute": 0.0, "components": rest},
            {"devices": 3, "visited": True, "visits_a_minute": 12.34, "components": busy},
        ],
    }


def test_a_row_for_each_component_and_one_for_a_single_device():
    text = sizing(found())
    assert "|  | 3 devices, at rest | 3 devices, 12.3 visits/min |" in text
    assert "| redis | 10 (5 to 20) | 20 (10 to 40) |" in text
    assert "| label-worker | – | 5 (2 to 10) |" in text
    assert "| device-sim, each | 10 (5 to 20) | 300 (150 to 600) |" in text
    assert "| all, medians | 608 | 1,608 |" in text, "mebibytes"


def test_only_what_stands_between_the_marks_is_written():
    page = f"before\n{START}\nold\n{END}\nafter\n"
    assert render(page, found()) == f"before\n{START}\n\n{sizing(found())}\n\n{END}\nafter\n"
    assert render(render(page, found()), found()) == render(page, found())
