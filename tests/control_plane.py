"""A real control plane of Kubernetes without nodes: etcd, the API server and its controllers, on loopback.

Jobs become Pods, finished Jobs are told, deletions propagate, rights and admission are judged by the real programs.
What only a node could do, to start a container and to tell how it ended, is written into Pods' status by `Node`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager")
FOLDER = Path.home() / ".cache/test-cluster/bin"
ADMIN, DISTILLER, NOBODY = "admin-token", "distiller-token", "nobody-token"
USER = "system:serviceaccount:jobs:student-distiller"
START_SECONDS = 60
CONTROLLERS = ("job", "garbage-collector", "serviceaccount", "namespace", "resourcequota")


def missing_programs() -> list[str]:
    path = f"{os.environ['PATH']}:{FOLDER}"
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ControlPlane:
    """The three programs, and calls to the API server as whoever holds a token."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._etcd, self._peer = free_port(), free_port()
        self._running: dict[str, subprocess.Popen] = {}
        self._context = ssl.create_default_context()
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._prepare()

    def start(self) -> None:
        for name in PROGRAMS:
            self.start_program(name)

    def start_program(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            path = shutil.which(name, path=f"{os.environ['PATH']}:{FOLDER}")
            self._running[name] = subprocess.Popen([path, *self._words(name)], stdout=log, stderr=log)
        if name == "kube-apiserver":
            self._wait(lambda: self.call("GET", "/readyz")[0] == 200, name)

    def kill_program(self, name: str) -> None:
        process = self._running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        for name in list(self._running):
            self.kill_program(name)

    def kubeconfig(self, token: str) -> Path:
        """A file that lets the holder of `token` in."""
        path = self.folder / f"{token}.kubeconfig"
        server = {"server": f"https://127.0.0.1:{self.port}", "insecure-skip-tls-verify": True}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": server}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(json.dumps(config))
        return path

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, Any]:
        """Status and answer of a call that may do everything; 0 where nobody answers."""
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {ADMIN}", "Content-Type": kind},
        )
        try:
            with urllib.request.urlopen(request, timeout=10, context=self._context) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text[:1] == b"{" else text
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, None

    def make(self, path: str, thing: Mapping[str, Any]) -> None:
        status, answer = self.call("POST", path, thing)
        assert status in (200, 201), answer

    def grant(self, namespace: str, user: str, rules: Sequence[Mapping[str, Any]]) -> None:
        """Let `user` do in `namespace` what `rules` of a Role allow, and nothing else."""
        path, group = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}", "rbac.authorization.k8s.io"
        self.make(f"{path}/roles", {"metadata": {"name": "granted"}, "rules": rules})
        role, subject = ({"apiGroup": group, "kind": kind} for kind in ("Role", "User"))
        binding = {"roleRef": {**role, "name": "granted"}, "subjects": [{**subject, "name": user}]}
        self.make(f"{path}/rolebindings", {"metadata": {"name": "granted"}, **binding})

    def _prepare(self) -> None:
        key = self.folder / "sa.key"
        make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
        subprocess.run(make, check=True, capture_output=True)
        tell = ["openssl", "ec", "-in", str(key), "-pubout", "-out", str(self.folder / "sa.pub")]
        subprocess.run(tell, check=True, capture_output=True)
        rows = [f'{ADMIN},admin,1,"system:masters"', f"{DISTILLER},{USER},2", f"{NOBODY},nobody,3"]
        (self.folder / "tokens.csv").write_text("\n".join(rows) + "\n")

    def _words(self, name: str) -> list[str]:
        etcd, sa = f"http://127.0.0.1:{self._etcd}", self.folder / "sa"
        peer = f"http://127.0.0.1:{self._peer}"
        words: dict[str, dict[str, object]] = {
            "etcd": {
                "data-dir": self.folder / "etcd",
                "listen-client-urls": etcd,
                "advertise-client-urls": etcd,
                "listen-peer-urls": peer,
                "initial-advertise-peer-urls": peer,
                "initial-cluster": f"default={peer}",
                "unsafe-no-fsync": "true",
                "log-level": "error",
            },
            "kube-apiserver": {
                "etcd-servers": etcd,
                "bind-address": "127.0.0.1",
                "secure-port": self.port,
                "cert-dir": self.folder / "certificates",
                "endpoint-reconciler-type": "none",
                "service-cluster-ip-range": "10.96.0.0/24",
                "service-account-issuer": "https://kubernetes.default.svc",
                "service-account-key-file": f"{sa}.pub",
                "service-account-signing-key-file": f"{sa}.key",
                "token-auth-file": self.folder / "tokens.csv",
                "authorization-mode": "RBAC",
            },
            "kube-controller-manager": {
                "kubeconfig": self.kubeconfig(ADMIN),
                "controllers": ",".join(f"{name}-controller" for name in CONTROLLERS),
                "leader-elect": "false",
                "secure-port": 0,
                "service-account-private-key-file": f"{sa}.key",
            },
        }
        return [f"--{key}={value}" for key, value in words[name].items()]

    def _wait(self, is_up: Any, name: str) -> None:
        until = time.monotonic() + START_SECONDS
        while not is_up():
            ended = [program for program, process in self._running.items() if process.poll() is not None]
            if time.monotonic() > until or ended:
                logs = "\n".join(path.read_text()[-1500:] for path in self.folder.glob("*.log"))
                raise AssertionError(f"{name} did not start, {ended} ended:\n{logs}")
            time.sleep(0.1)


class Node:
    """What a node would write into the Pods of one Job."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane, self.path = plane, f"/api/v1/namespaces/{namespace}/pods"

    def pods(self, count: int, labels: str = "") -> list[str]:
        """Names of the Pods in the order of their numbers, once there are `count`."""
        until = time.monotonic() + START_SECONDS
        while True:
            _, found = self.plane.call("GET", f"{self.path}?labelSelector={labels}")
            alive = [pod for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]
            if len(alive) == count:
                return [pod["metadata"]["name"] for pod in sorted(alive, key=_number)]
            assert time.monotonic() < until, [pod["metadata"]["name"] for pod in alive]
            time.sleep(0.1)

    def status(self, pod: str, **status: Any) -> None:
        """Write a Pod's status."""
        kind = "application/merge-patch+json"
        answered, answer = self.plane.call("PATCH", f"{self.path}/{pod}/status", {"status": status}, kind)
        assert answered == 200, answer

    def ended(self, pod: str, exit_code: int = 0, **state: Any) -> None:
        """The container of a Pod ended; it must have run before."""
        terminated = {"exitCode": exit_code, "finishedAt": now(), "startedAt": now(), **state}
        phase = "Failed" if exit_code else "Succeeded"
        self.status(pod, phase=phase, containerStatuses=[container({"terminated": terminated})])

    def runs(self, pod: str) -> None:
        self.status(
            pod, phase="Running", startTime=now(), containerStatuses=[container({"running": {"startedAt": now()}})]
        )


def container(state: Mapping[str, Any]) -> dict[str, Any]:
    known = {"name": "process", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    return {**known, "state": dict(state)}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _number(pod: Mapping[str, Any]) -> int:
    return int(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])
