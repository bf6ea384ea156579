"""Times of calls that are compared: wall and processor seconds, in repeats in which all ways take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

WARM_UP = 10
"""Calls of each way in a repeat that are not counted."""

Call = Callable[[int], object]
"""Does what is timed, for the i-th time."""


@dataclass
class Times:
    """Seconds of calls, in one list a repeat."""

    wall: list[list[float]] = field(default_factory=list)
    processor: list[list[float]] = field(default_factory=list)
    """Of the calling thread, which does all the work: what others on the machine do adds less to these."""

    def take(self, call: Call, calls: int, first: int) -> None:
        """One repeat, after some calls that are not counted."""
        wall, processor = [], []
        for i in range(first, first + WARM_UP + calls):
            started, began = time.perf_counter(), time.thread_time()
            call(i)
            processor.append(time.thread_time() - began)
            wall.append(time.perf_counter() - started)
        self.wall.append(wall[WARM_UP:])
        self.processor.append(processor[WARM_UP:])

    def latency(self) -> dict[str, float]:
        """Milliseconds over all repeats."""
        every = 1e3 * np.concatenate([np.asarray(seconds) for seconds in self.wall])
        p50, p99 = np.percentile(every, [50, 99])
        own = 1e3 * statistics.fmean(seconds for repeat in self.processor for seconds in repeat)
        return {
            "mean_ms": float(every.mean()),
            "p50_ms": float(p50),
            "p99_ms": float(p99),
            "processor_ms": own,
            "calls": every.size,
        }

    def over(self, other: Times) -> dict[str, Any]:
        """Means over those of `other` in the same repeats."""
        return {
            "wall": spread([a / b for a, b in zip(means(self.wall), means(other.wall), strict=True)]),
            "processor": spread([a / b for a, b in zip(means(self.processor), means(other.processor), strict=True)]),
        }

    def more_than(self, other: Times) -> dict[str, Any]:
        """Milliseconds that the means lie above those of `other` in the same repeats."""
        return {
            "wall": spread([1e3 * (a - b) for a, b in zip(means(self.wall), means(other.wall), strict=True)]),
            "processor": spread(
                [1e3 * (a - b) for a, b in zip(means(self.processor), means(other.processor), strict=True)]
            ),
        }


def rounds(ways: Mapping[str, Call], repeats: int, calls: int, seed: int) -> dict[str, Times]:
    """Times of every way; in each repeat they take turns in another order."""
    found = {name: Times() for name in ways}
    for repeat in range(repeats):
        for place in np.random.default_rng([seed, repeat]).permutation(len(ways)):
            name = list(ways)[place]
            found[name].take(ways[name], calls, repeat * calls)
    return found


def means(repeats: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.fmean(seconds) for seconds in repeats]


def spread(values: Sequence[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": list(values)}
