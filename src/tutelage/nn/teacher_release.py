"""A teacher of one's own, from captures to the bytes of its file, judged on persons it never met.

The judged network is the one in the file: weights are rounded to half precision first. The rates go into the file too,
so that whoever opens it later sees what it can do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.biometrics.error_summary import ErrorSummary, summarise
from tutelage.captures import to_input
from tutelage.cohorts import Cohort
from tutelage.nn.batches import InputBatches, label_numbers
from tutelage.nn.teachers import ResidualTeacher, TeacherSpec, teacher_file
from tutelage.nn.train_teacher import Progress, TeacherTraining, train_teacher

MOST_MEASURED = 2000
"""Captures: all pairs of more take memory and change no rate by as much as another draw of persons would."""


@dataclass(frozen=True)
class CohortTraining(TeacherTraining):
    """Settings of a teacher training, bound to what it trains on."""

    material: str = ""
    """Digest of the inputs and labels: a checkpoint of other captures is refused like one of other settings."""


@dataclass(frozen=True)
class TeacherRelease:
    """A teacher and what is known of it."""

    data: bytes
    """The file."""
    errors: ErrorSummary | None
    """On the persons held out; None where nobody was."""
    made: Mapping[str, Any]
    """The account of its making that the file carries."""


def release_teacher(
    taught: Cohort,
    unseen: Cohort,
    training: TeacherTraining,
    *,
    name: str,
    created: str,
    device: str,
    checkpoint: Path,
    progress: Progress,
) -> TeacherRelease:
    """Train on the persons `taught`, judge on the persons `unseen`; equal arguments give equal bytes on a processor.

    Raises:
        TrainingError: `training-diverged`.
        StorageError: the checkpoint cannot be read or written, or is of another training.
    """
    spec = TeacherSpec()
    numbers, names = label_numbers(taught.persons)
    inputs, labels = torch.from_numpy(to_input(taught.captures, spec.side)), torch.from_numpy(numbers)
    settings = CohortTraining(**asdict(training), material=digest((inputs, labels)))
    batches = InputBatches(inputs, labels, training.seed)
    network = train_teacher(batches, settings, spec, device=device, checkpoint=checkpoint, progress=progress)
    network = network.half().float()
    teacher = ResidualTeacher(network, name=name, space="unseen persons", made={})
    errors = _judged(teacher, unseen.rows(unseen.first_rows(MOST_MEASURED))) if len(unseen) else None
    made = {
        **asdict(settings),
        "persons": len(names),
        "captures": len(taught),
        "held_out": asdict(errors) if errors else None,
        "device": device,
        "torch": str(torch.__version__),
        "created": created,
    }
    return TeacherRelease(teacher_file(network, name, made), errors, made)


def _judged(teacher: ResidualTeacher, unseen: Cohort) -> ErrorSummary:
    return summarise(teacher.extract(unseen.captures).features, unseen.persons)


def digest(tensors: Iterable[Tensor]) -> str:
    """SHA-256 of the content of some tensors, their types and shapes."""
    whole = hashlib.sha256()
    for tensor in tensors:
        whole.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()
