"""Ways to learn on a device, compared: the synthetic drift suite, and real images with two teachers.

    python benchmarks/comparison.py synthetic --json benchmarks/results/comparison-synthetic.json
    python benchmarks/comparison.py images --data FOLDER --teacher train --json FILE
    python benchmarks/comparison.py images --data FOLDER --teacher face --json FILE
    python benchmarks/comparison.py synthetic --study choices --json benchmarks/results/choices-synthetic.json

The study `methods`: methods x wrong labels (0, 10, 20 %) x sample rules on and off. The study `choices`: one way to
learn, and one thing changed at a time in how its labels are chosen and used. Every seed has other persons, another
sensor and other captures; all cases of a seed share them, so that tests are paired.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from device_sim.evaluation.compare import METHODS, Case, Ground, against, cases, run, summarise
from device_sim.evaluation.grounds import ImageGrounds, SyntheticGrounds
from device_sim.evaluation.present import markdown
from device_sim.learning import LearningRules
from device_sim.models import IMAGE_LEAD, LEAD
from device_sim.provenance import made
from device_sim.site import ImageDrift
from tutelage.manifest import read_manifest, split_folder
from tutelage.nn.self_distil import SelfDistillation

WRONG = (0.0, 0.1, 0.2)
PAIRS = tuple(
    (f"{case}, rules on", f"{other}, rules {rules}", readout)
    for case, other, rules, readout in (
        ("classify, 0% wrong", "last-exit, 0% wrong", "on", "exit1"),
        ("patent, 0% wrong", "last-exit, 0% wrong", "on", "exit1"),
        ("patent, 0% wrong", "classify, 0% wrong", "on", "exit1"),
        *(
            pair
            for readout in ("exit4", "fused")
            for pair in (
                ("classify, 0% wrong", "frozen, 0% wrong", "on", readout),
                ("classify, 0% wrong", "template, 0% wrong", "on", readout),
                ("classify, 0% wrong", "last-exit, 0% wrong", "on", readout),
                ("patent, 0% wrong", "classify, 0% wrong", "on", readout),
                ("byot, 0% wrong", "classify, 0% wrong", "on", readout),
                ("eed, 0% wrong", "classify, 0% wrong", "on", readout),
                ("classify, 20% wrong", "classify, 20% wrong", "off", readout),
                ("patent, 20% wrong", "patent, 20% wrong", "off", readout),
            )
        ),
    )
)
"""What is tested against what, and on which readout."""

BASE = "as shipped"
MARGINS = (0.0, 0.2, 0.4, 0.8, 1.2, 1.6, 2.4)
"""Leads in standard deviations of the cosines between strangers, as `LEAD`."""
RANKS = (1, 2, 3, 5, 1000)


def choices(preset: str, lead: float) -> list[Case]:
    """What can be chosen about labels and samples, one thing changed at a time; a tenth of the labels wrong in some.

    `lead` is that of the policy as shipped.
    """
    shipped = LearningRules()
    changed = {
        "soft labels": replace(shipped, soft_labels=not shipped.soft_labels),
        "confidence weights": replace(shipped, confidence_weights=not shipped.confidence_weights),
        "last capture of an attempt": replace(shipped, whole_attempts=not shipped.whole_attempts),
    }
    found = [
        Case("frozen", title="frozen"),
        Case(preset, title=BASE),
        Case(preset, oracle=True, title="perfect labels"),
    ]
    found += [Case(preset, learning=rules, title=title) for title, rules in changed.items()]
    found += [
        Case(preset, negatives=False, title="no negatives"),
        Case(preset, wrong=0.1, title="10% wrong"),
    ]
    for rank in RANKS:
        rules, title = replace(shipped, plausible_rank=rank), f"within {rank} nearest" if rank < 1000 else "unchecked"
        found += [Case(preset, wrong=w, learning=rules, title=f"{title}, {w:.0%} wrong") for w in (0.0, 0.1)]
    return found + [Case(preset, margin=m / lead, title=f"lead {m:g}") for m in MARGINS]


def main() -> None:
    """Run the comparison and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=("synthetic", "images"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--teacher", default="train")
    parser.add_argument("--wear", type=float, default=0.2)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--wrong", default=",".join(map(str, WRONG)))
    parser.add_argument("--study", choices=("methods", "choices"), default="methods")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    grounds, about = _grounds(args)
    settings, learning = SelfDistillation(), LearningRules()
    methods, wrong = args.methods.split(","), [float(w) for w in args.wrong.split(",")]
    lead = LEAD if args.suite == "synthetic" else IMAGE_LEAD
    wanted = choices(settings.preset, lead) if args.study == "choices" else cases(methods, wrong)
    changed = [case.name for case in wanted if case.title not in ("", BASE)]
    pairs = [(name, BASE, readout) for readout in ("exit4", "fused") for name in changed] or PAIRS
    started = time.monotonic()
    rows = run(range(args.seeds), grounds, wanted, settings, learning, processes=args.processes, progress=_say(started))
    summary = summarise(rows)
    names = {row["name"] for row in rows}
    tests = [
        {"case": a, "against": b, "readout": readout, "tar_1e3": against(rows, a, b, readout)}
        for a, b, readout in pairs
        if a in names and b in names
    ]
    document = {
        "made": asdict(made(range(args.seeds), datetime.now(UTC).isoformat(timespec="seconds"))),
        "seconds": round(time.monotonic() - started),
        "study": args.study,
        **about,
        "settings": asdict(settings),
        "learning": asdict(learning),
        "tests": tests,
        "summary": summary,
        "rows": rows,
    }
    args.json.write_text(json.dumps(document, indent=1) + "\n")
    print(markdown(summary))
    for test in tests:
        print(f"{test['case']} - {test['against']} ({test['readout']}): {test['tar_1e3']}")


def _grounds(args: argparse.Namespace) -> tuple[Callable[[int], Ground], dict[str, Any]]:
    """Where the suite takes place, and what the JSON says of it."""
    if args.suite == "synthetic":
        synthetic = SyntheticGrounds()
        return synthetic, {"suite": "synthetic", "size": asdict(synthetic.size)}
    manifest = split_folder(args.data) if args.data.is_dir() else read_manifest(args.data)
    drift = ImageDrift(wear=args.wear)
    about = {"suite": "images", "data": args.data.name, "teacher": args.teacher, "drift": asdict(drift)}
    return ImageGrounds(manifest, args.teacher, drift), about


def _say(started: float) -> Callable[[int, int], None]:
    """Progress on standard output, a line a seed."""
    return lambda done, seeds: print(f"{done} of {seeds} seeds, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
