"""`tutelage simulate`: long lives of simulated devices; found by `tutelage` through its entry point.

Heavy imports wait until a command runs, so that `tutelage --help` stays quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(no_args_is_help=True, help="Play long stretches of device life.")


@app.callback()
def _simulate() -> None:
    """Play long stretches of device life."""


@app.command()
def year(
    *,
    devices: Annotated[int, typer.Option(min=1, max=64)] = 4,
    days: Annotated[int, typer.Option(min=10, max=3650, help="Simulated days; fewer hold all of a year too.")] = 365,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    processes: Annotated[int, typer.Option(min=0, help="Devices at once; 0 is one a processor.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for year.json, year.html, the releases and the stores.")] = Path(
        "out/year"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Play a year of a fleet: seasons, wear, people who come and go, outages, power cuts, releases and attackers."""
    from device_sim.year.command import show_year  # noqa: PLC0415
    from device_sim.year.settings import YearSettings  # noqa: PLC0415

    settings = YearSettings(devices=devices, days=days, seed=seed)
    show_year(Console(stderr=as_json), out, settings, processes=processes, as_json=as_json)
