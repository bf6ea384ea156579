"""Metrics of the distiller: how jobs end, how many run and wait, and what steps and checkpoints cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from student_distiller.job_records import EndState

__all__ = ["DistillerMetrics"]

STEP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""From a tiny student on a GPU (5 ms) to a step that something is wrong with."""

CHECKPOINT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Up to the pause between two checkpoints."""


class DistillerMetrics:
    """What Prometheus collects."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics in `registry`, which must not have them yet."""
        prefix = "tutelage_distiller"
        self._ended = Counter(f"{prefix}_jobs_ended", "Jobs that this worker ended.", ("state",), registry=registry)
        self._running = Gauge(f"{prefix}_jobs_running", "Jobs that this worker works on.", registry=registry)
        self._waiting = Gauge(f"{prefix}_jobs_waiting", "Jobs in the queue, seen from time to time.", registry=registry)
        self._steps = Histogram(
            f"{prefix}_step_duration_seconds", "One step of a training.", buckets=STEP_BUCKETS, registry=registry
        )
        self._checkpoint_bytes = Counter(
            f"{prefix}_checkpoint_bytes", "Bytes of checkpoints that were stored.", registry=registry
        )
        self._checkpoints = Histogram(
            f"{prefix}_checkpoint_duration_seconds",
            "Storing one checkpoint.",
            buckets=CHECKPOINT_BUCKETS,
            registry=registry,
        )
        for state in EndState:
            self._ended.labels(state.value)

    def ended(self, state: EndState) -> None:
        """A job ended so."""
        self._ended.labels(state.value).inc()

    @contextmanager
    def running(self) -> Iterator[None]:
        """A job is worked on."""
        with self._running.track_inprogress():
            yield

    def waiting(self, jobs: int) -> None:
        """So many jobs wait."""
        self._waiting.set(jobs)

    def steps(self, seconds: float) -> None:
        """A step took so long."""
        self._steps.observe(seconds)

    def checkpoint(self, size_bytes: int, seconds: float) -> None:
        """A checkpoint was stored."""
        self._checkpoint_bytes.inc(size_bytes)
        self._checkpoints.observe(seconds)
