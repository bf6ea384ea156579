"""A group of one changes nothing; every row of a batch is somebody's; who may join."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional
from toy_networks import toy_batches, toy_student

from tutelage.errors import Code, UsageError
from tutelage.nn.distil import CachedTeaching, Distillation, distil, distillation_loss
from tutelage.nn.process_group import ALONE, MOST_PROCESSES, Parcel, ProcessGroup, joined, own_device
from tutelage.nn.students import EXITS, CosineHeads, Student
from tutelage.nn.train_teacher import one_cycle


def drawn_teaching() -> CachedTeaching:
    source = toy_batches()
    features = torch.randn(len(source.inputs), 24, generator=torch.Generator().manual_seed(2))
    return CachedTeaching.of(source, functional.normalize(features, dim=1))


def plainly_distilled(student: Student, teaching: CachedTeaching, settings: Distillation) -> Student:
    """The loop as it is for one process that knows of no others."""
    generator = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)
    student.to(memory_format=torch.channels_last)
    heads = CosineHeads.drawn(teaching.persons, student.spec.dimension, settings.scale, generator)
    maps = nn.ModuleList(nn.Linear(student.spec.dimension, teaching.centres.shape[1]) for _ in range(EXITS))
    parameters = [*student.parameters(), *heads.parameters(), *maps.parameters()]
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
    student.train()
    for step in range(settings.steps):
        for options in optimizer.param_groups:
            options["lr"] = one_cycle(step / settings.steps, settings.learning_rate)
        inputs, labels, taught = teaching.taught(step, settings.batch)
        terms = distillation_loss(
            settings, student(inputs), labels, taught, heads=heads, maps=maps, centres=teaching.centres
        )
        optimizer.zero_grad()
        terms["loss"].backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
    return student.eval()


def test_a_group_of_one_trains_bit_by_bit_as_a_process_that_knows_of_no_group():
    settings = Distillation(steps=6, batch=13, seed=4)
    alone = distil(toy_student(), drawn_teaching(), settings, group=ALONE)
    plain = plainly_distilled(toy_student(), drawn_teaching(), settings)
    for name, value in alone.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name


def test_a_group_of_one_leaves_gradients_terms_norms_and_parcels_as_they_are():
    layer, norm = nn.Linear(3, 2), nn.Sequential(nn.BatchNorm1d(3))
    layer(torch.ones(4, 3)).sum().backward()
    gradients = [p.grad.clone() for p in layer.parameters()]
    term, parcel = torch.tensor(2.5), Parcel({"a": 1}, {"t": torch.ones(2)})
    assert ALONE.leads
    assert ALONE.added_up(layer.parameters(), {"loss": term}, True) == ({"loss": term}, True)
    assert all(torch.equal(p.grad, g) for p, g in zip(layer.parameters(), gradients, strict=True))
    assert ALONE.handed(parcel) is parcel
    with ALONE.whole_batch_statistics(norm):
        assert "forward" not in vars(norm[0])


@pytest.mark.parametrize("size", [1, 2, 3, 5, MOST_PROCESSES])
@pytest.mark.parametrize("batch", [64, 65, 97, 8192])
def test_every_row_of_a_batch_is_somebodys_and_the_parts_make_a_whole(size: int, batch: int):
    groups = [ProcessGroup(rank, size) for rank in range(size)]
    rows = [list(range(batch))[group.rows(batch)] for group in groups]
    assert [row for own in rows for row in own] == list(range(batch))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1
    assert sum(group.part(batch) for group in groups) == pytest.approx(1.0, abs=1e-12)
    assert [group.part(batch) for group in groups] == [len(own) / batch for own in rows]
    assert [group.leads for group in groups] == [True] + [False] * (size - 1)


def test_nobody_can_share_a_batch_of_fewer_captures_than_processes():
    assert ProcessGroup(2, 3).rows(3) == slice(2, 3)
    with pytest.raises(UsageError, match="a batch of 3 captures cannot be shared by 4 processes"):
        ProcessGroup(0, 4).rows(3)
    with pytest.raises(UsageError, match="fewer processes"):
        distil(toy_student(), drawn_teaching(), Distillation(batch=3), group=replace(ALONE, size=4))


@pytest.mark.parametrize("environ", [{}, {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, {"WORLD_SIZE": "8"}])
def test_a_process_that_torchrun_did_not_start_with_others_is_alone(environ: dict[str, str]):
    with joined(environ, "cpu") as group:
        assert group is ALONE
        assert not torch.distributed.is_initialized()


def test_too_many_processes_are_refused_before_they_connect():
    with (
        pytest.raises(UsageError, match="65 processes cannot share a training: start 64 at most") as caught,
        joined({"WORLD_SIZE": "65", "RANK": "0"}, "cpu"),
    ):
        pass
    assert caught.value.code is Code.USAGE
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("processor", "environ", "device"),
    [
        ("cpu", {}, "cpu"),
        ("cpu", {"LOCAL_RANK": "3"}, "cpu"),
        ("cuda", {}, "cuda"),
        ("cuda", {"LOCAL_RANK": "3"}, "cuda:3"),
    ],
)
def test_each_process_of_a_machine_has_a_cuda_device_of_its_own(processor: str, environ: dict[str, str], device: str):
    assert own_device(processor, environ) == device
