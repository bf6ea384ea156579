"""How fast the simulated sensor is: captures and masters a second, on one and on two processes.

    python benchmarks/sensor.py [--json OUT] [--seconds S] [--repeats N]

Each process has one thread and works alone; two start each repeat together. Four jobs:

- `captures`: presses drawn and captured in batches of 64, as for a data set; conditions from new to wear 0.8;
- `single captures`: one at a time, as a device takes them;
- `real images`: images of 92x112 pixels drifted one at a time;
- `masters`: ridge patterns grown.

A repeat works for S seconds of the clock. Written are items a second of the clock, which is what a user waits for and
depends on what else the machine does, and items a second of processor time, which depends on that much less; the load
averages before and after say what else it did. Two processes' rates are sums.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from device_sim.drift import conditions_at_wear
from device_sim.masters import grow_masters
from device_sim.provenance import made
from device_sim.sensor import Presses, Sensor

SEED = 31
BATCH = 64
PERSONS = 8
PROCESSES = (1, 2)
WANTED = 1000
"""Captures a second that two processes together should reach."""
_WAIT_S = 120


class Work:
    """One process's jobs; call number `turn` of a job gives the number of items it made."""

    def __init__(self, process: int) -> None:
        self.masters = grow_masters(SEED, range(PERSONS))
        self.sensor = Sensor(SEED, process)
        self.image = np.random.default_rng([SEED, process]).integers(0, 256, (112, 92), dtype=np.uint8)
        self.jobs: dict[str, Callable[[int], int]] = {
            "captures": self.captures,
            "single captures": self.single_capture,
            "real images": self.real_image,
            "masters": self.grown,
        }

    def captures(self, turn: int) -> int:
        person = turn % PERSONS
        presses = Presses.of(SEED, person, range(BATCH * turn, BATCH * (turn + 1)))
        masters = self.masters[person].expand(BATCH, -1, -1)
        return len(self.sensor.capture(masters, presses, conditions_at_wear(turn % 5 * 0.2)))

    def single_capture(self, turn: int) -> int:
        person = turn % PERSONS
        presses = Presses.of(SEED, person, [turn])
        return len(self.sensor.capture(self.masters[person : person + 1], presses, conditions_at_wear(turn % 5 * 0.2)))

    def real_image(self, turn: int) -> int:
        self.sensor.observe(self.image, conditions_at_wear(turn % 5 * 0.2), turn)
        return 1

    def grown(self, turn: int) -> int:
        return len(grow_masters(SEED, [1000 + turn]))


@dataclass(frozen=True)
class Rate:
    """Items a second of one process in one repeat."""

    per_second: float
    per_cpu_second: float


class _Here:
    """What a worker process keeps between tasks."""

    work: Work
    start: Any


def _settle(numbers: Any, start: Any) -> None:
    """Prepare a worker process: one thread, its own number, everything run once."""
    torch.set_num_threads(1)
    with numbers.get_lock():
        number = numbers.value
        numbers.value += 1
    _Here.work, _Here.start = Work(number), start
    for job in _Here.work.jobs.values():
        job(0)


def _timed(job: str, seconds: float) -> Rate:
    """Do `job` again and again for `seconds`, from the moment all processes are ready."""
    do, items, turn = _Here.work.jobs[job], 0, 0
    _Here.start.wait(_WAIT_S)
    clock, processor = time.perf_counter(), time.process_time()
    while time.perf_counter() - clock < seconds:
        items += do(turn)
        turn += 1
    return Rate(items / (time.perf_counter() - clock), items / (time.process_time() - processor))


def measure(processes: int, seconds: float, repeats: int) -> dict[str, list[list[Rate]]]:
    """By job, for each repeat, the rate of each process."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(processes)
    settings = (context.Value("i", 0), start)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_settle, initargs=settings) as pool:

        def repeat(job: str) -> list[Rate]:
            # Each worker waits at the barrier, so none can take two of these tasks.
            return [f.result() for f in [pool.submit(_timed, job, seconds) for _ in range(processes)]]

        jobs = ("captures", "single captures", "real images", "masters")
        return {job: [repeat(job) for _ in range(repeats)] for job in jobs}


def spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
        "min": min(values),
        "max": max(values),
    }


def summary(repeats: Sequence[Sequence[Rate]]) -> dict[str, dict[str, float]]:
    """Spread over repeats of the sums over processes."""
    sums = [{key: sum(asdict(rate)[key] for rate in rates) for key in asdict(rates[0])} for rates in repeats]
    return {key: spread([total[key] for total in sums]) for key in sums[0]}


def show(results: dict[str, dict[str, Any]], load: dict[str, Any]) -> None:
    table = Table(title=f"items a second, mean ± sd; load average {load['before'][0]:.1f} to {load['after'][0]:.1f}")
    for heading in ("job", "processes", "a second of the clock", "a second of processor time"):
        table.add_column(heading, justify="left" if heading == "job" else "right")
    for job, by_processes in results.items():
        for processes, rates in by_processes.items():
            cells = [f"{rates[key]['mean']:,.1f} ± {rates[key]['sd']:,.1f}" for key in ("per_second", "per_cpu_second")]
            table.add_row(job, processes, *cells)
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--seconds", type=float, default=0.4, help="length of a repeat (default 0.4)")
    parser.add_argument("--repeats", type=int, default=5)
    words = parser.parse_args()
    if words.seconds <= 0 or words.repeats < 1:
        parser.error("--seconds must be above 0 and --repeats at least 1")
    before = os.getloadavg()
    measured = {processes: measure(processes, words.seconds, words.repeats) for processes in PROCESSES}
    load = {"before": before, "after": os.getloadavg(), "meaning": "1, 5 and 15 minutes; the benchmark is part of it"}
    results = {job: {str(n): summary(measured[n][job]) for n in PROCESSES} for job in measured[1]}
    show(results, load)
    if words.json:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        about = {"benchmark": "sensor", "made": asdict(made([SEED], now)), "load": load}
        settings = {"repeats": words.repeats, "seconds": words.seconds, "batch": BATCH, "threads_a_process": 1}
        wanted = {"captures_a_second_on_two_processes": WANTED}
        words.json.parent.mkdir(parents=True, exist_ok=True)
        content = about | settings | {"wanted": wanted, "results": results}
        words.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
