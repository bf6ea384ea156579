"""A score is -10·log10 of a false match rate: measured as far as data goes, fitted and flagged beyond."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import genpareto

from tutelage.biometrics.calibration import MOST_LOWERED, RAMP, SCORE_CAP, Calibration, LinearScore, Score, Tail
from tutelage.biometrics.features import Features, cosines
from tutelage.errors import Code, InputError, PackageError, UsageError

MANY = 10_000
"""Persons enough that every comparison counts as independent."""


def normal_cosines(seed: int, count: int, mean: float = 0.1, sd: float = 0.12) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(mean, sd, count), -1.0, 1.0).astype(np.float32)


def fit(values: np.ndarray, persons: int = MANY) -> Calibration:
    return Calibration.fit(values, space="sha256:a", persons=persons)


def population(seed: int, persons: int, captures: int) -> np.ndarray:
    """Impostor cosines of a made-up population with a few strong directions and noisy captures."""
    rng = np.random.default_rng(seed)
    spread = np.arange(1, 65) ** -0.5
    centres = rng.standard_normal((persons, 1, 64))
    rows = ((centres + 0.6 * rng.standard_normal((persons, captures, 64))) * spread).reshape(-1, 64)
    vectors = Features(rows / np.linalg.norm(rows, axis=1, keepdims=True), "sha256:a")
    owner = np.repeat(np.arange(persons), captures)
    return cosines(vectors, vectors)[owner[:, None] < owner[None, :]]


ODD = {
    "uniform": np.random.default_rng(0).uniform(-1, 1, 400),
    "all alike": np.full(150, 0.3),
    "all identical captures": np.ones(150),
    "all one rounding below one": np.full(150, np.nextafter(1.0, 0.0)),
    "all opposite": np.full(150, -1.0),
    "three values": np.repeat([-1.0, 0.0, 1.0], 50),
    "hundredths": np.round(normal_cosines(1, 2_000), 2),
    "duplicates in the set": np.concatenate([normal_cosines(2, 1_000), np.full(40, 0.99999994)]),
    "crowded below one": 1.0 - np.logspace(-9, 0, 500),
    "crowded above minus one": -1.0 + np.logspace(-9, 0, 500),
    "heavy tail": np.clip(np.random.default_rng(3).standard_t(2, 3_000) * 0.05, -1, 1),
    "tiny spread": normal_cosines(4, 500, mean=0.5, sd=1e-6),
    "fewest": normal_cosines(5, 100),
}


@pytest.fixture(params=ODD, name="odd")
def odd_calibration(request: pytest.FixtureRequest) -> Calibration:
    return fit(ODD[request.param], persons=30)


def test_the_measured_part_is_the_share_of_impostors_that_reach_a_cosine() -> None:
    values = normal_cosines(0, 20_000)
    calibration = fit(values)
    knots = zip(calibration.cosines, calibration.scores, strict=True)
    measured = [(x, y) for x, y in knots if y <= calibration.limit_score][1:]
    assert len(measured) > 100
    for x, y in measured:
        reaching = sum(1 for value in values.tolist() if value >= x)
        assert math.isclose(y, -10.0 * math.log10(reaching / (len(values) + 1)), abs_tol=1e-12)


@pytest.mark.parametrize("score", [3.0, 10.0, 20.0, 30.0])
def test_a_score_means_its_false_match_rate(score: float) -> None:
    values = normal_cosines(0, 20_000)
    rate = float(np.mean(values.astype(np.float64) >= fit(values).cosine_at(score)))
    assert abs(-10.0 * math.log10(rate) - score) < 0.3


def test_between_knots_the_score_stays_near_the_slow_count() -> None:
    values = normal_cosines(6, 5_000).astype(np.float64)
    calibration = fit(values)
    for cosine in np.random.default_rng(0).uniform(0.0, calibration.cosine_at(calibration.limit_score), 50):
        reaching = sum(1 for value in values if value >= cosine)
        assert abs(float(calibration.score(cosine)) + 10.0 * math.log10(reaching / (len(values) + 1))) < 0.5


def test_the_curve_rises_strictly_over_all_cosines(odd: Calibration) -> None:
    grid = np.unique(np.concatenate([np.linspace(-1.0, 1.0, 2_001), odd.cosines]))
    scores = odd.score(grid)
    assert np.isfinite(scores).all()
    assert (np.diff(scores) > 0.0).all()
    assert scores[0] >= 0.0
    assert scores[-1] <= SCORE_CAP + 1e-6


def test_the_inverse_agrees_both_ways(odd: Calibration) -> None:
    rng = np.random.default_rng(7)
    for score in rng.uniform(odd.scores[0], odd.scores[-1], 200):
        assert abs(float(odd.score(odd.cosine_at(score))) - score) < 1e-6
    for cosine in rng.uniform(-1.0, 1.0, 200):
        assert abs(odd.cosine_at(float(odd.score(cosine))) - cosine) < 1e-6


def test_json_gives_back_an_equal_calibration(odd: Calibration) -> None:
    text = json.dumps(odd.as_json())
    again = Calibration.from_json(json.loads(text))
    assert again == odd
    assert json.dumps(again.as_json()) == text
    assert again.cosine_at(30.0) == odd.cosine_at(30.0)


def test_random_data_keeps_every_promise() -> None:
    rng = np.random.default_rng(11)
    for _ in range(60):
        sd, count, persons = 10 ** rng.uniform(-5, 0), int(rng.integers(100, 3_000)), int(rng.integers(2, 500))
        values = np.clip(rng.normal(rng.uniform(-1, 1), sd, count), -1.0, 1.0)
        calibration = fit(values, persons)
        assert (np.diff(calibration.scores) > 0.0).all()
        assert calibration.scores[-1] <= SCORE_CAP + 1e-6
        assert 0.0 <= calibration.limit_score <= calibration.scores[-1]
        assert -0.5 <= calibration.tail.shape <= 0.5


def test_the_score_has_no_step_where_measurement_ends() -> None:
    calibration = fit(normal_cosines(0, 5_000))
    limit = calibration.cosine_at(calibration.limit_score)
    below, at, above = calibration.score([limit - 1e-9, limit, limit + 1e-9])
    assert at == calibration.limit_score
    assert below < at < above
    assert above - below < 1e-5


def test_ten_comparisons_lie_at_or_above_the_limit() -> None:
    values = normal_cosines(0, 5_000)
    calibration = fit(values)
    assert np.sum(values.astype(np.float64) >= calibration.cosine_at(calibration.limit_score) - 1e-12) == 10
    assert math.isclose(calibration.limit_score, -10.0 * math.log10(10 / 5_001))


@pytest.mark.parametrize(
    ("persons", "limit"), [(2, 0.0), (4, 0.0), (10, 6.6), (20, 12.8), (100, 26.9), (142, 30.0), (1_000, 43.0)]
)
def test_repeated_captures_do_not_move_the_limit(persons: int, limit: float) -> None:
    assert abs(fit(normal_cosines(0, 200_000), persons).limit_score - limit) < 0.05


def test_extrapolated_says_so_beyond_the_limit_only() -> None:
    calibration = fit(normal_cosines(0, 5_000))
    limit = calibration.limit_score
    assert calibration.extrapolated([0.0, limit - 1e-9, limit, limit + 1e-9, 90.0]).tolist() == [False] * 3 + [True] * 2
    assert calibration.extrapolated(90.0).shape == ()


@pytest.mark.parametrize("shape", [-0.2, 1e-12, 0.2])
def test_the_tail_recovers_the_law_it_was_drawn_from(shape: float) -> None:
    scale = 0.15 if shape < 0 else 0.02  # ends just at cosine 1, or never
    draws = genpareto.rvs(shape, loc=0.25, scale=scale, size=40_000, random_state=np.random.default_rng(0))
    values = draws[draws < 1.0]
    calibration = fit(values)
    for exponent in (4.0, 5.0):
        truth = genpareto.isf(10.0**-exponent, shape, loc=0.25, scale=scale)
        if truth < 1.0:
            assert abs(float(calibration.score(truth)) - 10.0 * exponent) < 3.0


def slow_moments(values: np.ndarray) -> tuple[float, float]:
    """Shape and mean excess of the top 5 %, by the sums of the paper."""
    top = sorted(values.tolist())[-math.ceil(0.05 * len(values)) :]
    excess = [value - top[0] for value in top[1:]]
    a0 = sum(excess) / len(excess)
    a1 = sum((1.0 - (rank - 0.35) / len(excess)) * value for rank, value in enumerate(excess, start=1)) / len(excess)
    assert 2.0 * a0 * a1 / (a0 - 2.0 * a1) == pytest.approx(a0 * (a0 / (a0 - 2.0 * a1) - 1.0))  # σ, both ways
    return 2.0 - a0 / (a0 - 2.0 * a1), a0


@pytest.mark.parametrize(("lookalikes", "bound"), [(0, "below"), (3, "none"), (12, "above")])
def test_the_tail_is_fitted_by_probability_weighted_moments(lookalikes: int, bound: str) -> None:
    values = np.append(normal_cosines(9, 2_000, sd=0.05).astype(np.float64), np.linspace(0.4, 0.6, lookalikes))
    shape, mean = slow_moments(values)
    tail = fit(values).tail
    assert tail.threshold == sorted(values)[-math.ceil(0.05 * len(values))]
    assert tail.scale == pytest.approx(mean * (1.0 - tail.shape))
    if bound == "below":  # the law of the moments would end before cosine 1
        assert shape < tail.shape
        assert fit(values).scores[-1] == pytest.approx(SCORE_CAP)
    elif bound == "none":
        assert tail.shape == pytest.approx(shape)
    else:
        assert shape > tail.shape == 0.5


def test_the_tail_knots_follow_the_tail() -> None:
    calibration = fit(normal_cosines(8, 5_000))
    tail, limit = calibration.tail, calibration.limit_score
    for cosine in np.linspace(calibration.cosine_at(limit), 0.95, 40):
        ratio = 1.0 + tail.shape * (cosine - tail.threshold) / tail.scale
        ratio /= 1.0 + tail.shape * (calibration.cosine_at(limit) - tail.threshold) / tail.scale
        formula = limit + 10.0 * math.log10(ratio) / tail.shape
        assert abs(float(calibration.score(cosine)) - formula) < 0.1


def test_the_tail_is_its_own_inverse() -> None:
    for shape in (-0.3, 0.0, 0.4):
        tail = Tail(threshold=0.2, scale=0.3, shape=shape)
        assert abs(tail.decay(float(tail.cosine_after(np.asarray(7.5)))) - 7.5) < 1e-9
        assert tail.decay(0.2) == 0.0


def test_the_tail_errs_to_the_safe_side_on_persons_it_has_not_seen() -> None:
    world = np.sort(population(0, persons=1_500, captures=1))
    reached = []
    for seed in range(1, 17):
        calibration = fit(population(seed, persons=60, captures=4), persons=60)
        assert 21.0 < calibration.limit_score < 23.0
        rates = [float(np.mean(world >= calibration.cosine_at(score))) for score in (20.0, 30.0, 40.0)]
        reached.append([-10.0 * math.log10(max(rate, 1e-6)) for rate in rates])
    at_20, at_30, at_40 = np.mean(reached, axis=0)
    assert 19.0 < at_20 < 22.0
    assert 29.0 < at_30 < 34.0
    assert 39.0 < at_40 < 50.0
    assert np.min(reached, axis=0)[1] > 25.0  # an unlucky set of 60 persons, two standard deviations off


def test_a_heavier_tail_scores_lower() -> None:
    values = normal_cosines(0, 2_000)
    lookalikes = np.concatenate([values, np.linspace(0.7, 0.9, 40)])
    assert float(fit(lookalikes).score(0.8)) < float(fit(values).score(0.8)) - 10.0


def test_duplicates_among_the_impostors_cap_the_score() -> None:
    duplicated = np.concatenate([normal_cosines(0, 900), np.full(100, 0.99999994)])
    calibration = fit(duplicated)
    assert abs(calibration.scores[-1] - 10.0) < 0.1
    assert calibration.cosine_at(30.0) == math.inf


def test_a_network_that_says_the_same_of_everyone_accepts_nobody() -> None:
    calibration = fit(np.ones(1_000))
    assert float(calibration.score(1.0)) < 0.1


def test_scores_keep_shape_and_tolerate_rounding_of_cosines() -> None:
    calibration = fit(normal_cosines(0, 1_000))
    assert calibration.score(0.3).shape == ()
    assert calibration.score(np.zeros((2, 3), dtype=np.float32)).shape == (2, 3)
    assert calibration.score(np.zeros(0)).shape == (0,)
    assert calibration.score(1.0000001) == calibration.score(1.0)
    assert calibration.score(-1.5) == calibration.score(-1.0)
    assert np.isnan(calibration.score(np.nan))


def test_the_ends_of_the_inverse() -> None:
    calibration = fit(normal_cosines(0, 1_000))
    assert calibration.cosine_at(-5.0) == -1.0
    assert calibration.cosine_at(calibration.scores[-1]) == 1.0
    assert calibration.cosine_at(calibration.scores[-1] + 1.0) == math.inf


def test_order_and_layout_of_the_comparisons_do_not_matter() -> None:
    values = normal_cosines(0, 1_000)
    shuffled = np.random.default_rng(0).permutation(values).reshape(10, 100)
    assert fit(shuffled) == fit(values)
    assert fit(values).impostor_pairs == 1_000
    assert fit(values).persons == MANY
    assert fit(values).space == "sha256:a"


@pytest.mark.parametrize(
    ("values", "persons"),
    [
        (normal_cosines(0, 99), 50),
        (np.zeros(0), 50),
        (normal_cosines(0, 500), 1),
        (normal_cosines(0, 500), 0),
        (np.append(normal_cosines(0, 500), np.nan), 50),
    ],
    ids=["99", "none", "one person", "no person", "nan"],
)
def test_too_little_to_calibrate_on_is_an_error(values: np.ndarray, persons: int) -> None:
    with pytest.raises(InputError) as caught:
        fit(values, persons)
    assert caught.value.code is Code.DATA_INSUFFICIENT


def test_a_hundred_comparisons_are_enough() -> None:
    assert fit(normal_cosines(0, 100), persons=15).impostor_pairs == 100


@pytest.mark.parametrize(
    "change",
    [
        {"cosines": [-1.0, 0.5, 0.5, 1.0], "scores": [0.0, 1.0, 2.0, 3.0]},
        {"cosines": [-1.0, 0.5, 1.0], "scores": [0.0, 2.0, 1.0]},
        {"cosines": [-1.0, 1.0], "scores": [0.0, 1.0, 2.0]},
        {"cosines": [-0.9, 1.0], "scores": [0.0, 1.0]},
        {"cosines": [-1.0, 0.9], "scores": [0.0, 1.0]},
        {"cosines": [-1.0, 1.0], "scores": [0.0, math.inf]},
        {"cosines": [-1.0, 1.0], "scores": [0.0, math.nan]},
        {"cosines": [], "scores": []},
        {"cosines": None},
        {"scores": ["much"]},
        {"limit_score": math.nan},
        {"persons": "many"},
        {"impostor_pairs": math.inf},
        {"tail": None},
        {"tail": {"threshold": 0.1, "scale": 0.1}},
    ],
)
def test_a_damaged_calibration_is_refused(change: dict[str, object]) -> None:
    data = fit(normal_cosines(0, 200)).as_json() | change
    with pytest.raises(PackageError) as caught:
        Calibration.from_json(data)
    assert caught.value.code is Code.PACKAGE_CORRUPT


@pytest.mark.parametrize("field", ["space", "cosines", "scores", "tail", "limit_score", "impostor_pairs", "persons"])
def test_a_calibration_without_a_field_is_refused(field: str) -> None:
    data = fit(normal_cosines(0, 200)).as_json()
    del data[field]
    with pytest.raises(PackageError) as caught:
        Calibration.from_json(data)
    assert field in caught.value.message


def test_a_curve_that_falls_cannot_be_made_by_hand() -> None:
    calibration = fit(normal_cosines(0, 200))
    with pytest.raises(PackageError):
        replace(calibration, scores=calibration.scores[::-1])


def test_the_linear_score_is_fifty_times_one_plus_cosine() -> None:
    linear = LinearScore()
    assert linear.score([-1.0, 0.0, 0.5, 1.0]).tolist() == [0.0, 50.0, 75.0, 100.0]
    assert linear.score(np.float32(1.0000001)) == 100.0
    assert linear.score(0.2).shape == ()
    for score in np.linspace(0.0, 100.0, 21):
        assert abs(float(linear.score(linear.cosine_at(float(score)))) - score) < 1e-9
    assert linear.cosine_at(-1.0) == -1.0
    assert linear.cosine_at(100.5) == math.inf
    assert linear.extrapolated([0.0, 1e9]).tolist() == [False, False]


def test_both_presets_are_scores() -> None:
    presets: list[Score] = [LinearScore(), fit(normal_cosines(0, 200))]
    for preset in presets:
        assert preset.score(0.9) > preset.score(0.1)
        assert preset.cosine_at(float(preset.score(0.5))) == pytest.approx(0.5, abs=1e-6)
        assert preset.extrapolated(0.0).dtype == np.bool_


class TestLowered:
    @pytest.mark.parametrize("by", [0.0, 0.3, 2.6, MOST_LOWERED])
    def test_scores_that_matter_are_lower_by_as_much_and_the_curve_still_rises(
        self, odd: Calibration, by: float
    ) -> None:
        lower, cosines = odd.lowered(by), np.linspace(-1.0, 1.0, 2_001)
        before, after = odd.score(cosines), lower.score(cosines)
        np.testing.assert_allclose(after[before >= RAMP], before[before >= RAMP] - by, atol=1e-6)
        np.testing.assert_allclose(after[before < RAMP], before[before < RAMP] * (1.0 - by / RAMP), atol=1e-6)
        assert Calibration.from_json(json.loads(json.dumps(lower.as_json()))) == lower

    def test_what_was_measured_stays_measured(self) -> None:
        whole = fit(normal_cosines(8, 3_000), persons=150)
        lower, at = whole.lowered(2.0), whole.cosine_at(whole.limit_score)
        for nudge, told in ((-1e-3, False), (1e-3, True)):
            assert bool(whole.extrapolated(whole.score(at + nudge))) is told
            assert bool(lower.extrapolated(lower.score(at + nudge))) is told

    @pytest.mark.parametrize("by", [-0.1, MOST_LOWERED + 0.1, math.nan])
    def test_nothing_is_raised_or_turned_over(self, by: float) -> None:
        with pytest.raises(UsageError):
            fit(normal_cosines(8, 300)).lowered(by)
