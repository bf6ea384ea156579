"""How well the face teacher names persons from one reference each, and what its alignment is worth.

    python benchmarks/face_teacher.py FOLDER [--references N] [--json OUT]

FOLDER holds one folder of images a person. Every run takes another image of each person as the only reference and all
others as probes: run 0 the first, run 1 the second, and so on. Four ways of preparing a capture are compared:

- `squeezed`: resized to the network's input, no detector, no alignment; here only to show what alignment is worth;
- `aligned`: the teacher's default; a capture without a face counts as a miss, and so do all probes of a person whose
  reference has none;
- `site`: captures without a face borrow the median placement, learnt from the folder's captures;
- `site-equalised`: the same after histogram equalisation.

Each is measured as captured and, with the same references, under `hard-light`: probes are shaded from a random side by
a fixed rule (`shaded`). That is a simulation, meant to compare the ways with each other and nothing else.

Printed and written: rank-1 and the share of genuine pairs accepted (TAR) at a false match rate (FMR) of 1e-2 and 1e-3,
the threshold measured on all impostor pairs of the same run, mean, standard deviation and range over runs; the share of
probes in which a face was found; wall-clock seconds a capture.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.table import Table

from device_sim.provenance import made
from tutelage.biometrics.error_rates import rank1, tar_at_fmr
from tutelage.biometrics.features import Features, cosines
from tutelage.captures import Pixels, read_capture
from tutelage.errors import CaptureError
from tutelage.face import FaceSettings, FaceTeacher
from tutelage.face.engine import CHIP_SIDE
from tutelage.labelling import Extraction

SUFFIXES = {".pgm", ".png", ".jpg", ".jpeg", ".bmp"}
FMRS = (1e-2, 1e-3)
PROBES = ("as-captured", "hard-light")
Extract: TypeAlias = Callable[[Sequence[Pixels]], Extraction]
REFUSED = -1.0
"""Cosine of a genuine pair of which one capture gave no feature: below every threshold."""


@dataclass(frozen=True)
class Data:
    """Captures of a folder, those of a person side by side."""

    captures: list[Pixels]
    persons: list[str]
    skipped: int


def read_folder(folder: Path) -> Data:
    captures, persons, skipped = [], [], 0
    for path in sorted(folder.glob("*/*")):
        if path.suffix.lower() not in SUFFIXES:
            continue
        try:
            captures.append(read_capture(path))
        except CaptureError:
            skipped += 1
            continue
        persons.append(path.parent.name)
    return Data(captures, persons, skipped)


def shaded(capture: Pixels, seed: int) -> Pixels:
    """The capture lit from one side: times a logistic ramp from 0.02 to 1 in a random direction, and sensor noise."""
    rng = np.random.default_rng(seed)
    height, width = capture.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)
    light = 0.02 + 0.98 / (1 + np.exp(-rng.uniform(6, 14) * (along - rng.uniform(-0.1, 0.2))))
    light = rng.uniform(0.5, 1.2) * light.reshape(height, width, *[1] * (capture.ndim - 2))
    lit: Pixels = np.clip(capture * light + rng.normal(0, 2, capture.shape), 0, 255).astype(np.uint8)
    return lit


def squeezed(teacher: FaceTeacher, captures: Sequence[Pixels]) -> Extraction:
    """Features of captures resized to the network's input, whatever their aspect."""
    size = (CHIP_SIDE, CHIP_SIDE)
    chips = [np.asarray(Image.fromarray(c).resize(size, Image.Resampling.BILINEAR).convert("RGB")) for c in captures]
    blocks = [teacher.engine.describe(chips[start : start + 32]) for start in range(0, len(chips), 32)]
    n, note = len(captures), "no face looked for"
    return Extraction(Features(np.concatenate(blocks), "squeezed"), np.ones(n, np.bool_), ("",) * n, (note,) * n)


def modes(captures: Sequence[Pixels]) -> dict[str, Extract]:
    aligned = FaceTeacher()
    return {
        "squeezed": lambda asked: squeezed(aligned, asked),
        "aligned": aligned.extract,
        "site": aligned.for_site(captures).extract,
        "site-equalised": FaceTeacher(FaceSettings(equalise=True)).for_site(captures).extract,
    }


def references(persons: Sequence[str], run: int) -> npt.NDArray[np.intp]:
    """One row a person: image number `run`, counted round where a person has fewer."""
    names = np.array(persons)
    rows = [np.flatnonzero(names == name) for name in np.unique(names)]
    return np.array([of_person[run % len(of_person)] for of_person in rows])


def measure(enrolled: Extraction, probed: Extraction, persons: Sequence[str], run: int) -> dict[str, float]:
    """Rates of one choice of references out of `enrolled` against all other rows of `probed`."""
    names = np.array(persons)
    gallery = references(persons, run)
    probes = np.setdiff1d(np.arange(len(names)), gallery)
    both = probed.usable[probes][:, None] & enrolled.usable[gallery][None, :]
    table = np.where(both, cosines(probed.features[probes], enrolled.features[gallery]), np.float32(REFUSED))  # (N, M)
    same = names[probes][:, None] == names[gallery][None, :]
    genuine, impostor = table[same], table[~same & both]
    rates = {"rank1": rank1(table, names[probes].tolist(), names[gallery].tolist())}
    rates |= {f"tar_at_fmr_{fmr:g}": tar_at_fmr(genuine, impostor, fmr) for fmr in FMRS}
    return rates | {"genuine_pairs": len(genuine), "impostor_pairs": len(impostor)}


def spread(values: Sequence[float]) -> dict[str, float]:
    array = np.array(values)
    sd = float(array.std(ddof=1)) if len(array) > 1 else 0.0
    return {"mean": float(array.mean()), "sd": sd, "min": float(array.min()), "max": float(array.max())}


def rates_of(enrolled: Extraction, probed: Extraction, persons: Sequence[str], runs: int) -> dict[str, Any]:
    """Mean and spread over choices of references, and what was found in the probes."""
    measured = [measure(enrolled, probed, persons, run) for run in range(runs)]
    found = [usable and not note for usable, note in zip(probed.usable, probed.notes, strict=True)]
    return {
        "usable": float(probed.usable.mean()),
        "face_found": float(np.mean(found)),
        "genuine_pairs": int(measured[0]["genuine_pairs"]),
        "impostor_pairs": int(measured[0]["impostor_pairs"]),
        **{key: spread([m[key] for m in measured]) for key in measured[0] if not key.endswith("_pairs")},
    }


def run_mode(extract: Extract, data: Data, runs: int) -> dict[str, Any]:
    """All figures of one way of preparing captures."""
    started = time.perf_counter()
    enrolled = extract(data.captures)
    seconds = time.perf_counter() - started
    lit = extract([shaded(capture, seed) for seed, capture in enumerate(data.captures)])
    return {
        "seconds_per_capture": seconds / len(data.captures),
        "as-captured": rates_of(enrolled, enrolled, data.persons, runs),
        "hard-light": rates_of(enrolled, lit, data.persons, runs),
    }


def show(results: dict[str, dict[str, Any]]) -> None:
    keys = ["rank1", *(f"tar_at_fmr_{fmr:g}" for fmr in FMRS)]
    table = Table(title="one reference a person, mean ± sd over choices of the reference, %")
    for heading in ("mode", "probes", "rank-1", *(f"TAR at FMR {fmr:g}" for fmr in FMRS), "face found", "s/capture"):
        table.add_column(heading, justify="left" if heading in ("mode", "probes") else "right")
    for mode, result in results.items():
        for probes in PROBES:
            rates = [f"{100 * result[probes][key]['mean']:.1f} ± {100 * result[probes][key]['sd']:.1f}" for key in keys]
            found = f"{100 * result[probes]['face_found']:.1f}"
            table.add_row(mode, probes, *rates, found, f"{result['seconds_per_capture']:.3f}")
    Console(width=120).print(table)


def about(folder: Path, data: Data, runs: int) -> dict[str, Any]:
    return {
        "benchmark": "face_teacher",
        "made": asdict(made(range(runs), datetime.now(UTC).isoformat(timespec="seconds"))),
        "packages": {name: version(name) for name in ("dlib-bin", "face_recognition_models")},
        "data": {
            "name": folder.resolve().name,
            "persons": len(set(data.persons)),
            "captures": len(data.captures),
            "skipped": data.skipped,
        },
        "seed_means": "image of each person that is the reference; the shading has one seed a capture",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--references", type=int, default=10, help="how many choices of the reference (default 10)")
    parser.add_argument("--json", type=Path, help="write the results there")
    words = parser.parse_args()
    data = read_folder(words.folder)
    if len(set(data.persons)) < 2 or words.references < 1:
        parser.error(f"{words.folder} must hold at least two folders of images, and --references be at least 1")
    ways = modes(data.captures)
    results = {mode: run_mode(extract, data, words.references) for mode, extract in ways.items()}
    show(results)
    if words.json:
        words.json.parent.mkdir(parents=True, exist_ok=True)
        content = about(words.folder, data, words.references) | {"modes": results}
        words.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
