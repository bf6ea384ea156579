"""Distillation: its loss by slow loops, its batches, and a student that comes to agree with its teacher."""

from __future__ import annotations

import errno
import math
import os
import shutil
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from toy_networks import TOY, TOY_TEACHER, look_at_images, toy_batches, toy_images, toy_student

from tutelage.errors import Code, StorageError, TrainingError
from tutelage.nn.batches import EVERY_ROW, Augmentation, InputBatches
from tutelage.nn.checkpoints import Codec
from tutelage.nn.distil import CachedTeaching, Distillation, distil, distillation_loss
from tutelage.nn.students import EXITS, CosineHeads, Student, fuse
from tutelage.nn.teachers import ResidualTeacher, TeacherNetwork
from tutelage.sealing import open_sealed, seal

SHORT = Distillation(steps=10, batch=16, checkpoint_every=4)


def toy_teacher() -> ResidualTeacher:
    """A teacher of random weights whose batch norms have seen images: it sees something, and always the same."""
    torch.manual_seed(11)
    network = TeacherNetwork(TOY_TEACHER)
    look_at_images(network)
    return ResidualTeacher(network, name="toy", space="toy/teacher", made={})


@cache
def toy_teaching(persons: int = 6, each: int = 4) -> CachedTeaching:
    source = toy_batches(persons, each)
    return CachedTeaching.of(source, toy_teacher().vectors(source.inputs))


class StoppedError(Exception):
    """What ends a training from outside in these tests."""


@dataclass
class Watched:
    """Teaching that remembers its steps, and can stop the training or spoil its images from a step on."""

    source: CachedTeaching = field(default_factory=toy_teaching)
    stop_at: int = 10**9
    spoilt_from: int = 10**9
    asked: list[int] = field(default_factory=list)

    @property
    def persons(self) -> int:
        return self.source.persons

    @property
    def centres(self) -> Tensor:
        return self.source.centres

    def taught(self, step: int, size: int, rows: slice = EVERY_ROW) -> tuple[Tensor, Tensor, Tensor]:
        if step >= self.stop_at:
            raise StoppedError
        self.asked.append(step)
        inputs, labels, features = self.source.taught(step, size, rows)
        return (inputs * float("nan") if step >= self.spoilt_from else inputs), labels, features


@cache
def undisturbed() -> Student:
    """What `SHORT` makes of a toy student."""
    return distil(toy_student(), toy_teaching(), SHORT)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


class TestLoss:
    @pytest.fixture
    def parts(self):
        """Features, labels, teacher features, heads, maps and centres of 4 exits, 5 samples, 6 persons."""
        generator = torch.Generator().manual_seed(0)
        features = [functional.normalize(torch.randn(5, 8, generator=generator), dim=1) for _ in range(EXITS)]
        labels = torch.tensor([0, 3, 5, 3, 1])
        taught = functional.normalize(torch.randn(5, 7, generator=generator), dim=1)
        centres = functional.normalize(torch.randn(6, 7, generator=generator), dim=1)
        torch.manual_seed(0)
        maps = nn.ModuleList(nn.Linear(8, 7) for _ in range(EXITS))
        return features, labels, taught, CosineHeads.drawn(6, 8, 32.0, generator), maps, centres

    def terms(self, parts) -> dict[str, Tensor]:
        features, labels, taught, heads, maps, centres = parts
        return distillation_loss(Distillation(), features, labels, taught, heads=heads, maps=maps, centres=centres)

    def test_each_term_is_that_of_slow_loops(self, parts):
        features, labels, taught, heads, maps, centres = parts
        classify = soft = direction = 0.0
        for k in range(EXITS):
            for i in range(5):
                u, t = features[k][i].tolist(), taught[i].tolist()
                cosines = []
                for row in heads.weights[k].tolist():
                    cosines.append(dot(u, row) / math.sqrt(dot(row, row)))
                margin = [32 * (c - (0.2 if j == labels[i] else 0)) for j, c in enumerate(cosines)]
                classify += log_sum_exp(margin) - margin[labels[i]]
                own = log_softmax([32 * c / 4 for c in cosines])
                teachers = log_softmax([32 * dot(t, centre) / 4 for centre in centres.tolist()])
                soft += 16 * sum(math.exp(p) * (p - q) for p, q in zip(teachers, own, strict=True))
                bias, rows = maps[k].bias.tolist(), maps[k].weight.tolist()
                mapped = [dot(u, row) + b for row, b in zip(rows, bias, strict=True)]
                direction += 1 - dot(mapped, t) / math.sqrt(dot(mapped, mapped))
        found = self.terms(parts)
        assert set(found) == {"classification", "soft", "direction", "loss"}
        assert found["classification"].item() == pytest.approx(classify / 20, rel=1e-4)
        assert found["soft"].item() == pytest.approx(soft / 20, rel=1e-4)
        assert found["direction"].item() == pytest.approx(direction / 20, rel=1e-4)
        whole = 0.1 * classify / 20 + 0.9 * soft / 20 + 2.0 * direction / 20
        assert found["loss"].item() == pytest.approx(whole, rel=1e-4)

    def test_twice_the_batch_is_the_same(self, parts):
        features, labels, taught, *rest = parts
        twice = self.terms(([u.repeat(2, 1) for u in features], labels.repeat(2), taught.repeat(2, 1), *rest))
        for name, term in self.terms(parts).items():
            assert twice[name].item() == pytest.approx(term.item(), rel=1e-5), name

    def test_half_precision_agrees(self, parts):
        features, *rest = parts
        with torch.autocast("cpu", torch.bfloat16):
            coarse = self.terms((features, *rest))
        for name, term in self.terms(parts).items():
            assert coarse[name].item() == pytest.approx(term.item(), rel=3e-2), name

    def test_a_student_that_sees_like_its_teacher_has_no_soft_loss_and_no_direction_to_learn(self):
        generator = torch.Generator().manual_seed(0)
        taught = functional.normalize(torch.randn(5, 8, generator=generator), dim=1)
        centres = functional.normalize(torch.randn(6, 8, generator=generator), dim=1)
        maps = nn.ModuleList(nn.Linear(8, 8) for _ in range(EXITS))
        with torch.no_grad():
            for layer in maps:
                layer.weight.copy_(torch.eye(8))
                layer.bias.zero_()
        heads = CosineHeads(centres.expand(EXITS, -1, -1), 32.0)
        labels = torch.tensor([0, 3, 5, 3, 1])
        found = distillation_loss(
            Distillation(), [taught] * EXITS, labels, taught, heads=heads, maps=maps, centres=centres
        )
        assert found["soft"].item() == pytest.approx(0, abs=1e-4)
        assert found["direction"].item() == pytest.approx(0, abs=1e-5)

    def test_the_teacher_gets_no_gradient_and_all_others_do(self, parts):
        features, _, taught, heads, maps, centres = parts
        learning = [u.clone().requires_grad_() for u in features]
        self.terms((learning, *parts[1:]))["loss"].backward()
        assert taught.grad is None
        assert centres.grad is None
        for tensor in (*learning, heads.weights, *maps.parameters()):
            assert tensor.grad.abs().sum() > 0


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def log_sum_exp(row: list[float]) -> float:
    return max(row) + math.log(sum(math.exp(z - max(row)) for z in row))


def log_softmax(row: list[float]) -> list[float]:
    return [z - log_sum_exp(row) for z in row]


class TestCachedTeaching:
    def test_centres_are_the_persons_mean_directions(self):
        teaching = toy_teaching()
        for person in range(6):
            own = teaching.features[teaching.source.labels == person].double().numpy().sum(0)
            np.testing.assert_allclose(teaching.centres[person].numpy(), own / np.linalg.norm(own), atol=1e-5)

    def test_each_input_comes_with_its_own_label_and_feature(self):
        images, labels = toy_images(5, 3)
        still = Augmentation(shift=0, degrees=0, zoom=0, contrast=0, noise=0)
        teacher = toy_teacher()
        teaching = CachedTeaching.of(InputBatches(images, labels, 0, still), teacher.vectors(images))
        inputs, numbers, features = teaching.taught(4, 20)
        rows = [int((images - x).abs().amax(dim=(1, 2, 3)).argmin()) for x in inputs]
        assert len(set(rows)) > 8
        assert torch.equal(numbers, labels[rows])
        assert torch.equal(features, teaching.features[rows])

    def test_a_batch_follows_from_its_step(self):
        forward = toy_teaching()
        backward = CachedTeaching.of(toy_batches(), forward.features)
        first = {step: forward.taught(step, 8) for step in range(4)}
        for step in reversed(range(4)):
            assert all(torch.equal(a, b) for a, b in zip(backward.taught(step, 8), first[step], strict=True))


def coarse_sight(inputs: Tensor) -> Tensor:
    """What a plain but dependable teacher sees: the mean brightness of sixteen fields, as a unit feature (N, 16)."""
    return functional.normalize(functional.avg_pool2d(inputs, 4).flatten(1), dim=1)


def agreement(student: Student, references: Tensor, probes: Tensor) -> list[float]:
    """At each exit, and all together: the share of probes whose nearest reference is the one the teacher finds."""
    taught = (coarse_sight(probes) @ coarse_sight(references).T).argmax(1)
    with torch.no_grad():
        known, found = student(references), student(probes)
    pairs = zip([*found, fuse(found)], [*known, fuse(known)], strict=True)
    return [float(((p @ r.T).argmax(1) == taught).float().mean()) for p, r in pairs]


def test_a_student_comes_to_agree_with_its_teacher_at_every_exit():
    images, labels = toy_images(10, 14, noise=0.8)
    fresh = torch.arange(140) % 14 >= 8
    references, probes = images[::14], images[fresh]
    student, losses = toy_student(), []
    before = agreement(student, references, probes)
    seen = images[~fresh]
    teaching = CachedTeaching.of(InputBatches(seen, labels[~fresh], seed=3), coarse_sight(seen))
    settings = Distillation(steps=60, batch=32)
    after = distil(student, teaching, settings, progress=lambda *now: losses.append(now[2]["loss"]))
    assert after is student
    assert not after.training
    assert losses[-1] < 0.5 * losses[0]
    gained = [b - a for a, b in zip(before, agreement(after, references, probes), strict=True)]
    assert gained[0] >= 0, "this exit was nearly right from the start"
    assert min(gained[1:]) > 0.15
    assert agreement(after, references, probes)[-1] > 0.95


def test_progress_counts_to_the_end_and_names_the_terms():
    seen: list[tuple[int, int, dict[str, float]]] = []
    distil(toy_student(), toy_teaching(), replace(SHORT, steps=13), progress=lambda *now: seen.append(now))
    assert [(done, of) for done, of, _ in seen] == [(1, 13), (11, 13), (13, 13)]
    assert set(seen[-1][2]) == {"classification", "soft", "direction", "loss"}


def test_the_seed_decides_everything():
    runs = [distil(toy_student(), toy_teaching(), replace(SHORT, steps=4, seed=seed)) for seed in (1, 1, 2)]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


class TestCheckpoint:
    @pytest.mark.parametrize(("stop", "resumed"), [(3, 0), (4, 4), (9, 8)])
    def test_a_stopped_distillation_ends_where_an_undisturbed_one_does(self, tmp_path: Path, stop: int, resumed: int):
        with pytest.raises(StoppedError):
            distil(toy_student(), Watched(stop_at=stop), SHORT, checkpoint=tmp_path / "c")
        again = Watched()
        student = distil(toy_student(), again, SHORT, checkpoint=tmp_path / "c")
        assert again.asked == list(range(resumed, 10))
        assert same(student, undisturbed())

    @pytest.mark.parametrize("change", [{"seed": 5}, {"steps": 11}, {"soft": 0.5}])
    def test_other_settings_do_not_go_on_from_it(self, tmp_path: Path, change: dict[str, float]):
        distil(toy_student(), toy_teaching(), SHORT, checkpoint=tmp_path / "c")
        with pytest.raises(StorageError) as caught:
            distil(toy_student(), toy_teaching(), replace(SHORT, **change), checkpoint=tmp_path / "c")
        assert caught.value.code is Code.CHECKPOINT_CORRUPT

    def test_another_architecture_or_other_persons_do_not_either(self, tmp_path: Path):
        distil(toy_student(), toy_teaching(), SHORT, checkpoint=tmp_path / "c")
        wider = toy_student(spec=replace(TOY, squeeze=5))
        for student, teaching in ((wider, toy_teaching()), (toy_student(), toy_teaching(5))):
            with pytest.raises(StorageError) as caught:
                distil(student, teaching, SHORT, checkpoint=tmp_path / "c")
            assert caught.value.code is Code.CHECKPOINT_CORRUPT

    def test_a_full_disk_keeps_the_older_checkpoint(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        with pytest.raises(StoppedError):
            distil(toy_student(), Watched(stop_at=5), SHORT, checkpoint=tmp_path / "c")

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as disk:
            disk.setattr("tutelage.files.os.fsync", full)
            with pytest.raises(StorageError) as caught:
                distil(toy_student(), toy_teaching(), SHORT, checkpoint=tmp_path / "c")
        assert caught.value.code is Code.STORAGE_FULL
        assert same(distil(toy_student(), toy_teaching(), SHORT, checkpoint=tmp_path / "c"), undisturbed())

    def test_a_distillation_that_broke_does_not_replace_a_good_checkpoint(self, tmp_path: Path):
        with pytest.raises(TrainingError) as caught:
            distil(toy_student(), Watched(spoilt_from=6), SHORT, checkpoint=tmp_path / "c")
        assert caught.value.code is Code.TRAINING_DIVERGED
        assert same(distil(toy_student(), toy_teaching(), SHORT, checkpoint=tmp_path / "c"), undisturbed())

    def test_how_often_it_is_made_may_change_on_the_way(self, tmp_path: Path):
        with pytest.raises(StoppedError):
            distil(toy_student(), Watched(stop_at=6), SHORT, checkpoint=tmp_path / "c")
        again = Watched()
        other = replace(SHORT, checkpoint_every=3, checkpoint_seconds=5.0)
        assert same(distil(toy_student(), again, other, checkpoint=tmp_path / "c"), undisturbed())
        assert again.asked == list(range(4, 10))

    @pytest.mark.parametrize(
        ("every", "seconds", "told"),
        [(4, 1e9, [4, 8]), (100, 0.0, list(range(1, 11))), (100, 1e9, []), (10, 1e9, [10])],
    )
    def test_whoever_wants_it_is_told_once_it_lies_there(
        self, tmp_path: Path, every: int, seconds: float, told: list[int]
    ):
        heard: list[int] = []

        def kept(step: int) -> None:
            """What lies there by now is this step's: another training could go on from it."""
            shutil.copy(tmp_path / "c", tmp_path / f"c{step}")
            heard.append(step)

        settings = replace(SHORT, checkpoint_every=every, checkpoint_seconds=seconds)
        distil(toy_student(), toy_teaching(), settings, checkpoint=tmp_path / "c", kept=kept)
        assert heard == told
        for step in told[:1]:
            again = Watched()
            assert same(distil(toy_student(), again, SHORT, checkpoint=tmp_path / f"c{step}"), undisturbed())
            assert again.asked == list(range(step, 10))

    def test_its_file_can_be_sealed(self, tmp_path: Path):
        key = bytes(range(32))
        codec = Codec(
            lambda data: seal(data, key, purpose="checkpoint"),
            lambda data: open_sealed(data, key, purpose="checkpoint"),
        )
        with pytest.raises(StoppedError):
            distil(toy_student(), Watched(stop_at=5), SHORT, checkpoint=tmp_path / "c", codec=codec)
        assert b"heads" in open_sealed((tmp_path / "c").read_bytes(), key, purpose="checkpoint")
        with pytest.raises(StorageError) as caught:
            distil(toy_student(), toy_teaching(), SHORT, checkpoint=tmp_path / "c")
        assert caught.value.code is Code.CHECKPOINT_CORRUPT
        again = Watched()
        assert same(distil(toy_student(), again, SHORT, checkpoint=tmp_path / "c", codec=codec), undisturbed())
        assert again.asked == list(range(4, 10))


class TestStop:
    def test_it_is_asked_once_a_step_and_leaves_a_checkpoint_of_that_step(self, tmp_path: Path):
        answers, heard, watched = iter([False, False, True]), [], Watched()
        with pytest.raises(TrainingError, match="told to stop after 3 of 10 steps") as caught:
            distil(
                toy_student(), watched, SHORT, checkpoint=tmp_path / "c", stop=lambda: next(answers), kept=heard.append
            )
        assert caught.value.code is Code.TRAINING_STOPPED
        assert (watched.asked, heard) == ([0, 1, 2], [3])
        again = Watched()
        assert same(distil(toy_student(), again, SHORT, checkpoint=tmp_path / "c"), undisturbed())
        assert again.asked == list(range(3, 10))

    def test_without_a_checkpoint_it_ends_all_the_same(self):
        watched = Watched()
        with pytest.raises(TrainingError) as caught:
            distil(toy_student(), watched, SHORT, stop=lambda: True)
        assert caught.value.code is Code.TRAINING_STOPPED
        assert watched.asked == [0]

    def test_a_distillation_that_broke_is_not_kept_because_it_was_told_to_stop(self, tmp_path: Path):
        with pytest.raises(TrainingError) as caught:
            distil(toy_student(), Watched(spoilt_from=0), SHORT, checkpoint=tmp_path / "c", stop=lambda: True)
        assert caught.value.code is Code.TRAINING_DIVERGED
        assert not (tmp_path / "c").exists()
