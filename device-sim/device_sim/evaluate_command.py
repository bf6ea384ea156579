"""`tutelage evaluate`: the comparison on anybody's images, as JSON, table and plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from device_sim.evaluation.compare import METHODS, cases, run, summarise
from device_sim.evaluation.grounds import ImageGrounds
from device_sim.evaluation.present import exits_figure, markdown, summary_table
from device_sim.learning import LearningRules
from device_sim.models import ImageTraining
from device_sim.provenance import made
from device_sim.site import ImageDrift, readable
from tutelage.errors import UsageError
from tutelage.files import atomic_write, make_folder
from tutelage.manifest import Manifest
from tutelage.nn.self_distil import SelfDistillation


def compare_on_images(
    console: Console,
    manifest: Manifest,
    out: Path,
    *,
    teacher: str,
    methods: Sequence[str],
    seeds: int,
    wrong: Sequence[float],
    wear: float,
    as_json: bool,
    training: ImageTraining | None = None,
    settings: SelfDistillation | None = None,
) -> None:
    """Compare `methods` on `manifest` over `seeds` seeds and write what was found into `out`.

    `training` says how students are made of the images, and teachers where `teacher` is `train`; `settings` how a
    method that self-distils does so.

    Raises:
        UsageError: a method nobody knows.
        StorageError: `out` cannot be made or written.
        InputError: the manifest has too few persons, or no image can be read.
    """
    if unknown := set(methods) - set(METHODS):
        raise UsageError(f"unknown method {sorted(unknown)[0]!r}; there are: {', '.join(METHODS)}")
    # Now, for what comes next takes minutes.
    make_folder(out)
    manifest, unreadable = readable(manifest)
    left_out = {str(skip.row.path): skip.reason for skip in unreadable}
    left_out |= {skip.person: skip.reason for skip in manifest.skipped}
    grounds = ImageGrounds(manifest, teacher, ImageDrift(wear=wear), training or ImageTraining())
    wanted = cases(methods or METHODS, wrong, rules=(True,))
    settings, learning = settings or SelfDistillation(), LearningRules()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"{len(wanted)} cases on each seed", total=seeds)
        rows = run(
            range(seeds),
            grounds,
            wanted,
            settings,
            learning,
            progress=lambda done, _: progress.update(task, completed=done),
        )
    summary = summarise(rows)
    about = {
        "made": asdict(made(range(seeds), datetime.now(UTC).isoformat(timespec="seconds"))),
        "teacher": teacher,
        "wear": wear,
        "left_out": left_out,
        "settings": asdict(settings),
        "learning": asdict(learning),
    }
    _write(out, about, summary, rows)
    console.print(summary_table(summary))
    for what, reason in left_out.items():
        console.print(f"left out: {what}: {reason}", markup=False)
    console.print(f"written: {out / 'comparison.json'}, comparison.md, comparison.svg")
    if as_json:
        print(json.dumps({**about, "summary": summary}))  # noqa: T201


def _write(out: Path, about: Mapping[str, Any], summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """The three files of a comparison."""
    atomic_write(out / "comparison.json", json.dumps({**about, "summary": summary, "rows": rows}, indent=1).encode())
    atomic_write(out / "comparison.md", (markdown(summary) + "\n").encode())
    drawing = BytesIO()
    exits_figure(summary, list(summary)).savefig(drawing, format="svg")
    atomic_write(out / "comparison.svg", drawing.getvalue())
