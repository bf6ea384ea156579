"""Batch norm over a batch that several processes share.

A batch norm divides by the mean and variance of the batch. Processes that each hold some rows of a batch must agree on
both, or they train another network than one process would. torch's SyncBatchNorm does this on CUDA only; here a norm
adds up a few sums over the processes, once forwards and once backwards, on whatever device. Sums are in double
precision: a variance as the difference of two of them would lose too much in single.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["AddUp", "normalised_together"]

AddUp = Callable[[Tensor], None]
"""Replaces a tensor by its sum over all processes, of which each calls it with one of the same shape."""


@contextmanager
def normalised_together(network: nn.Module, add_up: AddUp) -> Iterator[None]:
    """Within it the batch norms of `network` normalise by the rows of all processes; its weights and names stay.

    Frozen norms, which use their running statistics, have nothing to share and stay as they are. The processes must
    call the network alike, and each with one row at least.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.forward = partial(_normalised, norm, add_up)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


@dataclass(frozen=True)
class _WholeBatch:
    """What a norm needs of all processes' rows; statistics in double precision."""

    mean: Tensor
    """(C,)"""
    variance: Tensor
    """(C,) the biased one."""
    count: Tensor
    """Scalar: values of each channel."""
    add_up: AddUp

    @staticmethod
    def of(x: Tensor, add_up: AddUp) -> _WholeBatch:
        """Statistics of the batch of which this process has the rows x (b, C, ...)."""
        # What batch norm itself takes them with; torch.var_mean is ten times slower on images in channels-last order.
        mean, variance = (found.double() for found in torch.batch_norm_update_stats(x, None, None, 0.0))
        own = torch.cat([mean, variance + mean.square(), mean.new_ones(1)]) * (x.numel() // x.shape[1])
        add_up(own)
        mean, square = (own[:-1] / own[-1]).chunk(2)
        return _WholeBatch(mean, square - mean.square(), own[-1], add_up)


def _normalised(norm: _BatchNorm, add_up: AddUp, x: Tensor) -> Tensor:
    """This process's rows (b, C, ...) of a batch, normalised by the statistics of the whole batch."""
    if not norm.training:
        return type(norm).forward(norm, x)
    whole = _WholeBatch.of(x.detach(), add_up)
    _remember(norm, whole.mean, whole.variance * whole.count / (whole.count - 1))
    normalised: Tensor = _Normalised.apply(x, norm.weight, norm.bias, whole, norm.eps)  # type: ignore[no-untyped-call]
    return normalised


def _remember(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Let the running statistics follow, as a batch norm does by itself; `variance` is the unbiased one."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    weight = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), weight)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), weight)


class _Normalised(torch.autograd.Function):
    """y = w x^ + b with x^ = (x - mean) / std over the whole batch (Ioffe and Szegedy 2015, algorithm 1).

    Each process's loss depends on each one's rows through mean and std. With the sums S over the whole batch of N
    values, dx = w / std (dy - S(dy) / N - x^ S(dy x^) / N): the first part is that of fixed statistics. The gradients
    of w and b are sums over this process's rows alone; whoever adds up the gradients of all weights adds these up too.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, whole: _WholeBatch, eps: float) -> Tensor:  # noqa: PLR0917
        ctx.whole, ctx.eps = whole, eps
        ctx.save_for_backward(x, weight)
        return functional.batch_norm(x, whole.mean.to(x.dtype), whole.variance.to(x.dtype), weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), whole, eps = ctx.saved_tensors, ctx.whole, ctx.eps
        fixed = [whole.mean.to(x.dtype), whole.variance.to(x.dtype)]
        dx, dw, db = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, weight, *fixed, None, None, False, eps, [True, True, True]
        )
        sums = torch.cat([db, dw]).double()
        whole.add_up(sums)
        of_dy, of_dy_x = (sums / whole.count).chunk(2)
        factor = (whole.variance + eps).rsqrt()
        slope = -weight * factor.square() * of_dy_x
        offset = -weight * factor * of_dy - slope * whole.mean
        shape = [1, -1] + [1] * (x.dim() - 2)
        dx.add_(offset.to(x.dtype).view(shape)).addcmul_(x, slope.to(x.dtype).view(shape))
        return dx, dw, db, None, None
