"""Self-distillation: what it starts from, draws, trains, moves and keeps, and what it refuses."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toy_networks import TOY, one_hot, toy_images, toy_settings, toy_student, toy_training_set

from tutelage.errors import Code, InputError, TrainingError, UsageError
from tutelage.nn import self_distil as module
from tutelage.nn.batches import Augmentation
from tutelage.nn.losses import PRESETS
from tutelage.nn.self_distil import SelfDistillation, SelfDistilled, TrainingSet, _draw, self_distil
from tutelage.nn.students import EXITS, Student, save_weights

STILL = Augmentation(shift=0, degrees=0, zoom=0, contrast=0, noise=0)


def trained(
    settings: SelfDistillation, training_set: TrainingSet | None = None, student: Student | None = None, **more: object
) -> SelfDistilled:
    return self_distil(student or toy_student(), training_set or toy_training_set(), settings, **more)


def weights_after(*arguments: object, **more: object) -> bytes:
    return save_weights(trained(*arguments, **more).student)


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    """Names of the tensors that differ."""
    return {k for k, v in before.state_dict().items() if not torch.equal(v, after.state_dict()[k])}


class TestLearning:
    def test_the_loss_falls_and_persons_come_apart(self):
        losses: list[dict[str, float]] = []
        data, student = toy_training_set(persons=5), toy_student()
        before = separation(student, data)
        done = trained(toy_settings(steps=40, batch=32), data, student, progress=lambda *now: losses.append(now[2]))
        start, end = (np.mean([now["classification"] for now in part]) for part in (losses[:4], losses[-4:]))
        assert end < 0.8 * start
        assert done.student is student
        assert not student.training
        assert separation(student, data) > before + 0.1

    @pytest.mark.parametrize("name", PRESETS)
    def test_every_preset_trains_and_reports_its_terms_and_the_drift(self, name: str):
        losses: list[dict[str, float]] = []
        done = trained(toy_settings(preset=name, steps=3), progress=lambda *now: losses.append(now[2]))
        expected = {"classification", "reference_drift", "loss"}
        if PRESETS[name].fusion:
            expected.add("fusion_guidance")
        if PRESETS[name].one_to_many:
            expected.add("one_to_many_guidance")
        if PRESETS[name].last_exit:
            expected |= {"last_exit_guidance", "feature_hint"}
        if PRESETS[name].mean_hint:
            expected.add("mean_feature_hint")
        assert set(losses[0]) == expected
        assert done.losses == losses[-1]
        assert done.steps_run == 3

    def test_guidance_grows_over_its_share_of_the_steps_and_the_drift_counts_in_full(self):
        now: list[dict[str, float]] = []
        trained(toy_settings(ramp=0.5), progress=lambda *told: now.append(told[2]))
        for step, terms in enumerate(now):
            ramp = min(1.0, step / 4)
            guidance = 0.1 * terms["fusion_guidance"] + 0.1 * terms["one_to_many_guidance"]
            expected = terms["classification"] + ramp * guidance + 1.0 * terms["reference_drift"]
            assert terms["loss"] == pytest.approx(expected, rel=1e-5)

    def test_fine_tuning_the_last_exit_leaves_the_other_adapters_alone(self):
        before = toy_student()
        fine = changed(before, trained(toy_settings(preset="last-exit", batch=8)).student)
        every = changed(before, trained(toy_settings(preset="classify", batch=8)).student)
        assert not any(name.startswith(("adapters.0.", "adapters.1.", "adapters.2.")) for name in fine)
        assert {"stem.weight", "adapters.3.linear.weight"} <= fine
        assert {f"adapters.{k}.linear.weight" for k in range(EXITS)} <= every

    def test_the_seed_decides_everything(self):
        runs = [weights_after(toy_settings(seed=seed, steps=4)) for seed in (1, 1, 2)]
        assert runs[0] == runs[1] != runs[2]

    def test_no_steps_change_nothing(self):
        done = trained(toy_settings(steps=0))
        assert save_weights(done.student) == save_weights(toy_student())
        assert done.losses == {}
        assert done.steps_run == 0

    def test_arrays_that_must_not_be_written_are_only_read(self):
        data = toy_training_set()
        expected = weights_after(toy_settings(steps=3), data)
        for array in (data.inputs, data.targets, data.weights, data.references, data.reference_labels):
            array.setflags(write=False)
        assert weights_after(toy_settings(steps=3), data) == expected


def separation(student: Student, data: TrainingSet) -> float:
    """Mean cosine of one person's samples less that of two persons', at the last exit."""
    with torch.no_grad():
        u = student(torch.from_numpy(data.inputs))[-1]
    own = torch.from_numpy(data.targets.argmax(1)[:, None] == data.targets.argmax(1)[None])
    cosines = u @ u.T
    return float(cosines[own].mean() - cosines[~own].mean())


class TestStart:
    def test_heads_start_as_the_mean_reference_features_of_each_exit(self, tmp_path: Path):
        data, student = toy_training_set(), toy_student()
        with torch.no_grad():
            features = [u.double().numpy() for u in student(torch.from_numpy(data.references))]
        trained(toy_settings(steps=1, learning_rate=0.0), data, checkpoint=tmp_path / "c")
        heads = load_file(tmp_path / "c")["model.heads.weights"].numpy()
        assert heads.shape == (EXITS, 4, TOY.dimension)
        for k, person in itertools.product(range(EXITS), range(4)):
            mean = np.zeros(TOY.dimension)
            for row, label in enumerate(data.reference_labels):
                if label == person:
                    mean += features[k][row]
            np.testing.assert_allclose(heads[k, person], mean / np.linalg.norm(mean), atol=1e-5)

    def test_a_rate_of_nothing_moves_nothing_but_the_statistics(self):
        after = trained(toy_settings(learning_rate=0.0)).student
        moved = {name.rsplit(".", 1)[1] for name in changed(toy_student(), after)}
        assert moved == {"running_mean", "running_var", "num_batches_tracked"}


class TestDraw:
    def rows(self, settings: SelfDistillation, steps: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        drawn = [_draw(toy_training_set(), settings, step) for step in range(steps)]
        return [new for new, _ in drawn], [old for _, old in drawn]

    @pytest.mark.parametrize(("batch", "new", "replayed"), [(16, 8, 8), (9, 5, 4), (2, 1, 1)])
    def test_half_are_new_and_half_are_references(self, batch: int, new: int, replayed: int):
        rows, references = self.rows(toy_settings(batch=batch), 5)
        assert {len(r) for r in rows} == {new}
        assert {len(r) for r in references} == {replayed}

    def test_every_sample_has_its_turn_before_any_has_another(self):
        rows, references = self.rows(toy_settings(batch=16), 20)  # 20 new samples and 8 references, 8 and 8 a step
        new, replayed = np.concatenate(rows), np.concatenate(references)
        for start in range(0, 160, 20):
            assert sorted(new[start : start + 20]) == list(range(20))
        for start in range(0, 160, 8):
            assert sorted(replayed[start : start + 8]) == list(range(8))
        assert not np.array_equal(new[:20], new[20:40])

    def test_a_step_decides_alone(self):
        settings = toy_settings()
        later = _draw(toy_training_set(), settings, 7)
        for _ in range(3):
            assert all(np.array_equal(a, b) for a, b in zip(_draw(toy_training_set(), settings, 7), later, strict=True))
        assert not np.array_equal(later[0], _draw(toy_training_set(), settings, 8)[0])

    def test_fewer_samples_than_a_half_batch_come_again_within_it(self):
        data = toy_training_set(persons=2, each=1, references=1)
        new, replayed = _draw(data, toy_settings(batch=16), 0)
        assert Counter(new.tolist()) == Counter(replayed.tolist()) == {0: 4, 1: 4}


class TestLabels:
    def with_labels(self, targets: np.ndarray, weights: np.ndarray | None = None) -> TrainingSet:
        data = toy_training_set()
        return replace(data, targets=targets, weights=data.weights if weights is None else weights)

    def test_a_sample_of_no_weight_may_say_anything(self):
        data = toy_training_set()
        silent = np.arange(20) % 4 == 0
        weights = np.where(silent, 0, 4 / 3).astype(np.float32)
        wrong = np.where(silent[:, None], np.roll(data.targets, 1, axis=1), data.targets)
        right = weights_after(toy_settings(steps=4), self.with_labels(data.targets, weights))
        assert weights_after(toy_settings(steps=4), self.with_labels(wrong, weights)) == right
        assert weights_after(toy_settings(steps=4), self.with_labels(wrong)) != right

    def test_the_first_reported_loss_is_that_of_the_labels(self):
        """A label of which nothing is known is dearer than the truth, and halves of two labels cost their mean."""
        data = toy_training_set()
        other = np.roll(data.targets, 1, axis=1)
        still = toy_settings(steps=1, learning_rate=0.0)
        costs = [
            trained(still, self.with_labels(t)).losses["classification"]
            for t in (data.targets, other, (data.targets + other) / 2)
        ]
        assert costs[0] < costs[1]
        assert costs[2] == pytest.approx((costs[0] + costs[1]) / 2, rel=1e-5)

    def test_soft_labels_make_less_certain(self):
        data = toy_training_set()
        soft = (0.1 * data.targets + 0.9 / 4).astype(np.float32)
        sure = trained(toy_settings(steps=15), data).student
        unsure = trained(toy_settings(steps=15), self.with_labels(soft)).student
        assert separation(unsure, data) < separation(sure, data) - 0.05


class TestWhatLearns:
    def test_late_only_trains_adapters_the_last_stages_and_normalisations(self):
        student = toy_student()
        after = trained(toy_settings(late_only=True), student=student).student
        moved = changed(toy_student(), after)
        for name, tensor in after.state_dict().items():
            if "running" in name or "num_batches" in name:
                continue
            late = name.startswith(("adapters.", "stages.2.", "stages.3."))
            assert (name in moved) == (late or tensor.ndim == 1), name
        assert {"stages.0.0.norm1.weight", "norm.bias"} <= moved
        assert all(p.requires_grad for p in after.parameters()), "another training may train all again"

    def test_all_learn_otherwise(self):
        after = trained(toy_settings()).student
        assert {name for name, _ in after.named_parameters()} <= changed(toy_student(), after)

    @pytest.mark.parametrize(
        ("settings", "kept"),
        [({"batch": 15}, True), ({"batch": 16}, False), ({"batch": 16, "frozen_statistics": True}, True)],
        ids=str,
    )
    def test_statistics_are_kept_under_16_samples_or_when_asked(self, settings: dict[str, object], kept: bool):
        moved = changed(toy_student(), trained(toy_settings(**settings)).student)
        statistics = {name for name in moved if "running" in name or "num_batches" in name}
        assert (not statistics) == kept
        assert "norm.weight" in moved, "scale and shift learn in any case"

    def test_the_reference_term_keeps_references_where_they_were(self, monkeypatch: pytest.MonkeyPatch):
        data, student = toy_training_set(), toy_student()
        monkeypatch.setattr(module, "Augmentation", lambda: STILL)
        with torch.no_grad():
            before = student(torch.from_numpy(data.references))[-1]
        drifts = []
        for strength in (0.0, 1.0, 20.0):
            preset = replace(PRESETS["patent"], references=strength)
            monkeypatch.setattr(module, "PRESETS", MappingProxyType({"patent": preset}))
            after = trained(toy_settings(steps=15, learning_rate=0.01, frozen_statistics=True), data).student
            with torch.no_grad():
                now = after(torch.from_numpy(data.references))[-1]
            drifts.append(float((1 - (now * before).sum(1)).mean()))
        assert drifts[0] > drifts[1] > drifts[2]
        assert drifts[2] < 0.5 * drifts[0]

    def test_references_have_not_drifted_before_the_first_step(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(module, "Augmentation", lambda: STILL)
        drifts: list[float] = []
        settings = toy_settings(frozen_statistics=True)
        trained(settings, progress=lambda *now: drifts.append(now[2]["reference_drift"]))
        assert drifts[0] == pytest.approx(0, abs=1e-6)
        assert min(drifts[1:]) > 1e-5


class TestDiverged:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_images_that_are_not_numbers(self, value: float):
        data = toy_training_set()
        data.inputs[:] = value
        student = toy_student()
        with pytest.raises(TrainingError) as caught:
            trained(toy_settings(), data, student)
        assert caught.value.code is Code.TRAINING_DIVERGED
        assert all(p.isfinite().all() for p in student.parameters()), "noticed before the step was taken"

    def test_a_rate_that_is_far_too_high_keeps_the_last_good_checkpoint(self, tmp_path: Path):
        wild = toy_settings(learning_rate=1e38, clip=1e38)
        with pytest.raises(TrainingError):
            trained(wild, checkpoint=tmp_path / "c")
        assert load_file(tmp_path / "c")["model.heads.weights"].shape[0] == EXITS


class TestTrainingSet:
    @pytest.mark.parametrize(
        "change",
        [
            lambda s: {"inputs": s.inputs[:0], "targets": s.targets[:0], "weights": s.weights[:0]},
            lambda s: {"references": s.references[:0], "reference_labels": s.reference_labels[:0]},
            lambda s: {"targets": s.targets[:-1]},
            lambda s: {"weights": s.weights[:-1]},
            lambda s: {"references": s.references[:-1]},
            lambda s: {"targets": s.targets.argmax(1)},
            lambda s: {"targets": 2 * s.targets},
            lambda s: {"targets": s.targets * 3 - 0.5},
            lambda s: {"targets": s.targets * np.float32("nan")},
            lambda s: {"weights": -s.weights},
            lambda s: {"targets": one_hot(s.targets.argmax(1), 5)},
            lambda s: {"targets": one_hot(s.targets.argmax(1) % 3, 3)},
            lambda s: {"reference_labels": np.where(s.reference_labels == 2, 1, s.reference_labels)},
        ],
        ids=[
            *("nothing new", "no references", "a label short", "a weight short", "a reference short", "class numbers"),
            *("sums of two", "negative labels", "no numbers", "negative weights", "a person without reference"),
            *("a reference without person", "a person skipped"),
        ],
    )
    def test_what_cannot_be_learnt_from_is_refused(self, change: Callable[[TrainingSet], dict[str, np.ndarray]]):
        data = toy_training_set()
        with pytest.raises(InputError) as caught:
            replace(data, **change(data))
        assert caught.value.code is Code.DATA_INSUFFICIENT

    def test_its_digest_names_every_number_of_it(self):
        data = toy_training_set()
        digests = {data.digest()}
        for name in ("inputs", "targets", "weights", "references", "reference_labels"):
            array = getattr(data, name).copy()
            array[0] = array[0] * 0.999 if name in ("inputs", "references", "weights") else array[-1]
            if name == "reference_labels":
                array = array[::-1].copy()
            digests.add(replace(data, **{name: array}).digest())
        assert len(digests) == 6
        assert toy_training_set().digest() == data.digest()

    def test_one_person_is_enough(self):
        images, labels = toy_images(1, 4)
        data = TrainingSet(
            images[:3].numpy(),
            np.ones((3, 1), np.float32),
            np.ones(3, np.float32),
            images[3:].numpy(),
            labels[3:].numpy(),
        )
        assert trained(toy_settings(steps=2), data).losses["classification"] == pytest.approx(0, abs=1e-6)


class TestSettings:
    def test_a_preset_that_does_not_exist(self):
        with pytest.raises(UsageError, match="patent"):
            SelfDistillation(preset="magic")

    @pytest.mark.parametrize("batch", [1, 0, -4])
    def test_a_batch_without_room(self, batch: int):
        with pytest.raises(UsageError):
            SelfDistillation(batch=batch)

    def test_defaults_are_those_of_the_architecture_page(self):
        settings = SelfDistillation()
        assert (settings.preset, settings.scale, settings.ramp) == ("patent", 16.0, 0.2)
        assert not settings.keeps_statistics
