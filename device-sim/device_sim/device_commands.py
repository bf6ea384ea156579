"""`tutelage device ...`: the calls of a device from a shell, found by `tutelage` through an entry point.

Heavy imports wait until a command runs, so that `tutelage --help` stays quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from device_sim import store_commands
from device_sim.reaching import Reached, device_reached
from device_sim.visit_command import visit
from tutelage.commands.reaching import with_options_of
from tutelage.errors import UsageError

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Ask a device that runs: what it answers, keeps, learns and forgets.",
)


app.command("rotate-key")(store_commands.rotate_key)
app.command("receipt")(store_commands.receipt)


AsJson = Annotated[bool, typer.Option("--json", help="Print the device's answer as JSON.")]
Person = Annotated[str, typer.Argument(help="Name of the person, as enrolled.")]
Captures = Annotated[list[Path], typer.Argument(help="Image files; larger ones are shrunk to 256 pixels a side.")]


def _command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a function of a client, and words of its own, the command `name` with the options that lead to a device."""

    def made(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(opened: Callable[[], Any], **words: Any) -> None:
            with opened() as device:
                command(device, **words)

        app.command(name)(with_options_of(device_reached, run))
        return command

    return made


app.command("visit")(with_options_of(device_reached, visit))


@_command("status")
def status(device: Reached, *, as_json: AsJson = False) -> None:
    """Show which student recognises, what is kept, and what labels and training wait for."""
    from device_sim import device_tables as tables  # noqa: PLC0415
    from tutelage.api.device.v1 import device_pb2 as pb  # noqa: PLC0415

    answer = device.ask("GetStatus", pb.GetStatusRequest())
    _show(answer, as_json, lambda: tables.status_table(answer.status))


@_command("enrol")
def enrol(device: Reached, person: Person, captures: Captures, *, as_json: AsJson = False) -> None:
    """Make a person known, here and to the teacher; who is known gets further references."""
    from tutelage.api.device.v1 import device_pb2 as pb  # noqa: PLC0415

    request = pb.EnrolRequest(person=person, captures=[_png(path) for path in captures])
    answer = device.ask("Enrol", request)
    _show(answer, as_json, lambda: f"enrolled; references of this person: {answer.references}")


@_command("recognise")
def recognise(
    device: Reached,
    captures: Captures,
    *,
    attempt: Annotated[str, typer.Option(help="Name of one person's visit: all captures are tries of it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say who is on captures, one after the other (1:N), and what the device keeps of them."""
    from device_sim import device_tables as tables  # noqa: PLC0415
    from tutelage.api.device.v1 import device_pb2 as pb  # noqa: PLC0415

    answers = [
        (path.name, device.ask("Recognize", pb.RecognizeRequest(capture=_png(path), attempt=attempt)))
        for path in captures
    ]
    if as_json:
        for _, answer in answers:
            typer.echo(tables.as_json(answer))
        return
    _print(tables.recognition_table(answers))
    if any(answer.recognition.extrapolated for _, answer in answers):
        _print("* beyond what the calibration could measure")


@_command("verify")
def verify(
    device: Reached,
    person: Person,
    capture: Annotated[Path, typer.Argument(help="Image file.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say whether a capture is of the claimed person (1:1); keeps nothing."""
    from device_sim import device_tables as tables  # noqa: PLC0415
    from tutelage.api.device.v1 import device_pb2 as pb  # noqa: PLC0415

    answer = device.ask("Verify", pb.VerifyRequest(person=person, capture=_png(capture)))
    decision = tables.word(pb.Decision, answer.decision)
    _show(answer, as_json, lambda: f"{decision}: score {answer.score:.1f} by {answer.generation}")


@_command("samples")
def samples(
    device: Reached,
    *,
    state: Annotated[list[str] | None, typer.Option(help="Only in this state, such as fresh; may be repeated.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only of this kind, first or second.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Samples shown, at most; the oldest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List what is kept to learn from, the oldest first."""
    from device_sim import device_tables as tables  # noqa: PLC0415
    from tutelage.api.device.v1 import device_pb2 as pb  # noqa: PLC0415

    request = pb.ListSamplesRequest(
        states=_numbers(pb.SampleState, "--state", state), kinds=_numbers(pb.SampleKind, "--kind", kind)
    )
    found: list[pb.Sample] = []
    more = True
    while more and len(found) < limit:
        request.page_size = min(500, limit - len(found))
        answer = device.ask("ListSamples", request)
        found += answer.samples
        request.page_token, more = answer.next_page_token, bool(answer.next_page_token)
    if as_json:
        typer.echo(tables.as_json(pb.ListSamplesResponse(samples=found, next_page_token=request.page_token)))
        return
    _print(tables.samples_table(found))
    if more:
        typer.echo(f"there are more: --limit {2 * limit}", err=True)


@_command("explain")
def explain(
    device: Reached, sample: Annotated[int, typer.Argument(help="Its number.")], *, as_json: AsJson = False
) -> None:
    """Say why a sample was kept and what became of it; the decision is made again from its record."""
    from device_sim.wording import printable  # noqa: PLC0415
    from tutelage.api.device.v1 import device_pb2 as pb  # noqa: PLC0415

    answer = device.ask("ExplainSample", pb.ExplainSampleRequest(sample_id=sample))
    _show(answer, as_json, lambda: "\n".join(map(printable, answer.lines)))


@_command("erase")
def erase(
    device: Reached,
    person: Person,
    *,
    receipt: Annotated[Path | None, typer.Option(help="File for the signed receipt; an existing one stays.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether it is meant.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a person for good, here and at the teacher; there is no way back."""
    from device_sim import device_tables as tables  # noqa: PLC0415
    from tutelage.api.device.v1 import device_pb2 as pb  # noqa: PLC0415
    from tutelage.files import create_file  # noqa: PLC0415

    if not yes:
        typer.confirm("References, samples and the students that learnt from them go for good. Erase?", abort=True)
    answer = device.ask("ErasePerson", pb.ErasePersonRequest(person=person))
    if receipt is not None:
        create_file(receipt, answer.receipt)
    _show(answer, as_json, lambda: tables.erased_table(answer, str(receipt or "")))


@_command("train")
def train(device: Reached, *, as_json: AsJson = False) -> None:
    """Start a training now if the training condition holds; its rules are not bent."""
    from device_sim.wording import printable  # noqa: PLC0415
    from tutelage.api.device.v1 import device_pb2 as pb  # noqa: PLC0415

    answer = device.ask("TrainNow", pb.TrainNowRequest())
    started = f"training {answer.generation}; follow it with `tutelage device status` and `tutelage device events`"
    waiting = "\n".join(["no training was started; it waits for", *(f"  {printable(line)}" for line in answer.missing)])
    _show(answer, as_json, lambda: started if answer.generation else waiting)


@_command("rollback")
def rollback(
    device: Reached,
    *,
    reason: Annotated[str, typer.Option(help="Why, for the device's events.")],
    as_json: AsJson = False,
) -> None:
    """Go back to the last good student: the former generation, or the released version."""
    from device_sim.wording import printable  # noqa: PLC0415
    from tutelage.api.device.v1 import device_pb2 as pb  # noqa: PLC0415

    answer = device.ask("Rollback", pb.RollbackRequest(reason=reason))
    lines = [f"{answer.student.generation} recognises now"]
    lines += [f"stepped over {skip.generation}: {printable(skip.reason)}" for skip in answer.skipped]
    _show(answer, as_json, lambda: "\n".join(lines))


@_command("events")
def events(
    device: Reached,
    *,
    after: Annotated[int, typer.Option(min=0, help="Id of the last event that you have.")] = 0,
    kind: Annotated[list[str] | None, typer.Option(help="Only of this kind, such as gate-passed.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new events until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
) -> None:
    """Show what happened, the oldest first."""
    from device_sim import device_tables as tables  # noqa: PLC0415
    from tutelage.api.device.v1 import device_pb2 as pb  # noqa: PLC0415

    wanted = frozenset(_numbers(pb.EventKind, "--kind", kind))
    last = device.ask("GetStatus", pb.GetStatusRequest()).status.latest_event_id
    if after >= last and not follow:
        return
    # Kinds are chosen here, so that the last of those that are there is seen to come.
    for event in device.events(pb.WatchEventsRequest(after_event_id=after)):
        if not wanted or event.kind in wanted:
            typer.echo(tables.as_json(event) if as_json else tables.event_line(event))
            sys.stdout.flush()
        if event.event_id >= last and not follow:
            return


def _png(path: Path) -> bytes:
    from tutelage.captures import encode_png, read_capture  # noqa: PLC0415

    return encode_png(read_capture(path))


def _numbers(enum: Any, option: str, words: Sequence[str] | None) -> list[Any]:
    """Members of an enumeration by the words that people write.

    Raises:
        UsageError: There is none of that name.
    """
    from device_sim.device_tables import word  # noqa: PLC0415

    known = {word(enum, value): value for value in enum.values() if value}
    for name in words or ():
        if name not in known:
            raise UsageError(f"{option} is {name!r}: use one of {', '.join(known)}")
    return [known[name] for name in words or ()]


def _show(answer: Any, as_json: bool, shown: Callable[[], Any]) -> None:
    """The answer for a program, or for people."""
    from device_sim.device_tables import as_json as json_of  # noqa: PLC0415

    if as_json:
        typer.echo(json_of(answer))
    else:
        _print(shown())


def _print(shown: Any) -> None:
    from rich.console import Console  # noqa: PLC0415

    if isinstance(shown, str):
        typer.echo(shown)
    else:
        Console().print(shown)
