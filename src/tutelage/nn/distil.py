"""Distilling a student from a teacher, in the cloud: one visible loop.

Every exit classifies with a margin, follows the teacher's temperature-softened distribution over the persons, and
points where the teacher's feature points, through a linear map of its own that is thrown away afterwards.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutelage.nn.batches import Batches
from tutelage.nn.checkpoints import fingerprint, load_checkpoint, save_checkpoint
from tutelage.nn.losses import classification, margin_logits, softened_divergence, teacher_direction
from tutelage.nn.students import EXITS, CosineHeads, Student
from tutelage.nn.train_teacher import Progress, finite, one_cycle


class TaughtBatches(Protocol):
    """A source of inputs with labels and the teacher's features."""

    @property
    def persons(self) -> int:
        """C: labels lie in 0..C-1."""
        ...

    @property
    def centres(self) -> Tensor:
        """(C, D_t) unit mean teacher feature of each person."""
        ...

    def taught(self, step: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs (size, 1, side, side), labels (size,) and unit teacher features (size, D_t)."""
        ...


@dataclass(frozen=True)
class Distillation:
    """Settings of one distillation; the weights are those of the architecture page."""

    steps: int = 1500
    batch: int = 64
    learning_rate: float = 3e-3
    """Peak of a one-cycle schedule for AdamW."""
    weight_decay: float = 0.02
    scale: float = 32.0
    """s of the class logits; 32 between the device's 16 and the 64 of many thousands of persons."""
    margin: float = 0.2
    """m on the true class, cosine units."""
    temperature: float = 4.0
    """T of the teacher's softened distribution."""
    soft: float = 0.9
    """Weight of the divergence to the teacher's distribution."""
    direction: float = 2.0
    """Weight of 1 - cos to the teacher's feature."""
    seed: int = 0
    checkpoint_every: int = 100
    """Steps between checkpoints."""


def distil(
    student: Student,
    batches: TaughtBatches,
    settings: Distillation,
    *,
    device: str = "cpu",
    checkpoint: Path | None = None,
    progress: Progress = lambda *_: None,
) -> Student:
    """Train `student` in place on `batches`, from `checkpoint` on where that file exists.

    Raises:
        TrainingError: `training-diverged` if the loss is no longer a number.
        StorageError: the checkpoint cannot be read or written.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)
    student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    heads = CosineHeads.drawn(batches.persons, student.spec.dimension, settings.scale, generator).to(device)
    maps = nn.ModuleList(nn.Linear(student.spec.dimension, batches.centres.shape[1]) for _ in range(EXITS)).to(device)
    modules: dict[str, nn.Module] = {"student": student, "heads": heads, "maps": maps}
    optimizer = torch.optim.AdamW(
        [p for m in modules.values() for p in m.parameters()],
        settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    mark = fingerprint({**asdict(settings), **student.spec.as_json(), "persons": batches.persons})
    done = 0
    if checkpoint is not None and checkpoint.exists():
        done = load_checkpoint(checkpoint, settings=mark, modules=modules, optimizer=optimizer)
    student.train()
    for step in range(done, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step / settings.steps, settings.learning_rate)
        inputs, labels, taught = (t.to(device) for t in batches.taught(step, settings.batch))
        terms = distillation_loss(
            settings, student(inputs), labels, taught, heads=heads, maps=maps, centres=batches.centres.to(device)
        )
        optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        if step % 10 == 0 or step + 1 == settings.steps:
            progress(step + 1, settings.steps, {k: finite(v) for k, v in terms.items()})
        if checkpoint is not None and (step + 1) % settings.checkpoint_every == 0:
            finite(terms["loss"])  # a training that broke must not replace the state of one that had not
            save_checkpoint(checkpoint, step=step + 1, settings=mark, modules=modules, optimizer=optimizer)
    return student.eval()


def distillation_loss(
    settings: Distillation,
    features: list[Tensor],
    labels: Tensor,
    taught: Tensor,
    *,
    heads: CosineHeads,
    maps: nn.ModuleList,
    centres: Tensor,
) -> dict[str, Tensor]:
    """Terms by name and their weighted sum as `loss`.

    Args:
        settings: weights, margin and temperature.
        features: K times (B, D), unit length.
        labels: (B,) class numbers.
        taught: (B, D_t) unit teacher features.
        heads: class heads over the C persons, of scale `settings.scale`.
        maps: K linear maps D to D_t.
        centres: (C, D_t) unit mean teacher features.
    """
    logits = heads(features)
    with_margin = [margin_logits(z / settings.scale, labels, settings.scale, settings.margin) for z in logits]
    target = functional.softmax(settings.scale * taught @ centres.T / settings.temperature, dim=1)
    terms = {
        "classification": classification(with_margin, labels),
        "soft": softened_divergence(target, logits, settings.temperature),
        "direction": teacher_direction([m(u) for m, u in zip(maps, features, strict=True)], taught),
    }
    loss = (
        (1 - settings.soft) * terms["classification"]
        + settings.soft * terms["soft"]
        + settings.direction * terms["direction"]
    )
    return {**terms, "loss": loss}


@dataclass(frozen=True)
class CachedTeaching:
    """`TaughtBatches` over a fixed set: the teacher has seen each capture once, the student sees changed copies."""

    source: InputSource
    features: Tensor
    """(N, D_t) unit teacher features, row for row those of the source."""
    centres: Tensor
    """(C, D_t) unit mean teacher features."""

    @staticmethod
    def of(source: InputSource, features: Tensor) -> CachedTeaching:
        """Work out the centres of the persons from their captures' features, where those lie."""
        sums = features.new_zeros(source.persons, features.shape[1])
        sums.index_add_(0, source.labels.to(features.device), features)
        return CachedTeaching(source, features, functional.normalize(sums, dim=1))

    @property
    def persons(self) -> int:
        """C of the source."""
        return self.source.persons

    def taught(self, step: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """The source's batch at `step` with the teacher's features of the unchanged captures."""
        inputs, labels = self.source.batch(step, size)
        return inputs, labels, self.features[self.source.chosen(step, size)]


class InputSource(Batches, Protocol):
    """`Batches` over a fixed set whose rows can be named."""

    @property
    def labels(self) -> Tensor:
        """(N,) class numbers."""
        ...

    def chosen(self, step: int, size: int) -> Tensor:
        """Rows (size,) of the batch at `step`."""
        ...


__all__ = ["CachedTeaching", "Distillation", "TaughtBatches", "distil", "distillation_loss"]
