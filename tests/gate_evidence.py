"""What a gate judges, made of a few scores; and slow counterparts of its formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence

from device_sim.evidence import Evidence, ScoredCapture
from device_sim.gate import Check, GateRules, judge_gate

RULES = GateRules()
HIT, MISS = 40.0, 20.0
# All of them stay below every mark.
FAR = (1.0,) * 160


def samples(*own: float, other: float | None = 0.0, person: str = "") -> tuple[ScoredCapture, ...]:
    """Held-back samples with these scores, two a person unless one is named."""
    return tuple(ScoredCapture(person or f"p{i // 2}", score, other) for i, score in enumerate(own))


def lone(persons: int, *, others: Sequence[float] = ()) -> tuple[ScoredCapture, ...]:
    """One reference a person, the first ones with these scores to another person's."""
    padded = (*others, *(0.0,) * (persons - len(others)))
    return tuple(ScoredCapture(f"p{i}", None, other) for i, other in enumerate(padded))


def shared(*own: float) -> tuple[ScoredCapture, ...]:
    """References of persons who have several."""
    return tuple(ScoredCapture(f"p{i}", score, 0.0) for i, score in enumerate(own))


def evidence(
    held_back: tuple[ScoredCapture, ...] = samples(*(HIT,) * 20),
    references: tuple[ScoredCapture, ...] = lone(16),
    strangers: tuple[float, ...] = FAR,
    latency_s: tuple[float, ...] = (0.010,),
) -> Evidence:
    return Evidence(held_back, references, strangers, latency_s)


def accepted(count: int, score: float = HIT) -> tuple[float, ...]:
    return (*(score,) * count, *FAR[count:])


def check(
    name: str,
    running: Evidence,
    candidate: Evidence,
    rules: GateRules = RULES,
    released: Sequence[float] | None = None,
) -> Check:
    (found,) = (c for c in judge_gate(running, candidate, rules, released=released).checks if c.name == name)
    return found


def at_least(k: int, n: int, p: float) -> float:
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


def upper_bound(k: int, n: int, confidence: float) -> float:
    """Largest rate at which k or fewer of n are no rarer than half the risk, by halving the interval."""
    if k == n:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if 1.0 - at_least(k + 1, n, middle) > (1 - confidence) / 2:
            low = middle
        else:
            high = middle
    return low


def by_chance(n: int, rate: float, confidence: float) -> int:
    return next(k for k in range(n + 1) if at_least(k + 1, n, rate) <= 1 - confidence)
