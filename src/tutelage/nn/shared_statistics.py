"""Batch norm over a batch that several processes share.

A batch norm divides by the mean and variance of the batch. Processes that each hold some rows of a batch must agree on
both, or they train another network than one process would. torch's SyncBatchNorm does this on CUDA only; here each norm
adds up three sums over the processes, forwards and backwards, on whatever device. The sums are in double precision: a
variance as the difference of two of them would lose too much in single.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["normalised_together"]

AddUp = Callable[[Tensor], None]
"""Replaces a tensor by its sum over all processes, of which each calls it with one of the same shape."""


@contextmanager
def normalised_together(network: nn.Module, add_up: AddUp) -> Iterator[None]:
    """Within it the batch norms of `network` normalise by the rows of all processes; its weights and names stay.

    Frozen norms, which use their running statistics, have nothing to share and stay as they are.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.forward = partial(_normalised, norm, add_up)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _normalised(norm: _BatchNorm, add_up: AddUp, x: Tensor) -> Tensor:
    """This process's rows (b, C, ...) of a batch, normalised by the statistics of the whole batch."""
    if not norm.training:
        return type(norm).forward(norm, x)
    mean, variance, count = _whole_batch(x, add_up)
    _remember(norm, mean.detach(), variance.detach() * count / (count - 1))
    factor = (variance + norm.eps).rsqrt() * norm.weight
    offset = norm.bias - mean * factor
    shape = [1, -1] + [1] * (x.dim() - 2)
    return torch.addcmul(offset.to(x.dtype).view(shape), x, factor.to(x.dtype).view(shape))


def _whole_batch(x: Tensor, add_up: AddUp) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,) and variance (C,) of the rows of all processes, in double precision, and the number of values."""
    channels = x.shape[1]
    count = x.numel() // channels
    variance, mean = torch.var_mean(x, [d for d in range(x.dim()) if d != 1], correction=0)
    mean, variance = mean.double(), variance.double()
    own = torch.cat([mean, variance + mean.square(), mean.new_ones(1)]) * count
    sums = cast(Tensor, _Summed.apply(own, add_up))  # type: ignore[no-untyped-call]
    mean, square = (sums[:-1] / sums[-1]).chunk(2)
    return mean, square - mean.square(), sums[-1].detach()


def _remember(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Let the running statistics follow, as a batch norm does by itself; `variance` is the unbiased one."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    weight = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), weight)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), weight)


class _Summed(torch.autograd.Function):
    """The sum over processes. Each one's loss depends on each one's summand, so gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, add_up: AddUp) -> Tensor:
        ctx.add_up = add_up
        total = own.clone()
        add_up(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone()
        ctx.add_up(total)
        return total, None
