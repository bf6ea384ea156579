"""Job specs: what to distil, from what, and what it may cost, with every rule that a spec must keep.

A spec is equal to another, and a repeated call therefore known, by its canonical JSON: defaults are filled in first, so
that leaving a field out and writing its default are the same wish.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import timedelta
from typing import Any

from tutelage.canonical import canonical_json
from tutelage.errors import RequestError

__all__ = ["Budget", "JobSpec", "LossWeights", "Training", "check_key"]

MOST_STEPS = 1_000_000
MOST_BATCH = 8192
MOST_PROCESSES = 64
LEAST_MEMORY_BYTES = 256 << 20
MOST_MEMORY_BYTES = 1 << 50
"""A pebibyte: beyond any machine, within what every part of the way can count."""
LONGEST = timedelta(days=365)
"""Longest budget; a job of a year is a mistake of the unit."""
MOST_SEED = 2**53 - 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY = re.compile(r"[A-Za-z0-9._-]{1,64}")
_VERSION = re.compile(r"v(0|[1-9][0-9]{0,8})")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SIZES = ("tiny", "small")
_SPACE_CHARACTERS = 200
_DIGEST_WORDS = "sha256: and 64 lower-case hexadecimal digits"
_NAME_WORDS = "1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first"


@dataclass(frozen=True)
class Training:
    """Steps, batch and pace; the fields are those of `tutelage.nn.distil.Distillation`."""

    steps: int = 1500
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.02


@dataclass(frozen=True)
class LossWeights:
    """How the terms of the loss are weighed; the fields are those of `tutelage.nn.distil.Distillation`."""

    soft: float = 0.9
    direction: float = 2.0
    temperature: float = 4.0
    margin: float = 0.2
    scale: float = 32.0


@dataclass(frozen=True)
class Budget:
    """What a job may cost."""

    max_duration: timedelta = timedelta(hours=24)
    """At work, over all deliveries together."""
    processes: int = 1
    """That share each batch."""
    max_memory_bytes: int | None = None
    """Resident, of each process; None: the executor's own limit."""


@dataclass(frozen=True)
class JobSpec:
    """What to distil. A spec that exists keeps every rule of the contract.

    Raises:
        RequestError: It breaks some; the message names each field, as callers know it.
    """

    name: str
    version: str
    data_set: str
    """Digest of the data set."""
    size: str | None = None
    """`tiny` or `small`; None: as that of `parent`."""
    teacher_space: str | None = None
    """Space of the teacher; None: whichever answers when the job is submitted."""
    parent: str | None = None
    """Digest of the student package to go on from."""
    held_out: float = 0.25
    training: Training = field(default_factory=Training)
    loss: LossWeights = field(default_factory=LossWeights)
    budget: Budget = field(default_factory=Budget)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what breaks a rule."""
        if broken := list(_broken(self)):
            raise RequestError("; ".join(broken))

    def as_json(self) -> dict[str, Any]:
        """The spec as plain JSON."""
        return {**asdict(self), "budget": {**asdict(self.budget), "max_duration": _seconds(self.budget.max_duration)}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> JobSpec:
        """The spec that `as_json` wrote.

        Raises:
            LookupError, TypeError, RequestError: It is none.
        """
        rest = {name: value[name] for name in (item.name for item in fields(cls))}
        budget = dict(rest.pop("budget"))
        budget["max_duration"] = timedelta(seconds=budget["max_duration"])
        training, loss = Training(**rest.pop("training")), LossWeights(**rest.pop("loss"))
        return cls(**rest, training=training, loss=loss, budget=Budget(**budget))

    @property
    def canonical(self) -> bytes:
        """Equal for equal wishes."""
        return canonical_json(self.as_json())


def check_key(key: str) -> str:
    """`key` itself, if it can be an idempotency key.

    Raises:
        RequestError: It cannot.
    """
    if not _KEY.fullmatch(key):
        raise RequestError(
            f"idempotency_key must be 1 to 64 letters, digits, dots, dashes and underscores: {key[:80]!r}"
        )
    return key


@dataclass(frozen=True)
class _Rule:
    """What one field must be, in words and as a test."""

    path: str
    words: str
    holds: Callable[[Any], bool]
    optional: bool = False

    def broken(self, spec: JobSpec) -> str | None:
        """What to tell the caller; None where the rule holds."""
        value: Any = spec
        for step in self.path.split("."):
            value = getattr(value, step)
        if (self.optional and value is None) or self.holds(value):
            return None
        shown = repr(value)[:80] if not isinstance(value, timedelta) else f"{value.total_seconds():g} s"
        return f"spec.{self.path} must be {self.words}: {shown}"


def _matching(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _whole(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and least <= value <= most


def _number(least: float, most: float = math.inf, *, above: bool = False) -> Callable[[Any], bool]:
    """Finite, and from `least` to `most`; without `least` itself where it must lie `above`."""
    return lambda value: math.isfinite(value) and (least < value if above else least <= value) and value <= most


_RULES = (
    _Rule("name", _NAME_WORDS, _matching(_NAME)),
    _Rule("version", "v0 to v999999999", _matching(_VERSION)),
    _Rule("data_set", _DIGEST_WORDS, _matching(_DIGEST)),
    _Rule("size", "tiny or small", lambda value: value in _SIZES, optional=True),
    _Rule(
        "teacher_space",
        f"1 to {_SPACE_CHARACTERS} printable characters",
        lambda value: 0 < len(value) <= _SPACE_CHARACTERS and value.isprintable(),
        optional=True,
    ),
    _Rule("parent", _DIGEST_WORDS, _matching(_DIGEST), optional=True),
    _Rule("held_out", "above 0 and at most 0.9", _number(0, 0.9, above=True)),
    _Rule("training.steps", f"1 to {MOST_STEPS}", _whole(1, MOST_STEPS)),
    _Rule("training.batch", f"2 to {MOST_BATCH}", _whole(2, MOST_BATCH)),
    _Rule("training.learning_rate", "above 0", _number(0, above=True)),
    _Rule("training.weight_decay", "0 or more", _number(0)),
    _Rule("loss.soft", "0 to 1", _number(0, 1)),
    _Rule("loss.direction", "0 or more", _number(0)),
    _Rule("loss.temperature", "above 0", _number(0, above=True)),
    _Rule("loss.margin", "0 to 1", _number(0, 1)),
    _Rule("loss.scale", "above 0", _number(0, above=True)),
    _Rule(
        "budget.max_duration",
        f"above 0 and at most {LONGEST.days} days",
        lambda value: timedelta() < value <= LONGEST,
    ),
    _Rule("budget.processes", f"1 to {MOST_PROCESSES}", _whole(1, MOST_PROCESSES)),
    _Rule(
        "budget.max_memory_bytes",
        f"{LEAST_MEMORY_BYTES} to {MOST_MEMORY_BYTES}",
        _whole(LEAST_MEMORY_BYTES, MOST_MEMORY_BYTES),
        optional=True,
    ),
    _Rule("seed", "0 to 2^53 - 1", _whole(0, MOST_SEED)),
)


def _broken(spec: JobSpec) -> Iterator[str]:
    """What is wrong with a spec: field by field, then between fields."""
    for rule in _RULES:
        if (told := rule.broken(spec)) is not None:
            yield told
    if spec.size is None and spec.parent is None:
        yield "spec.size must be given where there is no spec.parent: tiny or small"
    if spec.training.batch < spec.budget.processes:
        yield "spec.training.batch must be at least spec.budget.processes: each process takes a part of every batch"


def _seconds(duration: timedelta) -> float:
    return duration.total_seconds()
