"""The page of metrics names all metrics that the code has, with their labels, and no other."""

from __future__ import annotations

import re

import pytest
from source_tree import ROOT

pytest.importorskip("grpc")
pytest.importorskip("student_distiller")

from prometheus_client import CollectorRegistry

from device_sim.device_metrics import DeviceMetrics
from model_registry.registry_metrics import RegistryMetrics
from student_distiller.distiller_metrics import DistillerMetrics
from teacher_inference.teacher_metrics import TeacherMetrics
from tutelage.metrics import CallMetrics

ROW = re.compile(r"^\| `(tutelage_\w+)` \| ([\w, ]*)\|", re.MULTILINE)


def test_the_page_has_every_metric_with_its_labels():
    registry = CollectorRegistry()
    for metrics in (CallMetrics, TeacherMetrics, DistillerMetrics, RegistryMetrics, DeviceMetrics):
        metrics(registry)
    there = {}
    for collector in registry._collector_to_names:
        counted = "_total" if collector._type == "counter" else ""
        there[collector._name + counted] = list(collector._labelnames)
    page = ROOT.joinpath("docs/observability.md").read_text()
    shown = {name: [label for label in re.split(r"[ ,]+", labels) if label] for name, labels in ROW.findall(page)}
    assert shown == there
