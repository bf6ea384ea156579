"""Distilling a student from a teacher, in the cloud: one visible loop.

Every exit classifies with a margin, follows the teacher's temperature-softened distribution over the persons, and
points where the teacher's feature points, through a linear map of its own that is thrown away afterwards.

The processes of a group share each batch and take the same steps (`tutelage.nn.process_group`); a group of one is the
plain loop. Only the process that leads reads and writes the checkpoint, so the others need no disk in common with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutelage.errors import Code, TrainingError
from tutelage.nn.batches import EVERY_ROW, Batches
from tutelage.nn.checkpoints import PLAIN, Cadence, Checkpoints, Codec, TrainingState, fingerprint
from tutelage.nn.losses import classification, margin_logits, softened_divergence, teacher_direction
from tutelage.nn.process_group import ALONE, Parcel, ProcessGroup
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

    def taught(self, step: int, size: int, rows: slice = EVERY_ROW) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs (B, 1, side, side), labels (B,) and unit teacher features (B, D_t).

        They are these `rows` of the batch of `size` captures at `step`, the same whatever other rows are asked for.
        """
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
    """Steps after which a checkpoint is made."""
    checkpoint_seconds: float = 60.0
    """Seconds after which one is made whatever the step."""

    @property
    def cadence(self) -> Cadence:
        """How often a checkpoint is made; it changes nothing about the student."""
        return Cadence(self.checkpoint_every, self.checkpoint_seconds)


def distil(
    student: Student,
    batches: TaughtBatches,
    settings: Distillation,
    *,
    device: str = "cpu",
    checkpoint: Path | None = None,
    progress: Progress = lambda *_: None,
    group: ProcessGroup = ALONE,
    stop: Callable[[], bool] = lambda: False,
    kept: Callable[[int], None] = lambda _: None,
    codec: Codec = PLAIN,
) -> Student:
    """Train `student` in place on `batches`, from `checkpoint` on where that file exists.

    Each process of `group` calls this with equal batches and settings; student and checkpoint are those of the one that
    leads. All ask their `stop` once a step: after the step in which one says yes a checkpoint is made and all end.
    `kept` is told the steps done whenever a checkpoint was written, before the next step begins; `codec` seals it.

    Raises:
        TrainingError: `training-diverged` if the loss is no longer a number, `training-stopped` because of `stop`,
            `training-killed` if another process of the group ended early.
        StorageError: the checkpoint cannot be read or written.
        UsageError: there are fewer captures in a batch than processes.
    """
    rows, part = group.rows(settings.batch), group.part(settings.batch)
    torch.manual_seed(settings.seed)
    student.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    centres, dimension = batches.centres.to(device), student.spec.dimension
    drawn = torch.Generator().manual_seed(settings.seed)
    heads = CosineHeads.drawn(batches.persons, dimension, settings.scale, drawn).to(device)
    maps = nn.ModuleList(nn.Linear(dimension, centres.shape[1]) for _ in range(EXITS)).to(device)
    modules: dict[str, nn.Module] = {"student": student, "heads": heads, "maps": maps}
    parameters = [p for module in modules.values() for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
    state = TrainingState(_mark(settings, student, batches.persons), modules, optimizer)
    checkpoints = Checkpoints(checkpoint if group.leads else None, state, settings.cadence, kept=kept, codec=codec)
    done = _begun_alike(group, state, checkpoints.load())
    student.train()
    with group.whole_batch_statistics(student):
        for step in range(done, settings.steps):
            optimizer.param_groups[0]["lr"] = one_cycle(step / settings.steps, settings.learning_rate)
            inputs, labels, taught = (t.to(device) for t in batches.taught(step, settings.batch, rows))
            terms = distillation_loss(
                settings, student(inputs), labels, taught, heads=heads, maps=maps, centres=centres
            )
            terms = {name: part * term for name, term in terms.items()}  # of the mean over the whole batch
            optimizer.zero_grad(set_to_none=True)
            terms["loss"].backward()  # type: ignore[no-untyped-call]
            terms, stopped = group.added_up(parameters, terms, stop())
            nn.utils.clip_grad_norm_(student.parameters(), 5.0)
            optimizer.step()
            if step % 10 == 0 or step + 1 == settings.steps:
                progress(step + 1, settings.steps, {k: finite(v) for k, v in terms.items()})
            if stopped or checkpoints.due(step + 1):
                finite(terms["loss"])  # a training that broke must not replace the state of one that had not
                checkpoints.save(step + 1)
            if stopped:
                raise _stopped(step + 1, settings.steps)
    return student.eval()


def _mark(settings: Distillation, student: Student, persons: int) -> str:
    """Fingerprint of all that a checkpoint must have been made with; how often it is made may change."""
    known = {**asdict(settings), **student.spec.as_json(), "persons": persons}
    return fingerprint({name: value for name, value in known.items() if not name.startswith("checkpoint_")})


def _begun_alike(group: ProcessGroup, state: TrainingState, done: int) -> int:
    """Steps done by the process that leads, whose state all others take over."""
    if group.size == 1:
        return done
    leaders = group.handed(Parcel({"done": done, "mark": state.mark}, state.tensors()) if group.leads else None)
    if leaders.about["mark"] != state.mark:
        raise TrainingError(
            Code.TRAINING_KILLED, "the processes of a training have different settings: start all of them alike"
        )
    if not group.leads:
        state.restore(leaders.tensors)
    return int(leaders.about["done"])


def _stopped(done: int, steps: int) -> TrainingError:
    return TrainingError(
        Code.TRAINING_STOPPED, f"the training was told to stop after {done} of {steps} steps: start it again to go on"
    )


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

    def taught(self, step: int, size: int, rows: slice = EVERY_ROW) -> tuple[Tensor, Tensor, Tensor]:
        """The source's batch at `step` with the teacher's features of the unchanged captures."""
        inputs, labels = self.source.batch(step, size, rows)
        return inputs, labels, self.features[self.source.chosen(step, size)[rows]]


class InputSource(Batches, Protocol):
    """`Batches` over a fixed set whose rows can be named."""

    @property
    def labels(self) -> Tensor:
        """(N,) class numbers."""
        ...

    def batch(self, step: int, size: int, rows: slice = EVERY_ROW) -> tuple[Tensor, Tensor]:
        """These `rows` of the batch of `size`, the same whatever other rows are asked for."""
        ...

    def chosen(self, step: int, size: int) -> Tensor:
        """Numbers (size,) in the set of the captures of the batch at `step`."""
        ...


__all__ = ["CachedTeaching", "Distillation", "TaughtBatches", "distil", "distillation_loss"]
