"""The models that a simulation starts from: the shipped fingerprint teacher and student, or ones made from images.

`shipped()` gives what lies in the library's package; `continued()` distils the shipped student a little further, on
captures nobody has trained on yet, and signs the outcome as the next version: short, but the real loop. `from_images()`
trains or opens a teacher for a folder of images and distils a student from it.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import resources

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_sim.fleet import Release
from device_sim.site import Taken
from device_sim.synthetic import GOOD_SENSORS, FingerprintBatches, FingerprintTeaching, Range
from device_sim.worn_batches import WornBatches
from tutelage.biometrics.features import impostor_cosines
from tutelage.captures import Pixels, to_input
from tutelage.errors import Code, ManifestError
from tutelage.impostors import open_impostors
from tutelage.labelling import AbstentionPolicy, SiteTeacher, Teacher
from tutelage.manifest import Loaded, Manifest, Split, load_captures
from tutelage.nn.batches import Augmentation, InputBatches, label_numbers
from tutelage.nn.distil import CachedTeaching, Distillation, distil
from tutelage.nn.packaging import NEGATIVE, Origin, Strangers, calibrate, package_student
from tutelage.nn.students import SPECS, Student, load_student
from tutelage.nn.teachers import ResidualTeacher, TeacherSpec, teacher_file
from tutelage.nn.train_teacher import TeacherTraining, train_teacher
from tutelage.package import StudentPackage, read_package
from tutelage.sealing import KEY_BYTES, read_key
from tutelage.signing import read_public_key

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done, and steps in all."""

ASSETS = resources.files("tutelage") / "assets"
IMAGE_LEAD = 0.2
"""As `LEAD`, for a teacher of images, which names the nearest person however far away: a limit of cosine calibrated
on the few persons of a folder makes it abstain so often that more is lost than wrong labels cost (docs/results.md)."""
CONTINUED_PERSONS = 48
"""Fingers that a short stretch of distillation goes on with."""
CONTRAST = 0.22
"""Standard deviation that a standardised image is given before it is held before simulated sensors."""
TEACHER_SENSORS = Range(wear=0.5, dirt=0.5, moisture=0.3, blur=0.8, gain=0.4)
"""Sensors that a teacher of images is trained for."""
NEGATIVES_EACH = 3
"""Captures of each of the cloud's persons that devices train against."""
LEAD = 0.4
"""Lead without which a teacher abstains, in standard deviations of its cosines between strangers: teachers differ in
how far they set people apart, and 0.05 is much to one and nothing to another. What other leads bring is in
docs/results.md."""


@dataclass(frozen=True)
class Models:
    """A teacher, a released student and the strangers it was calibrated on."""

    teacher: Teacher
    policy: AbstentionPolicy
    student: Student
    release: Release
    impostors: Strangers
    notes: tuple[str, ...] = field(default=())
    """What was done to get them, for people."""


def shipped() -> Models:
    """The fingerprint models in the library's package.

    Raises:
        PackageError: a file of the installation is damaged.
    """
    with resources.as_file(ASSETS) as folder:
        teacher = ResidualTeacher.load(folder / "teacher-fingerprint.safetensors")
        trusted = read_public_key(folder / "release.pub")
        fleet_key = read_key(folder / "impostors.key")
        data = (folder / "student-fingerprint-tiny.tutelage").read_bytes()
    package = read_package(data, trusted=[trusted])
    captures, persons = open_impostors(package.impostors, fleet_key)
    impostors = Strangers(captures, persons)
    return Models(
        teacher,
        policy_for(teacher, impostors),
        _student(package),
        Release(data, trusted, fleet_key),
        impostors,
    )


def policy_for(
    teacher: Teacher, strangers: Strangers, fmr: float | None = 1e-3, lead: float = LEAD
) -> AbstentionPolicy:
    """When `teacher` must abstain: nobody as near as strangers are at `fmr`, or two persons within `lead`.

    Without `fmr` nobody is too far away.
    """
    strangers = strangers.unseen
    extraction = teacher.extract(strangers.captures)
    usable = np.flatnonzero(extraction.usable)
    features, persons = extraction.features[usable], [strangers.persons[int(i)] for i in usable.tolist()]
    nearest = -1.0 if fmr is None else calibrate(features, persons).cosine_at(-10 * float(np.log10(fmr)))
    least = lead * float(impostor_cosines(features, persons).std())
    return AbstentionPolicy(min_cosine=min(1.0, nearest), min_margin=least)


def _student(package: StudentPackage) -> Student:
    return load_student(SPECS[package.info.student["name"]], package.weights)


def signed_anew(models: Models, signer: Ed25519PrivateKey) -> Models:
    """The same models with the same student signed by `signer`, who is trusted from now on."""
    info = read_package(models.release.package, trusted=[models.release.trusted]).info
    origin = Origin(info.name, info.version, info.teacher_space, info.created, info.parent, info.training)
    key = models.release.fleet_key
    data = package_student(models.student, info.readout, models.impostors, origin, signer=signer, seal_key=key)
    return replace(models, release=Release(data, signer.public_key(), key))


def reissued(models: Models, data: bytes) -> Models:
    """The same models with the student of another package of the same signer.

    Raises:
        PackageError: it cannot be trusted.
    """
    student = _student(read_package(data, trusted=[models.release.trusted]))
    return replace(models, student=student, release=replace(models.release, package=data))


def continued(
    models: Models,
    seed: int,
    steps: int,
    created: str,
    progress: Progress,
    *,
    persons: int = CONTINUED_PERSONS,
    signer: Ed25519PrivateKey | None = None,
) -> Models:
    """The same models with the student distilled `steps` further, signed as the next version.

    It is distilled on fingers of `persons` whom nobody has trained on yet. Without a `signer` a key of this run signs.
    """
    assert isinstance(models.teacher, ResidualTeacher)  # noqa: S101 - the shipped one is
    trusted_before = read_package(models.release.package, trusted=[models.release.trusted])
    source = FingerprintBatches(seed, persons, GOOD_SENSORS, first=300_000)
    settings = Distillation(steps=steps, batch=32, learning_rate=2e-4, seed=seed)
    progress("distilling", 0, steps)
    teaching = FingerprintTeaching.of(source, models.teacher, captures_each=4)
    distil(models.student, teaching, settings, progress=lambda d, n, _: progress("distilling", d, n))
    signer = signer or Ed25519PrivateKey.generate()
    version = f"v{int(trusted_before.info.version[1:]) + 1}"
    origin = Origin(
        trusted_before.info.name, version, models.teacher.space, created, trusted_before.digest, {"steps": steps}
    )
    data = package_student(
        models.student,
        trusted_before.info.readout,
        models.impostors,
        origin,
        signer=signer,
        seal_key=models.release.fleet_key,
    )
    release = Release(data, signer.public_key(), models.release.fleet_key)
    note = f"student distilled {steps} steps further from the shipped {trusted_before.info.version}"
    return Models(models.teacher, models.policy, models.student, release, models.impostors, (note,))


@dataclass(frozen=True)
class ImageTraining:
    """How models are made from a folder of images."""

    teacher_steps: int = 250
    teacher_batch: int = 64
    student_steps: int = 250
    student_batch: int = 48
    size: str = "tiny"
    held_out: float = 0.25
    """Share of the cloud's persons that train nothing: they are the strangers of the calibration."""
    cut_alike: bool = True
    """Whether all captures are cut in the same way, so that a teacher may learn from the cloud's where faces lie."""

    def of_length(self, teacher_steps: int | None, student_steps: int | None) -> ImageTraining:
        """The same with other numbers of steps; None keeps what there is."""
        return replace(
            self,
            teacher_steps=self.teacher_steps if teacher_steps is None else teacher_steps,
            student_steps=self.student_steps if student_steps is None else student_steps,
        )


def from_images(  # noqa: PLR0917 - in the order in which they are used
    manifest: Manifest, teacher: Teacher | None, seed: int, training: ImageTraining, created: str, progress: Progress
) -> Models:
    """Models for real images: `teacher`, or one trained on the cloud's persons, and a student distilled from it.

    Raises:
        ManifestError: `data-insufficient`, fewer than six persons in the cloud's splits, or `teacher` can use the
            captures of fewer than two.
        InputError: `data-insufficient`, too few usable captures of strangers to calibrate with.
    """
    taught, strangers, teaching_rows = cloud_persons(manifest, seed, training.held_out)
    teacher = teacher or _trained_teacher(teaching_rows, seed, training, progress)
    if training.cut_alike and isinstance(teacher, SiteTeacher):
        teacher = teacher.for_site(taught.captures)
    extraction = teacher.extract(taught.captures)
    usable = np.flatnonzero(extraction.usable)
    labels, known = label_numbers([taught.persons[i] for i in usable])
    if len(known) < 2:
        raise ManifestError(
            Code.DATA_INSUFFICIENT,
            f"teacher {teacher.name} can use images of {len(known)} persons of the cloud, two are needed: "
            "choose another teacher",
        )
    inputs = torch.from_numpy(to_input([taught.captures[i] for i in usable]))
    source = InputBatches(inputs, torch.from_numpy(labels), seed, Augmentation(contrast=0.5, noise=0.25))
    teaching = CachedTeaching.of(source, torch.from_numpy(extraction.features.vectors[usable]))
    settings = Distillation(steps=training.student_steps, batch=training.student_batch, seed=seed)
    torch.manual_seed(seed)
    student = distil(
        Student(SPECS[training.size]), teaching, settings, progress=lambda d, n, _: progress("distilling", d, n)
    )
    impostors = _impostor_set(strangers, taught)
    signer, fleet_key = Ed25519PrivateKey.generate(), os.urandom(KEY_BYTES)
    origin = Origin("images", "v1", teacher.space, created, training={"steps": training.student_steps})
    data = package_student(student, "fused", impostors, origin, signer=signer, seal_key=fleet_key)
    notes = (f"teacher {teacher.name}, student distilled from nothing in {training.student_steps} steps",)
    policy = policy_for(teacher, impostors, fmr=None, lead=IMAGE_LEAD)
    return Models(teacher, policy, student, Release(data, signer.public_key(), fleet_key), impostors, notes)


def _impostor_set(unseen: Taken, taught: Taken) -> Strangers:
    """Those held out to calibrate with, and a few captures of each person who taught to train against."""
    taken: Counter[str] = Counter()
    captures, persons = list(unseen.captures), list(unseen.persons)
    number = {person: i for i, person in enumerate(sorted(set(taught.persons)))}
    for person, capture in zip(taught.persons, taught.captures, strict=True):
        taken[person] += 1
        if taken[person] <= NEGATIVES_EACH:
            captures.append(capture)
            persons.append(f"{NEGATIVE}{number[person]:03d}")
    return Strangers(captures, persons)


def cloud_persons(manifest: Manifest, seed: int, held_out: float) -> tuple[Taken, Taken, Taken]:
    """Captures of the cloud's persons that distil the student, of those held out, and those that train a teacher.

    Persons held out train nothing. They are strangers to every device and go out with the student: their names do not.

    Raises:
        ManifestError: `data-insufficient`, fewer than six persons in the splits that distil.
    """
    persons = manifest.persons(Split.DISTIL)
    if len(persons) < 6:
        raise ManifestError(Code.DATA_INSUFFICIENT, f"the cloud splits hold {len(persons)} persons, six are needed")
    order = np.random.default_rng([seed, 15]).permutation(len(persons))
    out = {persons[i]: f"impostor-{k:03d}" for k, i in enumerate(order[: max(2, round(held_out * len(persons)))])}
    distilling = _captures(manifest, Split.DISTIL)
    strangers = Taken.of((out[p], c) for p, c in distilling if p in out)
    taught, training = (
        Taken.of(x for x in part if x[0] not in out) for part in (distilling, _captures(manifest, Split.TEACHER))
    )
    return taught, strangers, training


def _captures(manifest: Manifest, split: Split) -> list[tuple[str, Pixels]]:
    """Person and capture of each row of `split` that can be read; nothing where there is no row."""
    rows = manifest.select(split)
    loaded = load_captures(rows) if rows else Loaded([], [], [])
    return [(row.person, capture) for row, capture in zip(loaded.rows, loaded.captures, strict=True)]


def _trained_teacher(taught: Taken, seed: int, training: ImageTraining, progress: Progress) -> ResidualTeacher:
    """A residual teacher trained on the cloud's persons alone, however few they are.

    Raises:
        ManifestError: `data-insufficient`, there are fewer than two.
    """
    if len(set(taught.persons)) < 2:
        raise ManifestError(
            Code.DATA_INSUFFICIENT, "a teacher needs two persons of a teacher or cloud split, or name a teacher"
        )
    labels, _ = label_numbers(taught.persons)
    images = (torch.from_numpy(to_input(taught.captures)) * CONTRAST + 0.5).clamp(0, 1)
    source = WornBatches(images, torch.from_numpy(labels), seed, TEACHER_SENSORS)
    settings = TeacherTraining(steps=training.teacher_steps, batch=training.teacher_batch, margin=0.2, seed=seed)
    network = train_teacher(
        source, settings, TeacherSpec(), progress=lambda d, n, _: progress("training the teacher", d, n)
    )
    made = {"persons": source.persons, "steps": settings.steps}
    digest = hashlib.sha256(teacher_file(network, "images", made)).hexdigest()
    return ResidualTeacher(network, name="images", space=f"{digest[:24]}/teacher", made=made)
