"""Dashboard and alerts ask for metrics and labels that somebody exports, in PromQL that can be read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from source_tree import ROOT

pytest.importorskip("promql_parser")
pytest.importorskip("grpc")
pytest.importorskip("student_distiller")

import promql_parser as promql
import yaml
from exported_metrics import series

from device_sim.events import EventKind
from student_distiller.job_records import EndState
from teacher_inference.teacher_metrics import BatchStage
from tutelage.biometrics.matching import Decision
from tutelage.errors import Status
from tutelage.queue_entries import State

FILES = ROOT / "charts/tutelage/files"
PAGE = ROOT / "docs/operations.md"
PANELS = json.loads(FILES.joinpath("dashboard.json").read_text())["panels"]
RULES = [r for g in yaml.safe_load(FILES.joinpath("alerts.yaml").read_text())["groups"] for r in g["rules"]]

ADDED = {"namespace", "job", "pod"}
"""Labels that Prometheus gives to everything that it collects from a Pod."""

OTHERS = {
    "up": set(),
    "kubelet_volume_stats_available_bytes": {"persistentvolumeclaim"},
    "kubelet_volume_stats_capacity_bytes": {"persistentvolumeclaim"},
}
"""Series that are not ours: Prometheus' own, and the kubelet's."""

VALUES = {
    "tutelage_device_events_total": ("kind", EventKind),
    "tutelage_device_recognitions_total": ("decision", Decision),
    "tutelage_grpc_calls_total": ("code", Status),
    "tutelage_queue_entries": ("state", State),
    "tutelage_distiller_jobs_ended_total": ("state", EndState),
    "tutelage_teacher_batches_total": ("stage", BatchStage),
}
"""Label of a series whose values are a closed set."""


def expressions() -> Iterator[tuple[str, str]]:
    """Where an expression stands, and the expression as Prometheus gets it from Grafana."""
    for panel in PANELS:
        for target in panel.get("targets", []):
            text = target["expr"].replace("$__rate_interval", "5m").replace("$namespace", ".*")
            yield f"{panel['title']}: {target['legendFormat']}", text
    for rule in RULES:
        yield rule["alert"], rule["expr"]


def nodes(node: object) -> Iterator[object]:
    """An expression with all in it."""
    yield node
    for name in ("lhs", "rhs", "expr", "vector_selector", "param"):
        if (inner := getattr(node, name, None)) is not None:
            yield from nodes(inner)
    for argument in getattr(node, "args", None) or []:
        yield from nodes(argument)


def wrong(text: str) -> Iterator[str]:
    """One sentence for each thing that an expression asks for and nobody exports."""
    found = list(nodes(promql.parse(text)))
    known = {**series(), **OTHERS}
    selectors = [node for node in found if isinstance(node, promql.VectorSelector)]
    for selector in selectors:
        matchers = selector.matchers.matchers
        if selector.name not in known:
            yield f"nobody exports {selector.name}"
            continue
        yield from (
            f"{selector.name} has no label {matcher.name}"
            for matcher in matchers
            if matcher.name not in known[selector.name] | ADDED
        )
        label, allowed = VALUES.get(selector.name, ("", ()))
        for matcher in matchers:
            for value in matcher.value.split("|") if matcher.name == label else ():
                if value not in set(allowed):
                    yield f"{label} of {selector.name} is never {value}"
    labels = {label for selector in selectors for label in known.get(selector.name, ())} | ADDED
    for node in found:
        modifier = getattr(node, "modifier", None)
        named = getattr(modifier, "labels", None) or getattr(getattr(modifier, "matching", None), "labels", None) or ()
        yield from (f"it groups by {label}, which nothing here has" for label in named if label not in labels)


@pytest.mark.parametrize(("place", "text"), list(expressions()), ids=[place for place, _ in expressions()])
def test_an_expression_asks_for_what_is_exported(place: str, text: str):
    assert list(wrong(text)) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sum(tutelage_nothing_total)", "nobody exports tutelage_nothing_total"),
        ("tutelage_registry_versions_created", "nobody exports tutelage_registry_versions_created"),
        ("tutelage_queue_entries{device='d'}", "no label device"),
        ("sum by (site) (tutelage_queue_entries)", "groups by site"),
        ("tutelage_queue_entries and on (site) up", "groups by site"),
        ("rate(tutelage_device_events_total{kind='won'}[5m])", "never won"),
    ],
)
def test_what_is_not_exported_is_found(text: str, sentence: str):
    assert any(sentence in said for said in wrong(text)), list(wrong(text))


def test_every_metric_but_the_obvious_is_looked_at_somewhere():
    asked = " ".join(text for _, text in expressions())
    unseen = {name for name in series() if not re.search(rf"\b{name}\b", asked)}
    assert {name for name in unseen if not name.endswith(("_sum", "_count"))} == set()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_means_and_where_to_read_on(rule):
    notes = rule["annotations"]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert notes["summary"]
    assert len(notes["description"].split()) >= 12
    assert notes["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"
    assert f"\n### {rule['alert']}\n" in PAGE.read_text(), "docs/operations.md has no section about it"


def test_the_page_speaks_of_no_alert_that_is_not_there():
    assert re.findall(r"^### (Tutelage\w+)$", PAGE.read_text(), re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_panels_have_ids_and_places_of_their_own():
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken = {
        (x, y)
        for panel in PANELS
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    }
    assert len(taken) == sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in PANELS)
    assert max(x for x, _ in taken) < 24
