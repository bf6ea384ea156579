"""A release of the chart in a namespace: installed, upgraded, called through forwarded ports, taken away."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from kube import Namespace

from tutelage.channel import Channel, ChannelSettings
from tutelage.settings import Address
from tutelage.tls import ClientTls

CHART = Path(__file__).resolve().parents[1] / "charts" / "tutelage"
NAME = "tutelage"
STORE_IMAGES = ("redis:7-bookworm", "minio/minio:RELEASE.2025-09-07T16-13-09Z")
"""Redis and MinIO, as the chart names them."""
STEADY = ("teacherInference", "studentDistiller", "modelRegistry")
_FRUGAL = {"resources": {"requests": {"cpu": "10m"}}}
MODEST = {
    "teacher": {"torchserve": _FRUGAL},
    **dict.fromkeys(("redis", "minio", "labelWorker", "distillerWorker", "devices"), _FRUGAL),
    **{part: {**_FRUGAL, "autoscaling": {"enabled": False}} for part in STEADY},
}
"""Values of a release that finds room beside others on a small machine: its Pods ask for hardly any processor time."""
SMALL = {**MODEST, "teacher": {"backend": "in-process"}}
"""The same, and it starts quickly."""
_BRISK = {"LEASE": "6", "RETRY_AFTER": "1", "RECOVER_EVERY": "2", "CHECKPOINT_EVERY": "2"}
_BRISK_JOBS = {"env": {f"TUTELAGE_DISTILLER_{name}": value for name, value in _BRISK.items()}}
EAGER_RULES = {
    "labels": {"min_count": 4, "max_age_s": 1.0, "min_gap_s": 0.0},
    "training": {"min_fresh": 90, "min_gap_s": 3600.0},
    "self_distillation": {"steps": 60},
    "budget": {"seconds": 600.0},
    "gate": {"reference_slack": 5.0, "max_latency_ratio": 3.0},
}
"""Of a device that asks at once, and trains once, as soon as there is enough to learn from."""
EAGER_DEVICES = {**MODEST["devices"], "labelPace": 1, "trainingPace": 1, "rules": EAGER_RULES}
BRISK = {
    **SMALL,
    "modelRegistry": {**SMALL["modelRegistry"], "checkInInterval": 5},
    "studentDistiller": {**SMALL["studentDistiller"], **_BRISK_JOBS},
    "distillerWorker": {**SMALL["distillerWorker"], **_BRISK_JOBS},
    "devices": {**EAGER_DEVICES, "replicas": 2},
}
"""A small release with two devices that takes over, checks in, asks and trains sooner than it should elsewhere."""


class RefusedError(AssertionError):
    """helm ended with an error; its text says why."""


def helm(*words: str, seconds: float = 600) -> str:
    """What helm answers."""
    done = subprocess.run(["helm", *words], capture_output=True, text=True, check=False, timeout=seconds)
    if done.returncode:
        raise RefusedError(done.stdout + done.stderr)
    return done.stdout


class Release:
    """The release `tutelage` of a namespace."""

    def __init__(self, namespace: Namespace, tag: str, chart: Path = CHART) -> None:
        """Images bear the `tag`."""
        self.namespace, self._tag, self._chart = namespace, tag, chart
        self._folder = Path(tempfile.mkdtemp())

    def install(self, values: Mapping[str, Any], *, seconds: int = 300) -> str:
        """Install or upgrade, and wait until everything is ready; what helm says."""
        words = ("upgrade", "--install", NAME, str(self._chart), *self._words(values))
        return helm(*words, "--wait", "--timeout", f"{seconds}s", seconds=seconds + 30)

    def refused(self, values: Mapping[str, Any]) -> str:
        """What helm says to values that it refuses."""
        try:
            helm("upgrade", "--install", NAME, str(self._chart), *self._words(values), "--dry-run=server")
        except RefusedError as refusal:
            return str(refusal)
        raise AssertionError("helm took these values")

    def helm(self, *words: str, seconds: float = 600) -> str:
        """What helm answers for this namespace."""
        return helm(*words, "--namespace", self.namespace.name, seconds=seconds)

    def uninstall(self) -> None:
        """Take the release away and wait until that is done."""
        self.helm("uninstall", NAME, "--wait", "--timeout", "180s")

    def _words(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        path = self._folder / "values.json"
        path.write_text(json.dumps({**values, "image": {"tag": self._tag, **values.get("image", {})}}))
        return ("--namespace", self.namespace.name, "--values", str(path))

    def certificate(self, component: str = "operator") -> ClientTls:
        """The certificate of a component, as files of this machine."""
        folder = self._folder / component
        folder.mkdir(exist_ok=True)
        for key, content in self.namespace.secret(f"{NAME}-{component}-tls").items():
            if not (folder / key).exists() or (folder / key).read_bytes() != content:
                (folder / key).write_bytes(content)
        return ClientTls(True, folder / "ca.crt", folder / "tls.crt", folder / "tls.key")

    @contextmanager
    def forwarded(self, target: str, port: int) -> Iterator[Address]:
        """Where a port of a Pod, or of `service/NAME`, is reached from here."""
        command = ["kubectl", "-n", self.namespace.name, "port-forward", target, f":{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                line = process.stdout.readline()
                found = re.search(r"127\.0\.0\.1:(\d+)", line)
                assert found, f"{target} cannot be reached: {line}"
                yield Address("localhost", int(found[1]))
            finally:
                process.terminate()

    @asynccontextmanager
    async def calling(self, target: str, port: int = 50_051, *, who: str = "operator") -> AsyncIterator[Channel]:
        """A channel to `service/NAME` or a Pod, with the certificate of `who`."""
        with self.forwarded(target, port) as address:
            async with Channel(ChannelSettings(address, self.certificate(who))) as channel:
                yield channel
