"""The page of metrics names all metrics that the code has, with their labels, and no other."""

from __future__ import annotations

import re

import pytest
from source_tree import ROOT

pytest.importorskip("grpc")
pytest.importorskip("student_distiller")

from exported_metrics import CLASSES, exported

ROW = re.compile(r"^\| `(tutelage_\w+)` \| ([\w, ]*)\|", re.MULTILINE)


def test_the_page_has_every_metric_with_its_labels():
    there = {name: labels for name, (_, labels) in exported().items()}
    page = ROOT.joinpath("docs/observability.md").read_text()
    shown = {name: [label for label in re.split(r"[ ,]+", labels) if label] for name, labels in ROW.findall(page)}
    assert shown == there


def test_every_class_of_metrics_is_known_here():
    written = re.compile(r"^class (\w+Metrics)\b", re.MULTILINE)
    sources = [path for place in ("src", "services", "device-sim") for path in (ROOT / place).rglob("*metrics*.py")]
    assert {name for path in sources for name in written.findall(path.read_text())} == {c.__name__ for c in CLASSES}
