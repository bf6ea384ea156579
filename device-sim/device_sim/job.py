"""A training job and its result, as they lie sealed on a device's disk between the device and its worker.

Both are safetensors files with one more tensor, `about`, that holds JSON text. Both are sealed: a job's inputs are
captures, and trained weights are nobody's business before the gate has let them pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from tutelage.errors import Code, InputError, PackageError, StorageError, UsageError
from tutelage.nn.self_distil import SelfDistillation, TrainingSet
from tutelage.nn.students import StudentSpec
from tutelage.sealing import open_sealed, seal

JOB, RESULT, CHECKPOINT = "job.sealed", "result.sealed", "checkpoint.sealed"
"""File names in a job's folder, and what each is sealed as."""
MAX_JOB_BYTES = 1 << 30
"""A larger file is no job: a thousand samples and as many references take some 32 MiB."""

_ARRAYS = ("inputs", "targets", "weights", "references", "reference_labels")
# What reading a file of another layout can come to, settings of another release among it.
_OTHER_LAYOUT = (SafetensorError, ValueError, LookupError, TypeError, InputError, PackageError, UsageError)

_Read = TypeVar("_Read")
_Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Descent:
    """What a training starts from and what becomes of it; a device that finds a job decides by it."""

    generation: str
    """Name the trained student will bear, like `v3+7`."""
    parent: str
    """Digest of the package whose student is trained."""
    training_set: int
    """Number that the samples learnt from bear in the store."""


@dataclass(frozen=True)
class TrainingJob:
    """Everything a worker needs; it reads nothing else of the device."""

    descent: Descent
    spec: StudentSpec
    weights: bytes
    """Tensors of the running student."""
    training_set: TrainingSet
    settings: SelfDistillation
    threads: int
    memory_bytes: int
    """Resident memory at which the worker gives up."""

    def sealed(self, key: bytes) -> bytes:
        """Bytes for the disk."""
        about = {
            "descent": asdict(self.descent),
            "spec": self.spec.as_json(),
            "settings": asdict(self.settings),
            "threads": self.threads,
            "memory_bytes": self.memory_bytes,
        }
        # Contiguous, for safetensors writes memory as it lies: a transposed array would come back scrambled.
        arrays = {name: np.ascontiguousarray(getattr(self.training_set, name)) for name in _ARRAYS}
        return seal(_written(arrays, self.weights, about), key, purpose=JOB)

    @staticmethod
    def open(data: bytes, key: bytes) -> TrainingJob:
        """The inverse of `sealed`.

        Raises:
            StorageError: `key-wrong`; `store-corrupt`, the bytes are damaged or of another layout.
        """
        return _read(open_sealed(data, key, purpose=JOB), _job)


def seal_result(weights: bytes, summary: Mapping[str, Any], key: bytes) -> bytes:
    """Trained tensors and what the training says of itself, as bytes for the disk."""
    return seal(_written({}, weights, summary), key, purpose=RESULT)


def open_result(data: bytes, key: bytes) -> tuple[bytes, dict[str, Any]]:
    """The inverse of `seal_result`.

    Raises:
        StorageError: `key-wrong`; `store-corrupt`, the bytes are damaged or of another layout.
    """
    return _read(open_sealed(data, key, purpose=RESULT), lambda _, weights, about: (weights, about))


def _job(arrays: _Arrays, weights: bytes, about: dict[str, Any]) -> TrainingJob:
    return TrainingJob(
        Descent(**about["descent"]),
        StudentSpec.from_json(about["spec"]),
        weights,
        TrainingSet(**{name: arrays[name] for name in _ARRAYS}),
        SelfDistillation(**about["settings"]),
        int(about["threads"]),
        int(about["memory_bytes"]),
    )


def _written(arrays: Mapping[str, npt.NDArray[Any]], weights: bytes, about: Mapping[str, Any]) -> bytes:
    texts = {"student": weights, "about": json.dumps(about).encode()}
    return save_arrays({**arrays, **{name: np.frombuffer(text, np.uint8) for name, text in texts.items()}})


def _read(plain: bytes, make: Callable[[_Arrays, bytes, dict[str, Any]], _Read]) -> _Read:
    """What `make` makes of the arrays, the student's tensors and the JSON in `plain`."""
    try:
        arrays = load_arrays(plain)
        weights, about = arrays.pop("student").tobytes(), json.loads(arrays.pop("about").tobytes())
        return make(arrays, weights, about)
    except _OTHER_LAYOUT as error:
        # The seal holds, so another release wrote this.
        raise StorageError(
            Code.STORE_CORRUPT, "a training job or result has an unknown layout: start the training anew"
        ) from error
