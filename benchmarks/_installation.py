"""A release of the chart in a namespace of its own, for benchmarks: installed, scaled, visited, its use sampled."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kubernetes import client, config

CHART = Path(__file__).resolve().parents[1] / "charts" / "tutelage"
NAME, VISITOR = "tutelage", "visitor"
COMPONENT = "app.kubernetes.io/component"
PAUSE_S = 3.0
FIRST_VISIT_S = 600
_UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


class NotReadyError(Exception):
    """What was installed is not ready in time."""


@dataclass(frozen=True)
class Use:
    """What the Pods of a component use at one time, together."""

    pods: int
    cores: float
    memory_bytes: float


def quantity(text: str) -> float:
    """The number that Kubernetes writes with a unit."""
    for unit, factor in _UNITS.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)


class Installation:
    """The release `tutelage` of a namespace."""

    def __init__(self, namespace: str, values: Mapping[str, Any]) -> None:
        self.namespace, self._values = namespace, values
        self._core, self._apps, self._other = client.CoreV1Api(), client.AppsV1Api(), client.CustomObjectsApi()

    def install(self, devices: int, seconds: int) -> None:
        """Install, or change the number of devices, and return once all Pods are ready.

        Raises:
            NotReadyError: They are not within `seconds`; as far as helm says, why.
        """
        with tempfile.TemporaryDirectory() as folder:
            values = Path(folder) / "values.json"
            values.write_text(json.dumps({**self._values, "devices": {**self._values["devices"], "replicas": devices}}))
            command = ["helm", "upgrade", "--install", NAME, str(CHART), "--namespace", self.namespace]
            command += ["--values", str(values), "--wait", "--timeout", f"{seconds}s"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotReadyError(done.stderr.strip())

    def sample(self, after: datetime) -> tuple[datetime, dict[str, Use]]:
        """What each component uses, once all Pods were looked at later than `after`; and when that was."""
        while True:
            answer = self._other.list_namespaced_custom_object("metrics.k8s.io", "v1beta1", self.namespace, "pods")
            told = {item["metadata"]["name"]: item for item in answer["items"]}
            pods = {name: component for name, component in self._running().items() if component}
            times = [datetime.fromisoformat(told[name]["timestamp"]) for name in pods if name in told]
            if len(times) == len(pods) and times and min(times) > after:
                return max(times), _by_component(pods, told)
            time.sleep(PAUSE_S)

    def _running(self) -> dict[str, str]:
        """Component by name of each Pod that goes on running."""
        pods = self._core.list_namespaced_pod(self.namespace, field_selector="status.phase=Running").items
        return {pod.metadata.name: (pod.metadata.labels or {}).get(COMPONENT, "") for pod in pods}

    @contextmanager
    def visited(self, devices: int, image: str, words: str) -> Iterator[Callable[[datetime], int]]:
        """Somebody comes to each device, as the `words` of `tutelage device visit` say; how many came since a time.

        Each run of that command must be one visit. Begins once somebody has been at each device.

        Raises:
            NotReadyError: Nobody comes to a device.
        """
        for name in (f"{VISITOR}-{number}" for number in range(devices)):
            self._core.create_namespaced_pod(self.namespace, _visitor(name, self.namespace, image, words))
        try:
            self._await_first(devices)
            yield lambda since: sum(self._visits(f"{VISITOR}-{number}", since) for number in range(devices))
        finally:
            for number in range(devices):
                self._core.delete_namespaced_pod(f"{VISITOR}-{number}", self.namespace, grace_period_seconds=0)

    def _await_first(self, devices: int) -> None:
        begun = datetime.now(UTC)
        end, waiting = begun + timedelta(seconds=FIRST_VISIT_S), {f"{VISITOR}-{number}" for number in range(devices)}
        while waiting:
            if datetime.now(UTC) > end:
                raise NotReadyError(f"nobody comes from {', '.join(sorted(waiting))}")
            time.sleep(PAUSE_S)
            started = waiting & self._running().keys()
            waiting -= {pod for pod in started if self._visits(pod, begun)}

    def _visits(self, pod: str, since: datetime) -> int:
        age = max(1, round((datetime.now(UTC) - since).total_seconds()))
        log = self._core.read_namespaced_pod_log(pod, self.namespace, since_seconds=age)
        return sum(line.startswith("{") for line in log.splitlines())


def _by_component(pods: Mapping[str, str], told: Mapping[str, Any]) -> dict[str, Use]:
    found: dict[str, Use] = {}
    for name, component in pods.items():
        usage = [container["usage"] for container in told[name]["containers"]]
        before = found.get(component, Use(0, 0.0, 0.0))
        found[component] = Use(
            before.pods + 1,
            before.cores + sum(quantity(each["cpu"]) for each in usage),
            before.memory_bytes + sum(quantity(each["memory"]) for each in usage),
        )
    return found


def _visitor(name: str, namespace: str, image: str, words: str) -> dict[str, Any]:
    """The Pod of those who come to the device of the same number; it belongs to no component."""
    number = name.rpartition("-")[2]
    tls = "--ca-file /tls/ca.crt --certificate-file /tls/tls.crt --key-file /tls/tls.key"
    device = f"--address {NAME}-device-{number}.{NAME}-device.{namespace}:50061 --site {number}"
    container = {
        "name": VISITOR,
        "image": image,
        "command": ["tutelage", "device", "visit", *device.split(), *tls.split(), *words.split()],
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
        "volumeMounts": [{"name": "tls", "mountPath": "/tls", "readOnly": True}],
    }
    spec = {
        "containers": [container],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10_001,
            "fsGroup": 10_001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "volumes": [{"name": "tls", "secret": {"secretName": f"{NAME}-operator-tls", "defaultMode": 0o440}}],
    }
    return {"metadata": {"name": name, "labels": {"tutelage/role": VISITOR}}, "spec": spec}


@contextmanager
def installation(namespace: str, values: Mapping[str, Any]) -> Iterator[Installation]:
    """Nothing installed yet, in a new namespace that goes with the block."""
    config.load_kube_config()
    core = client.CoreV1Api()
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.create_namespace({"metadata": {"name": namespace, "labels": labels}})
    try:
        yield Installation(namespace, values)
    finally:
        core.delete_namespace(namespace)
