"""The formulas of the losses as slow loops over plain numbers: rows of samples, lists of rows for exits."""

from __future__ import annotations

import math

Row = list[float]


def slow_softmax(row: Row, temperature: float = 1.0) -> Row:
    powers = [math.exp((value - max(row)) / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def slow_kl(target: Row, prediction: Row) -> float:
    return sum(p * math.log(p / q) for p, q in zip(target, prediction, strict=True) if p > 0)


def slow_dot(a: Row, b: Row) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def slow_square_distance(a: Row, b: Row) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def slow_mean(rows: list[Row]) -> Row:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def slow_classification(logits: list[list[Row]], targets: list[Row], weights: Row) -> float:
    total = 0.0
    for exit_logits in logits:
        for row, target, weight in zip(exit_logits, targets, weights, strict=True):
            prediction = slow_softmax(row)
            total += weight * -sum(t * math.log(p) for t, p in zip(target, prediction, strict=True))
    return total / (len(logits) * len(targets))


def slow_divergence(targets: list[Row], logits: list[list[Row]], temperature: float) -> float:
    total = 0.0
    for exit_logits in logits:
        for target, row in zip(targets, exit_logits, strict=True):
            total += slow_kl(target, slow_softmax(row, temperature))
    return temperature**2 * total / (len(logits) * len(targets))


def slow_fused_target(logits: list[list[Row]], temperature: float) -> list[Row]:
    return [slow_softmax(slow_mean(list(rows)), temperature) for rows in zip(*logits, strict=True)]


def slow_one_to_many(features: list[list[Row]]) -> float:
    terms = [1 - slow_dot(u, last) for early in features[:-1] for u, last in zip(early, features[-1], strict=True)]
    return sum(terms) / len(terms)


def slow_last_exit_guidance(logits: list[list[Row]], temperature: float) -> float:
    return slow_divergence([slow_softmax(row, temperature) for row in logits[-1]], logits[:-1], temperature)


def slow_feature_hint(features: list[list[Row]]) -> float:
    terms = [slow_square_distance(u, v) for early in features[:-1] for u, v in zip(early, features[-1], strict=True)]
    return sum(terms) / len(terms)


def slow_mean_feature_hint(features: list[list[Row]]) -> float:
    centres = [slow_mean(list(rows)) for rows in zip(*features, strict=True)]
    terms = [slow_square_distance(u, c) for exit_rows in features for u, c in zip(exit_rows, centres, strict=True)]
    return sum(terms) / len(terms)


def slow_drift(now: list[list[Row]], before: list[list[Row]]) -> float:
    pairs = [(a, b) for x, y in zip(now, before, strict=True) for a, b in zip(x, y, strict=True)]
    return sum(1 - slow_dot(a, b) for a, b in pairs) / len(pairs)


def slow_direction(mapped: list[list[Row]], teacher: list[Row]) -> float:
    pairs = [(m, t) for rows in mapped for m, t in zip(rows, teacher, strict=True)]
    return sum(1 - slow_dot(m, t) / math.sqrt(slow_dot(m, m) * slow_dot(t, t)) for m, t in pairs) / len(pairs)
