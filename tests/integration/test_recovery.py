"""What the loop has to reach on a worn sensor with the shipped models: bounds with room for another machine.

The figures themselves are measured over several seeds by `benchmarks/comparison.py`.
"""

from __future__ import annotations

import pytest

from device_sim.evaluation.compare import Case, run_seed
from device_sim.evaluation.grounds import SyntheticGrounds
from device_sim.learning import LearningRules
from device_sim.site import SiteSize
from tutelage.biometrics.error_rates import clopper_pearson
from tutelage.nn.self_distil import SelfDistillation

SIZE = SiteSize(probes=8, strangers=40)
SETTINGS = SelfDistillation(steps=80, batch=24)  # less than a device does, and enough for the bounds
WANTED = {
    "frozen": Case("frozen"),
    "last-exit": Case("last-exit"),
    "classify": Case("classify"),
    "noisy": Case("classify", wrong=0.2),
    "perfect": Case("classify", oracle=True),
}


@pytest.fixture(scope="module")
def rates() -> dict[str, dict[str, dict[str, float]]]:
    """Rates on the worn sensor by case and readout."""
    rows = run_seed(0, SyntheticGrounds(SIZE), list(WANTED.values()), SETTINGS, LearningRules())
    return {name: row["rates"]["worn"] for name, row in zip(WANTED, rows, strict=True)}


def tar(rates: dict[str, dict[str, dict[str, float]]], case: str, readout: str = "exit4") -> float:
    return rates[case][readout]["tar_1e3"]


@pytest.mark.slow
def test_the_loop_regains_most_of_what_perfect_labels_regain(rates: dict[str, dict[str, dict[str, float]]]) -> None:
    lost = tar(rates, "perfect") - tar(rates, "frozen")
    assert lost > 0.15
    assert tar(rates, "classify") - tar(rates, "frozen") >= 0.8 * lost


@pytest.mark.slow
def test_every_exit_learns_not_the_last_alone(rates: dict[str, dict[str, dict[str, float]]]) -> None:
    for readout in ("exit1", "exit2", "exit3"):
        assert tar(rates, "classify", readout) >= tar(rates, "last-exit", readout) + 0.05


@pytest.mark.slow
def test_wrong_labels_leave_half_of_the_gain(rates: dict[str, dict[str, dict[str, float]]]) -> None:
    assert tar(rates, "noisy") - tar(rates, "frozen") >= 0.5 * (tar(rates, "classify") - tar(rates, "frozen"))


@pytest.mark.slow
def test_no_stranger_becomes_easier_to_accept(rates: dict[str, dict[str, dict[str, float]]]) -> None:
    accepted = round(rates["frozen"]["exit4"]["strangers"] * SIZE.strangers)
    assert rates["classify"]["exit4"]["strangers"] <= clopper_pearson(accepted, SIZE.strangers)[1]
