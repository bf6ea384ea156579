"""The cloud through its real services: `tutelage up` in a process of its own, called over gRPC on loopback.

A fleet's student is published to model-registry and set on the channel `stable`; every device checks in, downloads what
its channel wants and verifies it. teacher-inference labels, one gallery a device. Checking in again, devices report
digests and counters, never anything biometric.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from device_sim.fleet import Post, Release
from device_sim.models import Models
from tutelage.channel import ChannelSettings
from tutelage.errors import Code, ServiceError
from tutelage.files import atomic_write, make_folder
from tutelage.labelling import AbstentionPolicy, Labeller
from tutelage.labelling_client import ServiceLabeller
from tutelage.registry_client import RegistryClient
from tutelage.settings import Address
from tutelage.signing import public_pem

if TYPE_CHECKING:
    from tutelage.api.registry.v1 import registry_pb2

CHANNEL = "stable"
TIMEOUT = timedelta(seconds=60)
START_S = 90.0
"""Loading a teacher takes seconds where nothing else runs, and more beside trainings."""


class ServiceCloud:
    """A `Cloud` at an address; `serving_cloud` makes one."""

    def __init__(self, address: Address, stack: ExitStack) -> None:
        """Call the services at `address`; `stack` ends the connections."""
        self._settings, self._stack = ChannelSettings(address), stack
        self._registry = stack.enter_context(RegistryClient(self._settings, timeout=TIMEOUT))
        self._released = ""

    def release(self, models: Models) -> Release:
        """Publish the student, point the channel to it, and hand out what a device downloads.

        Raises:
            TutelageError: As the registry's calls; what was downloaded is verified where it is installed.
        """
        version = self._registry.publish(models.release.package)
        self._registry.set_channel(CHANNEL, version.digest, expected=None, reason="the demonstration's first version")
        self._released = version.digest
        wanted = self._registry.check_in("device-new", CHANNEL, _state(version.version, version.digest, version.digest))
        return Release(self._registry.download(wanted.wanted), models.release.trusted, models.release.fleet_key)

    def labeller(self, site: int) -> Labeller:
        """The service's labels for one site."""
        return self._stack.enter_context(ServiceLabeller(self._settings, site=f"site-{site}", timeout=TIMEOUT))

    def check_in(self, post: Post) -> None:
        """Report the generation that recognises, and counters."""
        model, store = post.device.model, post.device.store
        state = _state(model.version, model.digest, self._released)
        state.persons = len(set(model.gallery.persons))
        for kind, count in Counter(event.kind.value for event in store.events()).items():
            state.events[kind] = count
        state.device_time.CopyFrom(_time(post.clock.now_s))
        self._registry.check_in(f"device-{post.site.number}", CHANNEL, state)


def _state(generation: str, digest: str, released: str) -> registry_pb2.DeviceState:
    from tutelage.api.registry.v1 import registry_pb2  # noqa: PLC0415 - needs the extra `grpc`

    return registry_pb2.DeviceState(generation=generation, digest=digest, released_digest=released)


def _time(seconds: float) -> Timestamp:
    time_ = Timestamp()
    time_.FromMilliseconds(int(1000 * seconds))
    return time_


@contextmanager
def serving_cloud(folder: Path, models: Models) -> Iterator[ServiceCloud]:
    """The services with the shipped teacher, trusting whoever signed the student of `models`; they end with the block.

    Raises:
        ServiceError: `service-unavailable`, they do not start; their log in `folder` says why.
    """
    make_folder(folder)
    trusted, address = folder / "release.pub", Address("127.0.0.1", _free_port())
    atomic_write(trusted, public_pem(models.release.trusted))
    environment = {
        **os.environ,
        **_abstention(models.policy),
        "TUTELAGE_REGISTRY_TRUSTED_FILES": str(trusted),
        "TUTELAGE_METRICS_ENABLED": "false",
        "TUTELAGE_SERVER_DRAIN_NOTICE": "0",
    }
    command = [sys.executable, "-m", "tutelage", "up", "--folder", str(folder), "--address", str(address)]
    with ExitStack() as stack, (folder / "services.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)  # noqa: S603 - our own command
        stack.callback(_end, process)
        _wait_for(address, process, folder / "services.log")
        yield ServiceCloud(address, stack)


def _abstention(policy: AbstentionPolicy) -> dict[str, str]:
    prefix = "TUTELAGE_TEACHER_ABSTENTION_"
    return {prefix + "MIN_COSINE": repr(policy.min_cosine), prefix + "MIN_MARGIN": repr(policy.min_margin)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(address: Address, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection((address.host, address.port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise ServiceError(Code.SERVICE_UNAVAILABLE, f"the services do not start: {log} says why")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
