"""The comparison's arithmetic: cases, wrong labels, summaries, paired tests, and rates recomputed by hand."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import NoReturn

import numpy as np
import pytest

from device_sim.evaluation.compare import Case, against, cases, run, summarise
from device_sim.evaluation.measure import rates
from device_sim.evaluation.present import cell, markdown, summary_table
from device_sim.evaluation.selection import Offered, _made_wrong
from device_sim.learning import Labelled, LearningRules
from tutelage.biometrics.calibration import Calibration
from tutelage.errors import UsageError
from tutelage.nn.packaging import Strangers
from tutelage.nn.self_distil import SelfDistillation
from tutelage.nn.students import READOUTS

BLANK = np.zeros((64, 64), np.uint8)


def row(name: str, seed: int, tar: float) -> dict[str, object]:
    rate = {"rank1": 1.0, "eer": 0.1, "tar_1e2": tar, "tar_1e3": tar, "fmr_1e3": None, "strangers": 0.0}
    return {"name": name, "seed": seed, "rates": {s: {r: dict(rate) for r in READOUTS} for s in ("new", "worn")}}


def test_cases_hold_what_does_not_learn_once_and_perfect_labels_once() -> None:
    found = cases(["frozen", "classify"], [0.0, 0.2])
    assert [c for c in found if c.method == "frozen"] == [Case("frozen")]
    assert sum(c.oracle for c in found) == 1
    assert {(c.wrong, c.rules) for c in found if c.method == "classify" and not c.oracle} == {
        (0.0, True),
        (0.2, True),
        (0.0, False),
        (0.2, False),
    }
    assert len({c.name for c in found}) == len(found)


def grpc_is_there(seed: int) -> NoReturn:
    raise UsageError(f"grpc is there: {'grpc' in sys.modules}")


def test_workers_inherit_no_open_channel_and_tell_typed_errors() -> None:
    """A forked one would wait for ever, once it tidied up a channel that this process had open."""
    pytest.importorskip("grpc")
    with pytest.raises(UsageError, match="grpc is there: False"):
        run([0, 1], grpc_is_there, [], SelfDistillation(), LearningRules())


def test_wrong_labels_name_another_enrolled_person() -> None:
    offered = [Offered(Labelled(BLANK, "a", {"a": 1.0}), "a")] * 400
    changed = _made_wrong(offered, ["a", "b", "c"], 0.2, np.random.default_rng(0))
    wrong = [o for o in changed if o.labelled.person != "a"]
    assert 50 < len(wrong) < 110
    assert all(o.labelled.person in "bc" and o.labelled.soft == {o.labelled.person: 1.0} for o in wrong)
    assert all(o.truth == "a" for o in changed)


def test_a_summary_is_mean_and_sample_deviation_over_seeds() -> None:
    rows = [row("x", seed, tar) for seed, tar in enumerate((0.5, 0.7, 0.9))]
    found = summarise(rows)["x"]["worn"]["fused"]
    assert found["tar_1e3"] == pytest.approx({"mean": 0.7, "sd": 0.2, "n": 3})
    assert "fmr_1e3" not in found
    assert cell(found["tar_1e3"]) == "70.0 ± 20.0"
    assert "| x | 70.0 ± 20.0 |" in markdown(summarise(rows))
    assert summary_table(summarise(rows)).row_count == 1


def test_paired_tests_pair_by_seed() -> None:
    rows = [row("x", s, t) for s, t in enumerate((0.5, 0.7, 0.9))] + [
        row("y", s, t) for s, t in enumerate((0.4, 0.6, 0.8))
    ]
    assert against(rows, "x", "y", "fused")["mean_difference"] == pytest.approx(0.1)


def test_rates_are_what_a_slow_count_gives() -> None:
    rng = np.random.default_rng(1)

    def unit(count: int) -> np.ndarray:
        found = rng.standard_normal((count, 8)).astype(np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    references, strangers, impostors = unit(4), unit(7), unit(60)
    owners, truth = ("a", "a", "b", "c"), ("a", "b", "c", "a", "b", "c", "a", "b", "c", "a")
    # Half of the probes and a stranger lie near a reference, so that no rate is 0 or 1 by itself.
    probes = unit(10)
    for row, reference in ((0, 0), (1, 2), (2, 3), (3, 1), (4, 0)):
        probes[row] = references[reference] + 0.1 * probes[row]
        probes[row] /= np.linalg.norm(probes[row])
    strangers[0] = references[3]
    people = Strangers([BLANK] * 60, [f"i{k}" for k in range(60)])
    site = SimpleNamespace(impostors=people, references=SimpleNamespace(persons=owners))
    found = rates(site, references, probes, truth, strangers=strangers, impostors=impostors)  # type: ignore[arg-type]
    calibration = Calibration.fit(
        [float(impostors[i] @ impostors[j]) for i in range(60) for j in range(i)], space="measured", persons=60
    )
    limits = {"tar_1e2": float(calibration.cosine_at(20.0)), "tar_1e3": float(calibration.cosine_at(30.0))}

    def nearest(vector: np.ndarray, person: str) -> float:
        return max(float(vector @ r) for r, owner in zip(references, owners, strict=True) if owner == person)

    pairs = [(nearest(probe, p), p == who) for probe, who in zip(probes, truth, strict=True) for p in "abc"]
    for name, limit in limits.items():
        accepted = [similar >= limit for similar, own in pairs if own]
        assert getattr(found, name) == pytest.approx(sum(accepted) / 10)
    matched = [similar >= limits["tar_1e3"] for similar, own in pairs if not own]
    assert found.fmr_1e3 == pytest.approx(sum(matched) / 20)
    admitted = [max(nearest(one, p) for p in "abc") >= limits["tar_1e3"] for one in strangers]
    assert found.strangers == pytest.approx(sum(admitted) / 7)
    named = [max("abc", key=lambda p, probe=probe: nearest(probe, p)) for probe in probes]
    assert found.rank1 == pytest.approx(sum(n == t for n, t in zip(named, truth, strict=True)) / 10)
