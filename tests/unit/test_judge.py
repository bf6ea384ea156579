"""A judge's kinds of abstention, and galleries that it compares with."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.biometrics.features import Features
from tutelage.errors import SpaceMismatchError
from tutelage.labelling import Abstention, AbstentionPolicy, Extraction, Gallery, Judge, nothing_seen

AXES = np.eye(4, dtype=np.float32)
SPACE = "s"


def seen(*rows: np.ndarray, unusable: tuple[int, ...] = ()) -> Extraction:
    usable = np.array([number not in unusable for number in range(len(rows))])
    reasons = tuple("" if ok else "nothing to see" for ok in usable)
    return Extraction(Features(np.stack(rows), SPACE), usable, reasons, ("",) * len(rows))


def gallery(space: str = SPACE) -> Gallery:
    return Gallery.of({"b": Features(AXES[[1]], space), "a": Features(AXES[[0, 3]], space)})


def between(first: int, second: int) -> np.ndarray:
    return (AXES[first] + AXES[second]) / np.float32(np.sqrt(2))


JUDGE = Judge(AbstentionPolicy(min_cosine=0.5, min_margin=0.1), SPACE)


def test_every_kind_of_abstention_is_told_apart():
    extraction = seen(
        AXES[0], AXES[0], AXES[0], -AXES[0], AXES[2], between(0, 1), AXES[3], AXES[1], AXES[1], unusable=(1,)
    )
    judged = JUDGE.judge(extraction, [1, 0, 1, 2, 1, 1, 1, 2], gallery())
    assert [answer.abstention for answer in judged] == [
        None,
        Abstention.NO_CAPTURE,
        Abstention.NOT_USABLE,
        Abstention.CONTRADICTION,
        Abstention.NOBODY_NEAR,
        Abstention.TOO_ALIKE,
        None,
        None,
    ]
    assert [answer.answer.person for answer in judged] == ["a", None, None, None, None, None, "a", "b"]
    assert all((answer.answer.person is None) == (answer.abstention is not None) for answer in judged)


def test_without_anybody_to_compare_with_only_what_shows_something_is_said_to_be_unknown():
    judged = JUDGE.judge(seen(AXES[0], AXES[1], unusable=(1,)), [1, 1, 0], Gallery.of({}))
    kinds = [Abstention.NOBODY_ENROLLED, Abstention.NOT_USABLE, Abstention.NO_CAPTURE]
    assert [answer.abstention for answer in judged] == kinds
    assert JUDGE.judge(nothing_seen(SPACE), [0], gallery())[0].abstention is Abstention.NO_CAPTURE
    assert JUDGE.judge(nothing_seen(SPACE), [], gallery()) == []


def test_features_of_two_spaces_are_never_compared():
    with pytest.raises(SpaceMismatchError):
        JUDGE.judge(seen(AXES[0]), [1], gallery("another"))
    with pytest.raises(SpaceMismatchError):
        Gallery.of({"a": Features(AXES[[0]], "s"), "b": Features(AXES[[1]], "t")})


def test_many_attempts_are_judged_as_each_alone(rng):
    rows = rng.normal(size=(40, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    sizes = [1, 3, 2, 4, 1, 5, 4, 10, 2, 8]
    together = JUDGE.judge(seen(*rows), sizes, gallery())
    start = 0
    for size, found in zip(sizes, together, strict=True):
        (alone,) = JUDGE.judge(seen(*rows[start : start + size]), [size], gallery())
        start += size
        assert (found.answer.person, found.abstention) == (alone.answer.person, alone.abstention)
        assert found.answer.margin == pytest.approx(alone.answer.margin, abs=1e-6)
        assert dict(found.answer.soft) == pytest.approx(dict(alone.answer.soft), abs=1e-5)
