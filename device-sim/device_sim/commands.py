"""The device's commands, found by `tutelage` through entry points: `demo`, `draw` and `evaluate`.

Heavy imports wait until a command runs, so that `tutelage --help` stays quick.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tutelage.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from device_sim.clouds import Cloud
    from device_sim.models import Models
    from tutelage.labelling import Teacher
    from tutelage.manifest import Manifest


TeacherSteps = Annotated[
    int | None, typer.Option(min=1, help="For images: steps of training a teacher on them.", show_default=False)
]
StudentSteps = Annotated[
    int | None, typer.Option(min=1, help="Steps of distilling the student that goes out.", show_default=False)
]


def demo(
    *,
    data: Annotated[
        Path | None, typer.Option(help="Folder person/*.png or manifest CSV; without it, synthetic fingers.")
    ] = None,
    teacher: Annotated[
        str, typer.Option(help="For images: 'train' one on them, 'face', 'fingerprint', or a teacher file.")
    ] = "train",
    devices: Annotated[int, typer.Option(min=1, max=16)] = 3,
    days: Annotated[int, typer.Option(min=2, max=365, help="Simulated days.")] = 16,
    wear: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Of the sensors on the last day.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    teacher_steps: TeacherSteps = None,
    student_steps: StudentSteps = None,
    out: Annotated[Path, typer.Option(help="Folder for result.json, report.html and the devices' stores.")] = Path(
        "out/demo"
    ),
    show_captures: Annotated[
        bool, typer.Option("--show-captures", help="Put kept captures of real images into the report, unsealed.")
    ] = False,
    grpc: Annotated[
        bool, typer.Option("--grpc", help="Labels, student and check-ins go through the real services, on loopback.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Watch a fleet lose accuracy as its sensors wear, learn on its own, and recover."""
    from device_sim.demo_command import demo_settings, play_demo  # noqa: PLC0415

    if data is None and teacher != "train":
        raise UsageError("synthetic fingers have the shipped teacher: say --teacher together with --data")
    if grpc and data is not None:
        raise UsageError("--grpc plays synthetic fingers, whose teacher the services have: leave out --data")
    manifest = None if data is None else _manifest(data)
    taught = None if manifest is None else _teacher(teacher)
    settings = demo_settings(
        devices=devices,
        days=days,
        wear=wear,
        seed=seed,
        teacher_steps=teacher_steps,
        student_steps=student_steps,
        show_captures=show_captures,
    )
    serving, console = _serving(out) if grpc else None, Console(stderr=as_json)
    play_demo(console, out, settings, manifest=manifest, teacher=taught, serving=serving, as_json=as_json)


def _serving(out: Path) -> Callable[[Models], AbstractContextManager[Cloud]]:
    """The services, with what they keep beside the devices.

    Raises:
        MissingExtraError: they are not installed.
    """
    try:
        from device_sim.service_cloud import serving_cloud  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError("grpc", "a demonstration through the services") from error
    return partial(serving_cloud, out / "services")


def draw(
    folder: Annotated[Path, typer.Argument(help="Made if it is not there.")],
    *,
    persons: Annotated[int, typer.Option(min=1, max=100_000)] = 12,
    captures: Annotated[int, typer.Option(min=1, max=10_000, help="Of each person.")] = 6,
    wear: Annotated[float, typer.Option(min=0.0, max=1.0, help="Of the sensor.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0)] = 1,
) -> None:
    """Draw synthetic fingers into a folder person/*.png, to try out what takes images."""
    from device_sim.drawn_folder import draw_folder  # noqa: PLC0415
    from tutelage.commands.progress import shown_progress  # noqa: PLC0415

    with shown_progress("drawing fingers", "persons") as progress:
        draw_folder(
            folder,
            persons=persons,
            captures=captures,
            wear=wear,
            seed=seed,
            progress=lambda done, total: progress(done, total, {}),
        )
    typer.echo(f"{folder}: {captures} captures of each of {persons} persons")


def evaluate(
    data: Annotated[Path, typer.Argument(help="Manifest CSV, or folder person/*.png.")],
    *,
    methods: Annotated[str, typer.Option(help="Comma-separated; all by default.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 5,
    teacher: Annotated[str, typer.Option(help="'train', 'face', 'fingerprint', or a teacher file.")] = "train",
    wrong: Annotated[str, typer.Option(help="Shares of wrong labels, comma-separated.")] = "0",
    wear: Annotated[float, typer.Option(min=0.0, max=1.0, help="Of the sensor on the last day.")] = 0.2,
    teacher_steps: TeacherSteps = None,
    student_steps: StudentSteps = None,
    out: Annotated[Path, typer.Option(help="Folder for comparison.json and plots.")] = Path("out/evaluate"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Compare ways to learn on a data set: frozen, adapted templates, and each preset of self-distillation."""
    from device_sim.evaluate_command import compare_on_images  # noqa: PLC0415
    from device_sim.models import ImageTraining  # noqa: PLC0415

    compare_on_images(
        Console(stderr=as_json),
        _manifest(data),
        out,
        teacher=teacher,
        methods=tuple(m.strip() for m in methods.split(",") if m.strip()),
        seeds=seeds,
        wrong=_shares(wrong),
        wear=wear,
        as_json=as_json,
        training=ImageTraining().of_length(teacher_steps, student_steps),
    )


def _shares(words: str) -> tuple[float, ...]:
    """Shares in 0..1, comma-separated.

    Raises:
        UsageError: one of them is no share.
    """
    try:
        shares = tuple(float(word) for word in words.split(","))
    except ValueError as error:
        raise UsageError(f"shares of wrong labels are numbers from 0 to 1, comma-separated, not {words!r}") from error
    if not all(0.0 <= share <= 1.0 for share in shares):
        raise UsageError(f"shares of wrong labels lie from 0 to 1: {words}")
    return shares


def _manifest(data: Path) -> Manifest:
    """The manifest at `data`, or one made from a folder of persons."""
    from tutelage.manifest import read_manifest, split_folder  # noqa: PLC0415

    return split_folder(data) if data.is_dir() else read_manifest(data)


def _teacher(word: str) -> Teacher | None:
    """The teacher that `word` names; None for one that is trained on the data."""
    from tutelage.nn.teacher_sources import open_teacher  # noqa: PLC0415

    return None if word == "train" else open_teacher(word)
