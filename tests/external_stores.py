"""A Redis and a MinIO in a namespace of their own, as somebody may have them already who installs the chart.

Both speak TLS with certificates of an authority that no release knows, at ports that are not the usual ones; Redis lets
in one user of its own, and nobody without a name.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from certificates import Authority
from cryptography.hazmat.primitives.serialization import Encoding
from kube import Namespace, until
from visitor_pods import manifest, said

REDIS, MINIO = "house-redis", "house-minio"
"""Names of the servers, and of the Secrets with what opens them."""
PORTS = {REDIS: 7379, MINIO: 9443}
BUCKET, USER = "house", "tutor"
_MOUNTED = "/etc/store"
_AUTHORITY = f"{_MOUNTED}/ca.crt"
_READY_S = 120


@dataclass(frozen=True)
class ExternalStores:
    """The two servers in a namespace, once `start` has returned."""

    place: Namespace
    authority: Authority = field(default_factory=lambda: Authority("the house"))
    password: str = "of the house, and of nobody else"
    account: tuple[str, str] = ("house-account", "a secret key of the house")

    def start(self, images: Mapping[str, str]) -> None:
        """Run both, of these `images` by name, and return once they answer."""
        acl = f"user default off\nuser {USER} on #{hashlib.sha256(self.password.encode()).hexdigest()} ~* &* +@all\n"
        self._run(REDIS, images[REDIS], _REDIS_COMMAND, {"users.acl": acl})
        self._run(MINIO, images[MINIO], _MINIO_COMMAND, dict(zip(("account", "secret"), self.account, strict=True)))
        for name in PORTS:
            until(lambda name=name: self._is_ready(name), _READY_S, f"{name} is ready")

    def secrets(self, *, right: bool = True) -> dict[str, dict[str, str]]:
        """What a release is given, by the names of Secrets; passwords that open nothing where it is not `right`."""
        add = "" if right else ", which it is not"
        access, secret = self.account
        trusted = {"ca.crt": self.authority.certificate.public_bytes(Encoding.PEM).decode()}
        return {
            REDIS: {"password": self.password + add, **trusted},
            MINIO: {"access-key": access, "secret-key": secret + add, **trusted},
        }

    def give(self, place: Namespace, *, right: bool = True) -> None:
        """Put those Secrets into the namespace of a release, whether they are there or not."""
        known = {secret.metadata.name for secret in place.core.list_namespaced_secret(place.name).items}
        for name, content in self.secrets(right=right).items():
            body = {"metadata": {"name": name}, "stringData": content}
            if name in known:
                place.core.patch_namespaced_secret(name, place.name, body)
            else:
                place.core.create_namespaced_secret(place.name, body)

    def values(self, name: str) -> dict[str, Any]:
        """Of the chart, for one of the servers."""
        external = {"address": f"{self._host(name)}:{PORTS[name]}", "existingSecret": name, "hasAuthority": True}
        return {"builtIn": False, "external": {**external, **({"user": USER} if name == REDIS else {})}}

    def redis_keys(self) -> list[str]:
        """Of everything in Redis."""
        asked = ("redis-cli", "-p", str(PORTS[REDIS]), "--tls", "--cacert", _AUTHORITY, "--user", USER)
        return said(self.place, REDIS, *asked, "--pass", self.password, "--no-auth-warning", "--scan").split()

    def bucket_folders(self) -> list[str]:
        """In the bucket."""
        return said(self.place, MINIO, "ls", f"/data/{BUCKET}").split()

    def _host(self, name: str) -> str:
        return f"{name}.{self.place.name}.svc"

    def _run(self, name: str, image: str, command: Sequence[str], content: Mapping[str, str]) -> None:
        core, labels = self.place.core, {"app": name}
        with tempfile.TemporaryDirectory() as folder:
            certificate, key = (path.read_text() for path in self.authority.issue(Path(folder), name, self._host(name)))
            trusted = self.authority.write(Path(folder) / "ca.crt").read_text()
        files = {**content, "public.crt": certificate, "private.key": key, "ca.crt": trusted}
        core.create_namespaced_secret(self.place.name, {"metadata": {"name": name}, "stringData": files})
        core.create_namespaced_pod(self.place.name, _pod(name, image, command, labels))
        ports = [{"port": PORTS[name], "targetPort": PORTS[name]}]
        service = {"metadata": {"name": name}, "spec": {"selector": labels, "ports": ports}}
        core.create_namespaced_service(self.place.name, service)

    def _is_ready(self, name: str) -> bool:
        status = self.place.core.read_namespaced_pod(name, self.place.name).status
        return any(c.type == "Ready" and c.status == "True" for c in status.conditions or ())


_REDIS_COMMAND = (
    *("redis-server", "--dir", "/data", "--appendonly", "yes", "--save", "", "--port", "0"),
    *("--tls-port", str(PORTS[REDIS]), "--tls-auth-clients", "no", "--aclfile", f"{_MOUNTED}/users.acl"),
    *("--tls-cert-file", f"{_MOUNTED}/public.crt", "--tls-key-file", f"{_MOUNTED}/private.key"),
    *("--tls-ca-cert-file", _AUTHORITY),
)
_MINIO_COMMAND = ("minio", "server", "/data", "--address", f":{PORTS[MINIO]}", "--certs-dir", _MOUNTED, "--quiet")


def _pod(name: str, image: str, command: Sequence[str], labels: Mapping[str, str]) -> dict[str, Any]:
    made = manifest(name, image, command, labels)
    (container,) = made["spec"]["containers"]
    files = ("MINIO_ROOT_USER_FILE", "account"), ("MINIO_ROOT_PASSWORD_FILE", "secret")
    container["env"] = [{"name": "HOME", "value": "/tmp"}]
    container["env"] += [{"name": variable, "value": f"{_MOUNTED}/{file}"} for variable, file in files]
    container["readinessProbe"] = {"tcpSocket": {"port": PORTS[name]}, "periodSeconds": 1}
    mounts = {"data": "/data", "tmp": "/tmp", "given": _MOUNTED}
    container["volumeMounts"] = [{"name": volume, "mountPath": path} for volume, path in mounts.items()]
    made["spec"]["securityContext"]["fsGroup"] = 10_001
    made["spec"]["volumes"] = [
        *({"name": volume, "emptyDir": {}} for volume in ("data", "tmp")),
        {"name": "given", "secret": {"secretName": name, "defaultMode": 0o440}},
    ]
    return made
