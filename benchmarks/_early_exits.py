"""Early exits, measured: what believing one saves and costs, compiled and with torch's eager layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from _recognition_ground import LEARNT, PROBES, STRANGERS, Ground, model_of, over
from _times import rounds
from torch import Tensor
from torch.nn import functional

from device_sim.evaluation.early_exit import Answered, EarlyExit
from device_sim.recognition import RunningModel
from device_sim.sampling import SampleRules
from device_sim.site import Taken
from tutelage.captures import Pixels
from tutelage.nn.students import READOUTS, Floats, Recogniser, Student

MIDDLE = LEARNT + (PROBES - LEARNT) // 2
CHOOSE, MEASURE = range(LEARNT, MIDDLE), range(MIDDLE, PROBES)
"""Captures of each person and sensor that choose thresholds, and those that measure; generations learn from others."""
HALF = STRANGERS // 2
"""As many strangers choose, the others measure."""


@dataclass(frozen=True)
class EagerCut:
    """A student in two parts, as `CutStudent`, run by torch layer by layer."""

    student: Student
    early: int

    def begin(self, inputs: Floats) -> tuple[Floats, Floats]:
        with torch.inference_mode():
            last = functional.relu(self.student.norm(self.student.stem(torch.from_numpy(inputs))))
            for stage in self.student.stages[: self.early + 1]:
                last = stage(last)
            return self._vectors(last, self.early), last.numpy()

    def finish(self, last: Floats) -> Floats:
        with torch.inference_mode():
            found = torch.from_numpy(last)
            for stage in self.student.stages[self.early + 1 :]:
                found = stage(found)
            return self._vectors(found, len(self.student.stages) - 1)

    def _vectors(self, last: Tensor, exit_: int) -> Floats:
        vectors: Floats = functional.normalize(self.student.adapters[exit_](last), dim=1).numpy()
        return vectors


@dataclass(frozen=True)
class EarlyExits:
    """The exits of one student before its last."""

    ground: Ground
    student: Student
    name: str
    model: RunningModel

    @staticmethod
    def of(ground: Ground, student: Student, name: str) -> EarlyExits:
        return EarlyExits(ground, student, name, model_of(student, ground, name))

    def rows(self, repeats: int, calls: int, seed: int) -> list[dict[str, Any]]:
        """One a readout and sensor."""
        site, found = self.ground.site, []
        for readout in ("exit1", "exit2", "exit3"):
            never = EarlyExit.of(self.model, readout, self.ground.enrolled, self.ground.models.impostors)
            cascade = never.believed_from(*self._choosing())
            for sensor, taken, strange in (
                ("new", site.probes_new, site.strangers_new),
                ("worn", site.probes_worn, site.strangers_worn),
            ):
                probes, strangers = self.ground.rows(taken, MEASURE), strange.captures[HALF:]
                row: dict[str, Any] = {
                    "student": self.name,
                    "sensor": sensor,
                    "exit": readout,
                    "believed_from": cascade.accept_score,
                }
                row |= asdict(Answered.of(cascade, probes, strangers, SampleRules()))
                row |= {"captures": len(probes), "strangers_measured": len(strangers)}
                ways = self._ways(cascade, readout)
                times = rounds({way: over(who, probes.captures) for way, who in ways.items()}, repeats, calls, seed)
                row["latency"] = {way: seconds.latency() for way, seconds in times.items()}
                row["ratios"] = {
                    way: times[way].over(times["eager full" if way == "eager early" else "full"])
                    for way in ("early", "everybody", "nobody", "eager early")
                }
                found.append(row)
        return found

    def _choosing(self) -> tuple[Taken, Sequence[Pixels]]:
        """Held-back captures of both sensors, and strangers."""
        site = self.ground.site
        new, worn = (self.ground.rows(taken, CHOOSE) for taken in (site.probes_new, site.probes_worn))
        genuine = Taken((*new.persons, *worn.persons), (*new.captures, *worn.captures))
        return genuine, [*site.strangers_new.captures[:HALF], *site.strangers_worn.captures[:HALF]]

    def _ways(self, cascade: EarlyExit, readout: str) -> dict[str, RunningModel | EarlyExit]:
        """Who answers: with the early exit where it is believed, always and never; without; and the same uncompiled."""
        fast = self.model.recogniser
        eager = replace(self.model, recogniser=Recogniser(fast.student, fast.readout, fast.space))
        cut = EagerCut(fast.student, READOUTS.index(readout))
        return {
            "early": cascade,
            "everybody": replace(cascade, accept_score=-math.inf),
            "nobody": replace(cascade, accept_score=math.inf),
            "full": self.model,
            "eager early": replace(cascade, model=eager, student=cut),
            "eager full": eager,
        }
