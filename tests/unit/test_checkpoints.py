"""Checkpoints bring a training back bit by bit; damaged, foreign and unwritable ones are typed errors."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tutelage.errors import Code, StorageError
from tutelage.nn.checkpoints import (
    PLAIN,
    Cadence,
    Checkpoints,
    Codec,
    TrainingState,
    fingerprint,
    load_checkpoint,
    save_checkpoint,
)
from tutelage.sealing import open_sealed, seal

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))


def sealed_with(key: bytes) -> Codec:
    return Codec(lambda data: seal(data, key, purpose="test"), lambda data: open_sealed(data, key, purpose="test"))


@dataclass
class Work:
    """A training of two modules that can be stopped anywhere."""

    kind: str = "adamw"
    width: int = 3
    seed: int = 0
    modules: dict[str, nn.Module] = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self.modules = {
            "body": nn.Sequential(nn.Linear(4, self.width), nn.BatchNorm1d(self.width)),
            "head": nn.Linear(self.width, 2),
        }
        parameters = [p for module in self.modules.values() for p in module.parameters()]
        self.optimizer = (
            torch.optim.AdamW(parameters, 0.05)
            if self.kind == "adamw"
            else torch.optim.SGD(parameters, 0.05, momentum=0.9)
        )

    def steps(self, first: int, end: int) -> Work:
        for step in range(first, end):
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            loss = self.modules["head"](self.modules["body"](x)).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return self

    def save(self, path: Path, step: int, settings: str = "s", codec: Codec = PLAIN) -> None:
        save_checkpoint(path, step=step, settings=settings, modules=self.modules, optimizer=self.optimizer, codec=codec)

    def load(self, path: Path, settings: str = "s", codec: Codec = PLAIN) -> int:
        return load_checkpoint(path, settings=settings, modules=self.modules, optimizer=self.optimizer, codec=codec)

    def tensors(self) -> dict[str, Tensor]:
        return {f"{n}.{k}": v.clone() for n, m in self.modules.items() for k, v in m.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def refused(path: Path, work: Work | None = None, **more: object) -> StorageError:
    """The error of loading `path`, which must leave the modules as they were."""
    work = work or Work(seed=5)
    before = work.tensors()
    with pytest.raises(StorageError) as caught:
        work.load(path, **more)
    assert equal(work.tensors(), before)
    assert str(path) in caught.value.message
    return caught.value


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    Work().steps(0, 5).save(tmp_path / "c", 5)
    return tmp_path / "c"


@pytest.mark.parametrize("codec", [PLAIN, sealed_with(KEY)], ids=["plain", "sealed"])
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_resumed_training_ends_bit_by_bit_where_an_undisturbed_one_does(tmp_path: Path, kind: str, codec: Codec):
    undisturbed = Work(kind).steps(0, 12)
    Work(kind).steps(0, 5).save(tmp_path / "c", 5, codec=codec)
    resumed = Work(kind, seed=99)
    assert resumed.load(tmp_path / "c", codec=codec) == 5
    assert equal(resumed.steps(5, 12).tensors(), undisturbed.tensors())


def test_without_the_optimizers_state_it_would_end_elsewhere(tmp_path: Path):
    undisturbed, forgetful = Work("sgd").steps(0, 12), Work("sgd").steps(0, 5)
    forgetful.optimizer.state.clear()
    assert not equal(forgetful.steps(5, 12).tensors(), undisturbed.tensors())


def test_a_state_before_the_first_step_can_be_kept(tmp_path: Path):
    Work("sgd").save(tmp_path / "c", 0)
    resumed = Work("sgd", seed=99)
    assert resumed.load(tmp_path / "c") == 0
    assert equal(resumed.steps(0, 4).tensors(), Work("sgd").steps(0, 4).tensors())


def test_the_layout_is_that_of_the_modules_docstring(saved: Path):
    with safe_open(saved, framework="pt") as file:
        names, header = set(file.keys()), file.metadata()
    assert {"model.body.0.weight", "model.body.1.running_mean", "model.head.bias"} <= names
    assert {"optimizer.0.exp_avg", "optimizer.0.exp_avg_sq", "optimizer.0.step"} <= names
    assert {name.split(".")[0] for name in names} == {"model", "optimizer"}
    assert header == {"training": '{"step": 5, "settings": "s"}'}


def test_loading_twice_gives_the_same(saved: Path):
    work = Work(seed=3)
    work.load(saved)
    once = work.tensors()
    work.steps(5, 7)
    work.load(saved)
    assert equal(work.tensors(), once)


class TestFingerprint:
    def test_order_of_fields_does_not_matter_values_do(self):
        assert fingerprint({"a": 1, "b": (2, 3)}) == fingerprint({"b": [2, 3], "a": 1})
        assert fingerprint({"a": 1}) != fingerprint({"a": 2})
        assert fingerprint({"a": 1}) != fingerprint({"b": 1})


class TestForeign:
    def test_other_settings(self, saved: Path):
        error = refused(saved, settings="others")
        assert error.code is Code.CHECKPOINT_CORRUPT
        assert error.exit_code == 53
        assert "other settings" in error.message

    def test_another_shape(self, saved: Path):
        assert refused(saved, Work(width=4)).code is Code.CHECKPOINT_CORRUPT

    def test_another_optimizer_state(self, tmp_path: Path):
        tensors = {f"model.{k}": v for k, v in Work().tensors().items()}
        about = {"training": '{"step": 1, "settings": "s"}'}
        for name, value in (("0.exp_avg", torch.zeros(9, 9)), ("77.exp_avg", torch.zeros(2)), ("x.y", torch.zeros(2))):
            (tmp_path / "c").write_bytes(save({**tensors, f"optimizer.{name}": value}, metadata=about))
            assert refused(tmp_path / "c").code is Code.CHECKPOINT_CORRUPT

    def test_fewer_or_more_tensors(self, tmp_path: Path):
        tensors = {f"model.{k}": v for k, v in Work().tensors().items()}
        about = {"training": '{"step": 1, "settings": "s"}'}
        fewer = {k: v for k, v in tensors.items() if k != "model.head.bias"}
        for wrong in (fewer, {**tensors, "model.tail.bias": torch.zeros(2)}):
            (tmp_path / "c").write_bytes(save(wrong, metadata=about))
            assert refused(tmp_path / "c").code is Code.CHECKPOINT_CORRUPT
        (tmp_path / "c").write_bytes(save(tensors, metadata=about))
        assert Work().load(tmp_path / "c") == 1

    @pytest.mark.parametrize(
        "about",
        [
            None,
            {"training": "{"},
            {"training": "[]"},
            {"training": '{"step": 1}'},
            {"training": '{"settings": "s"}'},
            {"training": '{"settings": "s", "step": "soon"}'},
            {"training": '{"settings": "s", "step": null}'},
        ],
        ids=str,
    )
    def test_a_safetensors_file_of_another_kind(self, tmp_path: Path, about: dict[str, str] | None):
        (tmp_path / "c").write_bytes(save({f"model.{k}": v for k, v in Work().tensors().items()}, metadata=about))
        assert refused(tmp_path / "c").code is Code.CHECKPOINT_CORRUPT


class TestDamaged:
    @pytest.mark.parametrize(
        "data", [b"", b"x", b"not a checkpoint", bytes(1000)], ids=["empty", "one", "text", "zeros"]
    )
    def test_other_bytes(self, tmp_path: Path, data: bytes):
        (tmp_path / "c").write_bytes(data)
        error = refused(tmp_path / "c")
        assert error.code is Code.CHECKPOINT_CORRUPT
        assert "delete" in error.message

    def test_a_cut_anywhere(self, saved: Path):
        data = saved.read_bytes()
        for end in np.linspace(0, len(data) - 1, 60).astype(int):
            saved.write_bytes(data[:end])
            assert refused(saved).code is Code.CHECKPOINT_CORRUPT

    def test_a_flipped_bit_in_the_header_is_an_error_of_ours_or_harmless(self, saved: Path, rng: np.random.Generator):
        data = saved.read_bytes()
        header = 8 + int.from_bytes(data[:8], "little")
        refusals = 0
        for place in rng.choice(header, 150, replace=False):
            broken = bytearray(data)
            broken[place] ^= 1 << int(rng.integers(8))
            saved.write_bytes(broken)
            try:
                Work(seed=5).load(saved)
            except StorageError as error:
                refusals += error.code is Code.CHECKPOINT_CORRUPT
        assert refusals > 100

    def test_a_checkpoint_that_cannot_be_read_is_not_called_damaged(self, tmp_path: Path):
        (tmp_path / "c").mkdir()
        assert refused(tmp_path / "c").code is Code.STORAGE_FAILED
        assert refused(tmp_path / "absent").code is Code.STORAGE_FAILED


class TestSealed:
    @pytest.fixture
    def closed(self, tmp_path: Path) -> Path:
        Work().steps(0, 5).save(tmp_path / "c", 5, codec=sealed_with(KEY))
        return tmp_path / "c"

    def test_nothing_can_be_read_without_the_key(self, closed: Path, saved: Path):
        weights = Work().steps(0, 5).modules["head"].weight.detach().numpy().tobytes()
        Work().steps(0, 5).save(saved, 5)
        assert weights in saved.read_bytes()
        Work().steps(0, 5).save(closed, 5, codec=sealed_with(KEY))
        assert weights not in closed.read_bytes()
        assert b"head" not in closed.read_bytes()

    def test_another_key_is_named_as_the_cause(self, closed: Path):
        with pytest.raises(StorageError) as caught:
            Work().load(closed, codec=sealed_with(OTHER_KEY))
        assert caught.value.code is Code.KEY_WRONG

    def test_any_flipped_bit_is_damage(self, closed: Path, rng: np.random.Generator):
        data = closed.read_bytes()
        for place in rng.integers(13, len(data), 40):  # behind the mark, the version and the id of the key
            broken = bytearray(data)
            broken[place] ^= 1
            closed.write_bytes(broken)
            assert refused(closed, codec=sealed_with(KEY)).code is Code.CHECKPOINT_CORRUPT

    def test_a_cut_is_damage(self, closed: Path):
        closed.write_bytes(closed.read_bytes()[:-5])
        assert refused(closed, codec=sealed_with(KEY)).code is Code.CHECKPOINT_CORRUPT

    def test_plain_and_sealed_are_not_mistaken_for_one_another(self, closed: Path, tmp_path: Path):
        assert refused(closed).code is Code.CHECKPOINT_CORRUPT
        Work().save(tmp_path / "plain", 0)
        assert refused(tmp_path / "plain", codec=sealed_with(KEY)).code is Code.CHECKPOINT_CORRUPT


@contextmanager
def files_of_at_most(count: int) -> Iterator[None]:
    """No file of this process can grow over `count` bytes: the real refusal of an operating system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestNoRoom:
    def test_the_older_checkpoint_survives_a_write_that_is_refused(self, saved: Path):
        former = saved.read_bytes()
        with files_of_at_most(1000), pytest.raises(StorageError) as caught:
            Work().steps(0, 9).save(saved, 9)
        assert caught.value.code is Code.STORAGE_FAILED
        assert saved.read_bytes() == former
        assert [p.name for p in saved.parent.iterdir()] == [saved.name]
        assert Work().load(saved) == 5

    def test_a_full_disk_is_called_full(self, saved: Path, monkeypatch: pytest.MonkeyPatch):
        former = saved.read_bytes()

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("tutelage.files.os.fsync", full)
        with pytest.raises(StorageError) as caught:
            Work().steps(0, 9).save(saved, 9)
        assert caught.value.code is Code.STORAGE_FULL
        assert saved.read_bytes() == former
        assert [p.name for p in saved.parent.iterdir()] == [saved.name]


class TestCheckpoints:
    @dataclass
    class Clock:
        now_s: float = 100.0

        def __call__(self) -> float:
            return self.now_s

    def of(self, path: Path | None, work: Work, clock: Clock, kept: list[int]) -> Checkpoints:
        state = TrainingState("s", work.modules, work.optimizer)
        return Checkpoints(path, state, Cadence(10, 60.0), kept=kept.append, clock=clock)

    def test_one_is_due_after_so_many_steps_and_after_so_many_seconds_whatever_the_step(self, tmp_path: Path):
        clock, kept = self.Clock(), []
        checkpoints = self.of(tmp_path / "c", Work().steps(0, 3), clock, kept)
        assert [done for done in range(1, 31) if checkpoints.due(done)] == [10, 20, 30]
        clock.now_s += 59.9
        assert not checkpoints.due(3)
        clock.now_s += 0.1
        assert checkpoints.due(3)
        checkpoints.save(3)
        assert kept == [3]
        assert not checkpoints.due(4)
        clock.now_s += 60
        assert checkpoints.due(4)

    def test_what_was_saved_is_loaded_and_without_a_file_nothing_is_done_yet(self, tmp_path: Path):
        work, other = Work().steps(0, 5), Work(seed=9)
        assert self.of(tmp_path / "c", other, self.Clock(), []).load() == 0
        self.of(tmp_path / "c", work, self.Clock(), []).save(5)
        assert self.of(tmp_path / "c", other, self.Clock(), []).load() == 5
        assert equal(other.tensors(), work.tensors())

    def test_without_a_place_none_is_due_made_or_told_of(self, tmp_path: Path):
        clock, kept = self.Clock(), []
        checkpoints = self.of(None, Work(), clock, kept)
        clock.now_s += 1e6
        checkpoints.save(10)
        assert (checkpoints.load(), checkpoints.due(10), kept, list(tmp_path.iterdir())) == (0, False, [], [])

    def test_nobody_is_told_of_one_that_could_not_be_written(self, tmp_path: Path):
        kept: list[int] = []
        checkpoints = self.of(tmp_path / "absent" / "c", Work(), self.Clock(), kept)
        with pytest.raises(StorageError):
            checkpoints.save(1)
        assert kept == []
