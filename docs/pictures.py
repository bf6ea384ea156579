"""Draws the pictures of the pages from scratch: `python docs/pictures.py` writes them to `docs/images/`.

Only synthetic fingerprints and figures are shown; no picture here is of a living person.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from device_sim.drift import conditions_at_wear
from device_sim.masters import draw_pattern, grow_masters
from device_sim.plot_style import MUTED, as_png
from device_sim.plots import coverage_figure
from device_sim.report import write_report
from device_sim.results import read_result
from device_sim.sensor import Presses, Sensor
from device_sim.year.plots import errors_figure
from device_sim.year.result import read_year
from tutelage.captures import Pixels
from tutelage.files import atomic_write

IMAGES = Path(__file__).with_name("images")
RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
SEED = 21
PERSONS = (33, 28, 6, 12, 1, 7)
WEARS = (0.0, 0.2, 0.4, 0.6)
REPORT_SIZE = (1180, 1620)
"""Pixels of the report that are shown: down to the end of the scores."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SENSOR = 3
"""One device's sensor for all columns: its scratches and its dirt stay where they are, down and across."""


def drifted_captures() -> list[list[Pixels]]:
    """For each of `WEARS` one capture of each of `PERSONS`; a person presses in another way each time."""
    masters, sensor = grow_masters(SEED, list(PERSONS)), Sensor(SEED, SENSOR)
    rows = []
    for number, wear in enumerate(WEARS):
        presses = Presses.stack([Presses.of(SEED, person, [number]) for person in PERSONS])
        rows.append(sensor.capture(masters, presses, conditions_at_wear(wear)))
    return rows


def sensor_drift() -> Figure:
    """Six persons, one a column, at four drifts of one sensor."""
    figure = Figure(figsize=(8.0, 5.35))
    figure.subplots_adjust(left=0.05, right=0.995, bottom=0.01, top=0.94, wspace=0.04, hspace=0.04)
    grid = figure.subplots(len(WEARS), len(PERSONS), squeeze=False)
    for wear, row, captures in zip(WEARS, grid, drifted_captures(), strict=True):
        for axes, capture in zip(row, captures, strict=True):
            _show(axes, capture)
        row[0].set_ylabel(f"wear {wear:g}", fontsize="large", labelpad=8)
    for axes, person in zip(grid[0], PERSONS, strict=True):
        axes.set_title(draw_pattern(SEED, person).kind.replace("-", " "), fontsize="medium")
    return figure


def coverage() -> Figure:
    """What the teacher's labels are worth as it abstains less, from the committed study on real images."""
    found = json.loads((RESULTS / "choices-images-train.json").read_text())
    rows = [row for row in found["rows"] if row["name"].startswith("lead ")]
    curves: dict[str, list[tuple[float, float]]] = {"labels that are right": [], "nearest person right": []}
    curves["accepted at FMR 1e-2"] = []
    for name in dict.fromkeys(row["name"] for row in rows):
        of_case = [row for row in rows if row["name"] == name]
        share = float(np.mean([row["coverage"] for row in of_case]))
        right = [row["label_precision"] for row in of_case if row["label_precision"] is not None]
        worn = found["summary"][name]["worn"]["fused"]
        if right:
            curves["labels that are right"].append((share, float(np.mean(right))))
        curves["nearest person right"].append((share, worn["rank1"]["mean"]))
        curves["accepted at FMR 1e-2"].append((share, worn["tar_1e2"]["mean"]))
    return coverage_figure(curves)


def report(picture: Path, browser: str) -> None:
    """The top of the committed demonstration's report, as `browser` shows it."""
    options = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking")
    width, height = REPORT_SIZE
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder) / "report.html", Path(folder) / "report.png"
        write_report(read_result(RESULTS / "demo-synthetic.json"), page)
        command = [browser, *(f"--{option}" for option in options), "--hide-scrollbars"]
        command += [f"--window-size={width},{height}", f"--screenshot={shot}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        atomic_write(picture, shot.read_bytes())


def _show(axes: Axes, capture: Pixels) -> None:
    """One capture with the full range of greys, pixels as they are, thinly framed."""
    axes.imshow(np.asarray(capture), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=MUTED, linewidth=0.6)


def main() -> None:
    """Write every picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder of the pictures (default docs/images)")
    folder: Path = parser.parse_args().out
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "sensor-drift.png", as_png(sensor_drift()))
    atomic_write(folder / "coverage.png", as_png(coverage()))
    if (RESULTS / "year.json").exists():
        atomic_write(folder / "year.png", as_png(errors_figure(read_year(RESULTS / "year.json"))))
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("report.png was not drawn: it takes chromium (apt-get install chromium)", file=sys.stderr)
    else:
        report(folder / "report.png", browser)


if __name__ == "__main__":
    main()
