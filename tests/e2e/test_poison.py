"""Attackers who poison what a device learns from get in no more easily afterwards, where the limits on samples hold.

The attack, and all that is measured, are those of `benchmarks/poison.py`; here one device lives through each.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from device_sim.models import shipped
from device_sim.year.rivals import Eyes

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ALLOWED = 1.1
"""Acceptances of attackers over the frozen student's."""


@pytest.fixture(scope="module")
def poison() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)  # the script imports what lies beside it
        yield importlib.import_module("poison")


def test_injected_captures_are_accepted_as_the_victim_and_lie_nearer_and_nearer_to_the_attacker(poison: ModuleType):
    torch.set_num_threads(1)
    scene = poison.Scene(0)
    models = shipped()
    frozen = poison.released(models, scene, poison.LIMITS)
    crafted = poison.crafted(scene, 0, frozen, poison.LIMITS)
    taken = Eyes.of(frozen).take(frozen.features(crafted))
    assert [t.person for t in taken] == [poison.name(0)] * poison.INJECTIONS
    assert all(t.accepted for t in taken)
    scores = [t.score for t in taken]
    assert scores[0] > scores[-1] >= poison.LIMITS.sample_low
    plain = frozen.features(scene.captures(scene.attackers[0], range(9000, 9000 + poison.INJECTIONS), poison.WEAR))
    near = (frozen.features(crafted).vectors * plain.vectors).sum(1)
    assert near[-1] > near[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("attack", ["ten injections", "hostile tenth"])
def test_attackers_get_in_no_more_easily_after_a_training_on_what_the_limits_let_pass(
    poison: ModuleType, tmp_path: Path, attack: str
):
    torch.set_num_threads(1)
    scene = poison.Scene(1)
    stage = poison.Stage(scene, shipped(), poison.LIMITS, tmp_path / "device")
    try:
        stage.live(attack)
        kept = stage.kept()
        ungated, running, _ = stage.trained()
        counts = {
            name: poison.measured(scene, model, Eyes.of(model))
            for name, model in (("frozen", stage.frozen), ("trained", ungated), ("device", running))
        }
    finally:
        stage.close()
    assert kept["kept"] > 20
    if attack == "ten injections":  # made to be kept: what follows would be worth nothing otherwise
        assert kept["kept_hostile"] > 0
    for name in ("trained", "device"):
        assert counts[name]["admitted"] <= ALLOWED * counts["frozen"]["admitted"] + 1, counts
    assert counts["device"]["near"] <= ALLOWED * counts["frozen"]["near"] + 6, counts
