"""What holds of losses whatever goes in: invariances, limits and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from loss_inputs import assert_close, hard_labels, leaves, some_features, some_logits, some_soft_labels
from torch import Tensor
from torch.nn import functional

from tutelage.nn.losses import (
    TEMPERATURE,
    classification,
    feature_hint,
    fused_target,
    fusion_guidance,
    last_exit_classification,
    last_exit_guidance,
    margin_logits,
    mean_feature_hint,
    one_to_many_guidance,
    reference_drift,
    teacher_direction,
)

# One value for everything that a loss takes, so that invariances can be asked of all of them alike.
OF_FEATURES = {"one_to_many": one_to_many_guidance, "hint": feature_hint, "mean_hint": mean_feature_hint}
OF_LOGITS = {"fusion": fusion_guidance, "last_exit": last_exit_guidance}


@pytest.mark.parametrize("loss", OF_FEATURES.values(), ids=OF_FEATURES.keys())
class TestFeatureGuidance:
    def test_equal_exits_have_nothing_to_learn(self, loss: Callable[[list[Tensor]], Tensor]):
        (feature,) = some_features(1, 6, 8)
        assert loss([feature] * 4).item() == pytest.approx(0, abs=1e-6)

    def test_twice_the_batch_is_the_same(self, loss):
        features = some_features(4, 6, 8)
        assert loss([u.repeat(2, 1) for u in features]).item() == pytest.approx(loss(features).item(), rel=1e-6)

    def test_twice_the_dimensions_are_the_same(self, loss):
        features = some_features(4, 6, 8)
        wider = [functional.pad(u, (0, 8)) for u in features]
        assert loss(wider).item() == pytest.approx(loss(features).item(), rel=1e-6)

    def test_half_precision_agrees(self, loss):
        features = some_features(4, 6, 128)
        halved = loss([u.bfloat16() for u in features])
        assert halved.dtype == torch.float32
        assert halved.item() == pytest.approx(loss(features).item(), abs=2e-2)


@pytest.mark.parametrize("loss", OF_LOGITS.values(), ids=OF_LOGITS.keys())
class TestLogitGuidance:
    def test_equal_exits_have_nothing_to_learn(self, loss: Callable[..., Tensor]):
        (logits,) = some_logits(1, 6, 5)
        assert loss([logits] * 4).item() == pytest.approx(0, abs=1e-5)

    def test_exits_that_differ_have(self, loss):
        assert loss(some_logits(4, 6, 5)).item() > 0.5

    def test_a_constant_added_to_an_exits_logits_changes_nothing(self, loss):
        logits = some_logits(4, 6, 5)
        moved = [z + 3.0 * k for k, z in enumerate(logits)]
        assert loss(moved).item() == pytest.approx(loss(logits).item(), rel=1e-4)

    def test_the_divergence_vanishes_as_predictions_soften(self, loss):
        logits = some_logits(4, 6, 5)
        divergence = [loss(logits, t).item() / t**2 for t in (1.0, 3.0, 10.0, 30.0, 100.0)]
        assert divergence == sorted(divergence, reverse=True)
        assert divergence[-1] < 2e-3 < divergence[0]

    def test_twice_the_batch_is_the_same(self, loss):
        logits = some_logits(4, 6, 5)
        assert loss([z.repeat(2, 1) for z in logits]).item() == pytest.approx(loss(logits).item(), rel=1e-5)

    def test_half_precision_agrees(self, loss):
        logits = [z.bfloat16() for z in some_logits(4, 6, 5)]
        single = loss([z.float() for z in logits])
        assert loss(logits).dtype == torch.float32
        assert loss(logits).item() == pytest.approx(single.item(), rel=1e-5)
        assert loss(logits).item() == pytest.approx(loss(some_logits(4, 6, 5)).item(), rel=2e-2)


def test_hot_fusion_becomes_the_squared_distance_of_centred_logits():
    """Hinton et al. 2015, §2.1: T² KL tends to 1 / (2C) of the squared distance of logits without their mean."""
    logits = some_logits(4, 6, 5)
    fused, total = torch.stack(logits).mean(0), 0.0
    for z in logits:
        gap = z - fused
        total += ((gap - gap.mean(1, keepdim=True)) ** 2).sum().item() / (2 * 5)
    assert fusion_guidance(logits, 100.0).item() == pytest.approx(total / (4 * 6), rel=0.05)


def test_more_exits_of_the_same_kind_are_the_same():
    features, logits = some_features(4, 6, 8), some_logits(4, 6, 5)
    more = [*features[:-1], *features[:-1], features[-1]]
    assert one_to_many_guidance(more).item() == pytest.approx(one_to_many_guidance(features).item(), rel=1e-6)
    assert feature_hint(more).item() == pytest.approx(feature_hint(features).item(), rel=1e-6)
    assert mean_feature_hint(features * 2).item() == pytest.approx(mean_feature_hint(features).item(), rel=1e-6)
    assert fusion_guidance(logits * 2).item() == pytest.approx(fusion_guidance(logits).item(), rel=1e-5)
    more_logits = [*logits[:-1], *logits[:-1], logits[-1]]
    assert last_exit_guidance(more_logits).item() == pytest.approx(last_exit_guidance(logits).item(), rel=1e-5)
    labels = hard_labels(6, 5)
    assert classification(logits * 2, labels).item() == pytest.approx(classification(logits, labels).item(), rel=1e-6)
    assert reference_drift(features * 2, features[::-1] * 2).item() == pytest.approx(
        reference_drift(features, features[::-1]).item(), rel=1e-6
    )
    teacher = features[0]
    assert teacher_direction(features * 2, teacher).item() == pytest.approx(
        teacher_direction(features, teacher).item(), rel=1e-6
    )


def test_twice_the_batch_is_the_same_to_labels_references_and_the_teacher():
    features, logits, labels = some_features(4, 6, 8), some_logits(4, 6, 5), hard_labels(6, 5)
    weights = torch.linspace(0.2, 1.8, 6)
    twice = [z.repeat(2, 1) for z in logits]
    assert classification(twice, labels.repeat(2), weights.repeat(2)).item() == pytest.approx(
        classification(logits, labels, weights).item(), rel=1e-6
    )
    doubled = [u.repeat(2, 1) for u in features]
    assert reference_drift(doubled, doubled[::-1]).item() == pytest.approx(
        reference_drift(features, features[::-1]).item(), rel=1e-6
    )
    assert teacher_direction(doubled, doubled[0]).item() == pytest.approx(
        teacher_direction(features, features[0]).item(), rel=1e-6
    )


def test_half_precision_agrees_for_labels_references_and_the_teacher():
    features, logits, labels = some_features(4, 6, 128), some_logits(4, 6, 5), hard_labels(6, 5)
    coarse, coarse_logits = [u.bfloat16() for u in features], [z.bfloat16() for z in logits]
    pairs = [
        (classification(coarse_logits, labels), classification(logits, labels)),
        (classification(coarse_logits, some_soft_labels(6, 5)), classification(logits, some_soft_labels(6, 5))),
        (reference_drift(coarse, coarse[::-1]), reference_drift(features, features[::-1])),
        (teacher_direction(coarse, coarse[0]), teacher_direction(features, features[0])),
    ]
    for halved, single in pairs:
        assert halved.dtype == torch.float32
        assert halved.item() == pytest.approx(single.item(), abs=2e-2)


class TestLimits:
    def test_directions_range_from_zero_to_two(self):
        (u,) = some_features(1, 6, 8)
        assert one_to_many_guidance([-u, u]).item() == pytest.approx(2, abs=1e-6)
        assert reference_drift([-u], [u]).item() == pytest.approx(2, abs=1e-6)
        assert teacher_direction([-3 * u], u).item() == pytest.approx(2, abs=1e-6)
        assert feature_hint([-u, u]).item() == pytest.approx(4, abs=1e-6)

    def test_a_student_that_points_like_its_teacher_has_nothing_to_learn(self):
        (u,) = some_features(1, 6, 8)
        assert teacher_direction([0.1 * u, 20 * u], u).item() == pytest.approx(0, abs=1e-6)

    def test_references_that_stayed_do_not_drift(self):
        features = some_features(2, 6, 8)
        assert reference_drift(features, features).item() == pytest.approx(0, abs=1e-6)

    def test_certain_and_right_costs_nothing_certain_and_wrong_the_gap(self):
        logits = [torch.tensor([[60.0, 0.0, 0.0]])] * 2
        assert classification(logits, torch.tensor([0])).item() == pytest.approx(0, abs=1e-6)
        assert classification(logits, torch.tensor([1])).item() == pytest.approx(60)

    def test_a_sample_of_no_weight_counts_for_nothing(self):
        logits, labels = some_logits(4, 6, 5), hard_labels(6, 5)
        weights = torch.tensor([1.2, 1.2, 1.2, 1.2, 1.2, 0.0])
        wrong = labels.clone()
        wrong[5] = (labels[5] + 1) % 5
        assert classification(logits, labels, weights).item() == classification(logits, wrong, weights).item()

    def test_soft_labels_that_are_certain_are_class_numbers(self):
        logits, labels = some_logits(4, 6, 5), hard_labels(6, 5)
        certain = functional.one_hot(labels, 5).float()
        assert classification(logits, certain).item() == pytest.approx(classification(logits, labels).item(), rel=1e-6)


class TestGradients:
    """Each against the derivative of its formula with the target held still."""

    def test_fusion_moves_every_exit_towards_a_target_that_does_not_move(self):
        logits = leaves(some_logits(4, 6, 5))
        target = fused_target(logits)
        assert not target.requires_grad
        found = torch.autograd.grad(fusion_guidance(logits), logits)
        for z, gradient in zip(logits, found, strict=True):
            expected = TEMPERATURE / (4 * 6) * (torch.softmax(z / TEMPERATURE, 1) - target)
            assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
        assert found[-1].abs().sum() > 0, "the last exit learns too"

    def test_one_to_many_leaves_the_last_feature_alone(self):
        features = leaves(some_features(4, 6, 8))
        *early, last = torch.autograd.grad(one_to_many_guidance(features), features, allow_unused=True)
        assert last is None
        for gradient in early:
            assert_close(gradient, -features[-1].detach() / (3 * 6))

    def test_the_last_exit_teaches_without_learning(self):
        logits = leaves(some_logits(4, 6, 5))
        *early, last = torch.autograd.grad(last_exit_guidance(logits), logits, allow_unused=True)
        assert last is None
        target = torch.softmax(logits[-1].detach() / TEMPERATURE, 1)
        for z, gradient in zip(logits, early, strict=False):
            expected = TEMPERATURE / (3 * 6) * (torch.softmax(z / TEMPERATURE, 1) - target)
            assert_close(gradient, expected, rtol=1e-4, atol=1e-6)

    def test_the_hint_leaves_the_last_feature_alone(self):
        features = leaves(some_features(4, 6, 8))
        *early, last = torch.autograd.grad(feature_hint(features), features, allow_unused=True)
        assert last is None
        for u, gradient in zip(features, early, strict=False):
            assert_close(gradient, 2 * (u - features[-1]).detach() / (3 * 6))

    def test_the_mean_hint_holds_the_mean_still(self):
        features = leaves(some_features(4, 6, 8))
        centre = torch.stack(features).mean(0).detach()
        for u, gradient in zip(features, torch.autograd.grad(mean_feature_hint(features), features), strict=True):
            assert_close(gradient, 2 * (u.detach() - centre) / (4 * 6))

    def test_references_are_drawn_to_where_they_were(self):
        now, before = leaves(some_features(2, 6, 8)), leaves(some_features(2, 6, 8, seed=9))
        found = torch.autograd.grad(reference_drift(now, before), [*now, *before], allow_unused=True)
        assert found[2:] == (None, None)
        for gradient, was in zip(found[:2], before, strict=True):
            assert_close(gradient, -was.detach() / (2 * 6))

    def test_descending_the_drift_brings_a_reference_back(self):
        (now,), (before,) = leaves(some_features(1, 6, 8)), some_features(1, 6, 8, seed=9)
        start = reference_drift([now], [before]).item()
        for _ in range(50):
            unit = functional.normalize(now, dim=1)
            (gradient,) = torch.autograd.grad(reference_drift([unit], [before]), now)
            now = (now - 2 * gradient).detach().requires_grad_()
        assert reference_drift([functional.normalize(now, dim=1)], [before]).item() < 0.05 * start

    def test_classification_moves_each_exit_by_its_own_mistake_and_weight(self):
        logits, targets = leaves(some_logits(4, 6, 5)), some_soft_labels(6, 5)
        weights = torch.linspace(0, 2, 6)
        found = torch.autograd.grad(classification(logits, targets, weights), logits)
        for z, gradient in zip(logits, found, strict=True):
            expected = weights[:, None] * (torch.softmax(z, 1) - targets) / (4 * 6)
            assert_close(gradient, expected.detach(), rtol=1e-4, atol=1e-7)

    def test_last_exit_classification_moves_no_other(self):
        logits = leaves(some_logits(4, 6, 5))
        found = torch.autograd.grad(last_exit_classification(logits, hard_labels(6, 5)), logits, allow_unused=True)
        assert [gradient is None for gradient in found] == [True, True, True, False]

    def test_the_margin_leaves_the_slope_as_it_is(self):
        (cosines,) = leaves([torch.zeros(6, 5)])
        (gradient,) = torch.autograd.grad(margin_logits(cosines, hard_labels(6, 5), 16.0, 0.2).sum(), [cosines])
        assert_close(gradient, torch.full((6, 5), 16.0))
