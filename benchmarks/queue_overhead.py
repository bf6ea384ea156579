"""What a job costs that does nothing, from being put to being done, beside dramatiq, RQ and Celery on the same Redis.

    pip install -r benchmarks/requirements-queues.txt
    python benchmarks/queue_overhead.py [--json OUT] [--jobs N] [--repeats N]

One redis-server with an append-only file, synced once a second. In each repeat every queue has its turn, in another
order each time: a fresh database, one worker process that does one job at a time, jobs put by another process. *One by
one* the next job is put when the one before is done, and the median tells what a caller waits; *in a row* all jobs are
put first and then worked off, and the time a job is that of putting plus that of working. Ratios are ours over the
best of the others in the same repeat.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _empty_jobs import DONE, KINDS
from _servers import servers
from redis import Redis
from rich.console import Console
from rich.table import Table

from device_sim.provenance import made

WORKER = Path(__file__).parent / "_empty_jobs.py"
WARM_JOBS = 20
_TIMEOUT_S = 60
VERSIONS = ("dramatiq", "rq", "celery", "kombu", "redis")


def main() -> None:
    arguments = _arguments()
    with servers() as started:
        url = f"redis://127.0.0.1:{started.redis_port}/0"
        repeats = []
        for repeat in range(arguments.repeats):
            names = list(KINDS)
            turn = repeat % len(names)
            order = names[turn:] + names[:turn]
            repeats.append({name: measured(name, url, arguments.jobs) for name in order})
            sys.stderr.write(f"repeat {repeat + 1} of {arguments.repeats}\n")
    result = summary(repeats, arguments.jobs)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    show(result)


def measured(name: str, url: str, jobs: int) -> dict[str, float]:
    """Milliseconds a job of one queue, one by one and in a row."""
    redis = Redis.from_url(url)
    redis.flushall()
    queue = KINDS[name](url)
    with worker(name, url):
        for _ in range(WARM_JOBS):
            queue.put()
            await_done(redis, 1)
        waits = []
        for _ in range(jobs):
            begun = time.perf_counter()
            queue.put()
            await_done(redis, 1)
            waits.append(time.perf_counter() - begun)
    putting = -time.perf_counter()
    for _ in range(jobs):
        queue.put()
    putting += time.perf_counter()
    with worker(name, url):
        await_done(redis, 1)  # the worker has started
        working = -time.perf_counter()
        await_done(redis, jobs - 1)
        working += time.perf_counter()
    redis.close()
    return {
        "one_by_one_ms": 1000 * statistics.median(waits),
        "in_a_row_ms": 1000 * (putting / jobs + working / (jobs - 1)),
        "put_ms": 1000 * putting / jobs,
    }


@contextmanager
def worker(name: str, url: str) -> Iterator[None]:
    """A process that works on the queue until the block ends."""
    process = subprocess.Popen([sys.executable, str(WORKER), name, url], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def await_done(redis: Redis, count: int) -> None:
    """Return when so many more jobs are done."""
    for _ in range(count):
        if redis.blpop([DONE], timeout=_TIMEOUT_S) is None:
            sys.exit("a job was not done in time")


def summary(repeats: Sequence[dict[str, dict[str, float]]], jobs: int) -> dict[str, Any]:
    """All numbers, and the ratios with their spread."""
    ways = ("one_by_one_ms", "in_a_row_ms")
    ratios = {
        way: [round(r["tutelage"][way] / min(r[n][way] for n in KINDS if n != "tutelage"), 3) for r in repeats]
        for way in ways
    }
    return {
        "benchmark": "queue_overhead",
        "made": asdict(made([], datetime.now(UTC).date().isoformat())),
        "versions": {name: version(name) for name in VERSIONS},
        "jobs": jobs,
        "repeats": [{name: {k: round(v, 4) for k, v in found.items()} for name, found in r.items()} for r in repeats],
        "median_ms": {
            name: {way: round(statistics.median(r[name][way] for r in repeats), 4) for way in ways} for name in KINDS
        },
        "ratio_to_best": {
            way: {"median": statistics.median(found), "least": min(found), "most": max(found)}
            for way, found in ratios.items()
        },
    }


def show(result: dict[str, Any]) -> None:
    table = Table("queue", "one by one, ms", "in a row, ms")
    for name, found in result["median_ms"].items():
        table.add_row(name, f"{found['one_by_one_ms']:.2f}", f"{found['in_a_row_ms']:.2f}")
    Console().print(table)
    for way, found in result["ratio_to_best"].items():
        print(f"{way}: {found['median']:.2f} of the best other ({found['least']:.2f} to {found['most']:.2f})")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=8)
    return parser.parse_args()


if __name__ == "__main__":
    main()
