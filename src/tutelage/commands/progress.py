"""How a long piece of work shows on standard error: a bar on a terminal, now and then a line anywhere else.

Both say how far it is, how fast it goes and how long it will take from here, measured since it was started or resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, TypeAlias

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

__all__ = ["Clock", "Report", "shown_progress"]

Report: TypeAlias = Callable[[int, int, Mapping[str, float]], None]
"""Called with what is done, what there is in all, and the latest losses by name; `loss` is shown."""

Clock: TypeAlias = Callable[[], float]
"""Seconds since whenever."""

SECONDS_A_LINE = 10.0
"""Where nobody watches a bar, a log should not grow by a line a step."""


class _View(Protocol):
    def show(self, done: int, total: int, words: str) -> None: ...


class _Lines:
    """A line every few seconds, and one at the end."""

    def __init__(self, title: str, unit: str, clock: Clock) -> None:
        self.title, self.unit, self.clock = title, unit, clock
        self.last_s: float | None = None

    def show(self, done: int, total: int, words: str) -> None:
        now_s = self.clock()
        if self.last_s is None or done == total or now_s - self.last_s >= SECONDS_A_LINE:
            self.last_s = now_s
            typer.echo(f"{self.title}: {done} of {total} {self.unit}{words}", err=True)


class _Bar:
    """One task of a rich progress bar, which begins where the work was resumed."""

    def __init__(self, title: str, bar: Progress) -> None:
        self.title, self.bar = title, bar
        self.task: TaskID | None = None

    def show(self, done: int, total: int, words: str) -> None:
        if self.task is None:
            self.task = self.bar.add_task(self.title, total=total, words="")
        self.bar.update(self.task, completed=done, words=words.removeprefix(", "))


@contextmanager
def shown_progress(
    title: str, unit: str = "steps", *, console: Console | None = None, clock: Clock = time.monotonic
) -> Iterator[Report]:
    """A report to call while the work goes on; what it says goes to `console`, standard error by default."""
    shown = console or Console(stderr=True)
    if not shown.is_terminal or shown.is_dumb_terminal:
        yield _reported(_Lines(title, unit, clock), unit, clock)
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}")
    with Progress(*columns, console=shown) as bar:
        yield _reported(_Bar(title, bar), unit, clock)


def _reported(view: _View, unit: str, clock: Clock) -> Report:
    began: list[tuple[int, float]] = []

    def report(done: int, total: int, losses: Mapping[str, float]) -> None:
        now_s = clock()
        began.append((done, now_s))
        first, first_s = began[0]
        del began[1:]
        words = [f"loss {losses['loss']:.3f}"] if "loss" in losses else []
        if done > first and now_s > first_s:
            rate = (done - first) / (now_s - first_s)
            words += [f"{rate:.3g} {unit}/s", f"{_duration((total - done) / rate)} left"]
        view.show(done, total, "".join(f", {word}" for word in words))

    return report


def _duration(seconds: float) -> str:
    """`48 s`, `12 min` or `3 h 05 min`: as exact as a forecast deserves."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
