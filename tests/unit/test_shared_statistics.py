"""Batch norms over rows that several processes hold are those over all rows at one: here the processes are threads."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_networks import toy_student

from tutelage.nn.shared_statistics import AddUp, normalised_together

Part = Callable[[int, AddUp], Any]


class Together:
    """Runs one function in `size` threads, each with a way to add up a tensor over all of them."""

    def __init__(self, size: int) -> None:
        self.size, self.barrier, self.held = size, threading.Barrier(size, timeout=30), [torch.empty(0)] * size

    def run(self, part: Part) -> list[Any]:
        with ThreadPoolExecutor(self.size) as pool:
            return [done.result() for done in [pool.submit(part, rank, self.adder(rank)) for rank in range(self.size)]]

    def adder(self, rank: int) -> AddUp:
        def add_up(tensor: Tensor) -> None:
            self.held[rank] = tensor.clone()
            self.barrier.wait()
            total = torch.stack(self.held).sum(0)
            self.barrier.wait()
            tensor.copy_(total)

        return add_up


def parts(rows: list[int]) -> list[slice]:
    ends = torch.tensor([0, *rows]).cumsum(0).tolist()
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


NORMS = {
    "images": (lambda: nn.BatchNorm2d(5), (5, 4, 3)),
    "features": (lambda: nn.BatchNorm1d(5), (5,)),
    "averaging": (lambda: nn.BatchNorm1d(5, momentum=None), (5,)),
}


def outcome(norm: nn.Module, batches: list[Tensor], weights: Tensor) -> dict[str, Tensor]:
    """After the first of two batches: the second's output, gradients of a loss that weighs each value, statistics."""
    norm(batches[0])
    x = batches[1].clone().requires_grad_()
    y = norm(x)
    (y.square() * weights).sum().backward()
    sums = {"weight": norm.weight.grad, "bias": norm.bias.grad}
    return {"y": y.detach(), "x": x.grad, **sums, **{f"state {k}": v for k, v in norm.state_dict().items()}}


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("rows", [[4, 4], [7, 1], [3, 5, 1, 2], [9]], ids=str)
def test_rows_in_several_processes_are_normalised_as_one_batch(kind: str, rows: list[int]):
    make, shape = NORMS[kind]
    generator = torch.Generator().manual_seed(1)
    whole = make().double()
    nn.init.normal_(whole.weight, generator=generator)
    nn.init.normal_(whole.bias, generator=generator)
    first, second, weights = (torch.randn(sum(rows), *shape, generator=generator).double() for _ in range(3))
    batches = [first.square(), 3 * second + 20]  # a mean far from zero
    norms = [copy.deepcopy(whole) for _ in rows]

    def part(rank: int, add_up: AddUp) -> dict[str, Tensor]:
        own = parts(rows)[rank]
        with normalised_together(norms[rank], add_up):
            return outcome(norms[rank], [batch[own] for batch in batches], weights[own])

    expected = outcome(whole, batches, weights)
    found = Together(len(rows)).run(part)
    for name in ("y", "x"):
        torch.testing.assert_close(torch.cat([f[name] for f in found]), expected[name], rtol=1e-9, atol=1e-9)
    for name in ("weight", "bias"):
        torch.testing.assert_close(torch.stack([f[name] for f in found]).sum(0), expected[name], rtol=1e-9, atol=1e-9)
    for name, value in expected.items():
        if name.startswith("state"):
            for f in found:
                torch.testing.assert_close(f[name], value, rtol=1e-9, atol=1e-9)


def test_without_the_others_rows_the_outcome_is_another_one():
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    whole, apart = nn.BatchNorm1d(5)(x), torch.cat([nn.BatchNorm1d(5)(half) for half in x.chunk(2)])
    assert (whole - apart).abs().max() > 0.1


def test_a_whole_student_gives_the_features_and_gradients_of_one_process():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(11, 1, 16, 16, generator=generator, dtype=torch.float64)
    goal = torch.randn(4, 11, 16, generator=generator, dtype=torch.float64)
    whole = toy_student().double().train()
    students, rows = [copy.deepcopy(whole) for _ in range(3)], parts([4, 6, 1])

    def loss(student: nn.Module, own: slice) -> Tensor:
        return (torch.stack(student(x[own])) * goal[:, own]).sum()

    def part(rank: int, add_up: AddUp) -> dict[str, Tensor]:
        with normalised_together(students[rank], add_up):
            loss(students[rank], rows[rank]).backward()
        return {name: p.grad for name, p in students[rank].named_parameters()}

    loss(whole, slice(None)).backward()
    found = Together(3).run(part)
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(sum(f[name] for f in found), parameter.grad, rtol=1e-8, atol=1e-9)
    for student in students:
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(student.state_dict()[name], value, rtol=1e-9, atol=1e-9)


def test_a_frozen_norm_needs_nobody_else():
    norm, x = nn.BatchNorm1d(5).eval(), torch.randn(3, 5)

    def asked(_: Tensor) -> None:
        raise AssertionError

    with normalised_together(norm, asked):
        assert torch.equal(norm(x), nn.BatchNorm1d(5).eval()(x))


def test_the_network_is_its_old_self_afterwards_even_after_an_error():
    network, x = toy_student().train(), torch.randn(4, 1, 16, 16)
    names, twin = set(network.state_dict()), copy.deepcopy(network)
    with normalised_together(network, lambda _: None):
        assert set(network.state_dict()) == names
    with pytest.raises(ZeroDivisionError), normalised_together(network, lambda _: None):
        raise ZeroDivisionError
    assert all("forward" not in vars(module) for module in network.modules())
    assert all(torch.equal(a, b) for a, b in zip(network(x), twin(x), strict=True))
