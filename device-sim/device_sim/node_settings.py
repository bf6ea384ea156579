"""What the process of a device has to be told: where it keeps itself, its keys, its teacher, its registry, its server.

Variables begin with `TUTELAGE_DEVICE_`, those of the server with `TUTELAGE_`, as at every service. How the device
behaves is in a file of its own (`rules_file`), for it is the same for many devices.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from tutelage.metrics import MetricsSettings
from tutelage.server import ServerSettings
from tutelage.serving import LogLevel
from tutelage.settings import Address, Range, Secret
from tutelage.tls import ClientTls
from tutelage.traces import TracesSettings

__all__ = ["NodeProgram", "NodeSettings", "PaceSettings", "RegistrySettings", "TeacherSettings"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class TeacherSettings:
    """The service teacher-inference."""

    address: Address | None = None
    """Where teacher-inference takes calls, as host:port. Absent: nobody is asked, and only first samples are learnt
    from."""
    site: str | None = None
    """Site under which the persons of this device are known to the teacher. Absent: the device's id."""
    timeout: Annotated[timedelta, Range(0.1, 600)] = timedelta(seconds=30)
    """Seconds for one request, tries included."""
    tls: ClientTls = field(default_factory=ClientTls)
    """How the teacher is recognised, and how the device proves itself."""


@dataclass(frozen=True)
class RegistrySettings:
    """The service model-registry."""

    address: Address | None = None
    """Where model-registry takes calls, as host:port. Absent: the device reports to nobody and keeps its student."""
    channel: str = "stable"
    """Channel whose version the device runs."""
    timeout: Annotated[timedelta, Range(0.1, 600)] = timedelta(seconds=60)
    """Seconds for one request, tries included; a download goes on where it stopped."""
    patience: Annotated[timedelta, Range(0, 86_400)] = timedelta(0)
    """Seconds that a device without any student waits for a registry that does not answer, or whose channel was never
    set."""
    tls: ClientTls = field(default_factory=ClientTls)
    """How the registry is recognised, and how the device proves itself."""


@dataclass(frozen=True)
class PaceSettings:
    """How often a device looks what is to be done."""

    labels: Annotated[timedelta, Range(0.01, 86_400)] = timedelta(seconds=10)
    """Seconds between two looks whether the label condition holds."""
    training: Annotated[timedelta, Range(0.01, 86_400)] = timedelta(seconds=10)
    """Seconds between two looks whether the training condition holds."""
    first_retry: Annotated[timedelta, Range(0.01, 3_600)] = timedelta(seconds=2)
    """After a failure the next try comes within this many seconds, after each further one within twice as many."""
    longest_retry: Annotated[timedelta, Range(0.01, 86_400)] = timedelta(minutes=15)
    """Seconds within which it comes at the latest, however often it failed."""


@dataclass(frozen=True)
class NodeSettings:
    """One device."""

    id: str = "device"
    """Name of the device, the same at every start: 1 to 64 letters, digits, dots, dashes and underscores, the first one
    a letter or digit."""
    folder: Path = Path("out/device")
    """Folder of everything that the device keeps: store, students, jobs, and the keys that no setting names. Made where
    it is missing; one process at a time."""
    store_key: Secret | None = None
    """File with the key that seals the store and the jobs, as `tutelage.sealing` makes it. Absent: `store.key` in the
    folder, made at the first start."""
    signer_file: Path | None = None
    """PEM file of the Ed25519 key that vouches for this device's own students and receipts. Absent: `device.key` in the
    folder, made at the first start."""
    fleet_key: Secret | None = None
    """File with the key that opens the impostor sets of released students. Absent: that of the shipped students."""
    trusted_files: tuple[Path, ...] = ()
    """PEM files of the public keys whose students are installed, separated by commas. Absent: that of the shipped
    students."""
    student_file: Path | None = None
    """Student package that a device without any starts from. Absent: what the registry's channel wants, or without a
    registry the shipped fingerprint student."""
    rules_file: Path | None = None
    """YAML file of how the device behaves, see device-sim/README.md. Absent: the defaults."""
    owners: tuple[str, ...] = ()
    """Names in the certificates of callers that may enrol, erase, list and explain samples, train and go back. Empty:
    all callers may."""
    threads: Annotated[int, Range(1, 256)] = 1
    """Processor threads of one recognition: more gain nothing on a small student and take them from others."""
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    """Who labels."""
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    """Where students come from and to whom the device reports."""
    pace: PaceSettings = field(default_factory=PaceSettings)
    """How often it looks what is to be done."""

    def __post_init__(self) -> None:
        """Refuse names that no service would take."""
        for name in filter(None, (self.id, self.teacher.site, self.registry.channel)):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a device, a site or a channel: use letters, digits, . - and _")

    @property
    def site(self) -> str:
        """Site under which the teacher knows this device's persons."""
        return self.teacher.site or self.id


@dataclass(frozen=True)
class NodeServerSettings(ServerSettings):
    """How a device takes calls."""

    address: Address = field(default_factory=lambda: Address("127.0.0.1", 50_061))
    """Where calls are taken, as host:port. Only this machine by default; a container sets 0.0.0.0:50061."""


@dataclass(frozen=True)
class NodeMetricsSettings(MetricsSettings):
    """Where a device's metrics are served."""

    address: Address = field(default_factory=lambda: Address("127.0.0.1", 9_474))
    """Where Prometheus collects them over plain HTTP, without any login. Only this machine by default."""


@dataclass(frozen=True)
class NodeProgram:
    """Everything that `python -m device_sim` reads from its environment."""

    device: NodeSettings = field(default_factory=NodeSettings)
    """The device."""
    server: NodeServerSettings = field(default_factory=NodeServerSettings)
    """How calls are taken."""
    metrics: NodeMetricsSettings = field(default_factory=NodeMetricsSettings)
    """Where metrics are collected."""
    traces: TracesSettings = field(default_factory=TracesSettings)
    """Where traces are sent."""
    log_level: LogLevel = LogLevel.INFO
    """Which events are written to standard error."""
