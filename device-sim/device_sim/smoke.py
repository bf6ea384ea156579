"""The smoke check of an installation: a short walk through the loop that leaves nothing behind.

A plan is a row of steps. What one part fails at ends the steps of that part, except those that tidy up; other parts go
on, so that one look shows all that is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from device_sim.called_service import DISTILLER, REGISTRY, TEACHER, CalledService
from device_sim.patience import Patience
from tutelage.api.distiller.v1 import distiller_pb2
from tutelage.api.registry.v1 import registry_pb2
from tutelage.api.teacher.v1 import teacher_pb2
from tutelage.errors import Code, ObjectError, TutelageError

__all__ = ["Done", "Ending", "Step", "cloud_steps", "taken"]


@dataclass(frozen=True)
class Step:
    """One thing that a part has to do."""

    part: str
    name: str
    do: Callable[[], str]
    """Returns what to say of it; raises a `TutelageError` where it fails."""
    always: bool = False
    """Whether it is done although the part failed before: it tidies up."""


class Ending(StrEnum):
    """How a step ended."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Done:
    """A step that is over."""

    step: Step
    ending: Ending
    seconds: float
    said: str
    error: TutelageError | None = field(default=None)

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "part": self.step.part,
            "step": self.step.name,
            "ending": self.ending.value,
            "seconds": round(self.seconds, 3),
            "said": self.said,
            "code": None if self.error is None else self.error.code.value,
        }


def taken(plan: Iterable[Step], clock: Callable[[], float] = time.perf_counter) -> Iterator[Done]:
    """Every step of `plan`, in order, as it is over."""
    failed: set[str] = set()
    for step in plan:
        if step.part in failed and not step.always:
            yield Done(step, Ending.SKIPPED, 0.0, "")
            continue
        began = clock()
        try:
            said = step.do()
        except TutelageError as error:
            failed.add(step.part)
            yield Done(step, Ending.FAILED, clock() - began, error.message, error)
        else:
            yield Done(step, Ending.OK, clock() - began, said)


def health_step(service: CalledService, patience: Patience) -> Step:
    """The part says that it serves; one that has just been started is waited for."""

    def healthy() -> str:
        patience.with_(service.check_health)
        return "it serves"

    return Step(service.part, "health", healthy)


def cloud_steps(service: CalledService, patience: Patience, channel: str) -> Iterator[Step]:
    """What a service of the cloud has to do; `channel` is the one that the registry is asked about."""
    yield health_step(service, patience)
    if service.part == TEACHER.part:
        yield Step(service.part, "space", lambda: _space(service))
    if service.part == REGISTRY.part:
        yield Step(service.part, "versions", lambda: _versions(service))
        yield Step(service.part, "channel", lambda: _channel(service, channel))
    if service.part == DISTILLER.part:
        yield Step(service.part, "jobs", lambda: _jobs(service))


def _space(service: CalledService) -> str:
    teacher = service.ask("GetTeacher", teacher_pb2.GetTeacherRequest()).teacher
    return f"{teacher.name} teaches in space {teacher.teacher_space}"


def _versions(service: CalledService) -> str:
    answer = service.ask("ListVersions", registry_pb2.ListVersionsRequest(page_size=1))
    return "versions are listed" if answer.versions else "no version yet"


def _channel(service: CalledService, channel: str) -> str:
    try:
        answer = service.ask("GetChannel", registry_pb2.GetChannelRequest(channel=channel))
    except ObjectError as error:
        if error.code is not Code.OBJECT_MISSING:
            raise
        return f"{channel} is not set yet"
    return f"{channel} points to {answer.channel.version.version}"


def _jobs(service: CalledService) -> str:
    answer = service.ask("ListJobs", distiller_pb2.ListJobsRequest(page_size=1))
    return "jobs are listed" if answer.jobs else "no job yet"
