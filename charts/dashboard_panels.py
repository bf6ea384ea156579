"""What the dashboard shows: rows of panels, and of each panel the queries with what each line is called.

It stands in the order in which it is shown. `generate_dashboard.py` makes Grafana's file of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Query:
    """One PromQL expression; `$ns` stands for the namespace that was chosen, `$every` for Grafana's interval."""

    expression: str
    legend: str
    """What a line is called; `{{label}}` is filled in."""

    @property
    def expanded(self) -> str:
        """As Grafana takes it."""
        return self.expression.replace("$ns", 'namespace=~"$namespace"').replace("$every", "$__rate_interval")


@dataclass(frozen=True)
class Panel:
    """One picture."""

    title: str
    unit: str
    """One of Grafana's: short, s, bytes, Bps, percentunit, ops (a second), opm (a minute), dateTimeFromNow."""
    queries: Sequence[Query]
    meaning: str = ""
    """What is good and what is not."""
    kind: str = "timeseries"
    """Or stat, the latest value in large."""


@dataclass(frozen=True)
class Row:
    """Panels below one heading."""

    title: str
    panels: Sequence[Panel]


def events(kind: str, legend: str) -> Query:
    """How often devices of the fleet had an event of a kind, an hour."""
    return Query(f'sum(increase(tutelage_device_events_total{{$ns, kind="{kind}"}}[1h]))', legend)


def quantiles(histogram: str, by: str, legend: str, **labels: str) -> list[Query]:
    """Median and 99th percentile of a histogram, by some label, of the series with these `labels`."""
    chosen = ", ".join(["$ns", *(f'{label}="{value}"' for label, value in labels.items())])
    grouped = ", ".join(label for label in ("le", by) if label)
    return [
        Query(f"histogram_quantile({q}, sum by ({grouped}) (rate({histogram}_bucket{{{chosen}}}[$every])))", name)
        for q, name in ((0.5, f"p50 {legend}".strip()), (0.99, f"p99 {legend}".strip()))
    ]


LOOP = Row(
    "The loop",
    [
        Panel(
            "Check-ins",
            "opm",
            [Query('60 * sum(rate(tutelage_grpc_calls_total{$ns, method="CheckIn"}[$every]))', "check-ins a minute")],
            "Each device checks in every half minute unless the registry is told otherwise: half of this is the fleet.",
        ),
        Panel(
            "Samples an hour",
            "short",
            [
                events("sample-kept", "kept"),
                events("sample-dropped", "dropped"),
                events("sample-quarantined", "quarantined"),
            ],
        ),
        Panel(
            "Labels an hour",
            "short",
            [
                events("labels-asked", "requests"),
                events("label-stored", "stored"),
                events("label-abstained", "abstained"),
            ],
            "Samples that got a label, and those that the teacher would not name.",
        ),
        Panel(
            "Trainings an hour",
            "short",
            [
                events("training-started", "started"),
                events("training-finished", "finished"),
                events("training-failed", "failed"),
                events("training-resumed", "resumed"),
            ],
        ),
        Panel(
            "Verdicts of the gate an hour",
            "short",
            [events("gate-passed", "passed"), events("gate-failed", "failed")],
            "Refusing is the gate's work. Refusing everything for days means that nothing is learnt.",
        ),
        Panel(
            "Generations an hour",
            "short",
            [
                events("generation-swapped", "swapped in"),
                events("watch-passed", "watch window passed"),
                events("generation-reverted", "taken back"),
                events("revert-failed", "could not be taken back"),
                events("release-installed", "release installed"),
                events("release-refused", "release refused"),
            ],
        ),
    ],
)

SERVICES = Row(
    "Services",
    [
        Panel(
            "What does not answer",
            "short",
            [
                Query(
                    "min by (job, dependency) (tutelage_health_dependency_up{$ns}) == 0",
                    "{{job}}: {{dependency}}",
                )
            ],
            "Empty is good: a service is SERVING while all that it depends on answers.",
        ),
        Panel(
            "Calls",
            "ops",
            [Query('sum by (job) (rate(tutelage_grpc_calls_total{$ns, service=~"tutelage.*"}[$every]))', "{{job}}")],
        ),
        Panel(
            "Calls that failed, by status",
            "ops",
            [
                Query(
                    'sum by (job, code) (rate(tutelage_grpc_calls_total{$ns, code!="OK"}[$every])) > 0',
                    "{{job}} {{code}}",
                )
            ],
            "NOT_FOUND and INVALID_ARGUMENT are the caller's; INTERNAL, UNAVAILABLE and DEADLINE_EXCEEDED are ours.",
        ),
        Panel(
            "Teacher: how long calls take",
            "s",
            quantiles(
                "tutelage_grpc_call_duration_seconds",
                "method",
                "{{method}}",
                service="tutelage.api.teacher.v1.TeacherInferenceService",
            ),
        ),
        Panel(
            "Registry: how long calls take",
            "s",
            quantiles(
                "tutelage_grpc_call_duration_seconds",
                "method",
                "{{method}}",
                service="tutelage.api.registry.v1.ModelRegistryService",
            ),
        ),
        Panel(
            "Distiller: how long calls take",
            "s",
            quantiles(
                "tutelage_grpc_call_duration_seconds",
                "method",
                "{{method}}",
                service="tutelage.api.distiller.v1.StudentDistillerService",
            ),
        ),
        Panel(
            "Calls in flight",
            "short",
            [Query("sum by (job) (tutelage_grpc_calls_in_flight{$ns})", "{{job}}")],
        ),
        Panel(
            "Certificates end in",
            "s",
            [
                Query(
                    "min by (job) (tutelage_tls_certificate_end_timestamp_seconds{$ns}) - time()",
                    "{{job}}",
                )
            ],
        ),
    ],
)

QUEUES = Row(
    "Queues",
    [
        Panel(
            "Entries",
            "short",
            [
                Query(
                    'max by (queue, state) (tutelage_queue_entries{$ns, state!="dead"})',
                    "{{queue}} {{state}}",
                )
            ],
        ),
        Panel(
            "How long the first entry has waited",
            "s",
            [Query("max by (queue) (tutelage_queue_waited_seconds{$ns})", "{{queue}}")],
            "Grows while workers are missing or slow. A job of distill.jobs may wait for the one before it.",
        ),
        Panel(
            "Dead letters",
            "short",
            [Query('max by (queue) (tutelage_queue_entries{$ns, state="dead"})', "{{queue}}")],
            "They stay until somebody revives them.",
            kind="stat",
        ),
    ],
)

REGISTRY = Row(
    "Registry",
    [
        Panel(
            "Versions made a day",
            "short",
            [Query("sum(increase(tutelage_registry_versions_created_total{$ns}[1d]))", "versions")],
        ),
        Panel(
            "Packages moved",
            "Bps",
            [
                Query(
                    "sum by (direction) (rate(tutelage_registry_transferred_bytes_total{$ns}[$every]))",
                    "{{direction}}",
                )
            ],
        ),
        Panel(
            "Downloads and uploads",
            "ops",
            [
                Query(
                    "sum by (method, code) (rate(tutelage_grpc_calls_total"
                    '{$ns, method=~"DownloadVersion|CreateVersion"}[$every]))',
                    "{{method}} {{code}}",
                )
            ],
        ),
    ],
)

TEACHER = Row(
    "Teacher",
    [
        Panel(
            "How long the backend takes",
            "s",
            quantiles("tutelage_teacher_backend_duration_seconds", "outcome", "{{outcome}}"),
        ),
        Panel(
            "Captures",
            "ops",
            [Query("sum by (job) (rate(tutelage_teacher_captures_total{$ns}[$every]))", "{{job}}")],
        ),
        Panel(
            "Answers",
            "ops",
            [
                Query(
                    "sum by (outcome, reason) (rate(tutelage_teacher_answers_total{$ns}[$every]))",
                    "{{outcome}} {{reason}}",
                )
            ],
            "Attempts that were named, and abstentions by their kind.",
        ),
        Panel(
            "Batches",
            "ops",
            [Query("sum by (stage) (rate(tutelage_teacher_batches_total{$ns}[$every]))", "{{stage}}")],
        ),
        Panel(
            "How long batches wait for a worker",
            "s",
            quantiles("tutelage_teacher_batch_queue_seconds", "", ""),
        ),
        Panel(
            "Persons in memory",
            "short",
            [Query("sum by (pod) (tutelage_teacher_gallery_persons{$ns})", "{{pod}}")],
        ),
    ],
)

DISTILLER = Row(
    "Distiller",
    [
        Panel(
            "Jobs",
            "short",
            [
                Query("sum(tutelage_distiller_jobs_running{$ns})", "running"),
                Query("max(tutelage_distiller_jobs_waiting{$ns})", "waiting"),
            ],
        ),
        Panel(
            "Jobs ended a day",
            "short",
            [Query("sum by (state) (increase(tutelage_distiller_jobs_ended_total{$ns}[1d]))", "{{state}}")],
        ),
        Panel("Steps", "s", quantiles("tutelage_distiller_step_duration_seconds", "", "")),
        Panel("Checkpoints", "s", quantiles("tutelage_distiller_checkpoint_duration_seconds", "", "")),
        Panel(
            "Bytes of checkpoints",
            "Bps",
            [Query("sum(rate(tutelage_distiller_checkpoint_bytes_total{$ns}[$every]))", "stored")],
        ),
    ],
)

DEVICES = Row(
    "Devices",
    [
        Panel(
            "How long recognising takes",
            "s",
            quantiles("tutelage_device_recognition_duration_seconds", "", ""),
            "From a capture's bytes to its answer, of all devices.",
        ),
        Panel(
            "Decisions",
            "ops",
            [Query("sum by (decision) (rate(tutelage_device_recognitions_total{$ns}[$every]))", "{{decision}}")],
        ),
        Panel(
            "The fullest stores",
            "percentunit",
            [
                Query(
                    "topk(5, tutelage_device_store_bytes{$ns} / tutelage_device_store_limit_bytes{$ns})",
                    "{{pod}}",
                )
            ],
            "A full store makes room by itself; references never go.",
        ),
        Panel(
            "Chores that failed",
            "ops",
            [
                Query(
                    'sum by (chore) (rate(tutelage_device_chores_total{$ns, outcome="failed"}[$every]))',
                    "{{chore}}",
                )
            ],
        ),
        Panel(
            "Trainings under way",
            "short",
            [Query("sum(tutelage_device_trainings{$ns})", "trainings")],
        ),
        Panel(
            "Longest without a recognition",
            "s",
            [Query("topk(5, tutelage_device_idle_seconds{$ns})", "{{pod}}")],
        ),
    ],
)

ROWS = (LOOP, SERVICES, QUEUES, REGISTRY, TEACHER, DISTILLER, DEVICES)
