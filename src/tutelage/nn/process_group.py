"""The processes that share each batch of a training: mostly one, under torchrun up to `MOST_PROCESSES`.

Every process draws the same batch, takes its own rows of it and works out their part of the batch's mean loss. The
gradients of these parts are added up, so that each process takes the very step that a single process would have taken,
within rounding. One of them *leads*: it alone reads the data, writes and reports; the others are handed what they need.

A process that ends early, or cannot be reached, ends all others with a `TrainingError` (`training-killed`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from tutelage.errors import Code, TrainingError, UsageError
from tutelage.nn.shared_statistics import normalised_together

__all__ = ["ALONE", "MOST_PROCESSES", "Parcel", "ProcessGroup", "joined", "own_device"]

MOST_PROCESSES = 64
"""Processes in one group. Beyond, ever less of a step is training and ever more of it waiting for the others."""

STEP_PATIENCE = timedelta(minutes=10)
"""How long the others are waited for within a step. A process that ended is noticed at once, one whose machine lost its
power or its network only by this. The leader must not be busy elsewhere, as with uploading a checkpoint, for longer."""

START_PATIENCE = timedelta(days=7)
"""How long the others wait for what the leader hands out: it may have to ask a teacher about a large data set first."""


@dataclass(frozen=True)
class Parcel:
    """What the leader hands to the others."""

    about: Mapping[str, Any]
    """JSON values."""
    tensors: Mapping[str, Tensor]
    """On the processor, by name."""


@dataclass(frozen=True)
class ProcessGroup:
    """A group of one: nothing is shared and nothing is changed, to the last bit."""

    rank: int = 0
    """Number of this process, 0..size-1."""
    size: int = 1
    """Processes in the group."""

    @property
    def leads(self) -> bool:
        """Whether this process reads, writes and reports for all; always exactly one does."""
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """Which rows of a batch of `batch` are this process's; every row is somebody's, and all have some.

        Raises:
            UsageError: there are fewer rows than processes.
        """
        if batch < self.size:
            raise UsageError(
                f"a batch of {batch} captures cannot be shared by {self.size} processes: "
                "ask for a larger batch or for fewer processes"
            )
        return slice(self.rank * batch // self.size, (self.rank + 1) * batch // self.size)

    def part(self, batch: int) -> float:
        """Share of the rows of a batch that is this process's, 0..1; adds up to 1 over the group."""
        return len(range(batch)[self.rows(batch)]) / batch

    def whole_batch_statistics(self, network: nn.Module) -> AbstractContextManager[None]:  # noqa: ARG002
        """Within it the batch norms of `network` see the whole batch, and not this process's rows alone."""
        return nullcontext()

    def added_up(
        self,
        parameters: Iterable[nn.Parameter],  # noqa: ARG002
        terms: Mapping[str, Tensor],
        stop: bool,
    ) -> tuple[dict[str, Tensor], bool]:
        """The sums over the group of each of the `terms`, and whether anybody wants to `stop`.

        Also replaces the gradients of `parameters` by their sums. All processes get the same.

        Raises:
            TrainingError: `training-killed`, another process ended or cannot be reached.
        """
        return dict(terms), stop

    def handed(self, parcel: Parcel | None) -> Parcel:
        """The leader's `parcel`, which nobody else has, at every process.

        Raises:
            TrainingError: as `added_up`.
        """
        assert parcel is not None  # noqa: S101 - the only process leads
        return parcel


ALONE = ProcessGroup()
"""The group of a training that one process does by itself."""


@dataclass(frozen=True)
class _Joined(ProcessGroup):
    """A group of several, over torch.distributed."""

    patient: Any = field(kw_only=True)
    """The same processes with more patience, for tensors on the processor."""

    def whole_batch_statistics(self, network: nn.Module) -> AbstractContextManager[None]:
        return normalised_together(network, _add_up)

    def added_up(
        self, parameters: Iterable[nn.Parameter], terms: Mapping[str, Tensor], stop: bool
    ) -> tuple[dict[str, Tensor], bool]:
        # One message a step: over a network each has a price of its own, whatever its length.
        gradients = [p.grad for p in parameters if p.grad is not None]
        values = torch.stack([*(term.detach() for term in terms.values())])
        flag = values.new_full((1,), float(stop))
        everything = torch.cat([*(g.flatten() for g in gradients), values, flag])
        _add_up(everything)
        *sums, values, flag = torch.split(everything, [*(g.numel() for g in gradients), len(values), 1])
        for gradient, summed in zip(gradients, sums, strict=True):
            gradient.copy_(summed.view(gradient.shape))
        return dict(zip(terms, values, strict=True)), bool(flag.item() > 0)

    def handed(self, parcel: Parcel | None) -> Parcel:
        described = b"" if parcel is None else _described(parcel)
        length = torch.tensor([len(described)])
        self._spread(length)
        text = torch.empty(int(length), dtype=torch.uint8)
        if self.leads:
            text.copy_(torch.frombuffer(bytearray(described), dtype=torch.uint8))
        self._spread(text)
        head = json.loads(text.numpy().tobytes())
        tensors = {}
        for name, kind, shape in head["tensors"]:
            known = None if parcel is None else parcel.tensors[name].contiguous()
            tensors[name] = torch.empty(shape, dtype=getattr(torch, kind)) if known is None else known
            self._spread(tensors[name])
        return Parcel(head["about"], tensors)

    def _spread(self, tensor: Tensor) -> None:
        """Overwrite `tensor` by the leader's."""
        if tensor.numel():
            with _others_needed():
                dist.broadcast(tensor, src=0, group=self.patient)


def _described(parcel: Parcel) -> bytes:
    """What the others must know before they can take the tensors."""
    rows = [(name, str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in parcel.tensors.items()]
    return json.dumps({"about": dict(parcel.about), "tensors": rows}).encode()


def _add_up(tensor: Tensor) -> None:
    """Replace `tensor` by its sum over the group."""
    with _others_needed():
        dist.all_reduce(tensor)


@contextmanager
def _others_needed() -> Iterator[None]:
    """Around what fails, within torch.distributed, when another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            Code.TRAINING_KILLED,
            "another process of this training ended or cannot be reached: see what it said, and start all of them "
            "again; they go on from the checkpoint",
        ) from error


def own_device(processor: str, environ: Mapping[str, str]) -> str:
    """Where on this machine the process trains, of `cpu` or `cuda`: each that torchrun started has a CUDA device."""
    local = environ.get("LOCAL_RANK")
    return processor if processor == "cpu" or local is None else f"{processor}:{local}"


@contextmanager
def joined(environ: Mapping[str, str], device: str) -> Iterator[ProcessGroup]:
    """The group that torchrun put this process into, left at the end; `ALONE` where it was not started by torchrun.

    Args:
        environ: `RANK` and `WORLD_SIZE` as torchrun sets them; torch itself reads where the others are.
        device: what the training runs on, of `own_device`: NCCL connects CUDA devices, gloo everything else.

    Raises:
        UsageError: there are more than `MOST_PROCESSES`.
        TrainingError: `training-killed`, the others did not come.
    """
    size = int(environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in environ:
        yield ALONE
        return
    if size > MOST_PROCESSES:
        raise UsageError(f"{size} processes cannot share a training: start {MOST_PROCESSES} at most")
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        torch.cuda.set_device(device)
    try:
        with _others_needed():
            dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo", timeout=STEP_PATIENCE)
            patient = dist.new_group(backend="gloo", timeout=START_PATIENCE)
        yield _Joined(int(environ["RANK"]), size, patient=patient)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
