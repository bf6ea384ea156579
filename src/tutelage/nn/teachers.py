"""Our own teacher: a residual network that maps a capture to one unit feature.

A teacher is anything with `extract` (see `tutelage.labelling.Teacher`); this one is trained here, by `train_teacher`,
and stored as one safetensors file whose header carries its architecture and how it was made. Half-precision storage
keeps the shipped fingerprint teacher under eight megabytes; it computes in single precision.

The header's field `teacher` is JSON: `name`, `spec` (the fields of `TeacherSpec`) and `made`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional

from tutelage.biometrics.features import Features
from tutelage.captures import Pixels, to_input
from tutelage.errors import Code, PackageError
from tutelage.files import storage_error
from tutelage.labelling import Extraction
from tutelage.nn.students import ResidualBlock
from tutelage.nn.weights import fill_module, read_tensors


@dataclass(frozen=True)
class TeacherSpec:
    """Architecture of a residual teacher."""

    channels: tuple[int, ...] = (24, 48, 96, 272)
    blocks: tuple[int, ...] = (1, 1, 1, 2)
    dimension: int = 256
    """D_t: length of a feature."""
    side: int = 64
    """Input pixels a side."""


class TeacherNetwork(nn.Module):
    """Residual stages, 3x3 pooling, linear, batch norm: inputs (B, 1, side, side) to unit features (B, D_t)."""

    def __init__(self, spec: TeacherSpec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = nn.Conv2d(1, spec.channels[0], 5, 2, 2, bias=False)
        self.norm = nn.BatchNorm2d(spec.channels[0])
        widths = (spec.channels[0], *spec.channels)
        stages = []
        for k, count in enumerate(spec.blocks):
            stages.append(ResidualBlock(widths[k], widths[k + 1], 2 if k else 1))
            stages.extend(ResidualBlock(widths[k + 1], widths[k + 1], 1) for _ in range(count - 1))
        self.stages = nn.Sequential(*stages)
        self.linear = nn.Linear(widths[-1] * 9, spec.dimension, bias=False)
        self.out = nn.BatchNorm1d(spec.dimension)

    def forward(self, x: Tensor) -> Tensor:
        """Unit features (B, D_t)."""
        y = self.stages(functional.relu(self.norm(self.stem(x))))
        y = self.out(self.linear(functional.adaptive_avg_pool2d(y, 3).flatten(1)))
        return functional.normalize(y.float(), dim=1)


def teacher_file(network: TeacherNetwork, name: str, made: Mapping[str, Any]) -> bytes:
    """One safetensors file: half-precision weights, architecture and `made`, the account of how it was trained."""
    tensors = {
        k: v.detach().cpu().half().contiguous() if v.is_floating_point() else v.detach().cpu()
        for k, v in sorted(network.state_dict().items())
    }
    about = {"name": name, "spec": asdict(network.spec), "made": dict(made)}
    return save_tensors(tensors, metadata={"teacher": json.dumps(about, sort_keys=True)})


class ResidualTeacher:
    """A trained residual network as a teacher; every capture is usable to it."""

    def __init__(self, network: TeacherNetwork, *, name: str, space: str, made: Mapping[str, Any]) -> None:
        """Hold `network` in evaluation mode under its `name` and `space`."""
        # Convolutions of batches are faster with channels last.
        network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack it
        self.network = network
        self.name = name
        self.space = space
        self.made = made

    @staticmethod
    def load(path: Path, device: str = "cpu") -> ResidualTeacher:
        """Read a `teacher_file`.

        Raises:
            PackageError: `package-corrupt` if it is no such file, `package-incomplete` if a tensor is missing.
            StorageError: `storage-failed`, it cannot be read.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise storage_error(error, path, "read") from error
        try:
            tensors, header = read_tensors(data)
            network, about = _described(header)
            fill_module(network, tensors)
        except PackageError as error:
            raise PackageError(error.code, f"{path} is not a teacher file: {error.message}") from error
        space = f"{hashlib.sha256(data).hexdigest()[:24]}/teacher"
        return ResidualTeacher(network.to(device), name=about["name"], space=space, made=about["made"])

    def extract(self, captures: Sequence[Pixels]) -> Extraction:
        """Unit features (N, D_t) of captures at sensor resolution."""
        vectors = self.vectors(torch.from_numpy(to_input(captures, self.network.spec.side)))
        features = Features(vectors.cpu().numpy(), self.space)
        return Extraction(features, np.ones(len(captures), bool), ("",) * len(captures), ("",) * len(captures))

    def vectors(self, inputs: Tensor, batch: int = 128) -> Tensor:
        """Unit features (N, D_t) of inputs (N, 1, side, side), on the network's own device."""
        where = next(self.network.parameters()).device
        with torch.inference_mode():
            blocks = (inputs[i : i + batch] for i in range(0, len(inputs), batch))
            rows = [self.network(block.to(where, memory_format=torch.channels_last)) for block in blocks]
        return torch.cat(rows) if rows else torch.empty(0, self.network.spec.dimension, device=where)


def _described(header: Mapping[str, str]) -> tuple[TeacherNetwork, dict[str, Any]]:
    """An untrained network of the architecture in a teacher file's `header`, and all that the header says.

    Raises:
        PackageError: `package-corrupt` if it describes no teacher.
    """
    try:
        about: dict[str, Any] = json.loads(header["teacher"])
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in about["spec"].items()}
        network = TeacherNetwork(TeacherSpec(**fields))
        return network, {"name": str(about["name"]), "made": dict(about["made"])}
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise PackageError(Code.PACKAGE_CORRUPT, "its header describes no teacher") from error
