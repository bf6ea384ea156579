"""Error rates against explicit counts, and intervals against what they promise."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from tutelage.biometrics.error_rates import (
    bootstrap_by_person,
    clopper_pearson,
    det_curve,
    eer,
    fmr,
    fmr_threshold,
    fnmr,
    paired_test,
    rank1,
    tar_at_fmr,
)
from tutelage.errors import Code, InputError, TutelageError, UsageError


def sample(seed: int, count: int, mean: float, dtype: type = np.float32, decimals: int = 8) -> np.ndarray:
    return np.round(np.random.default_rng(seed).normal(mean, 0.15, count), decimals).astype(dtype)


def slow_rate(values: np.ndarray, threshold: float, reached: bool) -> float:
    return sum((float(value) >= threshold) == reached for value in values) / len(values)


def test_rates_count_the_threshold_itself_as_accepted() -> None:
    assert fmr([0.1, 0.2, 0.3, 0.4], 0.3) == 0.5
    assert fnmr([0.1, 0.2, 0.3, 0.4], 0.3) == 0.5
    assert fmr([0.3], math.nextafter(0.3, 1.0)) == 0.0
    assert fnmr([0.3], math.nextafter(0.3, 1.0)) == 1.0


@pytest.mark.parametrize("threshold", [-math.inf, -0.2, 0.0, 0.13, 0.5, math.inf])
def test_rates_agree_with_counting(threshold: float) -> None:
    values = sample(0, 500, 0.1, decimals=2)
    assert fmr(values, threshold) == slow_rate(values, threshold, reached=True)
    assert fnmr(values, threshold) == slow_rate(values, threshold, reached=False)
    assert fmr(values, threshold) + fnmr(values, threshold) == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("decimals", [1, 2, 8], ids=["many ties", "ties", "none"])
@pytest.mark.parametrize("rate", [0.0, 1e-4, 1e-3, 0.01, 0.29, 0.3, 0.5, 0.999])
def test_the_threshold_is_the_smallest_that_keeps_the_rate(dtype: type, decimals: int, rate: float) -> None:
    values = sample(1, 1_000, 0.1, dtype, decimals)
    threshold = fmr_threshold(values, rate)
    assert fmr(values, threshold) <= rate
    just_below = float(np.nextafter(dtype(threshold), -np.inf, dtype=dtype))
    assert fmr(values, just_below) > rate
    assert np.mean(values >= threshold) == fmr(values, threshold)  # also when compared in single precision


def test_a_rate_that_is_a_whole_number_of_comparisons_is_used_up() -> None:
    values = np.arange(100) / 100.0
    for wanted in range(100):
        assert round(fmr(values, fmr_threshold(values, wanted / 100)) * 100) == wanted


def test_the_threshold_for_no_and_for_every_false_match() -> None:
    assert fmr_threshold([0.1, 0.7, 0.7], 0.0) == math.nextafter(0.7, 1.0)
    assert fmr_threshold([0.1, 0.7, 0.7], 0.5) == math.nextafter(0.7, 1.0)
    assert fmr_threshold([0.1, 0.7, 0.7], 2 / 3) == math.nextafter(0.1, 1.0)
    assert fmr_threshold([0.1, 0.7], 1.0) == -math.inf
    assert fmr_threshold([-1, 0, 1], 0.0) > 1.0


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan])
def test_a_rate_beyond_zero_and_one_is_refused(rate: float) -> None:
    with pytest.raises(UsageError):
        fmr_threshold([0.1], rate)


def test_tar_is_what_is_not_missed_at_the_threshold() -> None:
    genuine, impostor = sample(2, 300, 0.6), sample(3, 2_000, 0.1)
    for rate in (1e-3, 1e-2):
        accepted = sum(float(value) >= fmr_threshold(impostor, rate) for value in genuine)
        assert tar_at_fmr(genuine, impostor, rate) == pytest.approx(accepted / 300)
    assert tar_at_fmr([0.9], [0.1], 0.0) == 1.0
    assert tar_at_fmr([0.1], [0.1], 0.0) == 0.0


def test_the_det_curve_is_both_rates_at_every_cosine() -> None:
    genuine, impostor = sample(4, 60, 0.5, decimals=1), sample(5, 80, 0.1, decimals=1)
    false_matches, false_non_matches, thresholds = det_curve(genuine, impostor)
    assert thresholds.tolist()[:-1] == sorted({float(v) for v in genuine} | {float(v) for v in impostor})
    for a, b, threshold in zip(false_matches, false_non_matches, thresholds, strict=True):
        assert a == slow_rate(impostor, threshold, reached=True)
        assert b == slow_rate(genuine, threshold, reached=False)
    assert (false_matches[0], false_non_matches[0]) == (1.0, 0.0)
    assert (false_matches[-1], false_non_matches[-1]) == (0.0, 1.0)
    assert (np.diff(false_matches) <= 0).all()
    assert (np.diff(false_non_matches) >= 0).all()


def slow_eer(genuine: np.ndarray, impostor: np.ndarray) -> float:
    steps = [
        (slow_rate(genuine, t, reached=False), slow_rate(impostor, t, reached=True))
        for t in sorted({float(v) for v in np.concatenate([genuine, impostor])} | {2.0})
    ]
    for (n0, m0), (n1, m1) in pairwise(steps):
        if n1 >= m1:
            return n0 + (m0 - n0) / ((m0 - n0) + (n1 - m1)) * (n1 - n0)
    raise AssertionError("the rates never cross")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("decimals", [1, 8])
def test_eer_agrees_with_walking_along_the_curve(seed: int, decimals: int) -> None:
    genuine, impostor = sample(seed, 70, 0.4, decimals=decimals), sample(seed + 50, 90, 0.1, decimals=decimals)
    assert eer(genuine, impostor) == pytest.approx(slow_eer(genuine, impostor), abs=1e-12)


def test_eer_at_its_limits() -> None:
    assert eer([0.8, 0.9], [0.1, 0.2]) == 0.0
    assert eer([0.1, 0.2], [0.8, 0.9]) == 1.0
    assert eer([0.5], [0.5]) == 0.5
    assert eer([0.2, 0.8], [0.1, 0.3]) == pytest.approx(0.5)
    assert eer([0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]) == pytest.approx(0.25)
    same = sample(0, 4_000, 0.1)
    assert eer(same, same) == pytest.approx(0.5, abs=1e-3)


def test_eer_of_two_normal_laws_is_the_tail_halfway() -> None:
    value = eer(sample(6, 100_000, 0.5), sample(7, 100_000, 0.1))
    assert value == pytest.approx(stats.norm.sf(0.2 / 0.15), abs=3e-3)


@pytest.mark.parametrize("bad", [[], [math.nan, 0.1], np.zeros((0, 3))], ids=["empty", "nan", "empty table"])
def test_rates_of_nothing_are_an_error(bad: list[float]) -> None:
    calls = [
        lambda: fmr(bad, 0.5),
        lambda: fnmr(bad, 0.5),
        lambda: fmr_threshold(bad, 0.1),
        lambda: tar_at_fmr(bad, [0.1], 0.1),
        lambda: tar_at_fmr([0.1], bad, 0.1),
        lambda: det_curve([0.1], bad),
        lambda: eer(bad, [0.1]),
        lambda: paired_test(bad, bad),
    ]
    for call in calls:
        with pytest.raises(InputError) as caught:
            call()
        assert caught.value.code is Code.DATA_INSUFFICIENT


def test_rank1_agrees_with_a_loop() -> None:
    rng = np.random.default_rng(8)
    gallery = [f"p{i}" for i in rng.integers(0, 6, 15)]
    truth = [f"p{i}" for i in rng.integers(0, 7, 80)]  # p6 is in no gallery
    table = np.round(rng.uniform(-1, 1, (80, 15)), 1)
    hits = 0
    for i, person in enumerate(truth):
        own = [table[i, j] for j in range(15) if gallery[j] == person]
        other = [table[i, j] for j in range(15) if gallery[j] != person]
        hits += bool(own) and max(own) > max(other)
    assert 0 < hits < 80
    assert rank1(table, truth, gallery) == hits / 80


def test_rank1_counts_ties_and_strangers_as_misses() -> None:
    assert rank1([[0.5, 0.5]], ["a"], ["a", "b"]) == 0.0
    assert rank1([[0.5, 0.5]], ["a"], ["a", "a"]) == 1.0
    assert rank1([[0.9, 0.5]], ["c"], ["a", "b"]) == 0.0
    assert rank1(np.zeros((2, 0)), ["a", "b"], []) == 0.0


@pytest.mark.parametrize(
    ("table", "truth", "gallery"),
    [(np.zeros((0, 2)), [], ["a", "b"]), (np.zeros((1, 2)), ["a"], ["a"]), (np.zeros(2), ["a", "b"], ["a"])],
)
def test_rank1_of_sizes_that_do_not_agree_is_an_error(table: np.ndarray, truth: list[str], gallery: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        rank1(table, truth, gallery)
    assert caught.value.code is Code.DATA_INSUFFICIENT


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 300), (1, 10), (5, 10), (9, 10), (10, 10), (30, 10_000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_clopper_pearson_is_the_exact_interval(k: int, n: int, confidence: float) -> None:
    low, high = clopper_pearson(k, n, confidence)
    reference = stats.binomtest(k, n).proportion_ci(confidence, method="exact")
    assert low == pytest.approx(reference.low, abs=1e-12)
    assert high == pytest.approx(reference.high, abs=1e-12)
    assert low <= k / n <= high


def test_clopper_pearson_by_its_definition() -> None:
    low, high = clopper_pearson(3, 20)
    more = sum(math.comb(20, i) * low**i * (1 - low) ** (20 - i) for i in range(3, 21))
    fewer = sum(math.comb(20, i) * high**i * (1 - high) ** (20 - i) for i in range(4))
    assert more == pytest.approx(0.025, abs=1e-9)
    assert fewer == pytest.approx(0.025, abs=1e-9)


def test_clopper_pearson_at_its_limits() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert clopper_pearson(0, 100)[0] == 0.0
    assert clopper_pearson(100, 100)[1] == 1.0
    assert clopper_pearson(0, 1_000)[1] == pytest.approx(3.69e-3, abs=1e-5)
    assert clopper_pearson(0, 1_000, confidence=0.9)[1] == pytest.approx(3 / 1_000, rel=0.01)  # the rule of 3


@pytest.mark.parametrize(("k", "n", "confidence"), [(-1, 5, 0.95), (6, 5, 0.95), (1, 5, 0.0), (1, 5, 1.0)])
def test_clopper_pearson_of_no_rate_is_refused(k: int, n: int, confidence: float) -> None:
    with pytest.raises(UsageError):
        clopper_pearson(k, n, confidence)


def by_person(seed: int, persons: int, values: int, between: float, within: float) -> dict[str, list[float]]:
    rng = np.random.default_rng(seed)
    return {f"p{i}": (rng.normal(0, between) + rng.normal(0, within, values)).tolist() for i in range(persons)}


def test_the_bootstrap_draws_persons_not_values() -> None:
    values = by_person(0, persons=40, values=25, between=1.0, within=0.1)
    low, high = bootstrap_by_person(values, np.mean, seed=1)
    expected = 2 * 1.96 / math.sqrt(40)  # the 25 values of a person are hardly more than one
    assert high - low == pytest.approx(expected, rel=0.25)


def test_the_bootstrap_agrees_with_a_loop() -> None:
    values = {"b": [1.0, 2.0], "a": [5.0], "c": [0.0, 0.0, 3.0]}
    draws = np.random.default_rng(9).integers(3, size=(50, 3))
    groups = [values[person] for person in sorted(values)]
    means = []
    for draw in draws:
        drawn = [value for i in draw for value in groups[i]]
        means.append(sum(drawn) / len(drawn))
    low, high = bootstrap_by_person(values, np.mean, seed=9, rounds=50, confidence=0.8)
    assert (low, high) == pytest.approx((np.quantile(means, 0.1), np.quantile(means, 0.9)))


def test_the_bootstrap_depends_on_the_seed_and_on_nothing_else() -> None:
    values = by_person(2, persons=10, values=3, between=1.0, within=1.0)
    backwards = dict(reversed(values.items()))
    first = bootstrap_by_person(values, np.median, seed=3, rounds=200)
    assert bootstrap_by_person(backwards, np.median, seed=3, rounds=200) == first
    assert bootstrap_by_person(values | {"empty": []}, np.median, seed=3, rounds=200) == first
    assert bootstrap_by_person(values, np.median, seed=4, rounds=200) != first


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(100):
        low, high = bootstrap_by_person(by_person(seed, 30, 4, 1.0, 0.5), np.mean, seed=seed, rounds=200)
        covered += low <= 0.0 <= high
    assert 85 <= covered <= 100


def test_the_bootstrap_of_equal_values_has_no_width() -> None:
    assert bootstrap_by_person({"a": [0.5, 0.5], "b": [0.5]}, np.mean, seed=0, rounds=20) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "options", "error"),
    [
        ({}, {}, InputError),
        ({"a": [1.0, 2.0]}, {}, InputError),
        ({"a": [1.0], "b": []}, {}, InputError),
        ({"a": [1.0], "b": [2.0]}, {"rounds": 0}, UsageError),
        ({"a": [1.0], "b": [2.0]}, {"confidence": 95.0}, UsageError),
    ],
)
def test_a_bootstrap_without_persons_or_rounds_is_an_error(
    values: dict[str, list[float]], options: dict[str, float], error: type[TutelageError]
) -> None:
    with pytest.raises(error):
        bootstrap_by_person(values, np.mean, seed=0, **options)  # type: ignore[arg-type]


def test_the_paired_test_by_its_formula() -> None:
    a, b = [0.93, 0.91, 0.95, 0.90, 0.97, 0.92], [0.90, 0.92, 0.91, 0.88, 0.93, 0.90]
    result = paired_test(a, b)
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean = sum(differences) / 6
    sd = math.sqrt(sum((d - mean) ** 2 for d in differences) / 5)
    assert result.n == 6
    assert result.mean_difference == pytest.approx(mean)
    assert result.sd == pytest.approx(sd)
    assert result.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert result.wilcoxon_p == pytest.approx(stats.wilcoxon(differences).pvalue)


def test_the_paired_test_is_symmetric() -> None:
    a, b = sample(10, 12, 0.5), sample(11, 12, 0.45)
    forth, back = paired_test(a, b), paired_test(b, a)
    assert forth.mean_difference == -back.mean_difference
    assert (forth.p_value, forth.sd, forth.wilcoxon_p) == (back.p_value, back.sd, back.wilcoxon_p)


def test_the_signed_rank_test_counts_signs_by_rank() -> None:
    five = paired_test([1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 0.0, 0.0, 0.0, 0.0])
    assert five.wilcoxon_p == pytest.approx(2 / 2**5)  # all five signs alike, two of 32 outcomes
    assert paired_test([1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]).wilcoxon_p is None


def test_the_paired_test_where_differences_do_not_vary() -> None:
    nothing = paired_test([1.0] * 6, [1.0] * 6)
    assert (nothing.mean_difference, nothing.sd, nothing.p_value, nothing.wilcoxon_p) == (0.0, 0.0, 1.0, 1.0)
    constant = paired_test([1.5] * 6, [1.0] * 6)
    assert (constant.mean_difference, constant.sd, constant.p_value) == (0.5, 0.0, 0.0)
    nearly = paired_test([0.1 * i + 0.3 for i in range(6)], [0.1 * i for i in range(6)])
    assert nearly.p_value < 1e-12
    partly = paired_test([1.0, 1.0, 1.0, 1.0, 1.5, 2.0], [1.0] * 6)
    assert partly.wilcoxon_p is not None
    assert 0.0 < partly.wilcoxon_p <= 1.0


@pytest.mark.parametrize(("a", "b"), [([1.0], [2.0]), ([1.0, 2.0], [1.0, 2.0, 3.0]), ([1.0, 2.0], [1.0, math.nan])])
def test_a_paired_test_needs_pairs(a: list[float], b: list[float]) -> None:
    with pytest.raises(InputError) as caught:
        paired_test(a, b)
    assert caught.value.code is Code.DATA_INSUFFICIENT


def test_a_paired_test_of_no_difference_is_rarely_significant() -> None:
    seen = [paired_test(sample(i, 8, 0.5), sample(i + 1_000, 8, 0.5)).p_value < 0.05 for i in range(300)]
    assert 0.02 < float(np.mean(seen)) < 0.09
