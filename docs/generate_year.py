"""Writes docs/year.md from benchmarks/results/year.json, year_rules.json and poison.json.

    python docs/generate_year.py           # write
    python docs/generate_year.py --check   # only say whether it is up to date; exit status 1 if not

No figure in that page is written by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from page_tables import made_line, table

from device_sim.wording import percent, plural, seconds, size
from device_sim.year.report import headline, promised
from device_sim.year.result import Year, read_year
from device_sim.year.summary import pages_of, thirds

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "year.md"
HEAD = """# A year of device life

`tutelage simulate year` plays a fleet from the first day of a year to the last. Devices are the real ones, with store,
packages, worker, gate and watch on disk; only sensors, people and time are simulated. Everything follows from the seed.

| in the year of every device | how |
| --- | --- |
| seasons | light and moisture turn over the year, with weather on top |
| sensors | wear, dirt and blur grow; twice a worn sensor is replaced by a new one with scratches of its own to come |
| persons | some join, enrolled on the sensor as it is that day; some leave and are [erased](architecture.md) |
| network | out for days to weeks: labels wait, versions come later, who joins waits for it too |
| power | cut without warning, between visitors or within a training: the device starts from what lies on the disk |
| releases | new versions from the cloud, on the same day everywhere |
| strangers | 2 % of all attempts are impostors'; for a month a tenth are attackers', ever more like a victim |

Two rivals stand beside each device and look at the very same captures. The *frozen student* is the released version, as
the cloud last brought it. *Template adaptation* recognises by that student too, but draws each person's references half
way to the mean of what it lately took for that person: captures that it accepted in the sample interval, and failed
attempts that the teacher named. It shares the device's teacher and rules, and differs by how it learns.

A year of fewer days holds all of a year: seasons, sensors and incidents are spread over it by share. The gate judges no
latency here, for simulated devices share their processors.

```
tutelage simulate year                                        # four devices, 365 days, into out/year
tutelage simulate year --devices 2 --days 60 --seed 7         # some minutes
python benchmarks/year_rules.py --seeds 3 --days 180 --json benchmarks/results/year_rules.json  # half an hour
python benchmarks/poison.py --json benchmarks/results/poison.json
```
"""
ERRORS = "![Misses, and strangers accepted, over the year](images/year.png)"


def year_sections(year: Year) -> list[str]:
    """What a year came to."""
    return [
        "## What came of it",
        headline(year),
        ERRORS,
        rates_table(year),
        "Misses: genuine attempts whose first capture is not accepted as who it is. Failed: those of which no capture "
        "is. Probes and strangers' captures are measured apart each week, and met by no device. On a new sensor: "
        "strangers, had the sensor been replaced that day, which tells what the student has become apart from what the "
        "sensor has. All at score 30.",
        kept_table(year),
        "## What must never happen",
        promises_table(year),
        f"{made_line(vars(year.made))} {plural(len(year.devices), 'device')}, {year.settings['days']} days, in "
        f"{seconds(year.seconds)}.",
    ]


def rates_table(year: Year) -> str:
    """Rates by recogniser and part of the year."""
    rows = [
        [span if place == 0 else "", name, *(percent(value) for value in vars(rates).values())]
        for span, by_name in thirds(year).items()
        for place, (name, rates) in enumerate(by_name.items())
    ]
    head = [
        "",
        "",
        "misses",
        "failed",
        "impostors in",
        "attackers in",
        "probes missed",
        "strangers in",
        "on a new sensor",
    ]
    return table(head, rows)


def kept_table(year: Year) -> str:
    """What each device kept and did."""
    rows = []
    for device in year.devices:
        kept = device.pages[-1].kept
        rows.append(
            [
                str(device.number),
                f"{kept.first:,} + {kept.second:,}",
                f"{kept.labelled:,} named, {kept.abstained:,} abstained",
                str(kept.generations),
                str(kept.refused),
                str(kept.reverted),
                size(kept.bytes),
                seconds(kept.training_seconds),
                seconds(device.seconds),
            ]
        )
    head = ["device", "samples kept, first + second", "labels", "students that recognised", "refused by the gate"]
    head += ["taken back", "store", "trainings took", "simulating it took"]
    return table(head, rows)


def promises_table(year: Year) -> str:
    """What was promised, counted."""
    p = promised(year)
    rows = [
        ["captures unanswered", f"{p.unanswered:,} of {p.captures:,}"],
        ["persons enrolled again", f"{p.re_enrolments:,} of {p.enrolments:,}"],
        ["persons a device should have known and did not, by day", f"{p.persons_lost:,}"],
        ["persons a device should have forgotten and had not, by day", f"{p.persons_remembered:,} of {p.erasures:,}"],
        ["days on which references lay in another space than the running student's", f"{p.spaces_mixed:,}"],
        ["starts after a power cut", f"{p.restarts:,}"],
        ["nights on which the teacher could not be reached", f"{p.nights_without_labels:,}"],
        ["largest store", size(max(page.kept.bytes for page in pages_of(year)))],
    ]
    return table(["", "all devices"], rows)


def rules_sections(found: Mapping[str, Any]) -> list[str]:
    """What rules of the gate make of a year."""
    rows = [[rule, *(_spread(name, figures[name]) for name in RULED)] for rule, figures in found["summary"].items()]
    return [
        "## Rules of the gate",
        "The same devices, days and captures with and without scores that are lowered by what strangers came nearer "
        "([why](adr/0010-strangers-who-came-nearer.md)); the last row is what devices do. In all rows but *all of the "
        "way* the gate judges half and a quarter of a way that it refuses, and lets a reference fall short by the "
        "spread of a calibration ([why](adr/0009-part-of-the-way-through-the-gate.md), with figures of each). Years of "
        f"{found['days']} days, one device a seed, 120 strangers each, mean ± standard deviation over seeds; *taken "
        "back* counts students that had learnt from somebody who was erased, too.",
        table(["", *RULED], rows),
        made_line(found["made"]),
    ]


COUNTED = ("swaps", "refused", "taken back")
RULED = (
    "misses",
    "misses over frozen",
    "templates' misses over frozen",
    "strangers in",
    "strangers in, frozen",
    "on a new sensor",
    "on a new sensor, frozen",
    *COUNTED,
)


def _spread(name: str, figure: Mapping[str, float]) -> str:
    if name in COUNTED:
        return f"{figure['mean']:.1f} ± {figure['sd']:.1f}"
    if name.endswith("over frozen"):
        return f"{figure['mean']:.2f} ± {figure['sd']:.2f}"
    return f"{100 * figure['mean']:.1f} ± {100 * figure['sd']:.1f} %"


def poison_sections(found: Mapping[str, Any]) -> list[str]:
    """What attackers gain by poisoning."""
    parts = [
        "## Attackers who poison what a device learns from",
        "Three attackers at a device of ten persons, each after one of them. *Ten injections* (after Lovisotto et al. "
        "2020): ten captures of each get in, as near to the attacker as is still kept: features, for templates, and "
        "pixels, for the device, by the running student's gradients. *Hostile tenth*: a tenth of all attempts are "
        "fakes with up to two fifths of the victim's ridges. Shown is how many of the attackers' plain captures get in "
        "afterwards (score 30) or come near (score 20), these beside the frozen student's too. *No limits*: "
        "every accepted capture is kept and learnt from, whatever its score, and no gate judges. Misses and strangers "
        "in percent, mean ± standard deviation over seeds.",
    ]
    for attack, rows in found["summary"].items():
        cells = []
        for name, rates in rows.items():
            counts = [f"{rates[count]} of {rates['attackers']}" for count in ("admitted", "near")]
            before = rates["frozen_near"]
            ratio = f"{rates['near'] / before:.2f}" if before else "–"
            shown = [f"{100 * rates[r]['mean']:.1f} ± {100 * rates[r]['sd']:.1f}" for r in RATES]
            cells.append([name, *counts, ratio, *shown])
        head = ["", "captures that get in", "come near", "beside frozen", "misses", "strangers in"]
        parts += [f"### {attack.capitalize()}", table(head, cells), kept_line(found, attack)]
    return [*parts, made_line(found["made"])]


RATES = ("misses", "strangers_in")


def kept_line(found: Mapping[str, Any], attack: str) -> str:
    """What was kept of attackers, and what the gate said."""
    runs = [run["kept"] for run in found["runs"] if run["attack"] == attack]
    told = []
    for words in ("no limits", "limits"):
        kept, hostile = (sum(run[words][key] for run in runs) for key in ("kept", "kept_hostile"))
        passed = sum(run[words]["gate"] == "passed" for run in runs)
        told.append(
            f"with {words} {hostile} of {kept} samples are attackers', and the gate lets {passed} of {len(runs)} pass"
        )
    return f"Of what is kept, {'; '.join(told)}."


def page() -> str:
    """The whole of docs/year.md."""
    parts = [HEAD.rstrip()]
    if (RESULTS / "year.json").exists():
        parts += year_sections(read_year(RESULTS / "year.json"))
    if (RESULTS / "year_rules.json").exists():
        parts += rules_sections(json.loads((RESULTS / "year_rules.json").read_text()))
    if (RESULTS / "poison.json").exists():
        parts += poison_sections(json.loads((RESULTS / "poison.json").read_text()))
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true")
    wanted, now = page(), PAGE.read_text() if PAGE.exists() else ""
    if parser.parse_args().check:
        if wanted != now:
            print("docs/year.md is out of date: run make fmt", file=sys.stderr)
        return int(wanted != now)
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
