"""What each process does in the tests of shared trainings: started by torchrun as `shared_training.py FOLDER`.

Whatever a scenario makes, the process that leads leaves in the folder; `tests/e2e/test_shared_training.py`
compares it with what one process makes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from toy_networks import toy_batches, toy_student

from tutelage.errors import TrainingError
from tutelage.nn.batches import EVERY_ROW
from tutelage.nn.distil import CachedTeaching, Distillation, distil
from tutelage.nn.process_group import ALONE, ProcessGroup, joined
from tutelage.nn.students import Student, save_weights

SETTINGS = Distillation(steps=10, batch=13, seed=5, checkpoint_every=100)
"""Thirteen captures cannot be divided evenly."""
STOP_AFTER = 4
SAID = "said-{}.json"
"""What a process said of its end, by its number."""


def drawn_teaching(dtype: torch.dtype = torch.float32) -> CachedTeaching:
    source = toy_batches()
    features = torch.randn(len(source.inputs), 24, generator=torch.Generator().manual_seed(2))
    source = replace(source, inputs=source.inputs.to(dtype))
    return CachedTeaching.of(source, functional.normalize(features.to(dtype), dim=1))


def in_double(group: ProcessGroup = ALONE) -> Student:
    """A training in double precision: whatever differs is not rounding."""
    student, teaching = toy_student().double(), drawn_teaching(torch.float64)
    torch.set_default_dtype(torch.float64)
    try:
        return distil(student, teaching, SETTINGS, group=group)
    finally:
        torch.set_default_dtype(torch.float32)


def in_single(group: ProcessGroup = ALONE, told: Callable[[dict[str, float]], None] = lambda _: None) -> Student:
    """The training as it is for everybody; tells the last losses."""
    return distil(
        toy_student(), drawn_teaching(), SETTINGS, group=group, progress=lambda done, of, losses: told(losses)
    )


def stopped(checkpoint: Path, group: ProcessGroup = ALONE, who: int = 0) -> TrainingError | None:
    """A training that process `who` alone wants to stop after `STOP_AFTER` steps."""
    answers = iter([False] * (STOP_AFTER - 1) + [True])
    try:
        distil(
            toy_student(),
            drawn_teaching(),
            SETTINGS,
            checkpoint=checkpoint,
            group=group,
            stop=lambda: group.rank == who and next(answers),
        )
    except TrainingError as error:
        return error
    return None


def resumed(checkpoint: Path, group: ProcessGroup = ALONE) -> Student:
    """The rest of it; a student of other weights must not matter, nor the checkpoints that others may have."""
    return distil(toy_student(seed=group.rank + 3), drawn_teaching(), SETTINGS, checkpoint=checkpoint, group=group)


@dataclass(frozen=True)
class Deadly:
    """Teaching that kills one process of a group, as a machine without memory does, before step 3."""

    source: CachedTeaching
    here: bool

    @property
    def persons(self) -> int:
        return self.source.persons

    @property
    def centres(self) -> Tensor:
        return self.source.centres

    def taught(self, step: int, size: int, rows: slice = EVERY_ROW) -> tuple[Tensor, Tensor, Tensor]:
        if self.here and step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.source.taught(step, size, rows)


def killed(checkpoint: Path, group: ProcessGroup, victim: int) -> None:
    deadly = Deadly(drawn_teaching(), group.rank == victim)
    distil(toy_student(), deadly, replace(SETTINGS, checkpoint_every=2), checkpoint=checkpoint, group=group)


def main(folder: Path) -> None:
    """All scenarios one after the other; the last one kills a process."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it before those left have said how it ended
    torch.set_num_threads(1)
    said: dict[str, object] = {}
    with joined(os.environ, "cpu") as group:
        mine = folder / "checkpoints" if group.leads else folder / "nobody-looks-here"
        keep(folder, group, "double", in_double(group))
        keep(folder, group, "single", in_single(group, said.update))
        keep(folder, group, "resumed", resumed(mine / "of-one", group))
        error = stopped(mine / "of-two", group, who=group.size - 1)
        said |= {"rank": group.rank, "size": group.size, "stopped": error and error.code}
        try:
            killed(mine / "of-killed", group, victim=group.size - 1)
        except TrainingError as lost:
            said["killed"] = lost.code
    (folder / SAID.format(group.rank)).write_text(json.dumps(said))


def keep(folder: Path, group: ProcessGroup, name: str, student: Student) -> None:
    """Every process's weights: they must not differ either."""
    (folder / f"{name}-{group.rank}.safetensors").write_bytes(save_weights(student))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
