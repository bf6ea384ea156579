"""How far a teacher sets strangers apart, and the limits of its abstention that follow from it.

    python benchmarks/abstention.py                   the shipped fingerprint teacher, on the shipped impostor set
    python benchmarks/abstention.py TEACHER FOLDER    any teacher, on a folder with one folder of images a person

TEACHER is `fingerprint`, `face` or the path of a teacher file. Of every pair of captures of two persons the cosine is
taken. `min_cosine` is what one pair in 1000 reaches, `min_margin` is `--lead` (0.4) standard deviations of the cosines.
Both are printed, and written with `--json`. Persons whom the teacher was trained on tell nothing: leave them out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from device_sim.models import LEAD, shipped
from device_sim.provenance import made
from tutelage.biometrics.features import impostor_cosines
from tutelage.captures import Pixels, read_capture
from tutelage.errors import CaptureError
from tutelage.labelling import Teacher
from tutelage.nn.packaging import calibrate
from tutelage.nn.teacher_sources import open_teacher

SCORE = 30.0  # -10 log10 of 1 in 1000


def strangers_in(folder: Path) -> tuple[list[Pixels], list[str]]:
    """Every capture below `folder`, and who is on it."""
    captures, persons = [], []
    for path in sorted(folder.glob("*/*")):
        try:
            captures.append(read_capture(path))
        except CaptureError:
            continue
        persons.append(path.parent.name)
    return captures, persons


def measured(teacher: Teacher, captures: Sequence[Pixels], persons: Sequence[str], lead: float) -> dict[str, Any]:
    seen = teacher.extract(captures)
    usable = np.flatnonzero(seen.usable)
    features, known = seen.features[usable], [persons[int(row)] for row in usable]
    cosines = impostor_cosines(features, known)
    deviation = float(cosines.std())
    return {
        "teacher": teacher.name,
        "space": teacher.space,
        "persons": len(set(known)),
        "captures": len(known),
        "pairs": len(cosines),
        "mean": float(cosines.mean()),
        "deviation": deviation,
        "min_cosine": calibrate(features, known).cosine_at(SCORE),
        "lead": lead,
        "min_margin": lead * deviation,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("teacher", nargs="?", default="fingerprint")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--lead", type=float, default=LEAD)
    parser.add_argument("--json", type=Path, help="write the results there, beside those of other teachers")
    words = parser.parse_args()
    if words.folder is None and words.teacher != "fingerprint":
        parser.error("strangers to this teacher are needed: name a FOLDER")
    if words.folder is None:
        unseen = shipped().impostors.unseen
        captures, persons, data = list(unseen.captures), list(unseen.persons), "shipped impostor set"
    else:
        (captures, persons), data = strangers_in(words.folder), words.folder.name
    found = measured(open_teacher(words.teacher), captures, persons, words.lead) | {"data": data}
    Console().print(found)
    if words.json:
        known = json.loads(words.json.read_text(encoding="utf-8"))["results"] if words.json.exists() else {}
        about = asdict(made([], datetime.now(UTC).isoformat(timespec="seconds")))
        known[found["teacher"]] = found | {"made": about}
        text = json.dumps({"benchmark": "abstention", "results": known}, indent=2) + "\n"
        words.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
