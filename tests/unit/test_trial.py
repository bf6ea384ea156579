"""The trial of a candidate: the same captures for both, each student in its own space, a package that tells all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from toy_device import FLEET_KEY, REFERENCES, STORE_KEY, finger, name_of, toy_model, toy_release
from toy_networks import TOY, toy_student

from device_sim.device_settings import DeviceKeys
from device_sim.gate import Check, GateRules, Verdict, judge_gate
from device_sim.job import Descent
from device_sim.learning import Labelled
from device_sim.recognition import Enrolled, RunningModel
from device_sim.training import Trained
from device_sim.trial import (
    TIMED,
    came_nearer,
    gather_evidence,
    packaged,
    stranger_scores,
    with_lower_scores,
)
from tutelage.biometrics.calibration import MOST_LOWERED, Calibration
from tutelage.biometrics.features import impostor_cosines
from tutelage.biometrics.matching import DecisionRule
from tutelage.captures import to_input
from tutelage.errors import Code, InputError, PackageError, StorageError
from tutelage.impostors import open_impostors
from tutelage.nn.students import Recogniser, load_student, part_way, save_weights
from tutelage.package import read_package
from tutelage.signing import make_signer

SUMMARY = {"settings": {}, "losses": {}, "seconds": 1.5, "peak_bytes": 9, "samples": 4, "steps_run": 3}


@pytest.fixture
def keys(tmp_path) -> DeviceKeys:
    return DeviceKeys(STORE_KEY, FLEET_KEY, make_signer(tmp_path / "device.key"))


def running_package():
    release = toy_release()
    return read_package(release.package, trusted=[release.trusted])


def candidate_package(keys: DeviceKeys, weights: bytes, share: float = 1.0):
    running = running_package()
    descent, trained = Descent("v1+1", running.digest, 1), Trained(weights, SUMMARY)
    data = packaged(running, descent, trained, keys, time_s=1_767_225_600.0, share=share)
    return read_package(data, trusted=[keys.signer.public_key()])


def test_a_candidate_is_packaged_with_where_it_comes_from_and_a_calibration_of_its_own_space(keys: DeviceKeys):
    weights = save_weights(toy_student(9))
    package = candidate_package(keys, weights)
    running = running_package()
    assert (package.info.version, package.info.parent, package.info.readout) == ("v1+1", running.digest, "fused")
    assert package.info.created == "2026-01-01T00:00:00+00:00"
    told = {k: SUMMARY[k] for k in ("settings", "losses", "seconds", "peak_bytes", "samples")}
    assert package.info.training == told | {"share": 1.0}
    captures, persons = open_impostors(package.impostors, FLEET_KEY)
    assert persons == open_impostors(running.impostors, FLEET_KEY)[1]
    features = Recogniser.of(load_student(TOY, weights), "fused").features(to_input(captures, TOY.side))
    own = Calibration.fit(impostor_cosines(features, persons), space=features.space, persons=len(persons))
    assert Calibration.from_json(package.calibration) == own


def test_a_part_of_the_way_is_packaged_as_what_it_is(keys: DeviceKeys):
    package = candidate_package(keys, save_weights(toy_student(9)), share=0.25)
    start = load_student(TOY, running_package().weights)
    assert package.weights == save_weights(part_way(start, toy_student(9), 0.25))
    assert package.info.training["share"] == 0.25


def test_what_cannot_become_a_package_is_said(keys: DeviceKeys):
    with pytest.raises(PackageError) as damaged:
        candidate_package(keys, b"no tensors")
    assert damaged.value.code is Code.PACKAGE_CORRUPT
    broken = toy_student(9)
    broken.stem.weight.data.fill_(float("nan"))
    with pytest.raises(InputError) as no_numbers:
        candidate_package(keys, save_weights(broken))
    assert no_numbers.value.code is Code.DATA_INSUFFICIENT
    with pytest.raises(StorageError) as wrong:
        candidate_package(replace(keys, fleet=bytes(32)), save_weights(toy_student(9)))
    assert wrong.value.code is Code.KEY_WRONG


@pytest.mark.parametrize(
    ("candidate", "share", "nearer"),
    [
        ((30.0, 20.0, 10.0, 0.0, 0.0), 0.4, 0.0),  # the same
        ((34.0, 20.0, 10.0, 0.0, 0.0), 0.4, 2.0),
        ((20.0, 34.0, 10.0, 0.0, 0.0), 0.4, 2.0),  # in whatever order
        ((34.0, 20.0, 10.0, 0.0, 0.0), 0.2, 4.0),
        ((34.0, 20.0, 10.0, 0.0, 0.0), 0.0, 0.0),  # never
        ((29.0, 20.0, 19.0, 19.0, 19.0), 0.4, 0.0),  # those who are far do not count
        ((120.0, 120.0, 10.0, 0.0, 0.0), 0.4, MOST_LOWERED),
    ],
)
def test_what_strangers_came_nearer_by_is_told_of_the_nearest(
    candidate: tuple[float, ...], share: float, nearer: float
):
    assert came_nearer((30.0, 20.0, 10.0, 0.0, 0.0), candidate, share) == pytest.approx(nearer)


def test_a_student_with_lower_scores_is_the_same_student(keys: DeviceKeys):
    package = candidate_package(keys, save_weights(toy_student(9)))
    lower = read_package(with_lower_scores(package, 1.5, keys), trusted=[keys.signer.public_key()])
    assert (lower.weights, lower.impostors, lower.space) == (package.weights, package.impostors, package.space)
    assert lower.info.training == {**package.info.training, "lowered": 1.5}
    before, after = (Calibration.from_json(p.calibration) for p in (package, lower))
    assert after.score(before.cosine_at(30.0)) == pytest.approx(28.5)


def counting_clock():
    """Seconds that go on by 1 at each look: the running student's recognitions and the candidate's look alike."""
    return iter(range(10_000)).__next__


def test_evidence_holds_the_scores_of_each_student_in_its_own_space(keys: DeviceKeys):
    running = toy_model()
    candidate = RunningModel.of(
        candidate_package(keys, save_weights(toy_student(9))), Enrolled.of(REFERENCES, TOY.side), DecisionRule()
    )
    held = [Labelled(finger(p, 60), name_of(p)) for p in range(6)]
    strangers = [finger(3000 + i, 0) for i in range(40)]
    found = gather_evidence(running, candidate, held, strangers, counting_clock())
    for model, evidence in zip((running, candidate), found, strict=True):
        assert len(evidence.latency_s) == TIMED
        assert set(evidence.latency_s) == {1.0}
        assert len(evidence.references) == 12
        scores = [model.recognise(s).score for s in strangers]
        assert evidence.strangers == pytest.approx(scores, abs=0.05)
        assert evidence.strangers == stranger_scores(model, strangers)
        assert [c.person for c in evidence.held_back] == [name_of(p) for p in range(6)]
        owned = [model.verify(name_of(p), finger(p, 60)) for p in range(6)]
        assert [c.own for c in evidence.held_back] == pytest.approx(owned, abs=0.05)
    assert found[0].strangers != found[1].strangers


def test_each_student_goes_first_in_every_other_round():
    running, candidate = toy_model(), toy_model()
    order: list[str] = []

    class Told:
        def __init__(self, model: RunningModel, name: str) -> None:
            self._model, self._name = model, name

        def __getattr__(self, attribute: str):
            if attribute == "recognise":
                order.append(self._name)
            return getattr(self._model, attribute)

    gather_evidence(Told(running, "old"), Told(candidate, "new"), [], [finger(3000, 0)], counting_clock())
    assert order[:8] == ["old", "new", "new", "old", "old", "new", "new", "old"]
    assert order.count("old") == order.count("new") == TIMED


def test_a_student_against_itself_passes_but_for_nothing_gained_or_lost():
    held = [Labelled(finger(p, 60 + k), name_of(p)) for p in range(6) for k in range(2)]
    model = toy_model()
    verdict = judge_gate(
        *gather_evidence(model, model, held, [finger(3000 + i, 0) for i in range(40)], counting_clock()), GateRules()
    )
    assert verdict.passed, verdict.reasons


def test_every_number_of_a_verdict_is_kept_by_name():
    checks = (Check("held-back", True, "", {"lost": 1, "gained": 2}), Check("latency", False, "", {"ratio": 1.5}))
    assert Verdict(False, checks, GateRules()).numbers == {
        "held-back": 1.0,
        "held-back.lost": 1,
        "held-back.gained": 2,
        "latency": 0.0,
        "latency.ratio": 1.5,
    }
