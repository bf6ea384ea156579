"""Training a residual teacher: one visible loop over batches of many persons with a margin loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from tutelage.errors import Code, TrainingError
from tutelage.nn.batches import Batches
from tutelage.nn.checkpoints import fingerprint, load_checkpoint, save_checkpoint
from tutelage.nn.losses import margin_logits
from tutelage.nn.teachers import TeacherNetwork, TeacherSpec

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with steps done, steps in all, and the latest losses by name."""


@dataclass(frozen=True)
class TeacherTraining:
    """Settings of one teacher training."""

    steps: int = 4500
    batch: int = 128
    learning_rate: float = 2e-3
    """Peak of a one-cycle schedule (Smith and Topin 2018) for AdamW."""
    weight_decay: float = 0.05
    scale: float = 32.0
    """s of the margin logits."""
    margin: float = 0.35
    """m of CosFace; grows from 0 over the first 30 % of steps, which keeps the start stable."""
    seed: int = 0
    checkpoint_every: int = 250
    """Steps between checkpoints."""


def train_teacher(
    batches: Batches,
    training: TeacherTraining,
    spec: TeacherSpec,
    *,
    device: str = "cpu",
    checkpoint: Path | None = None,
    progress: Progress = lambda *_: None,
) -> TeacherNetwork:
    """Train a network on `batches`, from `checkpoint` on where that file exists.

    Raises:
        TrainingError: `training-diverged` if the loss is no longer a number.
        StorageError: the checkpoint cannot be read or written.
    """
    torch.manual_seed(training.seed)
    network: TeacherNetwork = TeacherNetwork(spec).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    centres = nn.Linear(spec.dimension, batches.persons, bias=False).to(device)
    optimizer = torch.optim.AdamW(
        [*network.parameters(), *centres.parameters()], training.learning_rate, weight_decay=training.weight_decay
    )
    modules = {"network": network, "centres": centres}
    settings = fingerprint({**asdict(training), **asdict(spec), "persons": batches.persons})
    done = 0
    if checkpoint is not None and checkpoint.exists():
        done = load_checkpoint(checkpoint, settings=settings, modules=modules, optimizer=optimizer)
    network.train()
    for step in range(done, training.steps):
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step / training.steps, training.learning_rate)
        inputs, labels = batches.batch(step, training.batch)
        inputs = inputs.to(device, memory_format=torch.channels_last)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=torch.device(device).type == "cuda"):
            features = network(inputs)
        cosines = features @ functional.normalize(centres.weight, dim=1).T
        margin = training.margin * min(1.0, step / (0.3 * training.steps))
        labels = labels.to(device)
        loss = functional.cross_entropy(margin_logits(cosines, labels, training.scale, margin), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        if step % 20 == 0 or step + 1 == training.steps:
            progress(step + 1, training.steps, {"loss": finite(loss)})
        if checkpoint is not None and (step + 1) % training.checkpoint_every == 0:
            finite(loss)  # a training that broke must not replace the state of one that had not
            save_checkpoint(checkpoint, step=step + 1, settings=settings, modules=modules, optimizer=optimizer)
    return network.eval()


def one_cycle(done: float, peak: float, warm: float = 0.1) -> float:
    """Learning rate after the share `done` in 0..1 of a training: linear rise over `warm`, then a cosine to zero."""
    if done < warm:
        return peak * (done + 1e-3) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))


def finite(loss: torch.Tensor) -> float:
    """The loss as a number.

    Raises:
        TrainingError: `training-diverged` if it is none.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(
            Code.TRAINING_DIVERGED, "the loss is no longer a number: lower the learning rate or check the images"
        )
    return value
