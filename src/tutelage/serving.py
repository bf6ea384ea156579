"""Programs that serve: a *part* is one service as its distribution offers it, a program runs one part or all of them.

    python -m model_registry          run(PART, os.environ)
    tutelage up                       all installed parts, found by the entry point group `tutelage.services`

Every program reads its settings once, opens its stores, opens its parts (their workers included), and then serves until
it is signalled: calls are drained first, workers end after them, stores last.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib.metadata import entry_points
from typing import Any

from prometheus_client import CollectorRegistry

from tutelage.allocator import keep_freed_memory
from tutelage.calls import Layer
from tutelage.errors import TutelageError
from tutelage.log import configure_logging
from tutelage.metrics import CallMetrics, HealthMetrics, MetricsServer, MetricsSettings, tell_of_certificate
from tutelage.queue_metrics import queues_watched
from tutelage.server import Server, ServerSettings, Service
from tutelage.settings import PREFIX, settings_or_exit
from tutelage.stores import Stores, StoresSettings, open_stores
from tutelage.traces import TracesSettings, calls_traced, open_traces

__all__ = ["Context", "KeyKind", "LogLevel", "Part", "ProgramSettings", "installed_parts", "run", "serve"]

SERVICE_GROUP = "tutelage.services"
"""Entry point group in which distributions offer their parts."""


class LogLevel(StrEnum):
    """Which events are written, the most talkative level first."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class KeyKind(StrEnum):
    """What a key file that a part needs is for."""

    SEALING = "sealing"
    """32 random bytes, `tutelage.sealing`."""
    SIGNING = "signing"
    """An Ed25519 private key, `tutelage.signing`."""
    TRUST = "trust"
    """Public halves of the signing key."""


@dataclass(frozen=True)
class ProgramSettings:
    """What every program that serves has to be told, whatever its parts."""

    server: ServerSettings = field(default_factory=ServerSettings)
    """How calls are taken."""
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    """Where metrics are collected."""
    stores: StoresSettings = field(default_factory=StoresSettings)
    """Where queues and objects lie."""
    traces: TracesSettings = field(default_factory=TracesSettings)
    """Where traces are sent."""
    log_level: LogLevel = LogLevel.INFO
    """Which events are written to standard error."""


@dataclass(frozen=True)
class Context:
    """What a program hands to each of its parts."""

    stores: Stores
    """Queues and objects, shared by all parts of the program."""
    metrics: CollectorRegistry
    """Where the part registers its metrics."""


@dataclass(frozen=True)
class Part:
    """One service as its distribution offers it."""

    name: str
    """Name of the distribution, `model-registry`."""
    prefix: str
    """What the part's own variables begin with after `TUTELAGE_`, `REGISTRY_`."""
    settings: type
    """Dataclass of the part's own settings."""
    open: Callable[[Any, Context], AbstractAsyncContextManager[Service]]
    """Given settings and context: the service, from when its workers run until they have ended."""
    keys: Mapping[str, KeyKind] = field(default_factory=dict)
    """Key files that the part needs, by their variable after the prefix: `tutelage up` makes those that are missing."""
    together: Mapping[str, str] = field(default_factory=dict)
    """What its variables after the prefix are unless set, where all parts run in one process; `{address}` stands for
    where that takes calls."""

    def read_settings(self, environ: Mapping[str, str]) -> Any:
        """The part's own settings.

        Raises:
            SystemExit: As `settings_or_exit`.
        """
        return settings_or_exit(self.settings, environ, PREFIX + self.prefix)


def installed_parts() -> list[Part]:
    """The parts of all installed distributions, by name."""
    return sorted((entry.load() for entry in entry_points(group=SERVICE_GROUP)), key=lambda part: str(part.name))


def run(part: Part, environ: Mapping[str, str]) -> None:
    """Serve one part until a signal ends it; what cannot be started ends the process with a documented exit code."""
    program = settings_or_exit(ProgramSettings, environ)
    own = part.read_settings(environ)
    configure_logging(program.log_level, sys.stderr)
    try:
        asyncio.run(serve(program, [(part, own)]))
    except TutelageError as error:
        sys.stderr.write(f"error [{error.code}]: {error.message}\n")
        raise SystemExit(error.exit_code) from error


async def serve(
    program: ProgramSettings,
    parts: Sequence[tuple[Part, Any]],
    *,
    layers: Sequence[Layer] = (),
    started: Callable[[Server], None] = lambda _: None,
) -> None:
    """Serve all `parts`, each with its settings, in one server until a signal ends it; `started` is told of the server.

    Raises:
        SettingsError: An address cannot be bound, or certificates cannot be used.
    """
    keep_freed_memory()
    metrics = CollectorRegistry()
    async with AsyncExitStack() as stack:
        stack.enter_context(open_traces(program.traces, "+".join(part.name for part, _ in parts)))
        if program.metrics.enabled:
            stack.enter_context(MetricsServer(metrics, program.metrics.address))
        stores = await stack.enter_async_context(open_stores(program.stores))
        context = Context(stores, metrics)
        opened = [await stack.enter_async_context(part.open(own, context)) for part, own in parts]
        await stack.enter_async_context(queues_watched(lambda: stores.queues, metrics))
        health = HealthMetrics(metrics)
        services = [replace(service, checks=health.told_of(service.name, service.checks)) for service in opened]
        tell_of_certificate(program.server.tls.certificate_file, metrics)
        gc.collect()
        gc.freeze()  # what was loaded stays: nobody need look through it for garbage again and again
        async with Server(program.server, services, [calls_traced, CallMetrics(metrics), *layers]) as server:
            started(server)
            await server.serve_until_signalled()
