"""Numbers about labelling: what attempts were answered with, how batches fare, how long the teacher takes.

Labels come from closed sets: kinds of abstention, stages of a batch, endings of a backend's call. None of them tells a
site, a device or a person.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tutelage.labelling import Judged

__all__ = ["BatchStage", "TeacherMetrics"]

BACKEND_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""From a few captures on an accelerator to a large batch on one core."""

QUEUE_BUCKETS = (0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0)
"""From an idle worker to hours behind a teacher that is away."""


class BatchStage(StrEnum):
    """What happened to a submitted batch."""

    SUBMITTED = "submitted"
    DONE = "done"
    RETRIED = "retried"
    """A worker could not answer it now; another try follows unless the deliveries are used up."""
    FAILED = "failed"
    """No repetition can help."""
    EXPIRED = "expired"


class TeacherMetrics:
    """Counts and durations of one service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register in `registry`, which must not have them yet."""
        self._answers = Counter(
            "tutelage_teacher_answers",
            "Attempts answered: a person, or an abstention of a kind.",
            ("outcome", "reason"),
            registry=registry,
        )
        self._batches = Counter(
            "tutelage_teacher_batches", "Submitted batches by what happened to them.", ("stage",), registry=registry
        )
        self._waited = Histogram(
            "tutelage_teacher_batch_queue_seconds",
            "From a batch's submission to its first delivery to a worker.",
            buckets=QUEUE_BUCKETS,
            registry=registry,
        )
        self._backend = Histogram(
            "tutelage_teacher_backend_duration_seconds",
            "From asking the backend for a batch of features to its answer.",
            ("outcome",),
            buckets=BACKEND_BUCKETS,
            registry=registry,
        )
        self._captures = Counter(
            "tutelage_teacher_captures", "Captures that the backend extracted features of.", registry=registry
        )
        self.persons = Gauge(
            "tutelage_teacher_gallery_persons", "Persons whose features are in memory.", registry=registry
        )
        """Persons in memory; its owner sets where the number comes from."""

    def answered(self, answers: Iterable[Judged]) -> None:
        """Count `answers` by outcome."""
        for judged in answers:
            kind = judged.abstention
            self._answers.labels(*(("person", "") if kind is None else ("abstained", kind.value))).inc()

    def batch(self, stage: BatchStage) -> None:
        """Count a batch that reached `stage`."""
        self._batches.labels(stage.value).inc()

    def waited(self, seconds: float) -> None:
        """A batch was delivered for the first time `seconds` after it was submitted."""
        self._waited.observe(max(seconds, 0.0))

    @contextmanager
    def extracting(self, captures: int) -> Iterator[None]:
        """Around one call to the backend."""
        begun, outcome = time.perf_counter(), "failed"
        try:
            yield
            outcome = "answered"
            self._captures.inc(captures)
        finally:
            self._backend.labels(outcome).observe(time.perf_counter() - begun)
