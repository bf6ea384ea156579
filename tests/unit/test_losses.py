"""Every loss against a slow loop written from its formula; the presets and their terms."""

from __future__ import annotations

import pytest
import torch
from loss_inputs import SHAPES, assert_close, hard_labels, plain, some_features, some_logits, some_soft_labels
from slow_losses import (
    slow_classification,
    slow_direction,
    slow_divergence,
    slow_drift,
    slow_feature_hint,
    slow_fused_target,
    slow_last_exit_guidance,
    slow_mean_feature_hint,
    slow_one_to_many,
)
from torch import Tensor
from torch.nn import functional

from tutelage.nn.losses import (
    PRESETS,
    TEMPERATURE,
    Preset,
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
    self_distillation,
    softened_divergence,
    teacher_direction,
)


@pytest.mark.parametrize(("k", "b", "d", "c"), SHAPES)
class TestAgainstLoops:
    def test_classification_of_class_numbers(self, k, b, d, c):
        logits, labels = some_logits(k, b, c), hard_labels(b, c)
        targets = functional.one_hot(labels, c).tolist()
        expected = slow_classification(plain(logits), targets, [1.0] * b)
        assert classification(logits, labels).item() == pytest.approx(expected, rel=1e-5)

    def test_classification_of_soft_labels_with_weights(self, k, b, d, c):
        logits, targets = some_logits(k, b, c), some_soft_labels(b, c)
        weights = torch.linspace(0, 2, b)
        expected = slow_classification(plain(logits), targets.tolist(), weights.tolist())
        assert classification(logits, targets, weights).item() == pytest.approx(expected, rel=1e-5, abs=1e-7)

    def test_last_exit_classification(self, k, b, d, c):
        logits, targets = some_logits(k, b, c), some_soft_labels(b, c)
        weights = torch.linspace(0.5, 1.5, b)
        expected = slow_classification(plain(logits[-1:]), targets.tolist(), weights.tolist())
        assert last_exit_classification(logits, targets, weights).item() == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("temperature", [1.0, 3.0, 7.5])
    def test_fusion_guidance(self, k, b, d, c, temperature):
        logits = some_logits(k, b, c)
        target = slow_fused_target(plain(logits), temperature)
        assert_close(fused_target(logits, temperature), torch.tensor(target))
        expected = slow_divergence(target, plain(logits), temperature)
        assert fusion_guidance(logits, temperature).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)

    def test_softened_divergence_from_a_target_with_zeros(self, k, b, d, c):
        logits, target = some_logits(k, b, c), functional.one_hot(hard_labels(b, c), c).float()
        expected = slow_divergence(target.tolist(), plain(logits), 4.0)
        assert softened_divergence(target, logits, 4.0).item() == pytest.approx(expected, rel=1e-4)

    def test_one_to_many_guidance(self, k, b, d, c):
        features = some_features(k, b, d)
        assert one_to_many_guidance(features).item() == pytest.approx(slow_one_to_many(plain(features)), rel=1e-5)

    def test_last_exit_guidance(self, k, b, d, c):
        logits = some_logits(k, b, c)
        expected = slow_last_exit_guidance(plain(logits), 3.0)
        assert last_exit_guidance(logits).item() == pytest.approx(expected, rel=1e-4)

    def test_feature_hint(self, k, b, d, c):
        features = some_features(k, b, d)
        assert feature_hint(features).item() == pytest.approx(slow_feature_hint(plain(features)), rel=1e-5)

    def test_mean_feature_hint(self, k, b, d, c):
        features = some_features(k, b, d)
        assert mean_feature_hint(features).item() == pytest.approx(slow_mean_feature_hint(plain(features)), rel=1e-5)

    def test_reference_drift(self, k, b, d, c):
        now, before = some_features(k, b, d), some_features(k, b, d, seed=9)
        assert reference_drift(now, before).item() == pytest.approx(slow_drift(plain(now), plain(before)), rel=1e-5)

    def test_teacher_direction(self, k, b, d, c):
        mapped = [3 * u + 0.1 for u in some_features(k, b, d)]
        (teacher,) = some_features(1, b, d, seed=9)
        expected = slow_direction(plain(mapped), teacher.tolist())
        assert teacher_direction(mapped, teacher).item() == pytest.approx(expected, rel=1e-5)

    def test_margin_logits(self, k, b, d, c):
        cosines, labels = torch.rand(b, c, generator=torch.Generator().manual_seed(0)) * 2 - 1, hard_labels(b, c)
        expected = [[32 * (cosines[i, j].item() - (0.35 if j == labels[i] else 0)) for j in range(c)] for i in range(b)]
        assert_close(margin_logits(cosines, labels, 32.0, 0.35), torch.tensor(expected))


TERMS = {
    "patent": {"classification", "fusion_guidance", "one_to_many_guidance"},
    "classify": {"classification"},
    "last-exit": {"classification"},
    "byot": {"classification", "last_exit_guidance", "feature_hint"},
    "eed": {"classification", "fusion_guidance", "mean_feature_hint"},
}


class TestPresets:
    def run(self, preset: Preset, **more: object) -> dict[str, Tensor]:
        features, logits = some_features(4, 6, 8), some_logits(4, 6, 5)
        return self_distillation(preset, features, logits, hard_labels(6, 5), **more)

    def test_there_are_these(self):
        assert set(PRESETS) == set(TERMS)
        assert all(name == preset.name for name, preset in PRESETS.items())

    @pytest.mark.parametrize("name", TERMS)
    def test_a_preset_has_exactly_its_terms(self, name: str):
        assert set(self.run(PRESETS[name])) == TERMS[name] | {"loss"}

    def test_the_default_weights_are_those_of_the_architecture_page(self):
        assert PRESETS["patent"] == Preset(
            "patent",
            every_exit=True,
            fusion=0.1,
            one_to_many=0.1,
            last_exit=0.0,
            hint=0.0,
            mean_hint=0.0,
            references=1.0,
        )
        assert TEMPERATURE == 3.0

    @pytest.mark.parametrize("name", TERMS)
    def test_all_keep_the_references_alike(self, name: str):
        assert PRESETS[name].references == 1.0

    @pytest.mark.parametrize("ramp", [0.0, 0.4, 1.0])
    @pytest.mark.parametrize("name", TERMS)
    def test_the_loss_is_the_weighted_sum(self, name: str, ramp: float):
        features, logits = plain(some_features(4, 6, 8)), plain(some_logits(4, 6, 5))
        targets = functional.one_hot(hard_labels(6, 5), 5).tolist()
        preset = PRESETS[name]
        classified = logits if name != "last-exit" else logits[-1:]
        guidance = (
            preset.fusion * slow_divergence(slow_fused_target(logits, 3.0), logits, 3.0)
            + preset.one_to_many * slow_one_to_many(features)
            + preset.last_exit * slow_last_exit_guidance(logits, 3.0)
            + preset.hint * slow_feature_hint(features)
            + preset.mean_hint * slow_mean_feature_hint(features)
        )
        expected = slow_classification(classified, targets, [1.0] * 6) + ramp * guidance
        assert self.run(preset, ramp=ramp)["loss"].item() == pytest.approx(expected, rel=1e-5)

    def test_components_are_reported_unweighted(self):
        half, whole = self.run(PRESETS["patent"], ramp=0.5), self.run(PRESETS["patent"])
        assert half["fusion_guidance"] == whole["fusion_guidance"] == fusion_guidance(some_logits(4, 6, 5))
        assert half["one_to_many_guidance"] == one_to_many_guidance(some_features(4, 6, 8))

    def test_weights_belong_to_the_classification_alone(self):
        weights = torch.linspace(0, 2, 6)
        even, uneven = self.run(PRESETS["patent"]), self.run(PRESETS["patent"], weights=weights)
        assert uneven["classification"] == classification(some_logits(4, 6, 5), hard_labels(6, 5), weights)
        assert even["classification"] != uneven["classification"]
        assert even["fusion_guidance"] == uneven["fusion_guidance"]
