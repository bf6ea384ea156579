"""Pods that tests put beside a release to see what they reach, and what runs in Pods that are there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kube import Namespace, until

WAIT_S = 3
"""A connection that a policy drops is never answered; one that it allows takes milliseconds."""
_CONNECT = f"""\
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def reached(target):
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), {WAIT_S}).close()
    except OSError as error:
        return isinstance(error, ConnectionRefusedError)
    return True
targets = sys.argv[1:]
with ThreadPoolExecutor(len(targets)) as pool:
    found = list(pool.map(reached, targets))
print(json.dumps([target for target, answers in zip(targets, found) if answers]))
"""


def said(place: Namespace, pod: str, *command: str, container: str | None = None, seconds: float = 120) -> str:
    """What a command in a running Pod prints."""
    inside = ("-c", container) if container else ()
    words = ("kubectl", "-n", place.name, "exec", pod, *inside, "--", *command)
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def reached(place: Namespace, pod: str, targets: Sequence[str]) -> list[str]:
    """Those of `targets`, as host:port, at which anybody answers a Pod, be it with a refusal."""
    return list(json.loads(said(place, pod, "python", "-c", _CONNECT, *targets)))


def manifest(name: str, image: str, command: Sequence[str], labels: Mapping[str, str]) -> dict[str, Any]:
    """A Pod that a namespace admits which enforces the restricted standard."""
    container = {
        "name": "visitor",
        "image": image,
        "command": list(command),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    context = {"runAsNonRoot": True, "runAsUser": 10_001, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {
        "containers": [container],
        "securityContext": context,
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": dict(labels)}, "spec": spec}


@contextmanager
def visitor(place: Namespace, image: str, labels: Mapping[str, str], name: str = "visitor") -> Iterator[str]:
    """Name of a Pod that waits for what it is told; it goes with the block."""
    place.core.create_namespaced_pod(place.name, manifest(name, image, ("sleep", "3600"), labels))
    try:
        until(lambda: place.core.read_namespaced_pod(name, place.name).status.phase == "Running", 120, f"{name} runs")
        yield name
    finally:
        place.core.delete_namespaced_pod(name, place.name, grace_period_seconds=0)
