"""Students: small multi-exit networks that run on a device.

A student is a residual backbone of K = 4 stages. After each stage an *adapter* brings the stage's map to the same D
dimensions, so that every exit yields a feature that can be compared, and the last one can guide the others directly.
Class heads are kept apart (`CosineHeads`): recognition needs features only, and the persons of a device are its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional

from tutelage.biometrics.features import Features
from tutelage.errors import Code, PackageError, UsageError
from tutelage.nn.weights import fill_module, read_tensors
from tutelage.package import StudentPackage, space_of

Floats = npt.NDArray[np.float32]

EXITS = 4
"""K: number of exits, shallow to deep."""
READOUTS = ("exit1", "exit2", "exit3", "exit4", "fused")
"""What a student may recognise by: one exit's feature, or all exits' features together."""


@dataclass(frozen=True)
class StudentSpec:
    """Architecture of a student; equal specs take each other's weights."""

    name: str
    """`tiny` or `small`."""
    channels: tuple[int, int, int, int]
    """Width of each stage."""
    blocks: tuple[int, int, int, int]
    """Residual blocks in each stage."""
    squeeze: int
    """Channels of an adapter after its 1x1 convolution."""
    dimension: int = 128
    """D: length of every exit's feature."""
    side: int = 64
    """Input pixels a side."""

    def as_json(self) -> dict[str, Any]:
        """JSON form, the inverse of `from_json`."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> StudentSpec:
        """Read the form of `as_json`.

        Raises:
            PackageError: `package-corrupt` if a field is missing, unknown or not what it should be.
        """
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        try:
            spec = StudentSpec(**fields)
            sizes = (*spec.channels, *spec.blocks, spec.squeeze, spec.dimension, spec.side)
            sound = len(spec.channels) == len(spec.blocks) == EXITS and all(type(n) is int and n > 0 for n in sizes)
        except TypeError as error:
            raise _unknown_architecture() from error
        if not sound:
            raise _unknown_architecture()
        return spec


def _unknown_architecture() -> PackageError:
    return PackageError(
        Code.PACKAGE_CORRUPT, "a student's architecture is not one this release knows: fetch the package again"
    )


TINY = StudentSpec("tiny", channels=(16, 32, 48, 72), blocks=(1, 1, 1, 1), squeeze=14)
"""At most 0.25 million parameters."""
SMALL = StudentSpec("small", channels=(24, 48, 80, 104), blocks=(1, 1, 2, 2), squeeze=13)
"""At most 0.7 million parameters."""
SPECS = {spec.name: spec for spec in (TINY, SMALL)}


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around an identity or 1x1 shortcut (He et al. 2016)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C, H / stride, W / stride)."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Adapter(nn.Module):
    """Brings a stage's map (B, C, H, W) to a feature (B, D): 1x1 convolution, 3x3 pooling, linear, batch norm."""

    def __init__(self, channels: int, squeeze: int, dimension: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, squeeze, 1, bias=False)
        self.norm = nn.BatchNorm2d(squeeze)
        self.linear = nn.Linear(squeeze * 9, dimension, bias=False)
        self.out = nn.BatchNorm1d(dimension)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D), not normalised."""
        y = functional.adaptive_avg_pool2d(functional.relu(self.norm(self.conv(x))), 3)
        return cast(Tensor, self.out(self.linear(y.flatten(1))))


class Student(nn.Module):
    """The network; `forward` gives the unit features of all exits, shallow to deep."""

    def __init__(self, spec: StudentSpec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = nn.Conv2d(1, spec.channels[0], 5, 2, 2, bias=False)
        self.norm = nn.BatchNorm2d(spec.channels[0])
        widths = (spec.channels[0], *spec.channels)
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    ResidualBlock(widths[k] if b == 0 else widths[k + 1], widths[k + 1], 2 if b == 0 and k > 0 else 1)
                    for b in range(spec.blocks[k])
                )
            )
            for k in range(EXITS)
        )
        self.adapters = nn.ModuleList(Adapter(c, spec.squeeze, spec.dimension) for c in spec.channels)

    def forward(self, x: Tensor, exits: int = EXITS) -> list[Tensor]:
        """Unit features of the first `exits` exits, each (B, D), of inputs (B, 1, side, side).

        Later stages are not computed, so that an early exit costs only its own stages.
        """
        y = functional.relu(self.norm(self.stem(x)))
        features = []
        for stage, adapter in zip(self.stages[:exits], self.adapters[:exits], strict=True):
            y = stage(y)
            features.append(functional.normalize(adapter(y), dim=1))
        return features


def fuse(features: list[Tensor]) -> Tensor:
    """Unit feature (B, K * D) whose cosine is the mean of the exits' cosines, from K unit features (B, D)."""
    return torch.cat(features, dim=1) / math.sqrt(len(features))


class CosineHeads(nn.Module):
    """One class head an exit: z_k = s * u_k W_k^T with rows of W_k normalised (design §4)."""

    def __init__(self, weights: Tensor, scale: float = 16.0) -> None:
        """Start from `weights` (K, C, D): on a device, the persons' mean reference features of each exit."""
        super().__init__()
        self.weights = nn.Parameter(weights.clone())
        self.scale = scale

    @staticmethod
    def drawn(classes: int, dimension: int, scale: float, generator: torch.Generator) -> CosineHeads:
        """Heads of random directions, for training from nothing."""
        return CosineHeads(torch.randn(EXITS, classes, dimension, generator=generator), scale)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Logits of each exit, each (B, C), of unit features (B, D)."""
        rows = functional.normalize(self.weights, dim=2)
        return [self.scale * u @ w.T for u, w in zip(features, rows, strict=False)]


def freeze_batch_statistics(model: nn.Module) -> None:
    """Use the running statistics in all batch norms: under 16 samples a batch's own are noise (design §4)."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()


def save_weights(model: nn.Module) -> bytes:
    """Tensors of `model` as safetensors bytes, equal for equal weights."""
    return save_tensors({k: v.detach().cpu().contiguous() for k, v in sorted(model.state_dict().items())})


def load_student(spec: StudentSpec, weights: bytes) -> Student:
    """Student in evaluation mode.

    Raises:
        PackageError: `package-corrupt` if the bytes are damaged, `package-incomplete` if a tensor is missing, unknown
            or of another shape.
    """
    student = Student(spec)
    load_weights(student, weights)
    return student.eval()


def part_way(start: Student, end: Student, share: float) -> Student:
    """The student that lies `share` (0..1) of the way from `start` to `end`, tensor by tensor, in evaluation mode.

    For students of which one was trained on from the other: between those a line of weights stays good, and its middle
    is often better than either end on what neither was trained on (Wortsman et al. 2022, equation 1).
    """
    ends = end.state_dict()
    between = {
        name: torch.lerp(tensor, ends[name], share) if tensor.is_floating_point() else ends[name]
        for name, tensor in start.state_dict().items()
    }
    student = Student(start.spec)
    student.load_state_dict(between)
    return student.eval()


def load_weights(model: nn.Module, weights: bytes) -> None:
    """Put the tensors of safetensors bytes into `model`, all or none; half-precision tensors are widened.

    Raises:
        PackageError: `package-corrupt` if the bytes are damaged, `package-incomplete` if a tensor is missing, unknown
            or of another shape.
    """
    fill_module(model, read_tensors(weights)[0])


@dataclass(frozen=True)
class Recogniser:
    """A student ready to recognise: fixed weights, fixed readout, one space.

    Raises:
        UsageError: `readout` is none of `READOUTS`.
    """

    student: Student
    readout: str
    space: str

    def __post_init__(self) -> None:
        """Refuse a readout that no student has."""
        if self.readout not in READOUTS:
            raise UsageError(f"a student is read out at one of {', '.join(READOUTS)}, not at {self.readout!r}")

    @staticmethod
    def of(student: Student, readout: str) -> Recogniser:
        """A copy of `student` as it is now, in the space of a package that holds its `save_weights`."""
        return Recogniser.of_weights(student.spec, save_weights(student), readout)

    @staticmethod
    def of_weights(spec: StudentSpec, weights: bytes, readout: str) -> Recogniser:
        """The student in `weights`; its space follows from these bytes as they are, whatever their precision.

        Raises:
            PackageError: see `load_student`.
        """
        return Recogniser(load_student(spec, weights), readout, space_of(weights, readout))

    @staticmethod
    def of_package(package: StudentPackage) -> Recogniser:
        """The student of a verified package, in the package's own space.

        Raises:
            PackageError: `package-corrupt` or `package-incomplete` if its weights and its architecture disagree.
        """
        info = package.info
        return Recogniser.of_weights(StudentSpec.from_json(info.student), package.weights, info.readout)

    def features(self, inputs: Floats, batch: int = 256) -> Features:
        """Features of inputs (N, 1, side, side) in this space; needs no gradient and keeps no activations."""
        return Features(self.every_readout(inputs, batch)[self.readout], self.space)

    def every_readout(self, inputs: Floats, batch: int = 256) -> dict[str, Floats]:
        """Unit vectors of every readout this recogniser computes: early-exit readouts stop early."""
        exits = EXITS if self.readout == "fused" else READOUTS.index(self.readout) + 1
        names = READOUTS if exits == EXITS else READOUTS[:exits]
        rows: list[list[Tensor]] = []
        with torch.inference_mode():
            for start in range(0, len(inputs), batch):
                # Copied where read-only: torch knows no such arrays.
                part = np.require(inputs[start : start + batch], np.float32, ["C", "W"])
                found = self.student(torch.from_numpy(part), exits)
                rows.append([*found, fuse(found)] if exits == EXITS else found)
        if not rows:
            lengths = {n: self.student.spec.dimension * (EXITS if n == "fused" else 1) for n in names}
            return {n: np.empty((0, lengths[n]), np.float32) for n in names}
        return {n: torch.cat([r[i] for r in rows]).numpy() for i, n in enumerate(names)}
