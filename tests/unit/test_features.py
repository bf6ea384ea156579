"""Features carry their space, and nothing compares two spaces."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from tutelage.biometrics.features import Features, cosines
from tutelage.errors import Code, InputError, SpaceMismatchError


def unit_rows(seed: int, count: int, size: int = 16) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def features(seed: int, count: int, space: str = "sha256:a", size: int = 16) -> Features:
    return Features(unit_rows(seed, count, size), space)


def test_cosines_are_the_slow_dot_products() -> None:
    a, b = features(0, 3), features(1, 4)
    table = cosines(a, b)
    assert table.shape == (3, 4)
    assert table.dtype == np.float32
    for i in range(3):
        for j in range(4):
            slow = sum(float(x) * float(y) for x, y in zip(a.vectors[i], b.vectors[j], strict=True))
            assert math.isclose(table[i, j], slow, abs_tol=1e-6)


def test_cosines_never_leave_the_range_of_a_cosine() -> None:
    a = features(2, 200, size=128)
    table = cosines(a, a)
    assert table.max() <= 1.0
    np.testing.assert_allclose(np.diag(table), 1.0, atol=1e-6)
    assert cosines(a, Features(-a.vectors, a.space)).min() >= -1.0


def test_cosines_of_two_spaces_are_an_error_that_names_both() -> None:
    with pytest.raises(SpaceMismatchError) as caught:
        cosines(features(0, 2, "sha256:a"), features(0, 2, "sha256:b"))
    assert caught.value.code is Code.SPACE_MISMATCH
    assert "sha256:a" in caught.value.message
    assert "sha256:b" in caught.value.message


def test_spaces_are_compared_even_when_there_is_nothing_to_multiply() -> None:
    with pytest.raises(SpaceMismatchError):
        cosines(features(0, 0, "sha256:a"), features(0, 2, "sha256:b"))


@pytest.mark.parametrize(("left", "right"), [(0, 3), (3, 0), (0, 0)])
def test_empty_sets_give_empty_tables(left: int, right: int) -> None:
    assert cosines(features(0, left), features(1, right)).shape == (left, right)


def test_an_empty_set_fits_whatever_its_row_length() -> None:
    empty = Features(np.zeros((0, 0), dtype=np.float32), "sha256:a")
    assert cosines(empty, features(0, 2)).shape == (0, 2)
    assert len(Features.concat([empty, features(0, 2)])) == 2
    assert len(Features.concat([empty, empty])) == 0


def test_one_space_has_one_row_length() -> None:
    with pytest.raises(InputError) as caught:
        cosines(features(0, 2, size=8), features(0, 2, size=16))
    assert caught.value.code is Code.DATA_INSUFFICIENT
    with pytest.raises(InputError):
        Features.concat([features(0, 2, size=8), features(0, 2, size=16)])


@pytest.mark.parametrize(
    "vectors",
    [
        np.full((2, 4), np.nan),
        np.full((2, 4), np.inf),
        np.full((2, 4), 0.1),
        unit_rows(0, 2) * 1.01,
        unit_rows(0, 2)[0],
        unit_rows(0, 2)[None],
    ],
    ids=["nan", "infinite", "short", "long", "one row", "three axes"],
)
def test_what_is_not_unit_rows_is_refused(vectors: np.ndarray) -> None:
    with pytest.raises(InputError) as caught:
        Features(vectors, "sha256:a")
    assert caught.value.code is Code.DATA_INSUFFICIENT


def test_a_row_of_zeros_is_near_nobody() -> None:
    vectors = unit_rows(0, 3)
    vectors[1] = 0.0
    assert (cosines(Features(vectors, "sha256:a"), features(1, 5))[1] == 0.0).all()


def test_double_precision_is_kept_as_single() -> None:
    assert Features(np.eye(3), "sha256:a").vectors.dtype == np.float32


@pytest.mark.parametrize(
    "index",
    [slice(1, 4), np.array([4, 0, 0]), np.array([True, False, True, False, False]), np.array([], dtype=np.intp)],
    ids=["slice", "indices", "mask", "nothing"],
)
def test_choosing_rows_keeps_the_space(index: slice | np.ndarray) -> None:
    whole = features(3, 5)
    chosen = whole[index]
    assert chosen.space == whole.space
    np.testing.assert_array_equal(chosen.vectors, whole.vectors[index])
    assert len(chosen) == len(whole.vectors[index])


def test_concat_keeps_order_and_space() -> None:
    parts = [features(0, 2), features(1, 0), features(2, 3)]
    whole = Features.concat(parts)
    assert whole.space == "sha256:a"
    np.testing.assert_array_equal(whole.vectors, np.vstack([part.vectors for part in parts]))


def test_concat_of_two_spaces_or_of_nothing_is_an_error() -> None:
    with pytest.raises(SpaceMismatchError):
        Features.concat([features(0, 1, "sha256:a"), features(0, 1, "sha256:b")])
    with pytest.raises(InputError) as caught:
        Features.concat([])
    assert caught.value.code is Code.DATA_INSUFFICIENT


def test_features_cannot_be_moved_to_another_space() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        features(0, 1).space = "sha256:b"  # type: ignore[misc]
