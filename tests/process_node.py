"""A node of a cluster that runs the containers of Pods as processes of this machine, without images.

It does for one namespace what a kubelet does: takes Pods that nobody took, starts their command with the variables of
their spec, tells what runs and how it ended, and ends what is deleted, with SIGTERM, its grace, and SIGKILL. Files of
Secrets and the scratch folder are folders here: their paths are replaced in commands and variables.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control_plane import ControlPlane, Node

NAME = "this-machine"
INDEX = "batch.kubernetes.io/job-completion-index"
FIRST_POD = re.compile(r"(--master-addr=).+")
"""Where DNS would find the first Pod of a job."""


@dataclass
class Running:
    """One Pod at work."""

    process: subprocess.Popen
    log: Path
    asked_s: float | None = None
    """When it was asked to end."""


@dataclass
class ProcessNode:
    """A context manager: works in a thread until its end, and kills what is left then."""

    plane: ControlPlane
    namespace: str
    folder: Path
    places: Mapping[str, Path]
    """What stands for a path or a port of the container on this machine."""
    running: dict[str, Running] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._node = Node(self.plane, self.namespace)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> ProcessNode:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        for one in self.running.values():
            one.process.kill()
            one.process.wait()

    def kill(self, pod: str) -> None:
        """What the kernel does to a process without memory."""
        os.killpg(self.running[pod].process.pid, 9)

    def _work(self) -> None:
        while not self._done.wait(0.1):
            status, found = self.plane.call("GET", self._node.path)
            if status != 200:
                continue
            for pod in found["items"]:
                self._tend(pod)

    def _tend(self, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        if name in self.running:
            self._look_after(name, "deletionTimestamp" in pod["metadata"], pod)
        elif "deletionTimestamp" in pod["metadata"]:
            self.plane.call("DELETE", f"{self._node.path}/{name}?gracePeriodSeconds=0")
        elif pod["status"]["phase"] == "Pending" and name not in self.started:
            self._start(name, pod)

    def _start(self, name: str, pod: dict[str, Any]) -> None:
        self.started.append(name)
        target = {"apiVersion": "v1", "kind": "Node", "name": NAME}
        self.plane.make(f"{self._node.path}/{name}/binding", {"metadata": {"name": name}, "target": target})
        (spec,) = pod["spec"]["containers"]
        environment = self._environment(spec, pod)
        words = (_expanded(word, environment) for word in spec["command"])
        command = [self._here(FIRST_POD.sub(r"\g<1>127.0.0.1", word)) for word in words]
        self.commands.append(command)
        log = self.folder / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, *command[1:]],
                env={**os.environ, **environment},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running[name] = Running(process, log)
        self._node.runs(name)

    def _environment(self, spec: dict[str, Any], pod: dict[str, Any]) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in spec.get("envFrom", ()):
            name = source["configMapRef"]["name"]
            _, known = self.plane.call("GET", f"/api/v1/namespaces/{self.namespace}/configmaps/{name}")
            found |= known["data"]
        for variable in spec["env"]:
            found[variable["name"]] = variable.get("value", pod["metadata"]["annotations"].get(INDEX, ""))
        return {name: self._here(value) for name, value in found.items()}

    def _here(self, text: str) -> str:
        for there, here in self.places.items():
            text = text.replace(there, str(here))
        return text

    def _look_after(self, name: str, is_deleted: bool, pod: dict[str, Any]) -> None:
        one = self.running[name]
        status = one.process.poll()
        if status is None:
            if is_deleted:
                self._end(one, pod["metadata"]["deletionGracePeriodSeconds"])
            return
        if is_deleted:
            self.plane.call("DELETE", f"{self._node.path}/{name}?gracePeriodSeconds=0")
            del self.running[name]
        elif pod["status"].get("phase") == "Running":
            code = status if status >= 0 else 128 - status
            self._node.ended(name, code, reason="Completed" if code == 0 else "Error")

    def _end(self, one: Running, grace_s: float) -> None:
        if one.asked_s is None:
            one.asked_s = time.monotonic()
            one.process.terminate()
        elif time.monotonic() - one.asked_s > grace_s:
            os.killpg(one.process.pid, 9)


def _expanded(word: str, environment: Mapping[str, str]) -> str:
    """`$(NAME)` replaced by the variable, as Kubernetes does it."""
    return re.sub(r"\$\((\w+)\)", lambda found: environment.get(found[1], found[0]), word)
