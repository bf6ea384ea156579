"""`tutelage device visit`: a public comes to a device, and what it saw is shown.

Heavy imports wait until the command runs, so that `tutelage --help` stays quick.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from device_sim.interruption import Interruption, terminated_as_interrupted
from tutelage.errors import UsageError

if TYPE_CHECKING:
    from device_sim.visiting import Course, Seen, Visiting

__all__ = ["visit"]

DRAWN_VISITS = 1_000_000_000
"""Numbers below this are drawn for first visits: two runs hardly ever press the same captures."""


def visit(
    opened: Callable[[], Any],
    *,
    persons: Annotated[int, typer.Option(min=1, max=10_000, help="Who come as themselves.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="The same seed means the same persons.")] = 1,
    site: Annotated[
        int, typer.Option(min=0, help="Number of the device: each has persons and a sensor of its own.")
    ] = 0,
    references: Annotated[int, typer.Option(min=1, max=16, help="Captures by which a person is enrolled.")] = 3,
    visits: Annotated[int, typer.Option(min=0, max=1_000_000, help="Attempts, of up to 3 captures each.")] = 100,
    strangers: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of visits by people who are not enrolled.")
    ] = 0.02,
    wear: Annotated[float, typer.Option(min=0.0, max=1.0, help="Of the sensor, from new to worn out.")] = 0.0,
    until_wear: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Of the sensor at the last visit.", show_default="--wear")
    ] = None,
    first_visit: Annotated[
        int | None,
        typer.Option(
            min=0, help="Number of the first visit: decides who comes, and the captures.", show_default="drawn"
        ),
    ] = None,
    patience: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="How long a device that does not answer is waited for.")
    ] = 60.0,
    pause: Annotated[float, typer.Option(min=0.0, metavar="SECONDS", help="After each visit.")] = 0.0,
    again: Annotated[bool, typer.Option("--again", help="Come again and again, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was seen as JSON, a line a run.")] = False,
) -> None:
    """Let a synthetic public come to a device: enrolled on a new sensor, then recognised on one that wears."""
    if again and not visits:
        raise UsageError("--again goes on with further visits: give --visits 1 or more")
    import torch  # noqa: PLC0415

    from device_sim.patience import Patience  # noqa: PLC0415
    from device_sim.public import Public  # noqa: PLC0415
    from device_sim.visiting import Course, Visiting  # noqa: PLC0415

    torch.set_num_threads(1)  # a finger is small, and a device beside it needs the other cores
    first = secrets.randbelow(DRAWN_VISITS) if first_visit is None else first_visit
    course = Course(visits, references, strangers, wear, wear if until_wear is None else until_wear, first)
    public = Public(seed, site, persons)
    with (
        terminated_as_interrupted() as interruption,
        Visiting(opened, public, Patience(patience), pause=partial(_pause, pause, interruption)) as visiting,
    ):
        while True:
            _run(visiting, course, as_json)
            if not again:
                return
            course = replace(course, first_visit=course.first_visit + visits)


def _pause(pause_s: float, interruption: Interruption) -> None:
    time.sleep(pause_s)
    interruption.heed()


def _run(visiting: Visiting, course: Course, as_json: bool) -> None:
    """One run of visits; whatever ends it, what was seen is shown."""
    from device_sim.visiting import Seen  # noqa: PLC0415
    from tutelage.commands.progress import shown_progress  # noqa: PLC0415

    seen = Seen(course.first_visit)
    with _shown(seen, as_json):
        seen.generation_before = seen.generation_after = visiting.generation()
        with shown_progress("enrolling", "persons") as report:
            visiting.enrol(course, seen, lambda done, total: report(done, total, {}))
        with shown_progress("visiting", "visits") as report:
            visiting.come(course, seen, lambda done, total: report(done, total, {}))


@contextmanager
def _shown(seen: Seen, as_json: bool) -> Iterator[None]:
    """Shows in the end what was seen until then; nothing where the device never answered."""
    try:
        yield
    finally:
        if seen.generation_before:
            _show(seen, as_json)


def _show(seen: Seen, as_json: bool) -> None:
    from rich.console import Console  # noqa: PLC0415

    from device_sim.device_tables import visits_table  # noqa: PLC0415

    if as_json:
        typer.echo(json.dumps(seen.as_json()))
    else:
        Console().print(visits_table(seen))
