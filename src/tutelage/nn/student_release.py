"""A student, from captures and a teacher to a measured network and the strangers its package is calibrated with.

The teacher is asked once for every capture; what it cannot use teaches nothing and is left out. Some persons are kept
back: they train nothing, measure every exit, decide by which readout the student recognises, and go into the package
as its sealed impostor set, beside some of those who taught, for devices to train against. The same persons choose and
measure, so the chosen readout looks a little better than it is; between few persons, readouts differ by chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tutelage.biometrics.calibration import MEASURED_BY, MIN_COMPARISONS
from tutelage.biometrics.error_summary import ErrorSummary, impostor_count, summarise
from tutelage.biometrics.features import Features
from tutelage.captures import Pixels, to_input
from tutelage.cohorts import Cohort, check_persons, held_out
from tutelage.errors import Code, InputError
from tutelage.labelling import Teacher
from tutelage.nn.batches import InputBatches, label_numbers
from tutelage.nn.checkpoints import PLAIN, Codec
from tutelage.nn.distil import CachedTeaching, Distillation, distil
from tutelage.nn.packaging import NEGATIVE, Strangers
from tutelage.nn.process_group import ALONE, Parcel, ProcessGroup
from tutelage.nn.students import READOUTS, Recogniser, Student, StudentSpec
from tutelage.nn.teacher_release import MOST_MEASURED, digest
from tutelage.nn.train_teacher import Progress

FEWEST_PERSONS = 4
"""Two to learn from and two to be strangers."""
MOST_STRANGERS = 240
"""Captures in an impostor set: 0.7 to 0.9 MB of a package (`tutelage.impostors`)."""

MOST_NEGATIVES = 60
"""Captures to train against, of as many persons as there are; as many as measured well on devices."""

_ASKED_AT_ONCE = 32  # captures; often enough to show that something happens


@dataclass(frozen=True)
class CohortDistillation(Distillation):
    """Settings of a distillation, bound to what it learns from."""

    material: str = ""
    """Digest of inputs, labels, teacher's features and first weights: a checkpoint of others is refused like one of
    other settings."""


@dataclass(frozen=True)
class Taught:
    """Captures with the teacher's feature of each."""

    cohort: Cohort
    features: Features
    """(N, D_t), row for row those of the cohort."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """How many captures the teacher could not use, by its reason."""

    def rows(self, chosen: list[int]) -> Taught:
        """The captures of these row numbers with their features."""
        return Taught(self.cohort.rows(chosen), self.features[np.asarray(chosen, dtype=np.intp)])


@dataclass(frozen=True)
class Lesson:
    """All that a distillation needs besides a student, checked to suffice for a package."""

    taught: Taught
    """Who teaches."""
    unseen: Taught
    """Who was held out."""
    strangers: Strangers
    """The unseen at the student's resolution, and some of those who teach to train against, under anonymous ids."""


@dataclass(frozen=True)
class Distilled:
    """A distilled student and what is known of it."""

    student: Student
    settings: CohortDistillation
    errors: Mapping[str, ErrorSummary]
    """On the persons held out, by readout, and those of the teacher as `teacher`."""
    readout: str
    """By which it should recognise."""
    reason: str
    """Why this one."""


def ask_teacher(teacher: Teacher, cohort: Cohort, progress: Progress = lambda *_: None) -> Taught:
    """The captures that `teacher` can use, with its features; each is asked for once.

    Raises:
        InputError: `data-insufficient`, it can use none.
    """
    usable: list[int] = []
    parts: list[Features] = []
    reasons: Counter[str] = Counter()
    for start in range(0, len(cohort), _ASKED_AT_ONCE):
        answer = teacher.extract(cohort.captures[start : start + _ASKED_AT_ONCE])
        parts.append(answer.features[answer.usable])
        usable += (start + np.flatnonzero(answer.usable)).tolist()
        reasons.update(reason for reason, used in zip(answer.reasons, answer.usable, strict=True) if not used)
        progress(min(start + _ASKED_AT_ONCE, len(cohort)), len(cohort), {})
    if not usable:
        raise InputError(
            Code.DATA_INSUFFICIENT, f"the teacher can use none of {len(cohort)} captures ({_listed(reasons)})"
        )
    return Taught(cohort.rows(usable), Features.concat(parts), dict(reasons))


def divide(everybody: Taught, share: float, seed: int, side: int) -> Lesson:
    """Hold out `share` of the persons, two at least, drawn by `seed`, for a student whose input is `side` wide.

    Raises:
        InputError: `data-insufficient`, fewer than four persons, or too few captures of those held out to calibrate
            a student with.
    """
    check_persons(everybody.cohort, FEWEST_PERSONS, "distilling")
    unseen = held_out(everybody.cohort.names, share, seed)
    kept = everybody.rows(everybody.cohort.rows_of(unseen))
    calibrating = _anonymous(kept.cohort, MOST_STRANGERS, "stranger-", side)
    comparisons = impostor_count(calibrating.persons)
    if comparisons < MIN_COMPARISONS:
        raise InputError(
            Code.DATA_INSUFFICIENT,
            f"{len(kept.cohort)} captures of {len(unseen)} persons held out give {comparisons} comparisons, "
            f"a calibration takes {MIN_COMPARISONS}: hold out more persons, or add captures",
        )
    rest = sorted(frozenset(everybody.cohort.names) - unseen)
    taught = everybody.rows(everybody.cohort.rows_of(rest))
    negatives = _anonymous(taught.cohort, MOST_NEGATIVES, NEGATIVE, side)
    strangers = Strangers([*calibrating.captures, *negatives.captures], [*calibrating.persons, *negatives.persons])
    return Lesson(taught, kept, strangers)


def distil_student(
    student: Student,
    lesson: Lesson,
    settings: Distillation,
    *,
    device: str,
    checkpoint: Path,
    progress: Progress,
    group: ProcessGroup = ALONE,
    stop: Callable[[], bool] = lambda: False,
    kept: Callable[[int], None] = lambda _: None,
    codec: Codec = PLAIN,
) -> Distilled:
    """Distil `student` in place and measure it; equal arguments give equal weights on a processor.

    Of a `group` of several the one that leads calls this, all others `help_distil`; the student is that of one process
    within rounding. `stop`, `kept` and `codec` are those of `tutelage.nn.distil.distil`.

    Raises:
        TrainingError: `training-diverged`, `training-stopped`, `training-killed`: see `distil`.
        StorageError: the checkpoint cannot be read or written, or is of another distillation.
        UsageError: there are fewer captures in a batch than processes.
    """
    numbers, _ = label_numbers(lesson.taught.cohort.persons)
    inputs = torch.from_numpy(to_input(lesson.taught.cohort.captures, student.spec.side))
    material = {"inputs": inputs, "labels": torch.from_numpy(numbers)}
    material["features"] = torch.from_numpy(lesson.taught.features.vectors)
    bound = CohortDistillation(
        **asdict(settings), material=digest((*material.values(), *student.state_dict().values()))
    )
    if group.size > 1:
        group.handed(Parcel({"spec": student.spec.as_json(), "settings": asdict(bound)}, material))
    teaching = _teaching(material, bound.seed)
    distil(
        student,
        teaching,
        bound,
        device=device,
        checkpoint=checkpoint,
        progress=progress,
        group=group,
        stop=stop,
        kept=kept,
        codec=codec,
    )
    unseen = lesson.unseen.rows(lesson.unseen.cohort.first_rows(MOST_MEASURED))
    errors = _judged(student.cpu(), unseen.cohort)
    readout, reason = best_readout(errors)
    errors["teacher"] = summarise(unseen.features, unseen.cohort.persons)
    return Distilled(student, bound, errors, readout, reason)


def help_distil(group: ProcessGroup, *, device: str, stop: Callable[[], bool] = lambda: False) -> None:
    """Share the batches of the training for which the process that leads `group` calls `distil_student`.

    Everything that is learnt from comes from there: this process needs no data set, no teacher and no checkpoint. It
    waits until the leader begins.

    Raises:
        TrainingError: as `distil_student`; `training-killed` also if the leader ends before it begins.
    """
    lesson = group.handed(None)
    settings = CohortDistillation(**lesson.about["settings"])
    student = Student(StudentSpec.from_json(lesson.about["spec"]))
    distil(student, _teaching(lesson.tensors, settings.seed), settings, device=device, group=group, stop=stop)


def _teaching(material: Mapping[str, Tensor], seed: int) -> CachedTeaching:
    source = InputBatches(material["inputs"], material["labels"], seed)
    return CachedTeaching.of(source, material["features"])


def best_readout(errors: Mapping[str, ErrorSummary]) -> tuple[str, str]:
    """By which readout to recognise, and why: the highest TAR at the lowest FMR that persons suffice for, or the EER.

    A TAR chooses only where ten *independent* impostor comparisons fix its threshold, as a calibration asks: 142
    persons held out for FMR 1e-3, 46 for 1e-2. With fewer the lowest EER chooses, which rests on all comparisons: on
    five persons TAR took an exit whose EER was 17 % rather than the fused 13 %. Between equals the deeper one is
    taken, and `fused` before all exits.
    """
    for rate, fmr, words in (("tar_1e3", 1e-3, "TAR at FMR 1e-3"), ("tar_1e2", 1e-2, "TAR at FMR 1e-2")):
        if all(_chooses(errors[readout], rate, fmr) for readout in READOUTS):
            best = max(READOUTS, key=lambda r: (getattr(errors[r], rate), -(errors[r].eer or 0.0), READOUTS.index(r)))
            return best, f"highest {words}"
    equal = {readout: found for readout in READOUTS if (found := errors[readout].eer) is not None}
    if len(equal) == len(READOUTS):
        return min(READOUTS, key=lambda r: (equal[r], -READOUTS.index(r))), "lowest EER"
    return READOUTS[-1], "nothing could be measured"


def _chooses(errors: ErrorSummary, rate: str, fmr: float) -> bool:
    independent = errors.persons * (errors.persons - 1) // 2
    return getattr(errors, rate) is not None and round(fmr * (independent + 1), 6) >= MEASURED_BY


def _judged(student: Student, unseen: Cohort) -> dict[str, ErrorSummary]:
    found = Recogniser.of(student, "fused").every_readout(to_input(unseen.captures, student.spec.side))
    return {readout: summarise(Features(found[readout], readout), unseen.persons) for readout in READOUTS}


def _anonymous(everybody: Cohort, most: int, prefix: str, side: int) -> Strangers:
    """At most so many captures, no larger than a student sees them, without those of which nothing is left then."""
    cohort = everybody.rows(everybody.first_rows(most))
    ids = {person: f"{prefix}{number:03d}" for number, person in enumerate(cohort.names)}
    small = [(_shrunk(capture, side), ids[who]) for capture, who in zip(cohort.captures, cohort.persons, strict=True)]
    kept = [(capture, who) for capture, who in small if capture.min() != capture.max()]
    return Strangers([capture for capture, _ in kept], [who for _, who in kept])


def _shrunk(capture: Pixels, side: int) -> Pixels:
    """The capture as a student would see it, back in 256 grey levels; a small one is left as it is.

    An input has no brightness and no contrast of its own, so that spreading it over all levels changes nothing.
    """
    if max(capture.shape[:2]) <= side:
        return capture
    seen = to_input([capture], side)[0, 0].astype(np.float64)
    spread = (seen - seen.min()) / (np.ptp(seen) or 1.0)
    shrunk: Pixels = np.rint(spread * 255).astype(np.uint8)
    return shrunk


def _listed(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()))
