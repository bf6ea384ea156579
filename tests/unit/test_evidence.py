"""Evidence from cosines: the best score over own and over other references."""

from __future__ import annotations

import math

import numpy as np
import pytest

from device_sim.evidence import Evidence, ScoredCapture
from tutelage.biometrics.calibration import LinearScore
from tutelage.errors import InputError, UsageError


def test_evidence_is_the_best_score_over_own_and_over_other_references(rng: np.random.Generator):
    owners = ["a", "b", "a", "c", "b", "a"]
    truth = ["a", "b", "b", "c"]
    mutual, held_back, strangers = (rng.uniform(-1, 1, (rows, 6)) for rows in (6, 4, 7))
    found = Evidence.measured(
        LinearScore(),
        owners,
        mutual,
        held_back_persons=truth,
        held_back=held_back,
        strangers=strangers,
        latency_s=[0.5],
    )
    for i, person in enumerate(truth):
        own = max(held_back[i, j] for j in range(6) if owners[j] == person)
        other = max(held_back[i, j] for j in range(6) if owners[j] != person)
        assert found.held_back[i] == ScoredCapture(person, 50 * (1 + own), 50 * (1 + other))
    for i, person in enumerate(owners):
        own = max((mutual[i, j] for j in range(6) if owners[j] == person and j != i), default=None)
        other = max(mutual[i, j] for j in range(6) if owners[j] != person)
        assert found.references[i] == ScoredCapture(person, None if own is None else 50 * (1 + own), 50 * (1 + other))
    assert found.references[3].own is None
    assert found.strangers == tuple(50 * (1 + max(row)) for row in strangers)
    assert found.latency_s == (0.5,)


def test_nothing_is_measured_where_nothing_is():
    empty = Evidence.measured(
        LinearScore(),
        ["a"],
        [[1.0]],
        held_back_persons=[],
        held_back=np.empty((0, 1)),
        strangers=np.empty((0, 1)),
        latency_s=[],
    )
    assert empty == Evidence((), (ScoredCapture("a", None, None),), (), ())


@pytest.mark.parametrize("wrong", ["references", "held_back", "strangers"])
def test_cosines_of_another_size_are_refused(wrong: str):
    tables = {"references": np.ones((2, 2)), "held_back": np.ones((3, 2)), "strangers": np.ones((4, 2))}
    tables[wrong] = np.ones((5, 3))
    with pytest.raises(UsageError, match="are needed"):
        Evidence.measured(LinearScore(), ["a", "b"], held_back_persons=["a"] * 3, latency_s=[1.0], **tables)


def test_a_student_that_gives_no_numbers_is_refused():
    with pytest.raises(InputError):
        Evidence.measured(
            LinearScore(),
            ["a", "b"],
            np.ones((2, 2)),
            held_back_persons=["a"],
            held_back=np.array([[math.nan, 0.0]]),
            strangers=np.ones((1, 2)),
            latency_s=[1.0],
        )
