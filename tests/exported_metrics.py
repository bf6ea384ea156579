"""What the programs export: every metric that their classes register, with its labels."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from device_sim.device_metrics import DeviceMetrics
from model_registry.registry_metrics import RegistryMetrics
from student_distiller.distiller_metrics import DistillerMetrics
from teacher_inference.teacher_metrics import TeacherMetrics
from tutelage.metrics import CallMetrics, HealthMetrics, tell_of_certificate
from tutelage.queue_metrics import QueueMetrics

CLASSES = (
    CallMetrics,
    HealthMetrics,
    QueueMetrics,
    TeacherMetrics,
    DistillerMetrics,
    RegistryMetrics,
    DeviceMetrics,
)
ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def exported() -> dict[str, tuple[str, list[str]]]:
    """Kind and labels of each metric by its name, counters with their ending."""
    registry = CollectorRegistry()
    for metrics in CLASSES:
        metrics(registry)
    tell_of_certificate(Path("tls.crt"), registry)
    found = {}
    for collector in registry._collector_to_names:
        if isinstance(collector, MetricWrapperBase):
            families = [(collector._name, collector._type, list(collector._labelnames))]
        else:
            families = [(f.name, f.type, list(f.samples[0].labels)) for f in collector.collect()]
        for name, kind, labels in families:
            found[name + ("_total" if kind == "counter" else "")] = (kind, labels)
    return found


def series() -> dict[str, set[str]]:
    """Labels of each series that a query can name."""
    return {
        name.removesuffix("_total") + ending: {*labels, *({"le"} if ending == "_bucket" else ())}
        for name, (kind, labels) in exported().items()
        for ending in ENDINGS[kind]
    }
