"""A self-distillation that was stopped, killed or ran out of disk goes on from its checkpoint as if undisturbed."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from toy_networks import TOY, toy_settings, toy_student, toy_training_set

from tutelage.errors import Code, StorageError
from tutelage.nn.checkpoints import PLAIN, Codec
from tutelage.nn.self_distil import SelfDistillation, SelfDistilled, TrainingSet, self_distil
from tutelage.nn.students import Student, save_weights
from tutelage.sealing import open_sealed, seal

KEY = bytes(range(32))
SEALED = Codec(lambda data: seal(data, KEY, purpose="test"), lambda data: open_sealed(data, KEY, purpose="test"))


def trained(
    settings: SelfDistillation, training_set: TrainingSet | None = None, student: Student | None = None, **more: object
) -> SelfDistilled:
    return self_distil(student or toy_student(), training_set or toy_training_set(), settings, **more)


def weights_after(*arguments: object, **more: object) -> bytes:
    return save_weights(trained(*arguments, **more).student)


@cache
def undisturbed(**changes: object) -> bytes:
    """Weights after toy settings with these `changes`, without interruption."""
    return weights_after(toy_settings(**changes))


class StoppedError(Exception):
    """What ends a training from outside in these tests."""


def stop_after(last: int) -> Callable[..., None]:
    def progress(step: int, steps: int, losses: dict[str, float]) -> None:
        if step == last:
            raise StoppedError

    return progress


class TestCheckpoint:
    @pytest.mark.parametrize(
        ("changes", "codec"),
        [({}, PLAIN), ({"preset": "byot", "batch": 8}, SEALED), ({"preset": "eed", "late_only": True}, PLAIN)],
        ids=["patent", "byot, small batches, sealed", "eed, late stages only"],
    )
    def test_a_stopped_training_ends_bit_by_bit_where_an_undisturbed_one_does(
        self, tmp_path: Path, changes: dict[str, object], codec: Codec
    ):
        settings = toy_settings(**changes)
        for last in (1, 4, 7):  # stopped three times, each time further on
            with pytest.raises(StoppedError):
                trained(settings, checkpoint=tmp_path / "c", codec=codec, progress=stop_after(last))
        done = trained(settings, checkpoint=tmp_path / "c", codec=codec)
        assert save_weights(done.student) == undisturbed(**changes)
        assert done.steps_run == 2

    def test_a_training_killed_before_its_first_checkpoint_starts_anew(self, tmp_path: Path):
        with pytest.raises(StoppedError):
            trained(toy_settings(steps=3), checkpoint=tmp_path / "c", progress=stop_after(1))
        assert not (tmp_path / "c").exists()
        assert trained(toy_settings(steps=3), checkpoint=tmp_path / "c").steps_run == 3

    def test_a_finished_training_is_not_repeated(self, tmp_path: Path):
        first = trained(toy_settings(steps=3), checkpoint=tmp_path / "c")
        again = trained(toy_settings(steps=3), checkpoint=tmp_path / "c")
        assert again.steps_run == 0
        assert save_weights(again.student) == save_weights(first.student)

    def test_it_is_written_when_its_time_has_come(self, tmp_path: Path):
        hours = itertools.count()  # every look at the clock is a second later
        seen: list[bool] = []
        done = trained(
            toy_settings(checkpoint_seconds=4.0),
            checkpoint=tmp_path / "c",
            clock=lambda: float(next(hours)),
            progress=lambda *_: seen.append((tmp_path / "c").exists()),
        )
        assert seen == [False] * 4 + [True] * 4
        assert done.seconds > 8

    def test_faces_and_fingers_cannot_be_read_from_a_sealed_one(self, tmp_path: Path):
        trained(toy_settings(steps=2), checkpoint=tmp_path / "plain")
        trained(toy_settings(steps=2), checkpoint=tmp_path / "sealed", codec=SEALED)
        heads = load_file(tmp_path / "plain")["model.heads.weights"].numpy().tobytes()
        assert heads in (tmp_path / "plain").read_bytes()
        assert heads not in (tmp_path / "sealed").read_bytes()
        assert b"model.heads" not in (tmp_path / "sealed").read_bytes()

    def refused(self, path: Path, settings: SelfDistillation, data: TrainingSet, student: Student, **more: object):
        before = save_weights(student)
        with pytest.raises(StorageError) as caught:
            self_distil(student, data, settings, checkpoint=path, **more)
        assert save_weights(student) == before
        return caught.value.code

    def test_another_trainings_checkpoint_is_refused(self, tmp_path: Path):
        data, path = toy_training_set(), tmp_path / "c"
        trained(toy_settings(steps=2), data, checkpoint=path)
        relabelled = replace(data, targets=np.roll(data.targets, 1, axis=1))
        reweighted = replace(data, weights=np.linspace(0.5, 1.5, 20, dtype=np.float32))
        other_images = toy_training_set(seed=1)
        foreign = [
            (toy_settings(steps=2, seed=3), data, toy_student()),
            (toy_settings(steps=2, preset="eed"), data, toy_student()),
            (toy_settings(steps=2), relabelled, toy_student()),
            (toy_settings(steps=2), reweighted, toy_student()),
            (toy_settings(steps=2), replace(data, inputs=other_images.inputs), toy_student()),
            (toy_settings(steps=2), replace(data, references=other_images.references), toy_student()),
            (toy_settings(steps=2), data, toy_student(1)),
            (toy_settings(steps=2), data, toy_student(spec=replace(TOY, squeeze=5))),
        ]
        for settings, training_set, student in foreign:
            assert self.refused(path, settings, training_set, student) is Code.CHECKPOINT_CORRUPT
        assert trained(toy_settings(steps=2), data, checkpoint=path).steps_run == 0

    def test_a_damaged_one_is_refused_and_the_student_is_as_it_was(self, tmp_path: Path):
        path = tmp_path / "c"
        trained(toy_settings(steps=2), checkpoint=path)
        path.write_bytes(path.read_bytes()[:-100])
        assert self.refused(path, toy_settings(steps=2), toy_training_set(), toy_student()) is Code.CHECKPOINT_CORRUPT

    def test_another_key_is_said_to_be_wrong(self, tmp_path: Path):
        trained(toy_settings(steps=2), checkpoint=tmp_path / "c", codec=SEALED)
        other = Codec(bytes, lambda data: open_sealed(data, bytes(32), purpose="test"))
        code = self.refused(tmp_path / "c", toy_settings(steps=2), toy_training_set(), toy_student(), codec=other)
        assert code is Code.KEY_WRONG

    def test_a_disk_that_fills_up_keeps_the_older_checkpoint(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        left = iter(range(6))  # two flushes a checkpoint: three checkpoints find room
        real = os.fsync

        def filling(descriptor: int) -> None:
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor)

        with monkeypatch.context() as disk:
            disk.setattr("tutelage.files.os.fsync", filling)
            with pytest.raises(StorageError) as caught:
                trained(toy_settings(), checkpoint=tmp_path / "c")
        assert caught.value.code is Code.STORAGE_FULL
        assert [p.name for p in tmp_path.iterdir()] == ["c"]
        done = trained(toy_settings(), checkpoint=tmp_path / "c")
        assert done.steps_run == 5
        assert save_weights(done.student) == undisturbed()
