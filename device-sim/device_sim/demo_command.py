"""The demonstration before a person: progress, live view, table, report."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from device_sim.clouds import Cloud
from device_sim.demo import DemoSettings, run_demo
from device_sim.fleet import DAY_S, EPOCH_S, Post
from device_sim.live import DeviceView, LiveView
from device_sim.models import Models
from device_sim.records import LabelSource, State
from device_sim.report import write_report
from device_sim.results import write_result
from device_sim.sampling import Kind
from device_sim.table import print_result
from tutelage.files import storage_error
from tutelage.labelling import Teacher
from tutelage.manifest import Manifest

DEVICES = "devices"
"""Folder of the devices' stores."""
SERVICES = "services"
"""Folder of what the services keep, where the demonstration goes through them."""
BINS = np.linspace(0, 60, 13)
KEPT = (State.FRESH, State.USED, State.HELD_BACK, State.QUARANTINED, State.DROPPED)
RECENT = 30
FINGERS_A_STEP = 8
"""More are not grown for a stretch of distillation that is too short to see them all."""


def demo_settings(
    *,
    devices: int,
    days: int,
    wear: float | None,
    seed: int,
    teacher_steps: int | None,
    student_steps: int | None,
    show_captures: bool,
) -> DemoSettings:
    """The demonstration as it is set by words on the command line; None leaves what is usual."""
    base = DemoSettings(seed=seed, devices=devices, show_captures=show_captures)
    steps = base.distil_steps if student_steps is None else student_steps
    return replace(
        base,
        site=replace(base.site, days=days, wear=base.site.wear if wear is None else wear),
        images=replace(base.images, days=days, wear=base.images.wear if wear is None else wear),
        image_training=base.image_training.of_length(teacher_steps, student_steps),
        distil_steps=steps,
        distil_persons=min(base.distil_persons, FINGERS_A_STEP * steps),
    )


def play_demo(
    console: Console,
    out: Path,
    settings: DemoSettings,
    *,
    manifest: Manifest | None = None,
    teacher: Teacher | None = None,
    serving: Callable[[Models], AbstractContextManager[Cloud]] | None = None,
    as_json: bool = False,
) -> None:
    """Run the demonstration and show it on `console`; arguments as those of `run_demo`.

    Raises:
        InputError: the images are too few, or the teacher cannot use them.
        StorageError: `out` cannot be written.
    """
    torch.set_num_threads(1)  # networks this small gain nothing from more, and the workers need the other cores
    _make_room(out)
    started = time.monotonic()
    with ExitStack() as stack:
        days = settings.site.days if manifest is None else settings.images.days
        watched = Watched(console, stack, days, manifest is not None)
        result = run_demo(
            settings, out / DEVICES, watched, watched.prepare, manifest=manifest, teacher=teacher, serving=serving
        )
    write_result(result, out / "result.json")
    write_report(result, out / "report.html")
    print_result(result, console)
    said = f"report: {out / 'report.html'}   result: {out / 'result.json'}   {time.monotonic() - started:.0f} s"
    console.print(said, markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print(json.dumps(result.as_json()))  # noqa: T201


def _make_room(out: Path) -> None:
    """Make `out` a folder in which no earlier demonstration left devices or services; nothing else in it is touched.

    Raises:
        StorageError: `storage-failed`.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        for store in (out / DEVICES).glob("device-*/store.sqlite"):
            shutil.rmtree(store.parent)
        if (out / SERVICES / "keys").is_dir():
            shutil.rmtree(out / SERVICES)
    except OSError as error:
        raise storage_error(error, out, "prepared") from error


@dataclass
class Watched:
    """Shows preparations as a progress bar and the simulation as a live view."""

    console: Console
    stack: ExitStack
    days: int
    images: bool
    _progress: Progress | None = None
    _task: TaskID | None = None
    _view: LiveView | None = None
    _told: dict[int, int] = field(default_factory=dict)

    def prepare(self, what: str, done: int, steps: int) -> None:
        """Show one preparation's progress."""
        if self._progress is None:
            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            self._progress = self.stack.enter_context(Progress(*columns, console=self.console, transient=True))
            self._task = self._progress.add_task(what, total=steps)
        assert self._task is not None  # noqa: S101 - made with the bar
        self._progress.update(self._task, description=what, completed=done, total=steps)

    def on_night(self, day: int, posts: Sequence[Post]) -> None:
        """Show trainings as they go."""
        self._show(day, posts)

    def on_day(self, day: int, posts: Sequence[Post]) -> None:
        """Show the devices and what happened to them."""
        for post in posts:
            after = self._told.get(post.site.number, 0)
            for event in post.device.store.events(after=after):
                self._told[post.site.number] = event.id
                self._live().on_event((event.time_s - EPOCH_S) // DAY_S, post.site.number, event.kind, event.reason)
        self._show(day + 1, posts)

    def _show(self, day: int, posts: Sequence[Post]) -> None:
        self._live().on_day(day, self.days, [device_view(post, day) for post in posts])

    def _live(self) -> LiveView:
        """The live view; preparations are over when it is first asked for."""
        if self._view is None:
            if self._progress is not None:
                self._progress.stop()
            title = "Your images before wearing sensors" if self.images else "Synthetic fingers on wearing sensors"
            self._view = self.stack.enter_context(LiveView(self.console, title=title))
        return self._view


def device_view(post: Post, day: int) -> DeviceView:
    """What is shown of one device after `day`."""
    store = post.device.store
    samples = store.samples(*KEPT)
    labels = [s.label for s in samples if s.kind is Kind.SECOND and s.label is not None]
    recent = store.decisions(after=store.next_decision_id() - RECENT * 3)
    scores = [d.observation.score for d in recent if np.isfinite(d.observation.score)]
    training = post.training
    share = training.last.get("step", 0) / max(1, training.last.get("steps", 1)) if training else 0.0
    return DeviceView(
        number=post.site.number,
        generation=post.device.model.version,
        wear=post.site.condition(min(day, post.site.days)).wear,
        first=sum(s.kind is Kind.FIRST for s in samples),
        second=sum(s.kind is Kind.SECOND for s in samples),
        labelled=sum(label.source is LabelSource.TEACHER for label in labels),
        abstained=sum(label.source is LabelSource.ABSTAINED for label in labels),
        misses=float(np.mean(post.tally.recent)) if post.tally.recent else 0.0,
        histogram=tuple(np.histogram(np.clip(scores, 0, 59.9), BINS)[0].tolist()),
        state=f"training {share:.0%}" if training else "recognising",
        verdict=post.verdict,
    )
