"""Training a teacher: schedule, loss and learning; stopped anywhere it ends where an undisturbed training ends."""

from __future__ import annotations

import errno
import math
import os
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toy_networks import TOY_TEACHER, toy_batches, toy_images

from tutelage.errors import Code, StorageError, TrainingError
from tutelage.nn.batches import InputBatches
from tutelage.nn.teachers import TeacherNetwork
from tutelage.nn.train_teacher import TeacherTraining, finite, one_cycle, train_teacher

SHORT = TeacherTraining(steps=10, batch=12, checkpoint_every=4)


class StoppedError(Exception):
    """What ends a training from outside in these tests."""


@dataclass
class Watched:
    """Batches that remember their steps, and can stop the training or spoil its images from a step on."""

    source: InputBatches = field(default_factory=toy_batches)
    stop_at: int = 10**9
    spoilt_from: int = 10**9
    asked: list[int] = field(default_factory=list)

    @property
    def persons(self) -> int:
        return self.source.persons

    def batch(self, step: int, size: int) -> tuple[Tensor, Tensor]:
        if step >= self.stop_at:
            raise StoppedError
        self.asked.append(step)
        inputs, labels = self.source.batch(step, size)
        return (inputs * float("nan") if step >= self.spoilt_from else inputs), labels


@cache
def undisturbed() -> TeacherNetwork:
    """What `SHORT` comes to without interruption."""
    return train_teacher(toy_batches(), SHORT, TOY_TEACHER)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


class TestSchedule:
    def test_it_rises_linearly_and_falls_as_a_cosine_to_nothing(self):
        for done in (0.0, 0.03, 0.06, 0.09):
            assert one_cycle(done, 2.0) == pytest.approx(2.0 * (done + 1e-3) / 0.1)
        for done in (0.1, 0.3, 0.55, 0.9):
            assert one_cycle(done, 2.0) == pytest.approx(1.0 + math.cos(math.pi * (done - 0.1) / 0.9))
        assert one_cycle(1.0, 2.0) == pytest.approx(0, abs=1e-9)
        assert max(one_cycle(i / 1000, 2.0) for i in range(1001)) <= 2.0 * 1.01

    def test_the_first_step_already_learns_a_little(self):
        assert 0 < one_cycle(0.0, 2.0) < 0.05


class TestFinite:
    def test_a_number_passes(self):
        assert finite(torch.tensor(1.5, requires_grad=True)) == 1.5

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_what_is_none_is_an_error(self, value: float):
        with pytest.raises(TrainingError) as caught:
            finite(torch.tensor(value))
        assert caught.value.code is Code.TRAINING_DIVERGED
        assert caught.value.exit_code == 62


class TestLoss:
    """With a learning rate of nothing the weights stay, so that the reported loss can be recomputed."""

    def reported(self, steps: int) -> tuple[float, float]:
        seen: list[float] = []
        still = replace(SHORT, steps=steps, learning_rate=0.0)
        train_teacher(toy_batches(), still, TOY_TEACHER, progress=lambda *now: seen.append(now[2]["loss"]))
        return seen[0], seen[-1]

    def expected(self, step: int, margin: float) -> float:
        torch.manual_seed(SHORT.seed)
        network, centres = TeacherNetwork(TOY_TEACHER).train(), nn.Linear(TOY_TEACHER.dimension, 6, bias=False)
        inputs, labels = toy_batches().batch(step, SHORT.batch)
        with torch.no_grad():
            features = network(inputs).tolist()
        rows, total = centres.weight.tolist(), 0.0
        for u, label in zip(features, labels.tolist(), strict=True):
            logits = []
            for c, row in enumerate(rows):
                length = math.sqrt(sum(w * w for w in row))
                cosine = sum(a * b for a, b in zip(u, row, strict=True)) / length
                logits.append(SHORT.scale * (cosine - (margin if c == label else 0)))
            total += math.log(sum(math.exp(z) for z in logits)) - logits[label]
        return total / len(features)

    def test_it_starts_without_a_margin_and_ends_with_it_all(self):
        first, last = self.reported(7)
        assert first == pytest.approx(self.expected(0, 0.0), rel=1e-4)
        assert last == pytest.approx(self.expected(6, SHORT.margin), rel=1e-4)

    def test_the_margin_grows_over_three_tenths_of_the_steps(self):
        seen: list[float] = []

        def until_step_20(done: int, _: int, losses: dict[str, float]) -> None:
            seen.append(losses["loss"])
            if done == 21:
                raise StoppedError

        with pytest.raises(StoppedError):
            train_teacher(
                toy_batches(), replace(SHORT, steps=100, learning_rate=0.0), TOY_TEACHER, progress=until_step_20
            )
        assert seen[-1] == pytest.approx(self.expected(20, SHORT.margin * 20 / 30), rel=1e-4)


def test_it_learns_to_tell_persons_apart():
    losses: list[float] = []
    training = TeacherTraining(steps=60, batch=24, learning_rate=5e-3)
    network = train_teacher(toy_batches(), training, TOY_TEACHER, progress=lambda *now: losses.append(now[2]["loss"]))
    assert losses[-1] < 0.6 * losses[0]
    assert not network.training
    images, labels = toy_images(6, 4)
    with torch.no_grad():
        u = network(images)
    cosines, own = u @ u.T, labels[:, None] == labels[None]
    assert cosines[own].mean() > cosines[~own].mean() + 0.5


def test_progress_counts_to_the_end():
    seen: list[tuple[int, int]] = []
    train_teacher(
        toy_batches(), replace(SHORT, steps=25), TOY_TEACHER, progress=lambda done, of, _: seen.append((done, of))
    )
    assert seen == [(1, 25), (21, 25), (25, 25)]


def test_the_seed_decides_everything():
    runs = [train_teacher(toy_batches(), replace(SHORT, seed=seed), TOY_TEACHER) for seed in (1, 1, 2)]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


class TestCheckpoint:
    @pytest.mark.parametrize(("stop", "resumed"), [(2, 0), (4, 4), (6, 4), (9, 8)])
    def test_a_stopped_training_ends_where_an_undisturbed_one_does(self, tmp_path: Path, stop: int, resumed: int):
        with pytest.raises(StoppedError):
            train_teacher(Watched(stop_at=stop), SHORT, TOY_TEACHER, checkpoint=tmp_path / "c")
        again = Watched()
        network = train_teacher(again, SHORT, TOY_TEACHER, checkpoint=tmp_path / "c")
        assert again.asked == list(range(resumed, 10))
        assert same(network, undisturbed())

    def test_keeping_checkpoints_changes_nothing(self, tmp_path: Path):
        kept = train_teacher(toy_batches(), SHORT, TOY_TEACHER, checkpoint=tmp_path / "c")
        assert same(kept, undisturbed())

    @pytest.mark.parametrize("change", [{"seed": 5}, {"steps": 11}, {"margin": 0.3}])
    def test_other_settings_do_not_go_on_from_it(self, tmp_path: Path, change: dict[str, float]):
        train_teacher(toy_batches(), SHORT, TOY_TEACHER, checkpoint=tmp_path / "c")
        with pytest.raises(StorageError) as caught:
            train_teacher(toy_batches(), replace(SHORT, **change), TOY_TEACHER, checkpoint=tmp_path / "c")
        assert caught.value.code is Code.CHECKPOINT_CORRUPT

    def test_other_persons_or_another_network_do_not_either(self, tmp_path: Path):
        train_teacher(toy_batches(), SHORT, TOY_TEACHER, checkpoint=tmp_path / "c")
        for batches, spec in ((toy_batches(5), TOY_TEACHER), (toy_batches(), replace(TOY_TEACHER, dimension=20))):
            with pytest.raises(StorageError) as caught:
                train_teacher(batches, SHORT, spec, checkpoint=tmp_path / "c")
            assert caught.value.code is Code.CHECKPOINT_CORRUPT

    def test_a_full_disk_ends_the_training_and_keeps_the_older_checkpoint(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        with pytest.raises(StoppedError):
            train_teacher(Watched(stop_at=5), SHORT, TOY_TEACHER, checkpoint=tmp_path / "c")
        former = (tmp_path / "c").read_bytes()

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as disk:
            disk.setattr("tutelage.files.os.fsync", full)
            with pytest.raises(StorageError) as caught:
                train_teacher(toy_batches(), SHORT, TOY_TEACHER, checkpoint=tmp_path / "c")
        assert caught.value.code is Code.STORAGE_FULL
        assert (tmp_path / "c").read_bytes() == former
        assert [p.name for p in tmp_path.iterdir()] == ["c"]
        assert same(train_teacher(toy_batches(), SHORT, TOY_TEACHER, checkpoint=tmp_path / "c"), undisturbed())

    def test_a_training_that_broke_does_not_replace_a_good_checkpoint(self, tmp_path: Path):
        with pytest.raises(TrainingError) as caught:
            train_teacher(Watched(spoilt_from=6), SHORT, TOY_TEACHER, checkpoint=tmp_path / "c")
        assert caught.value.code is Code.TRAINING_DIVERGED
        assert same(train_teacher(toy_batches(), SHORT, TOY_TEACHER, checkpoint=tmp_path / "c"), undisturbed())

    def test_without_a_checkpoint_it_is_noticed_at_the_end(self):
        with pytest.raises(TrainingError):
            train_teacher(Watched(spoilt_from=6), SHORT, TOY_TEACHER)
