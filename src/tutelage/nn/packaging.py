"""From a trained student to its package: calibrated on strangers, sealed, signed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tutelage.biometrics.calibration import Calibration
from tutelage.biometrics.features import Features, impostor_cosines
from tutelage.captures import Pixels, to_input
from tutelage.impostors import seal_impostors
from tutelage.nn.students import Recogniser, Student, save_weights
from tutelage.package import PackageInfo, build_package


@dataclass(frozen=True)
class Origin:
    """Where a student comes from."""

    name: str
    """At most 64 letters, digits, dots, dashes and underscores."""
    version: str
    """`v3` or `v3+7`."""
    teacher_space: str
    created: str
    """ISO 8601 time."""
    parent: str | None = None
    """Digest of the package it was trained from."""
    training: Mapping[str, Any] | None = None
    """Summary of the training, plain JSON."""


NEGATIVE = "negative-"
"""Beginning of the ids of people whom devices train against; they must not calibrate what they trained."""


@dataclass(frozen=True)
class Strangers:
    """People who are nobody's customers: to calibrate with, and to train against."""

    captures: Sequence[Pixels]
    persons: Sequence[str]
    """Anonymous id of the person in each capture; ids that begin with `NEGATIVE` are there to train against."""

    @property
    def unseen(self) -> Strangers:
        """Those that no training on a device sees: they calibrate, and the gate judges by them."""
        return self._only(negative=False)

    @property
    def negatives(self) -> Strangers:
        """Those that a device trains against, so that it does not pull all people together who are not its own."""
        return self._only(negative=True)

    def _only(self, *, negative: bool) -> Strangers:
        rows = [i for i, person in enumerate(self.persons) if person.startswith(NEGATIVE) == negative]
        return Strangers([self.captures[i] for i in rows], [self.persons[i] for i in rows])


def package_student(
    student: Student, readout: str, strangers: Strangers, origin: Origin, *, signer: Ed25519PrivateKey, seal_key: bytes
) -> bytes:
    """The bytes of a signed package of `student`, recognising by `readout`.

    Raises:
        InputError: `data-insufficient`, too few strangers to calibrate with.
    """
    recogniser = Recogniser.of(student, readout)
    unseen = strangers.unseen
    features = recogniser.features(to_input(unseen.captures, student.spec.side))
    info = PackageInfo(
        name=origin.name,
        version=origin.version,
        student=student.spec.as_json(),
        readout=readout,
        teacher_space=origin.teacher_space,
        created=origin.created,
        parent=origin.parent,
        training=origin.training or {},
    )
    return build_package(
        weights=save_weights(student),
        calibration=calibrate(features, unseen.persons).as_json(),
        impostors=seal_impostors(strangers.captures, strangers.persons, seal_key),
        info=info,
        signer=signer,
    )


def calibrate(features: Features, persons: Sequence[str]) -> Calibration:
    """Calibration of the space of `features`, from all pairs of different `persons`.

    Raises:
        InputError: `data-insufficient`, fewer comparisons than a calibration needs.
    """
    return Calibration.fit(impostor_cosines(features, persons), space=features.space, persons=len(frozenset(persons)))
