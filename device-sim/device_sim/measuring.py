"""How well a recogniser does at one site, measured on captures that no device ever met in its stream.

An `Eye` is anything that turns captures into features, with references and a calibration of its own: the student as it
was shipped, the student that runs now, the teacher. All look at the same probes and strangers, on the sensor as it was
when the persons enrolled and as it is in the end, at a threshold that was fixed before any of them was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from device_sim.fleet import Post
from device_sim.recognition import RunningModel
from device_sim.results import DetCurve, Rates
from device_sim.site import Site, Taken
from tutelage.biometrics.calibration import Calibration
from tutelage.biometrics.error_rates import det_curve
from tutelage.biometrics.features import Features, cosines
from tutelage.biometrics.matching import Gallery
from tutelage.labelling import Teacher
from tutelage.nn.packaging import calibrate

WHO = ("frozen", "live", "teacher")
SENSORS = ("new", "worn")

_SHOWN = {
    "genuine, frozen, new sensor": ("frozen", "new", "genuine"),
    "genuine, frozen, worn": ("frozen", "worn", "genuine"),
    "genuine, self-distilled, worn": ("live", "worn", "genuine"),
    "strangers, self-distilled, worn": ("live", "worn", "strangers"),
}
"""Distributions that a report shows, by their title."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """What one eye made of the probes and strangers of one sensor."""

    rates: Rates
    genuine: Floats
    """Scores of probes with their own person."""
    impostor: Floats
    """Scores of probes with everybody else."""
    strangers: Floats
    """Best score of each stranger."""


@dataclass(frozen=True)
class Eye:
    """A recogniser as it is measured."""

    features: Callable[[Taken], Features]
    """One row a capture; zeros where it gives no feature, which is a miss."""
    gallery: Gallery
    calibration: Calibration

    def look(self, probes: Taken, strangers: Taken, accept_score: float) -> Seen:
        """Recognise all probes and strangers."""
        truth, persons = np.asarray(probes.persons), np.unique(np.asarray(self.gallery.persons))
        similar, blank = self._similar(probes)
        own = truth[:, None] == persons[None, :]
        scores = np.asarray(self.calibration.score(similar), np.float64)
        admitted = np.asarray(self.calibration.score(self._similar(strangers)[0].max(1)), np.float64)
        genuine = scores[own]
        rates = Rates(
            fnmr=float((genuine < accept_score).mean()),
            rank1=float(((persons[similar.argmax(1)] == truth) & ~blank).mean()),
            strangers=float((admitted >= accept_score).mean()) if len(strangers) else None,
        )
        return Seen(rates, genuine, scores[~own], admitted)

    def _similar(self, taken: Taken) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Best cosine of each capture to each person by name, (N, C), and which captures gave no feature, (N,)."""
        found, owners = self.features(taken), np.asarray(self.gallery.persons)
        near = cosines(found, self.gallery.features)
        similar = np.stack([near[:, owners == person].max(1, initial=-1.0) for person in np.unique(owners)], axis=1)
        blank = np.asarray(~found.vectors.any(1))
        similar[blank] = -1.0
        return similar, blank


def student_eye(model: RunningModel) -> Eye:
    """The eye of a running model."""
    return Eye(lambda taken: model.features(taken.captures), model.gallery, model.calibration)


def teacher_eye(teacher: Teacher, site: Site) -> Eye:
    """The eye of a teacher, calibrated on those of the site's impostors that it can use.

    Raises:
        InputError: `data-insufficient`, too few of them.
    """

    def features(taken: Taken) -> Features:
        extraction = teacher.extract(taken.captures)
        return Features(extraction.features.vectors * extraction.usable[:, None], extraction.features.space)

    def usable(taken: Taken) -> tuple[tuple[str, ...], Features]:
        found = features(taken)
        rows = np.flatnonzero(found.vectors.any(1))
        return tuple(taken.persons[row] for row in rows), found[rows]

    impostors, of_impostors = usable(Taken.of_strangers(site.impostors.unseen))
    return Eye(features, Gallery(*usable(site.references)), calibrate(of_impostors, impostors))


@dataclass(frozen=True)
class Measured:
    """What the frozen and the live student and the teacher make of one site."""

    seen: Mapping[tuple[str, str], Seen]
    """By `WHO` and `SENSORS`."""

    @staticmethod
    def of(post: Post, teacher: Teacher, frozen: RunningModel) -> Measured:
        """Measure at the site of `post`; `frozen` is the student that its device was shipped with."""
        site, accept = post.site, post.device.settings.sampling.accept_score
        eyes = (student_eye(frozen), student_eye(post.device.model), teacher_eye(teacher, site))
        taken = ((site.probes_new, site.strangers_new), (site.probes_worn, site.strangers_worn))
        return Measured(
            {
                (who, sensor): eye.look(probes, strangers, accept)
                for who, eye in zip(WHO, eyes, strict=True)
                for sensor, (probes, strangers) in zip(SENSORS, taken, strict=True)
            }
        )


def pooled(parts: Sequence[Measured], who: str, sensor: str) -> Rates:
    """Mean over devices."""
    found = [part.seen[who, sensor].rates for part in parts]

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    return Rates(
        mean([rates.fnmr for rates in found]),
        mean([rates.rank1 for rates in found]),
        mean([rates.strangers for rates in found]),
    )


def distributions(parts: Sequence[Measured]) -> dict[str, tuple[float, ...]]:
    """Scores of all devices that a report shows, by title."""
    shown = {}
    for title, (who, sensor, whose) in _SHOWN.items():
        scores: Floats = np.concatenate([getattr(part.seen[who, sensor], whose) for part in parts])
        shown[title] = tuple(np.round(scores, 2).tolist())
    return shown


def curve(parts: Sequence[Measured], who: str, sensor: str) -> DetCurve:
    """DET over all comparisons at all devices, thinned to what a plot can show."""
    genuine = np.concatenate([part.seen[who, sensor].genuine for part in parts])
    impostor = np.concatenate([part.seen[who, sensor].impostor for part in parts])
    fmr, fnmr, _ = det_curve(genuine, impostor)
    return DetCurve.thinned(fmr, fnmr)
