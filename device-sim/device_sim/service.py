"""How a device's process is put together: folder, keys, students, store, teacher, registry, chores, calls.

`open_node` gives the service from when its chores run until they have ended; `serve` serves it until a signal comes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import structlog
import torch
from prometheus_client import CollectorRegistry

from device_sim import node_folder
from device_sim.check_in_chore import CheckInChore
from device_sim.chores import Backoff, Chore, ChoreThread
from device_sim.contact import Contact
from device_sim.device import Device
from device_sim.device_metrics import DeviceMetrics
from device_sim.event_counts import EventCounts
from device_sim.folder_lock import locked
from device_sim.label_chore import LabelChore
from device_sim.node import Node
from device_sim.node_settings import NodeProgram, NodeSettings, PaceSettings
from device_sim.patient_labeller import PatientLabeller
from device_sim.rules_file import read_rules
from device_sim.servicer import NAME, DeviceServicer
from device_sim.store import Store
from device_sim.training_chore import TrainingChore
from tutelage.api.device.v1.device_pb2_grpc import add_DeviceServiceServicer_to_server
from tutelage.channel import ChannelSettings
from tutelage.errors import TutelageError
from tutelage.files import make_folder
from tutelage.health import Check
from tutelage.labelling_client import ServiceLabeller
from tutelage.log import configure_logging
from tutelage.metrics import CallMetrics, HealthMetrics, MetricsServer, tell_of_certificate
from tutelage.registry_client import RegistryClient
from tutelage.server import Server, Service
from tutelage.settings import settings_or_exit
from tutelage.traces import calls_traced, open_traces

__all__ = ["open_device", "open_node", "run", "serve"]

ANSWERING = 2
"""Threads of recognitions: a door has one sensor, and what computes takes turns anyway."""

WORKING = 8
"""Threads of other calls: most wait, for each other or for the teacher."""

SWITCH_S = 0.0005
"""Longest that a thread computing in Python may keep one that recognises from going on; Python's 5 ms would be felt."""


def run(environ: Mapping[str, str]) -> None:
    """Serve the device until a signal ends it; what cannot be started ends the process with a documented exit code."""
    program = settings_or_exit(NodeProgram, environ)
    configure_logging(program.log_level, sys.stderr)
    try:
        asyncio.run(serve(program))
    except TutelageError as error:
        sys.stderr.write(f"error [{error.code}]: {error.message}\n")
        raise SystemExit(error.exit_code) from error


async def serve(program: NodeProgram) -> None:
    """Serve the device until a signal ends it.

    Raises:
        TutelageError: As `open_node`; `setting-invalid`, the address cannot be bound or certificates not be used.
    """
    torch.set_num_threads(program.device.threads)
    sys.setswitchinterval(SWITCH_S)
    structlog.contextvars.bind_contextvars(device_id=program.device.id)
    metrics = CollectorRegistry()
    async with AsyncExitStack() as stack:
        stack.enter_context(open_traces(program.traces, "device-sim"))
        if program.metrics.enabled:
            stack.enter_context(MetricsServer(metrics, program.metrics.address))
        service = await stack.enter_async_context(open_node(program.device, metrics))
        service = replace(service, checks=HealthMetrics(metrics).told_of(service.name, service.checks))
        tell_of_certificate(program.server.tls.certificate_file, metrics)
        async with Server(program.server, [service], [calls_traced, CallMetrics(metrics)]) as server:
            await server.serve_until_signalled()


@asynccontextmanager
async def open_node(settings: NodeSettings, metrics: CollectorRegistry) -> AsyncIterator[Service]:
    """The service with its chores.

    Raises:
        SettingsError: A file that the settings name cannot be used, or another process uses the folder.
        PackageError: There is no student to start from that can be trusted.
        StorageError: The folder or the store cannot be used.
        ServiceError: There is no student yet, and the registry does not answer.
    """
    counted = DeviceMetrics(metrics)
    with ExitStack() as stack:
        cloud = stack.enter_context(_connected(settings))
        device, labeller = await asyncio.to_thread(_opened, settings, cloud, stack)
        events = EventCounts(device.store, settings.folder / "event-counts.json")
        due = list(_chores(settings, device, labeller, cloud, events))
        chores = {chore.name: ChoreThread(chore, _backoff(settings.pace), counted.chore) for chore in due}
        counted.follow(device, events)
        answering = stack.enter_context(ThreadPoolExecutor(ANSWERING, "answers"))
        working = stack.enter_context(ThreadPoolExecutor(WORKING, "work"))
        node = Node(device, chores, _contacts(labeller, due))
        servicer = DeviceServicer(node, answering, working, settings.owners, counted)
        stack.enter_context(_doing(chores, cloud.close))
        added = partial(add_DeviceServiceServicer_to_server, servicer)
        yield Service(NAME, added, _checks(device, chores), endless=("WatchEvents",))


@dataclass(frozen=True)
class _Cloud:
    """The services that the settings name."""

    teacher: ServiceLabeller | None
    registry: RegistryClient | None

    def close(self) -> None:
        """End the connections; calls that still run fail."""
        for service in (self.teacher, self.registry):
            if service is not None:
                service.close()


@contextmanager
def _connected(settings: NodeSettings) -> Iterator[_Cloud]:
    to_teacher, to_registry = settings.teacher, settings.registry
    teacher = registry = None
    if to_teacher.address is not None:
        channel = ChannelSettings(to_teacher.address, to_teacher.tls)
        teacher = ServiceLabeller(channel, site=settings.site, timeout=to_teacher.timeout)
    if to_registry.address is not None:
        channel = ChannelSettings(to_registry.address, to_registry.tls)
        registry = RegistryClient(channel, timeout=to_registry.timeout)
    with closing(_Cloud(teacher, registry)) as cloud:
        yield cloud


def _opened(settings: NodeSettings, cloud: _Cloud, stack: ExitStack) -> tuple[Device, PatientLabeller]:
    """The device, and how it asks its teacher; `stack` puts it down."""
    make_folder(settings.folder)
    stack.enter_context(locked(settings.folder))
    labeller = PatientLabeller(cloud.teacher, settings.folder / "untold")
    return stack.enter_context(open_device(settings, labeller, cloud.registry)), labeller


def _chores(
    settings: NodeSettings, device: Device, labeller: PatientLabeller, cloud: _Cloud, events: EventCounts
) -> Iterator[Chore]:
    pace = settings.pace
    yield TrainingChore(device, pace_s=pace.training.total_seconds())
    if cloud.teacher is not None:
        yield LabelChore(device, labeller, pace_s=pace.labels.total_seconds())
    if cloud.registry is not None:
        yield CheckInChore(
            device,
            cloud.registry,
            device_id=settings.id,
            channel=settings.registry.channel,
            counts=events,
            clock=time.time,
        )


@contextmanager
def open_device(
    settings: NodeSettings, labeller: PatientLabeller, registry: RegistryClient | None = None
) -> Iterator[Device]:
    """The device in its folder, until it is put down: a training under way ends, to be resumed at the next start."""
    rules = read_rules(settings.rules_file)
    keys = node_folder.read_keys(settings)
    generations = node_folder.open_generations(settings, keys, registry)
    folder, later = settings.folder, ThreadPoolExecutor(1, "later")
    with ExitStack() as stack:
        store = stack.enter_context(
            Store.open(folder / node_folder.STORE, key=keys.store, clock=time.time, max_bytes=rules.sampling.max_bytes)
        )
        stack.enter_context(later)
        device = Device(
            store,
            generations,
            labeller,
            keys,
            jobs=folder / node_folder.JOBS,
            settings=rules,
            clock=time.time,
            later=later.submit,
        )
        stack.callback(device.stop)
        structlog.get_logger().info(
            "device started", generation=device.model.version, persons=len(store.persons()), folder=folder
        )
        yield device


def _contacts(labeller: PatientLabeller, chores: Iterable[Chore]) -> dict[str, Contact]:
    """Those that the device has with its teacher and its registry, as far as it has such."""
    found = {"teacher": labeller.contact} if labeller.has_teacher else {}
    for chore in chores:
        if isinstance(chore, CheckInChore):
            found["registry"] = chore.contact
    return found


def _backoff(pace: PaceSettings) -> Backoff:
    return Backoff(pace.first_retry.total_seconds(), pace.longest_retry.total_seconds())


@contextmanager
def _doing(chores: Mapping[str, ChoreThread], hang_up: Callable[[], None]) -> Iterator[None]:
    """The chores are done while the block runs; then `hang_up` ends the calls that they wait for."""
    for chore in chores.values():
        chore.start()
    try:
        yield
    finally:
        for chore in chores.values():
            chore.stop()
        hang_up()
        for chore in chores.values():
            chore.join()


def _checks(device: Device, chores: Mapping[str, ChoreThread]) -> dict[str, Check]:
    """For health: a device answers as long as its store does and nothing in it has died; the cloud may be away."""

    async def chores_are_done() -> None:
        dead = [name for name, chore in chores.items() if not chore.alive]
        if dead:
            raise RuntimeError(f"chores ended: {', '.join(dead)}")

    async def store_answers() -> None:
        await asyncio.to_thread(device.store.latest_event_id)

    return {"store": store_answers, "chores": chores_are_done}
