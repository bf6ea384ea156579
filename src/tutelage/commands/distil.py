"""The command that makes a student package out of captures and a teacher."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cohorts import Cohort, check_persons, read_cohort
from tutelage.commands.key_files import ReleaseKeys, public_file, release_keys
from tutelage.commands.progress import shown_progress
from tutelage.commands.training import (
    Batch,
    Checkpoint,
    CheckpointEvery,
    Created,
    Data,
    Device,
    DeviceOption,
    JsonOption,
    Seed,
    check_targets,
    checkpoint_beside,
    drop_checkpoint,
    iso_time,
    printable,
    rates_table,
    resumable,
    shown_next,
    skipped_json,
    skipped_lines,
    torch_needed,
)
from tutelage.manifest import Split
from tutelage.package import PackageInfo, StudentPackage, read_package, write_package
from tutelage.signing import read_public_key

if TYPE_CHECKING:
    from tutelage.labelling import Teacher
    from tutelage.nn.distil import Distillation
    from tutelage.nn.packaging import Origin
    from tutelage.nn.process_group import ProcessGroup
    from tutelage.nn.student_release import Distilled, Lesson
    from tutelage.nn.student_sources import Beginning
    from tutelage.nn.students import Student

__all__ = ["distil"]


PERSONS_FOR = {20: 46, 30: 142}
"""Fewest persons, all different, whose comparisons measure a score (`tutelage.biometrics.calibration`)."""


class Size(StrEnum):
    """Students that there are."""

    TINY = "tiny"
    SMALL = "small"


TeacherWord = Annotated[
    str, typer.Option("--teacher", metavar="face|fingerprint|FILE", help="A public network, the shipped one, or yours.")
]
OutFile = Annotated[Path, typer.Option("--out", metavar="PACKAGE", help="Where to write the student package.")]
SizeOption = Annotated[Size | None, typer.Option(help="Of the student.", show_default="tiny, or that of --from")]
StartFile = Annotated[
    Path | None, typer.Option("--from", metavar="PACKAGE|WEIGHTS", help="Go on from this student, not from nothing.")
]
Trusted = Annotated[
    list[Path] | None, typer.Option(metavar="PUBKEY", help="Whose word counts for a package in --from; repeatable.")
]
Signer = Annotated[
    Path | None,
    typer.Option(metavar="KEYFILE", help="Signs the package; made if absent.", show_default="signer.pem beside it"),
]
SealKey = Annotated[
    Path | None,
    typer.Option(
        metavar="KEYFILE", help="Seals its strangers; made if absent.", show_default="impostors.key beside it"
    ),
]


NameOption = Annotated[
    str | None, typer.Option("--name", help="Of the package.", show_default="student-SIZE, or that of --from")
]
VersionOption = Annotated[
    str | None, typer.Option("--version", help="Of the package.", show_default="v1, or the next of --from")
]
Share = Annotated[
    float, typer.Option("--held-out", min=0, max=0.9, help="Share of the persons who only measure; two at least.")
]


def distil(
    data: Data,
    *,
    word: TeacherWord,
    out: OutFile,
    size: SizeOption = None,
    start: StartFile = None,
    trust: Trusted = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 1500,
    batch: Batch = 64,
    seed: Seed = 0,
    share: Share = 0.25,
    device: DeviceOption = Device.AUTO,
    checkpoint: Checkpoint = None,
    checkpoint_every: CheckpointEvery = 100,
    signer: Signer = None,
    seal_key: SealKey = None,
    name: NameOption = None,
    version: VersionOption = None,
    created: Created = None,
    as_json: JsonOption = False,
) -> None:
    """Distil a student from a teacher, on the persons of the splits `distil` and `cloud`, and package it.

    Some persons are held out: they measure every exit, choose by which one the student recognises, and are the
    strangers of its calibration. The same command goes on from its checkpoint if it was stopped; the checkpoint goes
    once the package is written. Processes that torchrun starts share the work; the first one reads, writes and tells.
    """
    with torch_needed("distilling a student"):
        from tutelage.nn.distil import Distillation  # noqa: PLC0415
        from tutelage.nn.process_group import joined, own_device  # noqa: PLC0415
        from tutelage.nn.teacher_sources import open_teacher, processor  # noqa: PLC0415
    kept, signer = checkpoint or checkpoint_beside(out), signer or out.parent / "signer.pem"
    seal_key = seal_key or out.parent / "impostors.key"
    check_targets(out, kept, signer, public_file(signer), seal_key)
    where = own_device(processor(device), os.environ)
    with joined(os.environ, where) as group:
        if not group.leads:
            return _help(group, where)
        beginning = _beginning(start, size, trust or [], seed)
        origin = _origin(beginning, name, version, iso_time(created))
        teacher = open_teacher(word, where)
        intake = read_cohort(data, Split.DISTIL, seed)
        skipped_lines(intake)
        lesson, left_out = _lesson(teacher, intake.cohort, share, seed, beginning.student.spec.side)
        keys = _keys(signer, seal_key)
        settings = Distillation(steps=steps, batch=batch, seed=seed, checkpoint_every=checkpoint_every)
        with resumable(kept) as resumed:
            distilled = _distilled(beginning.student, lesson, settings, kept=kept, group=group, where=where)
    origin = replace(origin, teacher_space=teacher.space, training=_training(distilled, lesson, teacher, left_out))
    package = _written(out, distilled, lesson, origin, keys)
    drop_checkpoint(kept)
    if as_json:
        document = _document(out, package, lesson, keys)
        typer.echo(json.dumps({**document, "resumed": resumed, **skipped_json(intake)}, indent=2))
    else:
        _show(out, package, distilled, lesson, keys)
    return None


def _help(group: ProcessGroup, where: str) -> None:
    """What every process but the first does: it ends with the first one, which heeds SIGTERM for all."""
    from tutelage.nn.student_release import help_distil  # noqa: PLC0415

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    help_distil(group, device=where)


def _distilled(
    student: Student, lesson: Lesson, settings: Distillation, *, kept: Path, group: ProcessGroup, where: str
) -> Distilled:
    """The student after its training, which SIGTERM ends after a last checkpoint."""
    from tutelage.nn.student_release import distil_student  # noqa: PLC0415

    with shown_progress("distilling the student") as progress, told_to_stop(group) as stop:
        return distil_student(
            student, lesson, settings, device=where, checkpoint=kept, progress=progress, group=group, stop=stop
        )


@contextmanager
def told_to_stop(group: ProcessGroup) -> Iterator[Callable[[], bool]]:
    """Within it SIGTERM does not end the process but makes what is yielded say yes.

    In a group of several it does not end the process afterwards either: torchrun sends it to all as soon as one of them
    has ended, and what this one has to say about that must still come out.
    """
    told = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield told.is_set
    finally:
        signal.signal(signal.SIGTERM, before if group.size == 1 else signal.SIG_IGN)


def _beginning(start: Path | None, size: Size | None, trust: Sequence[Path], seed: int) -> Beginning:
    """The student to distil: the one in `start`, else one drawn by `seed`."""
    from tutelage.nn.student_sources import continued_student, drawn_student  # noqa: PLC0415

    if start is None:
        return drawn_student(size, seed)
    return continued_student(start, size, [read_public_key(key) for key in trust])


def _origin(beginning: Beginning, name: str | None, version: str | None, created: str) -> Origin:
    """What the package will say of itself, refused now rather than after the training."""
    from tutelage.nn.packaging import Origin  # noqa: PLC0415

    origin = Origin(name or beginning.name, version or beginning.version, "teacher", created, beginning.parent)
    PackageInfo(
        name=origin.name,
        version=origin.version,
        student=beginning.student.spec.as_json(),
        readout="fused",
        teacher_space=origin.teacher_space,
        created=origin.created,
        parent=origin.parent,
    )
    return origin


def _lesson(teacher: Teacher, cohort: Cohort, share: float, seed: int, side: int) -> tuple[Lesson, Mapping[str, int]]:
    """What the student will learn from, and how many captures the teacher could not use, by reason."""
    from tutelage.nn.student_release import FEWEST_PERSONS, ask_teacher, divide  # noqa: PLC0415

    check_persons(cohort, FEWEST_PERSONS, "distilling a student")
    with shown_progress(f"asking the teacher {printable(teacher.name)}", "captures") as progress:
        answer = ask_teacher(teacher, cohort, progress)
    for reason, count in answer.left_out.items():
        typer.echo(f"left out: {count} captures the teacher cannot use: {printable(reason)}", err=True)
    return divide(answer, share, seed, side), answer.left_out


def _keys(signer: Path, seal_key: Path) -> ReleaseKeys:
    keys = release_keys(signer, seal_key)
    for path in keys.made:
        typer.echo(f"made the key file {path}", err=True)
    return keys


def _training(distilled: Distilled, lesson: Lesson, teacher: Teacher, left_out: Mapping[str, int]) -> dict[str, Any]:
    """The summary of the training that the package carries."""
    return {
        "teacher": printable(teacher.name),
        "settings": asdict(distilled.settings),
        "persons": len(lesson.taught.cohort.names),
        "captures": len(lesson.taught.cohort),
        "left_out": dict(left_out),
        "held_out": {name: asdict(errors) for name, errors in distilled.errors.items()},
        "readout_chosen_by": distilled.reason,
    }


def _written(out: Path, distilled: Distilled, lesson: Lesson, origin: Origin, keys: ReleaseKeys) -> StudentPackage:
    """The package, as it can be read again from the file it was written to."""
    from tutelage.nn.packaging import package_student  # noqa: PLC0415

    data = package_student(
        distilled.student, distilled.readout, lesson.strangers, origin, signer=keys.signer, seal_key=keys.seal_key
    )
    write_package(data, out)
    return read_package(out, trusted=[keys.signer.public_key()])


def _document(out: Path, package: StudentPackage, lesson: Lesson, keys: ReleaseKeys) -> dict[str, Any]:
    return {
        "package": str(out),
        "bytes": out.stat().st_size,
        "digest": package.digest,
        **{key: package.manifest[key] for key in ("name", "version", "readout", "space", "teacher_space")},
        "parent": package.info.parent,
        **{key: value for key, value in package.info.training.items() if key != "settings"},
        "calibration": {
            "captures": len(lesson.strangers.unseen.captures),
            **{key: package.calibration[key] for key in ("persons", "impostor_pairs", "limit_score")},
        },
        "keys": {
            "signer": str(keys.signer_file),
            "public": str(keys.public_file),
            "seal": str(keys.seal_file),
            "made": [str(path) for path in keys.made],
        },
    }


def _show(out: Path, package: StudentPackage, distilled: Distilled, lesson: Lesson, keys: ReleaseKeys) -> None:
    info, taught = package.info, lesson.taught.cohort
    typer.echo(f"{out}: {out.stat().st_size:,} bytes, {package.digest}")
    typer.echo(f"{info.name} {info.version}, recognises by {info.readout} ({distilled.reason}), space {package.space}")
    unused = sum(info.training["left_out"].values())
    typer.echo(f"distilled on {len(taught)} captures of {len(taught.names)} persons; {unused} in all left out")
    rates_table(distilled.errors, "readout")
    persons, limit = package.calibration["persons"], package.calibration["limit_score"]
    typer.echo(
        f"calibrated on {len(lesson.strangers.unseen.captures)} captures of {persons} persons held out: {_limit(limit)}"
    )
    shown_next(
        [
            f"tutelage package verify {out} --trust {keys.public_file}",
            f"give devices {out}, {keys.public_file} and {keys.seal_file}; keep {keys.signer_file} to yourself",
        ]
    )


def _limit(score: float) -> str:
    """What a calibration measured up to `score` is worth, and what more persons would be worth."""
    told = f"scores are measured up to {score:.0f} and extrapolated above"
    wanted = [f"{persons} persons for {goal}" for goal, persons in PERSONS_FOR.items() if score < goal]
    return f"{told}; hold out {', '.join(wanted)}" if wanted else told
