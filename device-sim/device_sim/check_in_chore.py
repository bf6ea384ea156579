"""The chore of checking in: the device reports digests and counters, and runs the version that its channel wants.

Nothing biometric is reported. What is downloaded is verified by digest and signature before it is installed; a version
that is older than the present one, not signed by a trusted key, or reverted here is refused, with an event, and not
asked for again until the channel points elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from device_sim.contact import Contact
from device_sim.device import Device
from device_sim.event_counts import EventCounts
from device_sim.events import EventKind
from device_sim.pointer import Generation
from tutelage.api.registry.v1 import registry_pb2 as pb
from tutelage.errors import Code, PackageError, TutelageError, UsageError

__all__ = ["CheckInChore", "Registry", "device_state"]

LEAST_S = 1.0
"""Between two check-ins, whatever the registry says."""

_log = structlog.get_logger()


class Registry(Protocol):
    """What a device needs of model-registry; `tutelage.registry_client.RegistryClient` is one."""

    def check_in(self, device_id: str, channel: str, state: pb.DeviceState) -> pb.CheckInResponse:
        """What the device should run, and when to ask again."""

    def download(self, wanted: pb.WantedVersion) -> bytes:
        """The file of the version that a check-in named."""


class CheckInChore:
    """Checks in as often as the registry says."""

    name = "check-in"

    def __init__(
        self,
        device: Device,
        registry: Registry,
        *,
        device_id: str,
        channel: str,
        counts: EventCounts,
        clock: Callable[[], float],
    ) -> None:
        """Report as `device_id`, and follow `channel`; `clock` tells seconds since the epoch."""
        self._device, self._registry, self._counts, self._clock = device, registry, counts, clock
        self._id, self._channel = device_id, channel
        self.contact = Contact(clock)
        """How the registry answers."""
        self._refused = ""

    def do(self) -> float:
        """See `Chore.do`.

        Raises:
            TutelageError: the registry does not answer, or a transfer broke.
        """
        state = device_state(self._device, self._counts, self._clock())
        with self.contact.calling():
            answer = self._registry.check_in(self._id, self._channel, state)
        _log.debug("checked in", generation=state.generation, wanted=answer.wanted.version)
        if answer.HasField("wanted") and answer.wanted.digest not in (state.released_digest, self._refused):
            self._follow(answer.wanted, state.generation)
        return max(LEAST_S, answer.interval.ToTimedelta().total_seconds())

    def _follow(self, wanted: pb.WantedVersion, running: str) -> None:
        """Install the wanted version, or refuse it for good."""
        try:
            self._check_younger(wanted, running)
            package = self._registry.download(wanted)
        except UsageError as error:
            self._refuse(wanted, error)
            return
        try:
            self._device.install(package, digest=wanted.digest)
        except (PackageError, UsageError) as error:
            self._refuse(wanted, error)
            return
        _log.info("release installed", generation=wanted.version, digest=wanted.digest)

    def _check_younger(self, wanted: pb.WantedVersion, running: str) -> None:
        """Spare the transfer of what would be refused anyway."""
        if Generation.parse(wanted.version).version < Generation.parse(running).version:
            raise UsageError(f"{wanted.version} is older than {running}: release a newer version to go back")

    def _refuse(self, wanted: pb.WantedVersion, error: TutelageError) -> None:
        self._refused = wanted.digest
        reason = f"{wanted.version} was not installed: {error.message}"
        last = self._device.store.last_event(EventKind.RELEASE_REFUSED)
        if last is None or last.reason != reason:  # after a restart it is the same refusal
            self._device.store.add_event(EventKind.RELEASE_REFUSED, reason, {}, wanted.version)
        _log.warning("release refused", generation=wanted.version, digest=wanted.digest, code=error.code.value)


def device_state(device: Device, counts: EventCounts, now_s: float) -> pb.DeviceState:
    """How the device stands, in digests and counters.

    Raises:
        StorageError: the store cannot be read, or the counts not be kept.
    """
    pointer = device.generations.pointer
    if pointer is None:
        raise PackageError(Code.STUDENT_MISSING, "this device has no student: install a released one")
    model, current = device.model, pointer.current
    state = pb.DeviceState(
        generation=model.version,
        digest=model.digest,
        released_digest=current.released.digest,
        parent=device.package.info.parent if "+" in model.version else None,
        reverted_digests=[reverted.digest for reverted in pointer.reverted],
        persons=len(device.store.persons()),
        store_bytes=device.store.used_bytes,
        events=counts.now(),
    )
    state.device_time.CopyFrom(_time(now_s))
    return state


def _time(seconds: float) -> Timestamp:
    time_ = Timestamp()
    time_.FromMicroseconds(round(seconds * 1e6))
    return time_
