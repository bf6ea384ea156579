"""Networks, images and training sets so small that a training takes a second."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tutelage.nn.batches import InputBatches, standardise
from tutelage.nn.self_distil import SelfDistillation, TrainingSet
from tutelage.nn.students import Student, StudentSpec, load_student, save_weights
from tutelage.nn.teachers import TeacherSpec

# Not fewer than 8 channels: with fewer, the backward pass of a strided 1x1 convolution in channels-last order writes
# beyond its memory (oneDNN in torch 2.13 on x86).
TOY = StudentSpec("toy", channels=(8, 8, 12, 16), blocks=(1, 1, 1, 1), squeeze=4, dimension=16, side=16)
TOY_TEACHER = TeacherSpec(channels=(8, 12, 16), blocks=(1, 1, 1), dimension=24, side=16)


def toy_student(seed: int = 0, spec: StudentSpec = TOY) -> Student:
    """A student of random weights whose normalisations have seen images, so that it tells them apart a little."""
    return load_student(spec, _toy_weights(seed, spec))


@cache
def _toy_weights(seed: int, spec: StudentSpec) -> bytes:
    torch.manual_seed(seed)
    student = Student(spec)
    look_at_images(student)
    return save_weights(student)


def look_at_images(network: nn.Module) -> None:
    """Give the batch norms of `network` the statistics of some images."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # an average over all batches
    network.train()
    with torch.no_grad():
        for batch in range(4):
            network(toy_images(24, 1, seed=1000 + batch)[0])
    for norm in norms:
        norm.momentum = 0.1


def toy_images(persons: int, each: int, seed: int = 0, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    """Standardised inputs (persons * each, 1, 16, 16), a smooth pattern a person, and labels, person by person."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(persons, 1, 4, 4, generator=generator)
    patterns = functional.interpolate(patterns, (16, 16), mode="bicubic", align_corners=True)
    labels = torch.arange(persons).repeat_interleave(each)
    grain = torch.randn(len(labels), 1, 16, 16, generator=generator)
    return standardise(patterns[labels] + noise * grain), labels


def toy_batches(persons: int = 6, each: int = 4, seed: int = 3) -> InputBatches:
    """Batches over `toy_images`."""
    return InputBatches(*toy_images(persons, each), seed=seed)


def one_hot(labels: npt.NDArray[np.int64], persons: int) -> npt.NDArray[np.float32]:
    """Labels (N,) as distributions (N, C)."""
    return np.eye(persons, dtype=np.float32)[labels]


def toy_training_set(persons: int = 4, each: int = 5, references: int = 2, seed: int = 0) -> TrainingSet:
    """The first `references` images of each person are enrolled, the others are new samples with true labels."""
    images, labels = toy_images(persons, references + each, seed)
    inputs, numbers = images.numpy(), labels.numpy()
    new = np.arange(len(numbers)) % (references + each) >= references
    return TrainingSet(
        inputs=inputs[new],
        targets=one_hot(numbers[new], persons),
        weights=np.ones(int(new.sum()), np.float32),
        references=inputs[~new],
        reference_labels=numbers[~new],
    )


def toy_settings(**changed: object) -> SelfDistillation:
    """A short self-distillation that checkpoints after every step."""
    return SelfDistillation(**{"steps": 8, "batch": 16, "checkpoint_seconds": 0.0, **changed})
