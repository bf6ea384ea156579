"""What an installation takes on Kubernetes: processor time and memory of each component, by the number of devices.

    python benchmarks/cluster.py [--json OUT] [--backend torchserve] [--devices 1 3 10] [--samples 10] [--pause 10]

On the cluster that the kubeconfig leads to, which needs a metrics server and the images `tutelage/NAME:TAG`. For each
number of devices the chart is installed with that many; once they have come to rest, what all Pods use is read as often
as `--samples` says, each time as the metrics server averages it over its interval. Then somebody comes to each device,
waits `--pause` seconds after a visit and comes again, to a sensor so worn that labels are asked for and trainings
begin, and the same is read again; how many came a minute is counted. Numbers of devices that are not ready in
time end the list. Visitors run on the same nodes and are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from _installation import VISITOR, Installation, NotReadyError, Use, installation

from device_sim.provenance import made

SEED = 1
WEAR = 0.6
PERSONS = 12
READY_S = 900
SERVICES = ("teacherInference", "studentDistiller", "modelRegistry")


def values(backend: str, tag: str) -> dict[str, Any]:
    """Of the release: the chart's own, with as many Pods as are asked for, and visitors who may call."""
    clients = [{"podSelector": {"matchLabels": {"tutelage/role": VISITOR}}}]
    small = {"requests": {"cpu": "10m"}}
    return {
        "image": {"tag": tag},
        "teacher": {"backend": backend, "torchserve": {"resources": small}},
        **{name: {"autoscaling": {"enabled": False}, "resources": small} for name in SERVICES},
        "labelWorker": {"resources": small},
        "distillerWorker": {"resources": small},
        "devices": {"resources": {"requests": {"cpu": "10m", "memory": "256Mi"}}},
        "networkPolicies": {"clients": clients},
    }


def spread(found: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(found), "min": min(found), "max": max(found)}


def samples(place: Installation, words: argparse.Namespace) -> tuple[datetime, list[dict[str, Use]]]:
    """So many of them, after a rest; and when that began."""
    begun = datetime.now(UTC)
    after, found = begun + timedelta(seconds=words.rest), []
    for _ in range(words.samples):
        after, use = place.sample(after)
        found.append(use)
    return begun, found


def summary(found: Sequence[Mapping[str, Use]]) -> dict[str, Any]:
    """By component: how many Pods, and what they use together."""
    return {
        component: {
            "pods": found[-1][component].pods,
            "millicores": spread([1000 * use[component].cores for use in found]),
            "mebibytes": spread([use[component].memory_bytes / 2**20 for use in found]),
        }
        for component in sorted(found[-1])
    }


def at_rest(place: Installation, words: argparse.Namespace) -> dict[str, Any]:
    """Nobody comes."""
    _, found = samples(place, words)
    return {"visited": False, "visits_a_minute": 0.0, "components": summary(found)}


def with_visits(place: Installation, devices: int, words: argparse.Namespace) -> dict[str, Any]:
    """Somebody comes to each device, again and again."""
    visit = f"--visits 1 --again --json --seed {SEED} --persons {PERSONS} --wear {WEAR} --pause {words.pause:g}"
    visit += " --timeout 120"
    with place.visited(devices, f"tutelage/device-sim:{words.tag}", visit) as came_since:
        begun, found = samples(place, words)
        minutes = (datetime.now(UTC) - begun).total_seconds() / 60
        return {"visited": True, "visits_a_minute": came_since(begun) / minutes, "components": summary(found)}


def measure(place: Installation, words: argparse.Namespace, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One entry for each number of devices, at rest and with visits, as far as they fit."""
    found: list[dict[str, Any]] = []
    for devices in words.devices:
        try:
            place.install(devices, READY_S)
            found += [{"devices": devices, **at_rest(place, words)}]
            found += [{"devices": devices, **with_visits(place, devices, words)}]
        except NotReadyError as error:
            say(f"{devices} devices do not fit: {error}")
            break
        say(f"{devices} devices: {found[-1]['visits_a_minute']:.1f} visits a minute")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--backend", choices=("torchserve", "in-process"), default="torchserve", help="of the teacher")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--samples", type=int, default=10, help="of the metrics server, each time (default 10)")
    parser.add_argument("--rest", type=float, default=60, help="seconds before the first of them (default 60)")
    parser.add_argument("--pause", type=float, default=10, help="seconds after a visit (default 10)")
    parser.add_argument("--tag", default="dev", help="of the images (default dev)")
    parser.add_argument("--namespace", default="tutelage-benchmark", help="made, and deleted in the end")
    words = parser.parse_args()
    before = os.getloadavg()
    with installation(words.namespace, values(words.backend, words.tag)) as place:
        results = measure(place, words, lambda line: print(line, file=sys.stderr, flush=True))
    content = {
        "benchmark": "cluster",
        "made": asdict(made([SEED], datetime.now(UTC).isoformat(timespec="seconds"))),
        "load": {"before": before, "after": os.getloadavg(), "meaning": "1, 5 and 15 minutes; the benchmark is part"},
        "settings": {
            **{name: getattr(words, name) for name in ("backend", "devices", "samples", "rest", "pause")},
            "wear": WEAR,
            "persons": PERSONS,
        },
        "results": results,
    }
    text = json.dumps(content, indent=2) + "\n"
    if words.json:
        words.json.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
