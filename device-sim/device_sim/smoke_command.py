"""`tutelage smoke`: a short walk through an installation's loop, step by step, that leaves nothing behind.

Heavy imports wait until the command runs, so that `tutelage --help` stays quick.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from device_sim.interruption import terminated_as_interrupted
from tutelage.commands.reaching import Way, way, with_options_of
from tutelage.errors import UsageError

if TYPE_CHECKING:
    from device_sim.patience import Patience
    from device_sim.smoke import Done, Step

__all__ = ["command", "smoke"]


def smoke(
    ways: Callable[[], Way],
    *,
    device: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", envvar="TUTELAGE_DEVICE_ADDRESS", help="A device.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", envvar="TUTELAGE_TEACHER_ADDRESS", help="teacher-inference.")
    ] = None,
    registry: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", envvar="TUTELAGE_REGISTRY_ADDRESS", help="model-registry.")
    ] = None,
    distiller: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", envvar="TUTELAGE_DISTILLER_ADDRESS", help="student-distiller.")
    ] = None,
    channel: Annotated[str, typer.Option(help="Channel that the registry is asked about.")] = "stable",
    patience: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="How long what is not ready yet is waited for.")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print all steps as one JSON document.")] = False,
) -> None:
    """Check an installation: its services answer, and a device enrols, recognises and forgets a made-up person."""
    import torch  # noqa: PLC0415

    from device_sim.patience import Patience  # noqa: PLC0415

    torch.set_num_threads(1)  # a finger is small, and a device beside it needs the other cores
    wanted = {"teacher": teacher, "registry": registry, "distiller": distiller, "device": device}
    where = {part: address for part, address in wanted.items() if address}
    if not where:
        raise UsageError("there is nothing to check: name a --device, --teacher, --registry or --distiller")
    with terminated_as_interrupted(), ExitStack() as stack:
        plan = _plan(where, ways(), Patience(patience), channel, stack)
        _walk(plan, as_json)


command = with_options_of(way, smoke)
"""The command as typer takes it."""


def _plan(where: dict[str, str], reached: Way, patience: Patience, channel: str, stack: ExitStack) -> list[Step]:
    """The steps of all parts that are somewhere; `stack` ends what they need."""
    from device_sim.called_service import DEVICE, DISTILLER, REGISTRY, TEACHER, CalledService  # noqa: PLC0415
    from device_sim.smoke import cloud_steps  # noqa: PLC0415
    from device_sim.smoke_person import SmokePerson  # noqa: PLC0415

    plan: list[Step] = []
    for contract in (TEACHER, REGISTRY, DISTILLER, DEVICE):
        if contract.part not in where:
            continue
        settings = reached.to(where[contract.part])
        service = stack.enter_context(CalledService(contract, settings, timeout=reached.timeout))
        if contract is DEVICE:
            needed = tuple(part for part in ("teacher", "registry") if part in where)
            plan += stack.enter_context(SmokePerson(service, patience, needed)).steps()
        else:
            plan += cloud_steps(service, patience, channel)
    return plan


def _walk(plan: list[Step], as_json: bool) -> None:
    """Take every step and show it.

    Raises:
        TutelageError: The first failure.
    """
    from device_sim.smoke import taken  # noqa: PLC0415

    walked = list(_shown(taken(plan), as_json))
    errors = [done.error for done in walked if done.error is not None]
    if as_json:
        typer.echo(json.dumps({"ok": not errors, "steps": [done.as_json() for done in walked]}))
    if errors:
        raise errors[0]


def _shown(walked: Iterator[Done], as_json: bool) -> Iterator[Done]:
    """Each step as it is over, said in a line for people."""
    from device_sim.wording import printable  # noqa: PLC0415

    for done in walked:
        if not as_json:
            line = f"{done.ending:<8}{done.step.part:<11}{done.step.name:<11}{done.seconds:>7.2f} s  {done.said}"
            typer.echo(printable(line.rstrip()))
        yield done
