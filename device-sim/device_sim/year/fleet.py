"""All devices of a year, each lived through from its first day to its last in one process, as many at once as allowed.

Devices meet only in the cloud, which is the same for all and remembers nothing that one of them does: the year of a
device is the same whoever else is played, and in whatever order.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from device_sim.fleet import POLL_S
from device_sim.models import Progress, shipped
from device_sim.provenance import made
from device_sim.typed_json import plain
from device_sim.worker import EXIT_PARENT_GONE
from device_sim.year.books import told_by
from device_sim.year.life import Life
from device_sim.year.measuring import page_of
from device_sim.year.place import Place
from device_sim.year.releases import released
from device_sim.year.result import DeviceYear, Year
from device_sim.year.settings import YearSettings
from device_sim.year.timetable import Timetable
from device_sim.year.uplink import Uplink
from tutelage.labelling import GalleryLabeller

OnDay = Callable[[int], None]
"""Called with the number of a device that has lived through another day."""
RELEASES = "releases"
"""Folder of the released versions."""


def play_year(settings: YearSettings, out: Path, progress: Progress, *, processes: int) -> Year:
    """Simulate a year with its devices' stores in `out`, on so many `processes`; released versions are kept there.

    Raises:
        PackageError: a released version that lies in `out` is damaged.
        StorageError: `out` cannot be written, or holds devices already.
    """
    created, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    released(out / RELEASES, shipped(), settings, progress)
    devices: list[DeviceYear] = []
    done, days = [0] * settings.devices, settings.devices * settings.days

    def on_day(number: int) -> None:
        done[number] += 1
        progress("days of devices", sum(done), days)

    for device in _played(settings, out, on_day, processes):
        devices.append(device)
    return Year(
        made=made([settings.seed], created),
        settings=plain(settings),
        devices=tuple(sorted(devices, key=lambda device: device.number)),
        seconds=round(time.monotonic() - began, 1),
    )


def play_device(settings: YearSettings, number: int, out: Path, on_day: OnDay) -> DeviceYear:
    """The year of device `number`, whose store is left in `out`, where the released versions lie.

    Raises:
        StorageError: `out` cannot be written, or holds this device already.
    """
    began, models = time.monotonic(), shipped()
    releases = released(out / RELEASES, models, settings, lambda *_: None)
    uplink = Uplink(GalleryLabeller(models.teacher, models.policy))
    place = Place(settings, Timetable.of(settings, number))
    life = Life(settings, place, releases, uplink, out / f"device-{number}")
    pages = []
    try:
        for day in range(settings.days):
            life.play(day)
            if day in settings.measured_days:
                pages.append(page_of(life, day))
            on_day(number)
        incidents = sorted([*life.books.incidents, *told_by(life.device.store)], key=lambda incident: incident.day)
    finally:
        life.close()
    return DeviceYear(number, tuple(pages), tuple(incidents), life.books.promises(), round(time.monotonic() - began, 1))


def _played(settings: YearSettings, out: Path, on_day: OnDay, processes: int) -> Iterator[DeviceYear]:
    """The devices, in this process or in others."""
    if processes == 1:
        yield from (play_device(settings, number, out, on_day) for number in range(settings.devices))
        return
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(told,)) as pool:
        running = [pool.submit(_elsewhere, settings, number, out) for number in range(settings.devices)]
        try:
            while not all(device.done() for device in running):
                _pass_on(told, on_day)
                for device in running:
                    if device.done():
                        device.result()  # whatever went wrong ends all
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        yield from (device.result() for device in running)


def _pass_on(told: Any, on_day: OnDay) -> None:
    """Report the days that other processes tell of, waiting a little for the next."""
    try:
        while True:
            on_day(told.get(timeout=POLL_S))
    except queue.Empty:
        return


class _Here:
    """What a process keeps between devices."""

    told: Any
    parent: int


def _begin(told: Any) -> None:
    """Prepare a process: one thread, for networks this small gain nothing from more."""
    torch.set_num_threads(1)
    _Here.told, _Here.parent = told, os.getppid()


def _elsewhere(settings: YearSettings, number: int, out: Path) -> DeviceYear:
    return play_device(settings, number, out, _told)


def _told(number: int) -> None:
    """Tell of a day, unless nobody is left to hear of it."""
    if os.getppid() != _Here.parent:
        os._exit(EXIT_PARENT_GONE)
    _Here.told.put(number)
