"""Writes docs/results.md, and the tables within README.md and other pages, from the JSON files in benchmarks/results.

    python docs/generate_results.py           # write
    python docs/generate_results.py --check   # only say whether they are up to date; exit status 1 if not

No figure in those pages is written by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cost_sections import cost_section, sparse_section
from page_tables import cell, made_line, percent, table

from tutelage.biometrics.error_rates import clopper_pearson

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"
README = ROOT / "README.md"
START, END = "<!-- results: made by docs/generate_results.py -->", "<!-- end of results -->"
HEAD = """# Measured results

Made by `docs/generate_results.py` from the files in `benchmarks/results/`; each section says with what its file was
made. TAR is the share of genuine comparisons accepted, FMR the share of comparisons of different persons that match.
Every threshold is fixed before anything is measured, on people of the calibration set. Figures with ± are mean and
standard deviation over seeds.
"""
READOUTS = ("exit1", "exit2", "exit3", "exit4", "fused")
RATES = {"rank1": "rank-1", "eer": "EER", "tar_1e2": "TAR at 1e-2", "tar_1e3": "TAR at 1e-3", "strangers": "strangers"}
COMPARISONS = {
    "comparison-synthetic": "Ways to learn: synthetic fingerprints",
    "comparison-images-train": "Ways to learn: ORL faces, teacher trained on the cloud's half",
    "comparison-images-face": "Ways to learn: ORL faces, public face teacher",
}


def demo_table(result: Mapping[str, Any]) -> str:
    """What a demonstration ends with."""
    rows = [
        [
            row["name"],
            *(percent(row[when][rate]) for rate in ("fnmr", "rank1", "strangers") for when in ("before", "after")),
        ]
        for row in result["table"]
    ]
    head = ["", "misses, new sensor", "worn", "rank-1, new", "worn", "strangers accepted, new", "worn"]
    return table(head, rows)


def demo_section(title: str, result: Mapping[str, Any]) -> str:
    """Table and account of a demonstration."""
    labels, trainings = result["labels"], result["trainings"]
    passed = [t for t in trainings if t["verdict"] == "passed"]
    seconds = sorted(t["seconds"] for t in trainings)
    peak = max((t["peak_bytes"] for t in trainings), default=0)
    middle = f"{seconds[len(seconds) // 2]:.1f} s in the middle" if seconds else "none ran"
    account = (
        f"Labels: {labels['asked']} attempts asked about, {labels['stored']} named, {labels['abstained']} abstained, "
        f"{percent(labels['precision'])} of the names right. "
        f"Trainings: {len(trainings)}, {len(passed)} passed the gate; {middle}, at most {peak / 2**20:.0f} MiB."
    )
    return f"## {title}\n\n{demo_table(result)}\n\n{account} Misses are at FMR 1e-3.\n\n{made_line(result['made'])}\n"


def release_section(release: Mapping[str, Any]) -> str:
    """Error rates of the shipped models over wear."""
    rows = []
    for name in ("teacher", "tiny", "small"):
        for wear, readouts in release.get(name, {}).items():
            cells = [readouts[r]["tar@0.001"] for r in (*READOUTS, "teacher") if r in readouts]
            shown = [f"{c:.1f}" for c in cells] if len(cells) > 1 else ["", "", "", "", f"{cells[0]:.1f}"]
            rows.append([name, wear, *shown])
    about = (
        f"TAR at FMR 1e-3, percent, of {release['persons']} persons nobody was trained on, three captures each; "
        "references on a new sensor, probes at the wear given."
    )
    rates = table(["model", "wear", *READOUTS], rows)
    return f"## The shipped models\n\n{about}\n\n{rates}\n\n{made_line(release['made'])}\n"


def card_table(release: Mapping[str, Any]) -> str:
    """The shipped models' rates over wear, the student's by the exit that it recognises with."""
    rows = [
        [name, wear, *(f"{found[readout][rate]:.1f}" for rate in ("rank1", "tar@0.01", "tar@0.001", "tar@0.0001"))]
        for name, readout in (("teacher", "teacher"), ("tiny", "exit4"))
        for wear, found in release[name].items()
    ]
    about = f"Percent, on {release['persons']} synthetic persons nobody was trained on. {made_line(release['made'])}"
    head = ["model", "wear", "rank-1", "TAR at FMR 1e-2", "TAR at FMR 1e-3", "TAR at FMR 1e-4"]
    return f"{about}\n\n{table(head, rows)}"


def comparison_section(title: str, found: Mapping[str, Any]) -> str:
    """Every case of a comparison, and its paired tests."""
    rows = []
    for name, states in found["summary"].items():
        worn = states["worn"]
        tars = [cell(worn[r]["tar_1e3"]) for r in READOUTS]
        strangers = [cell(worn[r].get("strangers")) for r in ("exit4", "fused")]
        rows.append([name, *tars, *(cell(worn["fused"].get(k)) for k in ("tar_1e2", "rank1", "eer")), *strangers])
    head = ["case", *(f"TAR {r}" for r in READOUTS), "TAR at 1e-2", "rank-1", "EER"]
    head += ["strangers exit4", "fused"]
    tests = [
        [t["case"], t["against"], t["readout"], f"{100 * t['tar_1e3']['mean_difference']:+.1f}", _p(t["tar_1e3"])]
        for t in found["tests"]
    ]
    parts = [
        f"## {title}",
        "On the worn sensor, percent; TAR at FMR 1e-3 by readout, the next three columns fused, then the strangers "
        "accepted by each readout that a device recognises with.",
        table(head, rows),
        readouts_table(found["summary"]),
        "Paired over seeds, points of TAR at FMR 1e-3:",
        table(["case", "against", "readout", "difference", "p"], tests),
        "\n".join(f"- {claim}" for claim in (*_claims(found["summary"]), *_guidance(found), *_strangers(found))),
        made_line(found["made"]),
    ]
    return "\n\n".join(parts) + "\n"


def readouts_table(summary: Mapping[str, Any]) -> str:
    """Every rate of every readout, for labels that nobody made wrong; folded away."""
    rows = [
        [name, readout, *(cell(states["worn"][readout].get(rate)) for rate in RATES)]
        for name, states in summary.items()
        if name.endswith((", 0% wrong, rules on", "perfect labels, rules on"))
        for readout in READOUTS
    ]
    shown = table(["case", "readout", *RATES.values()], rows)
    return f"<details>\n<summary>Every rate of every exit and of all fused</summary>\n\n{shown}\n\n</details>"


def _p(test: Mapping[str, Any]) -> str:
    return "–" if test["p_value"] is None else f"{test['p_value']:.3f}"


def _claims(summary: Mapping[str, Any], readouts: Sequence[str] = ("exit4", "fused")) -> Iterator[str]:
    """What the numbers say about regained accuracy."""
    for readout in readouts:
        rate = {name: states["worn"][readout]["tar_1e3"]["mean"] for name, states in summary.items()}
        new = summary["frozen, 0% wrong, rules on"]["new"][readout]["tar_1e3"]["mean"]
        frozen = rate["frozen, 0% wrong, rules on"]
        yield f"On `{readout}` the frozen student falls from {percent(new)} on a new sensor to {percent(frozen)}."
        for method in ("classify", "patent"):
            learnt, perfect = rate[f"{method}, 0% wrong, rules on"], rate[f"{method}, perfect labels, rules on"]
            if min(perfect, learnt) <= frozen:
                continue
            left = (rate[f"{method}, 20% wrong, rules on"] - frozen) / (learnt - frozen)
            yield (
                f"On `{readout}`, `{method}` regains {100 * (learnt - frozen) / (perfect - frozen):.0f} % of what "
                f"perfect labels regain; with 20 % wrong labels {100 * left:.0f} % of its gain is left."
            )


def _guidance(found: Mapping[str, Any]) -> Iterator[str]:
    """What the guidance of the fused prediction and of the last exit adds to classification at every exit."""
    pair = ("patent, 0% wrong, rules on", "classify, 0% wrong, rules on")
    tests = [t for t in found["tests"] if (t["case"], t["against"]) == pair]
    if tests:
        told = (
            f"{100 * t['tar_1e3']['mean_difference']:+.1f} points on `{t['readout']}` (p {_p(t['tar_1e3'])})"
            for t in tests
        )
        yield f"Parts (b) and (c) of the loss, `patent` against `classify`: {', '.join(told)}."


def _strangers(found: Mapping[str, Any]) -> Iterator[str]:
    """Strangers accepted on the worn sensor against the frozen student's bound, where it is known how many came."""
    if "size" not in found:
        return
    came = found["size"]["strangers"] * len(found["made"]["seeds"])
    rates = (found["summary"][f"{m}, 0% wrong, rules on"]["worn"]["exit4"] for m in ("frozen", "classify", "patent"))
    frozen, *others = (round(came * rate["strangers"]["mean"]) for rate in rates)
    bound = clopper_pearson(frozen, came)[1]
    yield (
        f"Of {came} strangers the frozen student accepts {frozen} on `exit4`, upper 95 % bound {percent(bound)} or "
        f"{bound * came:.1f}; `classify` {others[0]}, `patent` {others[1]}."
    )


DEMOS = {
    "demo-synthetic": "`make demo`, synthetic fingerprints",
    "demo-images-face": "ORL faces, `--teacher face`",
    "demo-images": "ORL faces",
}
"""Demonstrations that README.md shows, with their titles there."""
SECTIONS: dict[str, Callable[[Any], str]] = {
    "demo-synthetic": lambda r: demo_section("The demonstration: synthetic fingerprints", r),
    "demo-images": lambda r: demo_section("The demonstration: ORL faces", r),
    "demo-images-face": lambda r: demo_section("The demonstration: ORL faces, public face teacher", r),
    "release": release_section,
    **{name: partial(comparison_section, title) for name, title in COMPARISONS.items()},
}


def choices_section(title: str, note: str, readout: str, found: Mapping[str, Any]) -> str:
    """What one change in choosing and using labels is worth, and gain against coverage."""
    tests = {t["case"]: t["tar_1e3"] for t in found["tests"] if t["readout"] == readout}
    rows = []
    for name, states in found["summary"].items():
        last, of_case = states["worn"][readout], [row for row in found["rows"] if row["name"] == name]
        test = tests.get(name)
        difference = "–" if test is None else f"{100 * test['mean_difference']:+.1f} (p {_p(test)})"
        shares = [_mean([row[key] for row in of_case]) for key in ("coverage", "label_precision", "precision")]
        rates = [cell(last[key]) for key in ("tar_1e2", "tar_1e3", "rank1", "eer", "strangers")]
        rows.append([name, *rates, difference, *map(percent, shares)])
    head = ["case", "TAR at 1e-2", "TAR at 1e-3", "rank-1", "EER", "strangers", "TAR 1e-3 against *as shipped*"]
    head += ["attempts labelled", "labels right", "samples right"]
    about = (
        f"One thing changed at a time, on the worn sensor, `{readout}`, percent. *Attempts labelled* is the coverage: "
        "the share of the attempts asked about that the teacher names; *labels right* of those names, *samples right* "
        "of all that is learnt from. *lead m* names whoever leads by m standard deviations of the cosines between "
        "strangers, however far away; *within k nearest* is the check of plausibility."
    )
    return f"## {title}\n\n{about} {note}\n\n{table(head, rows)}\n\n{made_line(found['made'])}\n"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def sensor_table(found: Mapping[str, Any]) -> str:
    """Captures and masters a second."""
    rows = [
        [job, processes, *(f"{r[k]['mean']:,.0f} ± {r[k]['sd']:,.0f}" for k in ("per_second", "per_cpu_second"))]
        for job, by in found["results"].items()
        for processes, r in by.items()
    ]
    head = ["job", "processes", "a second of the clock", "a second of processor time"]
    load = f"load average {found['load']['before'][0]:.1f} before, {found['load']['after'][0]:.1f} after"
    about = f"Items a second, mean ± standard deviation over {found['repeats']} repeats, one thread a process; {load}."
    return f"{about} {made_line(found['made'])}\n\n{table(head, rows)}"


def face_table(found: Mapping[str, Any]) -> str:
    """Error rates of the face teacher by preparation."""
    names = {
        "squeezed": "squeezed to 150x150, no detector (comparison only)",
        "aligned": "aligned (default)",
        "site": "aligned, `for_site`",
        "site-equalised": "aligned, `for_site`, equalised",
    }
    rows = []
    for mode, result in found["modes"].items():
        for probes in ("as-captured", "hard-light"):
            rates = [cell(result[probes][k]) for k in ("rank1", "tar_at_fmr_0.01", "tar_at_fmr_0.001")]
            seen = percent(result[probes]["face_found"]) if mode != "squeezed" else "–"
            rows.append([names[mode], probes, *rates, seen, f"{result['seconds_per_capture']:.2f}"])
    head = ["preparation", "probes", "rank-1", "TAR at FMR 1e-2", "TAR at FMR 1e-3", "face found", "s a capture"]
    return f"{made_line(found['made'])}\n\n{table(head, rows)}"


SECTIONS |= {
    "choices-synthetic": partial(
        choices_section,
        "Choosing and using labels: synthetic fingerprints",
        "Attempts without a label are strangers'. *margin m* is in cosine; the standard deviation is 0.11.",
        "exit4",
    ),
    "choices-images-train": partial(
        choices_section,
        "Choosing and using labels: ORL faces, trained teacher",
        "*As shipped* still abstained below the cosine that one stranger in 100 reaches; these figures are why it no "
        "longer does, and why a lead of 0.2 is enough.\n\n![What labels are worth by coverage](images/coverage.png)",
        "fused",
    ),
    "self_distillation": cost_section,
    "sparse_update": sparse_section,
}
TABLES = {
    ROOT / "docs" / "sensor.md": ("sensor", sensor_table),
    ROOT / "docs" / "teachers" / "face.md": ("face_teacher", face_table),
    ROOT / "docs" / "teachers" / "fingerprint.md": ("release", card_table),
}
"""Pages in which one table is made, from which file and how."""


def read(name: str) -> Any:
    """A result file; None where it was not made yet."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def page() -> str:
    """The whole of docs/results.md."""
    found = [(make, read(name)) for name, make in SECTIONS.items()]
    return "\n".join([HEAD, *(make(result) for make, result in found if result is not None)])


def readme() -> str:
    """The tables of README.md."""
    parts = []
    for name, title in DEMOS.items():
        result = read(name)
        if result is not None:
            parts.append(f"{title} ({made_line(result['made']).rstrip('.')}):\n\n{demo_table(result)}")
    parts.append(ways_to_learn(read("comparison-synthetic")))
    return "\n\n".join(parts)


def ways_to_learn(found: Mapping[str, Any]) -> str:
    """The short form of a comparison: what each way to learn brings, and what wrong labels leave of it."""
    names = ("frozen", "template", "last-exit", "byot", "eed", "classify", "patent")
    cases = [(name, f"{name}, 0% wrong, rules on") for name in names]
    cases += [("patent, a fifth of the labels wrong", "patent, 20% wrong, rules on")]
    cases += [("the same without the rules", "patent, 20% wrong, rules off")]
    cases += [("patent, perfect labels", "patent, perfect labels, rules on")]
    rows = []
    for title, name in cases:
        worn = found["summary"][name]["worn"]
        tars = [cell(worn[readout]["tar_1e3"]) for readout in ("exit1", "exit4", "fused")]
        rows.append([title, *tars, cell(worn["exit4"]["strangers"])])
    about = (
        "Ways to learn on the worn sensor, genuine captures accepted at FMR 1e-3, percent, mean ± standard deviation "
        f"over {len(found['made']['seeds'])} seeds ({made_line(found['made']).rstrip('.')}):"
    )
    return f"{about}\n\n{table(['', 'first exit', 'last exit', 'fused', 'strangers accepted'], rows)}"


def renewed(path: Path, made: str) -> str:
    """The text of a page with what is between its two marks renewed."""
    before, rest = path.read_text().split(START, 1)
    _, after = rest.split(END, 1)
    return f"{before}{START}\n\n{made}\n\n{END}{after}"


def main() -> int:
    """Write or check all pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    wanted = {PAGE: page(), README: renewed(README, readme())}
    wanted |= {path: renewed(path, make(read(name))) for path, (name, make) in TABLES.items()}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if args.check:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run make fmt", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(wanted[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
