"""What tests ask a cluster, through the official Python client; nothing here knows what kind of cluster it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

T = TypeVar("T")
PAUSE_S = 0.5


def reachable() -> bool:
    """Whether a kubeconfig leads to a cluster that answers."""
    try:
        config.load_kube_config()
        client.VersionApi().get_code(_request_timeout=5)
    except Exception:  # any of many, none of them a test's business
        return False
    return True


def until(look: Callable[[], T | None], seconds: float, what: str) -> T:
    """What `look` gives once it gives anything true; what it raises meanwhile is told when the time is up."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            if found := look():
                return found
        except (ApiException, AssertionError) as error:
            last = error
        time.sleep(PAUSE_S)
    raise AssertionError(f"not within {seconds:.0f} s: {what}") from last


class Namespace:
    """One namespace, as its administrator sees it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.core, self.apps, self.batch = client.CoreV1Api(), client.AppsV1Api(), client.BatchV1Api()

    def pods(self, component: str) -> list[Any]:
        """Pods of a component that are not on their way out, by name."""
        found = self.core.list_namespaced_pod(self.name, label_selector=f"app.kubernetes.io/component={component}")
        return sorted(
            (pod for pod in found.items if pod.metadata.deletion_timestamp is None), key=lambda pod: pod.metadata.name
        )

    def ready(self, component: str) -> list[str]:
        """Names of those Pods of a component that are ready."""
        return [pod.metadata.name for pod in self.pods(component) if _is_ready(pod)]

    def wait_ready(
        self, component: str, *, count: int = 1, but: frozenset[str] = frozenset(), seconds: float = 240
    ) -> str:
        """Name of a ready Pod of a component that is none of `but` (uids), once there are `count` of them."""

        def look() -> str:
            new = [pod for pod in self.pods(component) if _is_ready(pod) and pod.metadata.uid not in but]
            return new[0].metadata.name if len(new) >= count else ""

        return until(look, seconds, f"{count} ready of {component}")

    def uids(self, component: str) -> frozenset[str]:
        """Of all its Pods."""
        return frozenset(pod.metadata.uid for pod in self.pods(component))

    def kill(self, pod: str) -> None:
        """End a Pod without a word: no grace, as if its machine had lost power."""
        self.core.delete_namespaced_pod(pod, self.name, grace_period_seconds=0)

    def killed(self, component: str, *, seconds: float = 240) -> str:
        """Kill every Pod of a component; name of a ready one that took their place."""
        before = self.uids(component)
        for pod in self.pods(component):
            self.kill(pod.metadata.name)
        return self.wait_ready(component, but=before, seconds=seconds)

    def restarts(self) -> dict[str, int]:
        """How often containers were started again, by Pod, where they were."""
        found = self.core.list_namespaced_pod(self.name).items
        counts = {pod.metadata.name: sum(c.restart_count for c in pod.status.container_statuses or ()) for pod in found}
        return {name: count for name, count in counts.items() if count}

    def log(self, pod: str, container: str | None = None, lines: int = 100) -> str:
        """The last lines of a Pod's log."""
        return str(self.core.read_namespaced_pod_log(pod, self.name, container=container, tail_lines=lines))

    def secret(self, name: str) -> dict[str, bytes]:
        """What a Secret holds."""
        import base64  # noqa: PLC0415

        found = self.core.read_namespaced_secret(name, self.name).data or {}
        return {key: base64.b64decode(value) for key, value in found.items()}

    def left(self) -> list[str]:
        """Kind and name of everything that a release could have left here."""
        listed = {
            "Pod": self.core.list_namespaced_pod,
            "Service": self.core.list_namespaced_service,
            "Secret": self.core.list_namespaced_secret,
            "ConfigMap": self.core.list_namespaced_config_map,
            "ServiceAccount": self.core.list_namespaced_service_account,
            "PersistentVolumeClaim": self.core.list_namespaced_persistent_volume_claim,
            "Deployment": self.apps.list_namespaced_deployment,
            "ReplicaSet": self.apps.list_namespaced_replica_set,
            "StatefulSet": self.apps.list_namespaced_stateful_set,
            "Job": self.batch.list_namespaced_job,
            "NetworkPolicy": client.NetworkingV1Api().list_namespaced_network_policy,
            "PodDisruptionBudget": client.PolicyV1Api().list_namespaced_pod_disruption_budget,
            "HorizontalPodAutoscaler": client.AutoscalingV2Api().list_namespaced_horizontal_pod_autoscaler,
            "Role": client.RbacAuthorizationV1Api().list_namespaced_role,
            "RoleBinding": client.RbacAuthorizationV1Api().list_namespaced_role_binding,
        }
        own = {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}
        found = {(kind, item.metadata.name) for kind, ask in listed.items() for item in ask(self.name).items}
        return sorted(f"{kind} {name}" for kind, name in found - own)


@contextmanager
def namespace(name: str) -> Iterator[Namespace]:
    """A new namespace that admits restricted Pods only; it goes with the block, and everything in it."""
    core = client.CoreV1Api()
    gone(core, name)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.create_namespace({"metadata": {"name": name, "labels": labels}})
    try:
        yield Namespace(name)
    finally:
        core.delete_namespace(name)


def gone(core: client.CoreV1Api, name: str) -> None:
    """Take a namespace and everything in it away, if there is one; return once it is gone."""

    def look() -> bool:
        try:
            if core.read_namespace(name).metadata.deletion_timestamp is None:
                core.delete_namespace(name)
        except ApiException as error:
            return error.status == 404
        return False

    until(look, 120, f"namespace {name} is gone")


def _is_ready(pod: Any) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or ())
