"""Self-distillation: a student trains itself on a device's own samples, in one visible loop.

Half of each batch are new samples, half are replayed references, so that what was enrolled is never forgotten. Class
heads start as the persons' mean reference features of each exit: the training starts from a working classifier. Batches
follow from `(seed, step)`, so a training that was killed and resumed ends where an undisturbed one ends.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tutelage.errors import Code, InputError, UsageError
from tutelage.nn.batches import Augmentation
from tutelage.nn.checkpoints import PLAIN, Codec, fingerprint, load_checkpoint, save_checkpoint
from tutelage.nn.losses import PRESETS, reference_drift, self_distillation
from tutelage.nn.students import CosineHeads, Student, freeze_batch_statistics, save_weights
from tutelage.nn.train_teacher import Progress, finite

Floats = npt.NDArray[np.float32]

SMALLEST_BATCH = 2
"""One new sample and one reference."""
SMALLEST_BATCH_FOR_STATISTICS = 16
"""Below it a batch's own mean and variance are noise."""


@dataclass(frozen=True)
class TrainingSet:
    """What one self-distillation learns from.

    Raises:
        InputError: `data-insufficient` if there is nothing to learn, a person has no reference, or the arrays do not
            speak of the same samples and persons.
    """

    inputs: Floats
    """(N, 1, side, side) new samples."""
    targets: Floats
    """(N, C) labels as distributions over the persons, each row sums to one."""
    weights: Floats
    """(N,) how much each sample counts, mean 1."""
    references: Floats
    """(R, 1, side, side) the persons' enrolment captures."""
    reference_labels: npt.NDArray[np.int64]
    """(R,) person numbers 0..C-1, each at least once."""

    def __post_init__(self) -> None:
        """Refuse what would fail, or learn nonsense, in the middle of a training."""
        if not (0 < len(self.inputs) == len(self.targets) == len(self.weights)):
            raise _unfit("every new sample needs a label and a weight, and there must be one at least")
        if not (0 < len(self.references) == len(self.reference_labels)):
            raise _unfit("every reference needs a person, and there must be one at least")
        if self.targets.ndim != 2 or not np.array_equal(
            np.unique(self.reference_labels), np.arange(self.targets.shape[1])
        ):
            raise _unfit("labels must speak of the persons who have references, and of no others")
        if not np.allclose(self.targets.sum(1), 1, atol=1e-3) or self.targets.min() < 0 or self.weights.min() < 0:
            raise _unfit("labels must be distributions and weights must not be negative")

    def digest(self) -> str:
        """Names these very arrays: a training resumed on others would be a training of neither."""
        arrays = (self.inputs, self.targets, self.weights, self.references, self.reference_labels)
        parts = (f"{a.dtype} {a.shape}".encode() + np.ascontiguousarray(a).tobytes() for a in arrays)
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _unfit(why: str) -> InputError:
    return InputError(Code.DATA_INSUFFICIENT, f"a self-distillation cannot start: {why}")


@dataclass(frozen=True)
class SelfDistillation:
    """Settings of one self-distillation.

    Raises:
        UsageError: `preset` is none of `PRESETS`, or a batch has no room for a new sample and a reference.
    """

    preset: str = "patent"
    """A name of `tutelage.nn.losses.PRESETS`."""
    steps: int = 100
    batch: int = 32
    """Samples a step; half of them replayed references."""
    learning_rate: float = 0.05
    """SGD's, after a linear rise over the first 5 % of steps; falls to zero as a cosine."""
    momentum: float = 0.9
    clip: float = 5.0
    """Largest norm of the gradient."""
    scale: float = 16.0
    """s of the class logits."""
    ramp: float = 0.2
    """Share of the steps over which guidance grows from nothing to its weight: r(t)."""
    late_only: bool = False
    """Train adapters, the last two stages and all normalisations alone (Lin et al. 2022, sparse update)."""
    frozen_statistics: bool = False
    """Keep the batch norms' running statistics; always so under 16 samples a batch."""
    seed: int = 0
    checkpoint_seconds: float = 5.0
    """Time between two checkpoints."""

    def __post_init__(self) -> None:
        """Refuse what no training can do."""
        if self.preset not in PRESETS:
            raise UsageError(f"there is no preset {self.preset!r}: choose one of {', '.join(PRESETS)}")
        if self.batch < SMALLEST_BATCH:
            raise UsageError(f"a batch needs a new sample and a reference, not {self.batch} in all")

    @property
    def keeps_statistics(self) -> bool:
        """Whether batch norms use and keep their running statistics."""
        return self.frozen_statistics or self.batch < SMALLEST_BATCH_FOR_STATISTICS


@dataclass(frozen=True)
class SelfDistilled:
    """What a finished self-distillation reports."""

    student: Student
    losses: dict[str, float]
    """Terms of the last step by name."""
    steps_run: int
    """Steps of this process; fewer than the setting's after a resumption."""
    seconds: float
    """Of this process's loop, by the clock handed in."""


def self_distil(
    student: Student,
    training_set: TrainingSet,
    settings: SelfDistillation,
    *,
    checkpoint: Path | None = None,
    codec: Codec = PLAIN,
    progress: Progress = lambda *_: None,
    clock: Callable[[], float] = time.monotonic,
) -> SelfDistilled:
    """Train `student` in place, from `checkpoint` on where that file exists.

    Raises:
        TrainingError: `training-diverged` if the loss is no longer a number.
        StorageError: the checkpoint cannot be read or written, or is of another student, set or settings.
    """
    mark = _mark(student, training_set, settings)
    before = _features_before(student, torch.tensor(training_set.references))
    heads = CosineHeads(_mean_by_person(before, training_set.reference_labels), settings.scale)
    _choose_trainable(student, settings.late_only)
    trainable = [p for p in (*student.parameters(), *heads.parameters()) if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, settings.learning_rate, settings.momentum)
    modules: dict[str, nn.Module] = {"student": student, "heads": heads}
    done, losses = 0, {}
    if checkpoint is not None and checkpoint.exists():
        done = load_checkpoint(checkpoint, settings=mark, modules=modules, optimizer=optimizer, codec=codec)
    started = saved = clock()
    student.train()
    if settings.keeps_statistics:
        freeze_batch_statistics(student)
    for step in range(done, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step / settings.steps)
        terms = _losses(settings, step, student, heads, training_set=training_set, before=before[-1])
        losses = {name: finite(term) for name, term in terms.items()}
        optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trainable, settings.clip)
        optimizer.step()
        progress(step + 1, settings.steps, losses)
        if checkpoint is not None and clock() - saved >= settings.checkpoint_seconds:
            save_checkpoint(checkpoint, step=step + 1, settings=mark, modules=modules, optimizer=optimizer, codec=codec)
            saved = clock()
    return SelfDistilled(student.requires_grad_().eval(), losses, settings.steps - done, clock() - started)


def _mark(student: Student, training_set: TrainingSet, settings: SelfDistillation) -> str:
    """Fingerprint of the settings, of the student a training starts from, and of what it learns from."""
    start = hashlib.sha256(save_weights(student)).hexdigest()
    return fingerprint(
        {**asdict(settings), "student": student.spec.as_json(), "start": start, "set": training_set.digest()}
    )


def _losses(
    settings: SelfDistillation,
    step: int,
    student: Student,
    heads: CosineHeads,
    *,
    training_set: TrainingSet,
    before: Tensor,
) -> dict[str, Tensor]:
    """Terms of one step by name; `before` (R, D) are the references' last-exit features before training."""
    preset = PRESETS[settings.preset]
    rows, replayed = _draw(training_set, settings, step)
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    inputs = np.concatenate([training_set.inputs[rows], training_set.references[replayed]])
    features = student(Augmentation().apply(torch.from_numpy(inputs), generator))
    classes = training_set.targets.shape[1]
    own = functional.one_hot(torch.from_numpy(training_set.reference_labels[replayed]), classes).float()
    targets = torch.cat([torch.from_numpy(training_set.targets[rows]), own])
    weights = torch.cat([torch.from_numpy(training_set.weights[rows]), torch.ones(len(replayed))])
    ramp = min(1.0, step / max(1.0, settings.ramp * settings.steps))
    terms = self_distillation(preset, features, heads(features), targets, ramp=ramp, weights=weights)
    drift = reference_drift([features[-1][len(rows) :]], [before[torch.from_numpy(replayed)]])
    return {**terms, "reference_drift": drift, "loss": terms["loss"] + preset.references * drift}


def _draw(
    training_set: TrainingSet, settings: SelfDistillation, step: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of new samples and of references for one step: shuffled passes, decided by `(seed, step)`."""
    half = settings.batch // 2
    halves = (settings.batch - half, half)
    counts = (len(training_set.inputs), len(training_set.references))
    new, replayed = (
        _passes(np.arange(step * size, (step + 1) * size), count, settings.seed + salt)
        for salt, (size, count) in enumerate(zip(halves, counts, strict=True))
    )
    return new, replayed


def _passes(positions: npt.NDArray[np.int64], count: int, seed: int) -> npt.NDArray[np.int64]:
    """Rows at `positions` of an endless sequence of shuffled passes over `count` rows."""
    orders = {p: np.random.default_rng([seed, 9, int(p)]).permutation(count) for p in np.unique(positions // count)}
    return np.array([orders[p // count][p % count] for p in positions], dtype=np.int64)


def _features_before(student: Student, references: Tensor) -> list[Tensor]:
    """Unit features of every exit, K times (R, D), of the student as it came."""
    student.eval()
    with torch.no_grad():
        return [
            torch.cat(parts) for parts in zip(*(student(part) for part in torch.split(references, 64)), strict=True)
        ]


def _mean_by_person(features: list[Tensor], labels: npt.NDArray[np.int64]) -> Tensor:
    """Start of the heads: (K, C, D) mean reference feature of each person and exit."""
    numbers = torch.tensor(labels)
    sums = [torch.zeros(int(labels.max()) + 1, u.shape[1]).index_add_(0, numbers, u) for u in features]
    return functional.normalize(torch.stack(sums), dim=2)


def _choose_trainable(student: Student, late_only: bool) -> None:
    """Mark which of the student's parameters learn."""
    late = ("adapters.", "stages.2.", "stages.3.")
    for name, parameter in student.named_parameters():
        norm = parameter.ndim == 1
        parameter.requires_grad_(not late_only or norm or name.startswith(late))


def _schedule(done: float) -> float:
    """Factor of the learning rate after the share `done` in 0..1: rise over 5 %, then a cosine to zero."""
    return float(min(1.0, done / 0.05 + 0.02) * 0.5 * (1 + np.cos(np.pi * done)))
