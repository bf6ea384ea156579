"""The chart as helm renders it for some values, without any cluster; each rendering is made once for a whole run."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from real_servers import program

CHART = Path(__file__).resolve().parents[1] / "charts" / "tutelage"
NAMESPACE = "somewhere"

OFF: dict[str, Any] = {"enabled": False}
STORE = {"address": "store.example:7000", "existingSecret": "yours"}

VALUES: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "everything is yours, and jobs run in the cluster": {
        "tls": {"source": "secrets"},
        "keys": {"existingSecret": "saved-keys"},
        "redis": {"builtIn": False, "external": {**STORE, "hasAuthority": True, "user": "tutor"}},
        "minio": {"builtIn": False, "external": {**STORE, "hasAuthority": True, "existingSecret": "s3"}},
        "teacher": {"backend": "oip", "oip": {"address": "triton.example:8001", "tokenSecret": "triton"}},
        "distillerWorker": {"executor": "kubernetes", "keda": {"enabled": True}},
        "labelWorker": {"keda": {"enabled": True, "minReplicas": 0}},
        "traces": {"enabled": True, "address": "collector.example:4317", "tls": True},
        "monitoring": {
            "labels": {"release": "prometheus"},
            **{part: {"enabled": True} for part in ("serviceMonitors", "alerts", "dashboard")},
        },
        "networkPolicies": {"clients": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "monitoring": []},
        "image": {"prefix": "registry.example/", "tag": "1.2.3", "pullSecrets": ["login"]},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "nodeSelector": {"pool": "a"},
        "priorityClassName": "high",
        "podAnnotations": {"example/note": "x"},
    },
    "everything that can be off is off": {
        "tls": OFF,
        "redis": {"builtIn": False, "external": {**STORE, "tls": False}},
        "minio": {"builtIn": False, "external": {**STORE, "tls": False}},
        "teacher": {"backend": "in-process", "abstention": {"minCosine": 0.5, "minMargin": 0}},
        **{part: {"autoscaling": OFF} for part in ("teacherInference", "studentDistiller", "modelRegistry")},
        "networkPolicies": OFF,
        "disruptionBudgets": OFF,
        "firstRelease": OFF,
        "devices": {"replicas": 0},
    },
    "plain text to built-in stores, and jobs in the cluster": {
        "tls": OFF,
        "distillerWorker": {"executor": "kubernetes", "keda": {"enabled": True}},
        "devices": {"site": "door", "rules": {"labels": {"min_count": 8}}, "replicas": 3},
        "labelWorker": {"env": {"TUTELAGE_TEACHER_CALL_TIMEOUT": 30}},
    },
    "certificates of cert-manager, TorchServe, jobs in the cluster": {
        "tls": {"source": "cert-manager"},
        "distillerWorker": {"executor": "kubernetes"},
        "monitoring": {"serviceMonitors": {"enabled": True}},
    },
    "certificates of an issuer of yours": {
        "tls": {"source": "cert-manager", "certManager": {"issuer": "house", "issuerKind": "ClusterIssuer"}},
    },
}
"""Values under which all that the chart can render is rendered, by what is special about them."""


class RefusedError(Exception):
    """helm did not render these values; its text says why."""


@cache
def _rendered(values: str, release: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(values)
        file.flush()
        words = ["template", release, str(CHART), "--namespace", NAMESPACE, "--values", file.name]
        done = subprocess.run([program("helm"), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedError(done.stderr)
    return done.stdout


@cache
def _objects(values: str, release: str) -> list[dict[str, Any]]:
    found = yaml.load_all(_rendered(values, release), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return [document for document in found if document]


def text(values: dict[str, Any], release: str = "tutelage") -> str:
    """All manifests of a release, as helm wrote them.

    Raises:
        RefusedError: The values are refused.
    """
    return _rendered(json.dumps(values), release)


def objects(values: dict[str, Any], *kinds: str, release: str = "tutelage") -> list[dict[str, Any]]:
    """The objects of a release, hooks included; of these kinds alone, if any are named."""
    return [one for one in _objects(json.dumps(values), release) if not kinds or one["kind"] in kinds]


def name(thing: dict[str, Any]) -> str:
    return str(thing["metadata"]["name"])


def component(thing: dict[str, Any]) -> str:
    """What the labels of an object, or of a Pod's template, say that it belongs to."""
    return str(thing["metadata"]["labels"]["app.kubernetes.io/component"])


def pods(values: dict[str, Any], release: str = "tutelage") -> Iterator[tuple[str, dict[str, Any]]]:
    """Component and template (`metadata`, `spec`) of each Pod that a release makes."""
    for one in objects(values, "Deployment", "StatefulSet", "Job", "Pod", release=release):
        template = one if one["kind"] == "Pod" else one["spec"]["template"]
        yield component(template), template


def claims(values: dict[str, Any]) -> dict[str, list[str]]:
    """Names of the volumes that each StatefulSet claims, by its component."""
    return {
        component(one): [name(claim) for claim in one["spec"].get("volumeClaimTemplates", ())]
        for one in objects(values, "StatefulSet")
    }
