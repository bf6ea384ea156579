"""Numbers about a device: what it answered and how fast, how its chores fare, how much it keeps.

Labels come from closed sets, decisions and chores; none of them tells a person. Which device it is says the address
that Prometheus collects from.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from device_sim.device import Device
from device_sim.event_counts import EventCounts
from device_sim.events import EventKind
from tutelage.biometrics.matching import Decision
from tutelage.errors import StorageError

__all__ = ["DeviceMetrics"]

EVENTS = "tutelage_device_events"

BUCKETS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0)
"""From half a millisecond, below which no student answers, to a second, when a person has turned away."""


class _Events(Collector):
    """What happened on a device, by kind, ever: counted by the store, so that a restart begins no new count."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.counts: EventCounts | None = None
        self._known: Mapping[str, int] = {}
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        if self.counts is not None:
            with suppress(StorageError):  # on a full disk, what was known before
                self._known = self.counts.now()
        family = CounterMetricFamily(EVENTS, "What happened on the device, ever, by kind.", labels=["kind"])
        for kind in EventKind:
            family.add_metric([kind.value], self._known.get(kind.value, 0))
        yield family


class DeviceMetrics:
    """Counts and durations of one device."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register in `registry`, which must not have them yet."""
        self._decisions = Counter(
            "tutelage_device_recognitions", "Captures answered, by decision.", ("decision",), registry=registry
        )
        self._seconds = Histogram(
            "tutelage_device_recognition_duration_seconds",
            "From a capture's bytes to its answer, kept and recorded.",
            buckets=BUCKETS,
            registry=registry,
        )
        self._chores = Counter(
            "tutelage_device_chores", "Chores done, and those that failed.", ("chore", "outcome"), registry=registry
        )

        self._store = Gauge("tutelage_device_store_bytes", "Bytes that the store takes.", registry=registry)
        self._idle = Gauge(
            "tutelage_device_idle_seconds",
            "Since the last recognition; infinite before the first.",
            registry=registry,
        )
        self._limit = Gauge("tutelage_device_store_limit_bytes", "Bytes that the store may take.", registry=registry)
        self._trainings = Gauge("tutelage_device_trainings", "Trainings under way, 0 or 1.", registry=registry)
        self._events = _Events(registry)

    def follow(self, device: Device, events: EventCounts) -> None:
        """Tell of `device`, and of what its `events` come to, whenever somebody collects."""
        self._events.counts = events
        self._limit.set(device.settings.sampling.max_bytes)
        self._store.set_function(lambda: float(device.store.used_bytes))
        self._idle.set_function(lambda: device.activity.idle_s)
        self._trainings.set_function(lambda: float(device.training is not None))

    @contextmanager
    def recognising(self) -> Iterator[None]:
        """Around one recognition."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._seconds.observe(time.perf_counter() - begun)

    def recognised(self, decision: Decision) -> None:
        """Count an answer."""
        self._decisions.labels(decision.value).inc()

    def chore(self, name: str, went_well: bool) -> None:
        """Count a chore that was done, well or not."""
        self._chores.labels(name, "done" if went_well else "failed").inc()
