"""The manifest of a distillation in a cluster: one Indexed Job, whose Pods are the processes that share each batch.

The Job of a delivery is called `distill-JOB-HOLDER`, after the job's id and the first digits of the delivery's random
name: making it twice makes it once, and whoever takes a job over knows which Job of the cluster was whose. Its Pods are
called `NAME-INDEX` and find each other by these names through a headless Service that is there before any job:

    apiVersion: v1
    kind: Service
    metadata: {name: distillations}
    spec:
      clusterIP: None
      publishNotReadyAddresses: true
      selector: {app.kubernetes.io/component: distillation}
      ports: [{name: rendezvous, port: 29400}]

A Pod reads the service's own settings from one ConfigMap, as variables, and secrets from Secrets, as files that those
variables name. The manifest holds neither: it can be read by whoever may look at Jobs. The ConfigMap owns the Job, and
takes it along when it is deleted: where the service was uninstalled, nothing goes on.

Pods keep the *restricted* Pod Security Standard.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from student_distiller.executors import STOP_GRACE, Assignment
from tutelage.errors import SettingsError
from tutelage.settings import Range

__all__ = ["CONTAINER", "KubernetesSettings", "index_of", "job_labels", "job_manifest", "job_name", "selector"]

CONTAINER = "process"
"""Name of the only container of each Pod."""

LABEL_JOB, LABEL_HOLDER = "tutelage/job", "tutelage/holder"
"""Labels with the job's id and the delivery's name."""

INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
"""Where Kubernetes writes a Pod's number."""

SECRET_FOLDER = "/etc/tutelage/secrets"  # noqa: S105 - a folder
"""Where a Pod finds each Secret as a folder of its name, with a file for each key; read-only."""

SCRATCH_FOLDER = "/scratch"
"""The one place where a Pod can write: checkpoints that are being made, and temporary files."""

PORT = 29_400
"""Where the first process of a job listens for the others: torchrun's own choice."""

STARTER_BYTES = 384 << 20
"""What torchrun takes beside the process it starts: it imports torch itself."""

KEEP_FINISHED = timedelta(hours=1)
"""How long a Job that has ended can be looked at before the cluster deletes it."""

_COMPONENT = {"app.kubernetes.io/name": "student-distiller", "app.kubernetes.io/component": "distillation"}


@dataclass(frozen=True)
class KubernetesSettings:
    """Jobs of a cluster."""

    namespace: str = "default"
    """Namespace of the jobs."""
    image: str | None = None
    """Image of their Pods: this service's own. Needed where the executor is kubernetes."""
    kubeconfig: Path | None = None
    """Kubeconfig file of the cluster. Absent: the one that this service runs in, by its service account."""
    config_map: str = "student-distiller"
    """ConfigMap whose entries are the variables of a Pod; those of this service fit."""
    secrets: tuple[str, ...] = ("student-distiller",)
    """Secrets, or keys of them as NAME/KEY, that a Pod finds as files /etc/tutelage/secrets/NAME/KEY; separated by
    commas."""
    service: str = "distillations"
    """Headless Service by which the Pods of a job find each other."""
    service_account: str = "default"
    """Service account of the Pods, whose token they are not given: they need no rights."""
    user_id: Annotated[int, Range(1, 2**31 - 1)] = 10_001
    """User and group that the Pods run as; not root."""
    cpu: Annotated[float, Range(0.1, 1024)] = 1.0
    """Cores that each process asks for; it uses as many threads, rounded up."""
    scratch_bytes: Annotated[int, Range(64 << 20)] = 4 << 30
    """Largest size of the folder for checkpoints on their way to the object store."""
    labels: tuple[str, ...] = ()
    """Further labels of Jobs and Pods, written key=value; separated by commas."""
    node_selector: tuple[str, ...] = ()
    """Labels, written key=value, that the nodes must bear; separated by commas."""
    start_within: Annotated[timedelta, Range(10, 86_400)] = timedelta(minutes=10)
    """Seconds that the cluster gets to find nodes for all processes of a job."""

    def __post_init__(self) -> None:
        """Refuse labels that are none."""
        for name in ("labels", "node_selector"):
            if not all("=" in label for label in getattr(self, name)):
                raise ValueError(f"{name} takes key=value, separated by commas")

    def checked(self) -> KubernetesSettings:
        """These settings, which suffice to make Jobs.

        Raises:
            SettingsError: The image is missing.
        """
        if not self.image:
            raise SettingsError("jobs of a cluster need an image: set TUTELAGE_DISTILLER_KUBERNETES_IMAGE")
        return self


def job_name(assignment: Assignment) -> str:
    """Name of the Job that an assignment becomes."""
    return f"distill-{assignment.job_id}-{assignment.holder[:8]}"


def job_labels(assignment: Assignment, settings: KubernetesSettings) -> dict[str, str]:
    """Labels of the Job and of its Pods."""
    return {
        **_pairs(settings.labels),
        **_COMPONENT,
        "app.kubernetes.io/managed-by": "student-distiller",
        LABEL_JOB: assignment.job_id,
        LABEL_HOLDER: assignment.holder,
    }


def selector(job_id: str, holder: str | None = None) -> str:
    """Selector of the Jobs and Pods of a job, or of one delivery of it."""
    wanted = {**_COMPONENT, LABEL_JOB: job_id, **({} if holder is None else {LABEL_HOLDER: holder})}
    return ",".join(f"{key}={value}" for key, value in wanted.items())


def index_of(pod: Any) -> str:
    """Number of a Pod within its Job, as text."""
    return str(pod["metadata"].get("annotations", {}).get(INDEX_ANNOTATION, "?"))


def job_manifest(
    assignment: Assignment, settings: KubernetesSettings, *, owner_uid: str, memory_bytes: int, device: str
) -> dict[str, Any]:
    """The Job of one delivery.

    Args:
        assignment: what is to be run.
        settings: where and as whom.
        owner_uid: of the ConfigMap that the settings name.
        memory_bytes: resident memory of each process that asks for no other limit.
        device: `cuda` gives each process a GPU.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(assignment),
            "namespace": settings.namespace,
            "labels": job_labels(assignment, settings),
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "ConfigMap", "name": settings.config_map, "uid": owner_uid}
            ],
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": assignment.processes,
            "parallelism": assignment.processes,
            # A process alone cannot go on: the others of its group end with it. The whole job is tried again, and
            # who counts the tries is the queue.
            "backoffLimit": 0,
            # Says in the Job's own condition that a Pod had to go for the cluster's sake, even where the Pod itself,
            # its node having gone, can no longer be asked.
            "podFailurePolicy": {
                "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "podReplacementPolicy": "Failed",
            # Beside the worker's own clock, for the case that no worker is left to look at it.
            "activeDeadlineSeconds": math.ceil(assignment.time_left.total_seconds()),
            "ttlSecondsAfterFinished": round(KEEP_FINISHED.total_seconds()),
            "template": {
                "metadata": {"labels": job_labels(assignment, settings)},
                "spec": _pod(assignment, settings, memory_bytes, device),
            },
        },
    }


def _pod(assignment: Assignment, settings: KubernetesSettings, memory_bytes: int, device: str) -> dict[str, Any]:
    return {
        "restartPolicy": "Never",
        "subdomain": settings.service,
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # a variable for each Service of the namespace, of which none is wanted
        "terminationGracePeriodSeconds": math.ceil(STOP_GRACE.total_seconds()),
        "nodeSelector": _pairs(settings.node_selector),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.user_id,
            "runAsGroup": settings.user_id,
            "fsGroup": settings.user_id,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(assignment, settings, memory_bytes, device)],
        "volumes": [
            *({"name": f"secret-{number}", "secret": secret} for number, secret in enumerate(_secrets(settings))),
            {"name": "scratch", "emptyDir": {"sizeLimit": str(settings.scratch_bytes)}},
        ],
    }


def _container(assignment: Assignment, settings: KubernetesSettings, memory_bytes: int, device: str) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": settings.image,
        "command": _command(assignment, settings),
        "envFrom": [{"configMapRef": {"name": settings.config_map}}],
        "env": [
            {"name": "OMP_NUM_THREADS", "value": str(math.ceil(settings.cpu))},
            *({"name": name, "value": SCRATCH_FOLDER} for name in ("HOME", "TMPDIR", "TUTELAGE_DISTILLER_SCRATCH")),
        ],
        "resources": _resources(assignment, settings, memory_bytes, device),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            *(
                {"name": f"secret-{number}", "mountPath": f"{SECRET_FOLDER}/{secret['secretName']}", "readOnly": True}
                for number, secret in enumerate(_secrets(settings))
            ),
            {"name": "scratch", "mountPath": SCRATCH_FOLDER},
        ],
    }


def _secrets(settings: KubernetesSettings) -> list[dict[str, Any]]:
    """The volume of each Secret, with those of its keys that are named, or all of them."""
    found: dict[str, dict[str, Any]] = {}
    for entry in settings.secrets:
        name, _, key = entry.partition("/")
        volume = found.setdefault(name, {"secretName": name, "defaultMode": 0o440})
        if key:
            volume.setdefault("items", []).append({"key": key, "path": key})
    return list(found.values())


def _command(assignment: Assignment, settings: KubernetesSettings) -> list[str]:
    """One process works by itself; of several, each Pod's torchrun starts the one with the Pod's number."""
    spent_s = f"{assignment.spent.total_seconds():.3f}"
    work = ["-m", "student_distiller", "work-on", assignment.job_id, assignment.holder, spent_s]
    if assignment.processes == 1:
        return ["python", *work]
    # Pods start when the cluster has room for each; the early ones wait for as long as the executor does.
    patience_s = round(settings.start_within.total_seconds()) + 60
    return [
        *("python", "-m", "torch.distributed.run"),
        f"--nnodes={assignment.processes}",
        "--node-rank=$(JOB_COMPLETION_INDEX)",
        "--nproc-per-node=1",
        "--max-restarts=0",
        f"--master-addr={job_name(assignment)}-0.{settings.service}",
        f"--master-port={PORT}",
        f"--rdzv-conf=timeout={patience_s}",
        *work,
    ]


def _resources(assignment: Assignment, settings: KubernetesSettings, memory_bytes: int, device: str) -> dict[str, Any]:
    """What it asks for is what it gets: memory that others could take would end a training hours later."""
    starter = STARTER_BYTES if assignment.processes > 1 else 0
    memory = str((assignment.max_memory_bytes or memory_bytes) + starter)
    gpu = {"nvidia.com/gpu": "1"} if device == "cuda" else {}
    return {
        "requests": {"cpu": f"{math.ceil(settings.cpu * 1000)}m", "memory": memory, **gpu},
        "limits": {"memory": memory, **gpu},
    }


def _pairs(labels: Sequence[str]) -> dict[str, str]:
    return dict(label.split("=", 1) for label in labels)
