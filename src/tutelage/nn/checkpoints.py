"""Checkpoints: a training's whole state in one safetensors file, so that a killed training goes on where it was.

File layout: tensors `model.<module>.<name>` and `optimizer.<parameter>.<name>`; header field `training` holds the step
and the fingerprint of the training's settings. A checkpoint of other settings is refused: going on from it would give a
result nobody asked for. Random numbers need no place here, since batches are decided by the step. On a device a codec
seals the file, since class heads are persons' features.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from tutelage.errors import Code, PackageError, StorageError
from tutelage.files import atomic_write, storage_error
from tutelage.nn.weights import fill_module, read_tensors


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Digest of a training's settings; JSON values only."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Codec:
    """What happens to a checkpoint's bytes on their way to the disk and back; by default nothing."""

    seal: Callable[[bytes], bytes] = bytes
    open: Callable[[bytes], bytes] = bytes
    """The inverse of `seal`.

    Raises:
        StorageError: `key-wrong` where the key is another; any other code means that the bytes are damaged.
    """


PLAIN = Codec()
"""A checkpoint as anybody may read it."""


@dataclass(frozen=True)
class TrainingState:
    """All that a training changes, in place, and what it must be continued with."""

    mark: str
    """Fingerprint of the training's settings."""
    modules: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    """Of the modules' parameters, in the modules' order."""

    def tensors(self) -> dict[str, Tensor]:
        """The state as it is now, by the names of the file layout, on the processor; memory may be shared with it."""
        tensors = {
            f"model.{name}.{key}": value.detach().cpu().contiguous()
            for name, module in self.modules.items()
            for key, value in module.state_dict().items()
        }
        for index, state in self.optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if value is not None:
                    tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put tensors back where `tensors` took them from; modules change only if all is well.

        Raises:
            PackageError, LookupError, ValueError: they are those of other modules or of another optimizer.
        """
        state = _optimizer_state(tensors, self.optimizer)
        everything = nn.ModuleDict(dict(self.modules))
        fill_module(everything, {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


@dataclass(frozen=True)
class Cadence:
    """How often a checkpoint is made: after so many steps, and after so many seconds whatever the step."""

    steps: int
    seconds: float


class Checkpoints:
    """The checkpoints of one training, each in place of the one before; without a place there are none."""

    def __init__(
        self,
        path: Path | None,
        state: TrainingState,
        cadence: Cadence,
        *,
        kept: Callable[[int], None] = lambda _: None,
        codec: Codec = PLAIN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Tell `kept` the steps done whenever a checkpoint was written; `clock` gives seconds."""
        self._path, self._state, self._cadence = path, state, cadence
        self._kept, self._codec, self._clock = kept, codec, clock
        self._last_s = clock()

    def load(self) -> int:
        """Restore the state from the file and return the steps done; 0 where there is no file.

        Raises:
            StorageError: as `load_checkpoint`.
        """
        if self._path is None or not self._path.exists():
            return 0
        state = self._state
        return load_checkpoint(
            self._path, settings=state.mark, modules=state.modules, optimizer=state.optimizer, codec=self._codec
        )

    def due(self, done: int) -> bool:
        """Whether it is time for a checkpoint after `done` steps."""
        late = self._clock() - self._last_s >= self._cadence.seconds
        return self._path is not None and (late or done % self._cadence.steps == 0)

    def save(self, done: int) -> None:
        """Make a checkpoint after `done` steps.

        Raises:
            StorageError: as `save_checkpoint`.
        """
        if self._path is None:
            return
        state = self._state
        save_checkpoint(
            self._path,
            step=done,
            settings=state.mark,
            modules=state.modules,
            optimizer=state.optimizer,
            codec=self._codec,
        )
        self._last_s = self._clock()
        self._kept(done)


def save_checkpoint(
    path: Path,
    *,
    step: int,
    settings: str,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    codec: Codec = PLAIN,
) -> None:
    """Write the state after `step` steps; the file at `path` is replaced whole or not at all.

    Raises:
        StorageError: `storage-full` or `storage-failed`; the older checkpoint is still there.
    """
    tensors = TrainingState(settings, modules, optimizer).tensors()
    about = json.dumps({"step": step, "settings": settings})
    atomic_write(path, codec.seal(save_tensors(tensors, metadata={"training": about})))


def load_checkpoint(
    path: Path,
    *,
    settings: str,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    codec: Codec = PLAIN,
) -> int:
    """Restore the state in place and return the number of steps already done; modules change only if all is well.

    Raises:
        StorageError: `checkpoint-corrupt` if the file is damaged or is another training's, `key-wrong` if it is
            sealed with another key, `storage-failed` if it cannot be read.
    """
    tensors, about = _read(path, codec)
    if about["settings"] != settings:
        raise _corrupt(path, "belongs to a training with other settings; delete or move it")
    try:
        TrainingState(settings, modules, optimizer).restore(tensors)
    except (PackageError, LookupError, ValueError) as error:
        raise _corrupt(path, "does not fit this training; delete it to start anew") from error
    return int(about["step"])


def _read(path: Path, codec: Codec) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a checkpoint, and the step and the fingerprint of settings it was made with."""
    try:
        tensors, header = read_tensors(codec.open(path.read_bytes()))
        about = json.loads(header["training"])
        return tensors, {"step": int(about["step"]), "settings": str(about["settings"])}
    except OSError as error:
        raise storage_error(error, path, "read") from error
    except StorageError as error:
        if error.code is Code.KEY_WRONG:
            raise
        raise _corrupt(path, "is damaged; delete it to start anew") from error
    except (PackageError, LookupError, ValueError, TypeError) as error:
        raise _corrupt(path, "cannot be read; delete it to start anew") from error


def _corrupt(path: Path, why: str) -> StorageError:
    return StorageError(Code.CHECKPOINT_CORRUPT, f"checkpoint {path} {why}")


def _optimizer_state(tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """State by parameter number.

    Raises:
        PackageError: `package-incomplete` if a value is neither a scalar nor of its parameter's shape.
    """
    shapes = [p.shape for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, field = key.split(".", 2)
            if value.ndim and value.shape != shapes[int(number)]:
                raise PackageError(Code.PACKAGE_INCOMPLETE, f"{key} has shape {tuple(value.shape)}")
            state.setdefault(int(number), {})[field] = value
    return state
