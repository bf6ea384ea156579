"""Features, logits and labels of some exits, for what takes losses of them."""

from __future__ import annotations

import numpy as np
import torch
from slow_losses import (
    Row,
)
from torch import Tensor
from torch.nn import functional

SHAPES = [(4, 6, 8, 5), (2, 1, 3, 2), (3, 17, 16, 40)]
"""K exits, B samples, D dimensions, C classes."""


def some_features(exits: int, batch: int, dimension: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [functional.normalize(torch.randn(batch, dimension, generator=generator), dim=1) for _ in range(exits)]


def some_logits(exits: int, batch: int, classes: int, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [4 * torch.randn(batch, classes, generator=generator) for _ in range(exits)]


def some_soft_labels(batch: int, classes: int, seed: int = 2) -> Tensor:
    return torch.softmax(torch.randn(batch, classes, generator=torch.Generator().manual_seed(seed)), dim=1)


def hard_labels(batch: int, classes: int) -> Tensor:
    return torch.arange(batch) * 7 % classes


def assert_close(found: Tensor, expected: Tensor, rtol: float = 1e-5, atol: float = 1e-7) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=rtol, atol=atol)


def leaves(tensors: list[Tensor]) -> list[Tensor]:
    return [t.clone().requires_grad_() for t in tensors]


def plain(tensors: list[Tensor]) -> list[list[Row]]:
    """What the slow loops take."""
    return [t.tolist() for t in tensors]
