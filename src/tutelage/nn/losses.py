"""The losses of self-distillation and distillation, one function a term.

Words and letters as in the architecture page: K exits, features u_k (B, D) of unit length, logits z_k (B, C), sg()
stops the gradient. Every term is a mean over samples and over exits, so no value depends on batch size, K or D;
published implementations sum over some of these, which ties the weights to a batch size. `Preset` chooses and weighs
the terms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 3.0
"""T of the softened predictions on a device (Zhang et al. 2019 use 3)."""


def classification(logits: list[Tensor], targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """(a) mean over exits and samples of the cross-entropy; scalar.

    Args:
        logits: K times (B, C).
        targets: (B,) class numbers, or (B, C) soft labels that sum to one.
        weights: (B,) how much each sample counts, mean 1; None counts all alike.
    """
    losses = torch.stack([functional.cross_entropy(z.float(), targets, reduction="none") for z in logits])
    return losses.mean() if weights is None else (losses * weights).mean()


def last_exit_classification(logits: list[Tensor], targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of the deepest exit alone: plain fine-tuning; scalar."""
    return classification(logits[-1:], targets, weights)


def fused_target(logits: list[Tensor], temperature: float = TEMPERATURE) -> Tensor:
    """p_F: softened prediction of the mean of all exits' logits, (B, C); carries no gradient."""
    return functional.softmax(torch.stack(logits).detach().float().mean(0) / temperature, dim=1)


def softened_divergence(target: Tensor, logits: list[Tensor], temperature: float) -> Tensor:
    """T^2 times the mean over exits and samples of KL(target || softmax(z_k / T)); scalar (Hinton et al. 2015, §2)."""
    terms = [
        functional.kl_div(functional.log_softmax(z.float() / temperature, 1), target, reduction="batchmean")
        for z in logits
    ]
    return temperature**2 * torch.stack(terms).mean()


def fusion_guidance(logits: list[Tensor], temperature: float = TEMPERATURE) -> Tensor:
    """(b) the fused prediction of all exits teaches every exit, the last one too; scalar (claim 4)."""
    return softened_divergence(fused_target(logits, temperature), logits, temperature)


def one_to_many_guidance(features: list[Tensor]) -> Tensor:
    """(c) the last feature teaches the others: mean of 1 - <u_k, sg(u_K)> over samples and k < K; scalar (claim 4)."""
    last = features[-1].detach().float()
    return torch.stack([1 - (u.float() * last).sum(1) for u in features[:-1]]).mean()


def reference_drift(now: list[Tensor], before: list[Tensor]) -> Tensor:
    """(d) mean of 1 - <u(x), u_before(x)> over references and over the exits given; scalar."""
    return torch.stack([1 - (a.float() * b.detach().float()).sum(1) for a, b in zip(now, before, strict=True)]).mean()


def last_exit_guidance(logits: list[Tensor], temperature: float = TEMPERATURE) -> Tensor:
    """The last exit's softened prediction teaches the earlier ones; scalar (Zhang et al. 2019, loss source 2)."""
    target = functional.softmax(logits[-1].detach().float() / temperature, dim=1)
    return softened_divergence(target, logits[:-1], temperature)


def feature_hint(features: list[Tensor]) -> Tensor:
    """Squared distance of earlier unit features to the last, mean over samples and exits.

    Zhang et al. 2019, loss source 3. Departure: on unit features, where the published sum over dimensions is
    bounded by 4 and needs no tiny weight.
    """
    last = features[-1].detach().float()
    return torch.stack([(u.float() - last).square().sum(1) for u in features[:-1]]).mean()


def mean_feature_hint(features: list[Tensor]) -> Tensor:
    """Squared distance of every feature to the mean feature, mean over samples and exits (Lee and Lee 2021)."""
    centre = torch.stack(features).detach().float().mean(0)
    return torch.stack([(u.float() - centre).square().sum(1) for u in features]).mean()


def teacher_direction(mapped: list[Tensor], teacher: Tensor) -> Tensor:
    """1 - cos to the teacher's feature (B, D_t), of exits mapped to (B, D_t); mean over samples and exits; scalar."""
    return torch.stack([1 - functional.cosine_similarity(m.float(), teacher.float()) for m in mapped]).mean()


def margin_logits(cosines: Tensor, targets: Tensor, scale: float, margin: float) -> Tensor:
    """Logits s * (cos - m at the true class), (B, C): additive cosine margin (Wang et al. 2018, CosFace, eq. 4)."""
    return scale * (cosines - margin * functional.one_hot(targets, cosines.shape[1]).to(cosines.dtype))


@dataclass(frozen=True)
class Preset:
    """Which terms a self-distillation has, and their weights; zero leaves a term out entirely."""

    name: str
    every_exit: bool = True
    """Whether all exits classify (a) or only the last one."""
    fusion: float = 0.0
    """lambda_b of `fusion_guidance`."""
    one_to_many: float = 0.0
    """lambda_c of `one_to_many_guidance`."""
    last_exit: float = 0.0
    """Weight of `last_exit_guidance`."""
    hint: float = 0.0
    """Weight of `feature_hint`."""
    mean_hint: float = 0.0
    """Weight of `mean_feature_hint`."""
    references: float = 1.0
    """lambda_d of `reference_drift`."""


PRESETS = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            Preset("patent", fusion=0.1, one_to_many=0.1),
            Preset("classify"),
            Preset("last-exit", every_exit=False),
            Preset("byot", last_exit=0.1, hint=0.03),
            Preset("eed", fusion=0.1, mean_hint=0.1),
        )
    }
)
"""The fair comparisons: same backbone, batches and reference term, other teaching."""


def self_distillation(
    preset: Preset,
    features: list[Tensor],
    logits: list[Tensor],
    targets: Tensor,
    *,
    ramp: float = 1.0,
    weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """Terms of `preset` by name, unweighted, and their weighted sum as `loss`; reference drift is added by the loop.

    Args:
        preset: which terms, and their weights.
        features: K times (B, D), unit length.
        logits: K times (B, C).
        targets: (B,) class numbers or (B, C) soft labels.
        ramp: r(t) in 0..1, the growing weight of all guidance.
        weights: (B,) sample weights of the classification term.
    """
    classify = classification if preset.every_exit else last_exit_classification
    terms = {"classification": classify(logits, targets, weights)}
    guidance: dict[str, tuple[float, Callable[[], Tensor]]] = {
        "fusion_guidance": (preset.fusion, lambda: fusion_guidance(logits)),
        "one_to_many_guidance": (preset.one_to_many, lambda: one_to_many_guidance(features)),
        "last_exit_guidance": (preset.last_exit, lambda: last_exit_guidance(logits)),
        "feature_hint": (preset.hint, lambda: feature_hint(features)),
        "mean_feature_hint": (preset.mean_hint, lambda: mean_feature_hint(features)),
    }
    total = terms["classification"]
    for name, (weight, term) in guidance.items():
        if weight:
            terms[name] = term()
            total = total + ramp * weight * terms[name]
    return {**terms, "loss": total}
