"""The student that a device without any starts from: a file, what the registry's channel wants, or the shipped one."""

from __future__ import annotations

import time

import structlog

from device_sim.chores import Backoff
from device_sim.node_settings import NodeSettings, RegistrySettings
from tutelage.adoption import SHIPPED
from tutelage.errors import CATALOGUE, Code, SettingsError, TutelageError
from tutelage.files import read_bytes
from tutelage.package import MAX_PACKAGE_BYTES
from tutelage.registry_client import RegistryClient
from tutelage.settings import PREFIX

__all__ = ["first_student"]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 15.0


def first_student(settings: NodeSettings, registry: RegistryClient | None) -> bytes:
    """The package, not verified yet.

    Raises:
        SettingsError: The file cannot be read.
        TutelageError: As the registry's calls, once the patience with it has ended.
    """
    if settings.student_file is not None:
        try:
            return read_bytes(settings.student_file, at_most=MAX_PACKAGE_BYTES + 1)
        except TutelageError as error:
            raise SettingsError(f"{PREFIX}DEVICE_STUDENT_FILE: {error.message}") from error
    return SHIPPED.read_bytes() if registry is None else _wanted(settings.registry, registry)


def _wanted(settings: RegistrySettings, registry: RegistryClient) -> bytes:
    """What the channel wants; a registry that is not there yet is waited for."""
    until = time.monotonic() + settings.patience.total_seconds()
    backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
    while True:
        try:
            return registry.download(registry.wanted_of(settings.channel))
        except TutelageError as error:
            pause = backoff.failed()
            may_pass = error.code is Code.OBJECT_MISSING or CATALOGUE[error.code].retryable
            if not may_pass or time.monotonic() + pause > until:
                raise
            structlog.get_logger().info("no student yet", code=error.code.value, reason=error.message)
        time.sleep(pause)
