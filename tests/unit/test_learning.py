"""What is learnt: labels, weights and plausibility, recomputed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from toy_device import REFERENCES, finger, name_of, toy_model
from toy_networks import TOY

from device_sim.learning import Labelled, LearningRules, plausible, training_set
from device_sim.recognition import Enrolled
from tutelage.captures import to_input
from tutelage.errors import Code, InputError, PersonError, UsageError

ENROLLED = Enrolled.of(REFERENCES, TOY.side)


def sample(person: int, label: str | None = None, **changes: object) -> Labelled:
    return Labelled(finger(person, 70), label or name_of(person), **changes)


def test_arrays_speak_of_the_samples_and_the_persons_in_the_order_of_their_names():
    samples = [sample(4), sample(1, "p05"), sample(0)]
    learnt = training_set(samples, ENROLLED, LearningRules())
    np.testing.assert_array_equal(learnt.inputs, to_input([s.capture for s in samples], TOY.side))
    np.testing.assert_array_equal(learnt.targets, np.eye(6, dtype=np.float32)[[4, 5, 0]])
    np.testing.assert_array_equal(learnt.weights, np.ones(3, np.float32))
    np.testing.assert_array_equal(learnt.references, ENROLLED.inputs)
    np.testing.assert_array_equal(learnt.reference_labels, np.repeat(np.arange(6), 2))


def test_soft_labels_are_spread_over_enrolled_persons_alone_and_sum_to_one():
    soft = {"p02": 0.6, "p03": 0.2, "gone": 0.2}
    rules = LearningRules(soft_labels=True)
    learnt = training_set([sample(2, soft=soft, taught=True), sample(3)], ENROLLED, rules)
    np.testing.assert_allclose(learnt.targets[0], [0, 0, 0.75, 0.25, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(learnt.targets[1], np.eye(6, dtype=np.float32)[3])
    hard = training_set([sample(2, soft=soft, taught=True)], ENROLLED, LearningRules())
    np.testing.assert_array_equal(hard.targets[0], np.eye(6, dtype=np.float32)[2])


def test_a_distribution_that_leaves_out_the_sample_s_person_is_not_used():
    rules = LearningRules(soft_labels=True)
    learnt = training_set([sample(2, soft={"p03": 1.0}), sample(2, soft={"gone": 1.0})], ENROLLED, rules)
    np.testing.assert_array_equal(learnt.targets, np.eye(6, dtype=np.float32)[[2, 2]])


def test_confidence_weighs_with_mean_one():
    samples = [sample(0, confidence=0.2), sample(1, confidence=0.6)]
    weighed = training_set(samples, ENROLLED, LearningRules(confidence_weights=True))
    np.testing.assert_allclose(weighed.weights, [0.5, 1.5], atol=1e-6)
    np.testing.assert_array_equal(training_set(samples, ENROLLED, LearningRules()).weights, [1, 1])
    none = [sample(0, confidence=0.0), sample(1, confidence=0.0)]
    np.testing.assert_array_equal(training_set(none, ENROLLED, LearningRules(confidence_weights=True)).weights, [1, 1])


def test_a_sample_of_a_person_without_a_reference_is_refused():
    with pytest.raises(PersonError) as caught:
        training_set([sample(0, "gone")], ENROLLED, LearningRules())
    assert caught.value.code is Code.PERSON_UNKNOWN


@pytest.mark.filterwarnings("error")
def test_nothing_to_learn_and_nobody_to_learn_about_are_refused():
    for samples, enrolled in (([], ENROLLED), ([], Enrolled.of([], TOY.side))):
        with pytest.raises(InputError) as caught:
            training_set(samples, enrolled, LearningRules())
        assert caught.value.code is Code.DATA_INSUFFICIENT


def rank_of(model, capture, person: str) -> int:
    """How many persons are nearer than `person`, by the plainest loop."""
    vector = model.features([capture]).vectors[0]
    best: dict[str, float] = {}
    for owner, reference in zip(model.gallery.persons, model.gallery.features.vectors, strict=True):
        best[owner] = max(best.get(owner, -1.0), float(vector @ reference))
    return sum(other > best[person] for other in best.values())


def test_a_label_is_plausible_if_the_named_person_is_among_the_nearest():
    model = toy_model()
    samples = [
        Labelled(finger(p, 70 + k, wear), name_of(q))
        for p in range(3)
        for q in range(6)
        for k, wear in ((0, 0.3), (1, 0.8))
    ]
    ranks = [rank_of(model, s.capture, s.person) for s in samples]
    assert len(set(ranks)) == 6
    for rank in (1, 3, 6):
        assert plausible(model, samples, rank).tolist() == [r < rank for r in ranks]


def test_a_person_who_is_not_enrolled_is_never_plausible():
    model = toy_model(REFERENCES[:4])  # two persons
    samples = [sample(0), sample(0, "p05"), sample(0, " "), sample(0, "p01")]
    assert plausible(model, samples, rank=3).tolist() == [True, False, False, True]
    assert plausible(model, [sample(0, "p05")], rank=3).tolist() == [False]
    assert plausible(toy_model([]), [sample(0)], rank=3).tolist() == [False]
    assert plausible(model, [], rank=3).shape == (0,)


@pytest.mark.parametrize("shares", [(), (0.0,), (1.1,), (0.5, 1.0), (0.5, 0.5), (1.0, 0.5, 0.0), (float("nan"),)])
def test_parts_of_a_way_that_are_none_are_refused(shares: tuple[float, ...]):
    with pytest.raises(UsageError, match="shares"):
        LearningRules(shares=shares)
