"""From kept samples to a training set: what is learnt, with which label, with how much weight.

A sample reaches training only if its label can be believed. Labels of the teacher may be taken as its top choice or as
its whole distribution, may count by its confidence, and are checked for *plausibility*: the running student, blind as
it may be on a worn sensor, must not find the named person absurd. The defaults are those of docs/results.md that
measured best, or simplest where nothing tells them apart: soft labels and weights by confidence bring nothing there,
whole attempts neither help nor harm and give the gate more to judge by, and without the check of plausibility a tenth
of wrong labels costs more than all losses differ by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from device_sim.recognition import Enrolled, RunningModel
from tutelage.biometrics.features import cosines
from tutelage.captures import Pixels, to_input
from tutelage.errors import PersonError, UsageError
from tutelage.nn.self_distil import TrainingSet

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LearningRules:
    """How labels are used, and how much of what was learnt.

    Raises:
        UsageError: `shares` do not fall from 1 or less to above 0.
    """

    soft_labels: bool = False
    """Learn the teacher's distribution over persons instead of its top choice."""
    confidence_weights: bool = False
    """Let a sample count by the teacher's confidence."""
    whole_attempts: bool = True
    """Learn from all captures of a failed attempt: they are one person's."""
    contradiction_s: float = 10.0
    """Where the sensor tells no attempts apart: seconds after a failed attempt in which a sure recognition is taken for
    one of the same person, so that a label of somebody else is quarantined."""
    plausible_rank: int = 3
    """A teacher's label is quarantined unless the running student finds the named person among this many nearest."""
    shares: tuple[float, ...] = (1.0, 0.5, 0.25)
    """Parts of a training's way that are tried in turn, until the gate lets one pass."""

    def __post_init__(self) -> None:
        """Refuse parts that are none, or that come in no order."""
        falling = all(a > b for a, b in pairwise(self.shares))
        if not (self.shares and falling and self.shares[0] <= 1.0 and self.shares[-1] > 0.0):
            raise UsageError(f"shares must fall from 1 or less to above 0, got {self.shares}")


@dataclass(frozen=True)
class Labelled:
    """One sample with its label."""

    capture: Pixels
    person: str
    soft: Mapping[str, float] = field(default_factory=dict)
    """The teacher's distribution; empty for a first sample."""
    confidence: float = 1.0
    """0..1, 1 for a first sample."""
    taught: bool = False
    """Whether the teacher gave the label."""


def plausible(model: RunningModel, samples: Sequence[Labelled], rank: int) -> npt.NDArray[np.bool_]:
    """Whether the running student has each sample's named person among the `rank` nearest, (N,).

    A person who is not enrolled is never plausible; where no more than `rank` persons are, every other label is.
    """
    persons = np.unique(np.asarray(model.gallery.persons, dtype=np.str_))
    named = np.asarray([s.person for s in samples], dtype=np.str_)
    known = np.isin(named, persons)
    if not known.any():
        return known
    near = cosines(model.features([s.capture for s in samples]), model.gallery.features)  # (N, R)
    owners = np.asarray(model.gallery.persons, dtype=np.str_)
    best = np.stack([near[:, owners == person].max(1) for person in persons], axis=1)  # (N, C)
    column = np.where(known, np.searchsorted(persons, named), 0)
    nearer = (best > best[np.arange(len(samples)), column][:, None]).sum(1)
    near_enough: npt.NDArray[np.bool_] = known & (nearer < rank)
    return near_enough


def training_set(samples: Sequence[Labelled], enrolled: Enrolled, rules: LearningRules) -> TrainingSet:
    """Arrays for a self-distillation; persons are numbered in the order of their names.

    Raises:
        PersonError: a sample is of somebody who has no reference in `enrolled`.
        InputError: `data-insufficient`, there is no sample or no reference.
    """
    persons = sorted(set(enrolled.persons))
    number = {person: i for i, person in enumerate(persons)}
    targets = np.zeros((len(samples), len(persons)), np.float32)
    for row, sample in enumerate(samples):
        if sample.person not in number:
            raise PersonError(sample.person)
        for person, weight in _label(sample, rules.soft_labels).items():
            if person in number:
                targets[row, number[person]] = weight
    weights = np.array([s.confidence if rules.confidence_weights else 1.0 for s in samples], np.float32)
    return TrainingSet(
        inputs=to_input([s.capture for s in samples], enrolled.inputs.shape[-1]),
        targets=targets / targets.sum(1, keepdims=True),
        weights=weights / weights.mean() if weights.any() else np.ones_like(weights),
        references=enrolled.inputs,
        reference_labels=np.array([number[p] for p in enrolled.persons], np.int64),
    )


def _label(sample: Labelled, soft: bool) -> Mapping[str, float]:
    """Weights of persons: the teacher's distribution where wanted and fit for it, else the sample's person alone."""
    return sample.soft if soft and sample.soft.get(sample.person, 0.0) > 0.0 else {sample.person: 1.0}
