"""Error rates of one way to recognise at one site, every exit and the fused readout.

The threshold is fixed before anything is measured: it is the cosine that the calibration set, people of no site, gives
for the wanted FMR in the space at hand. Genuine comparisons are a probe against its own person, impostor comparisons a
probe or a stranger against everybody else. TAR is the share of genuine comparisons at or above the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from device_sim.site import Site, Taken
from tutelage.biometrics.error_rates import eer
from tutelage.biometrics.features import Features
from tutelage.captures import to_input
from tutelage.nn.packaging import calibrate
from tutelage.nn.students import Recogniser, Student

Floats = npt.NDArray[np.float32]
Vectors = Mapping[str, Floats]
"""Unit vectors by readout."""


@dataclass(frozen=True)
class SiteInputs:
    """A site's captures as inputs, prepared once for many measurements."""

    references: Floats
    probes_new: Floats
    probes_worn: Floats
    strangers_new: Floats
    strangers_worn: Floats
    impostors: Floats

    @staticmethod
    def of(site: Site, side: int) -> SiteInputs:
        """Prepare all captures of `site`."""

        def inputs(taken: Taken) -> Floats:
            return to_input(taken.captures, side) if len(taken) else np.empty((0, 1, side, side), np.float32)

        return SiteInputs(
            inputs(site.references),
            inputs(site.probes_new),
            inputs(site.probes_worn),
            inputs(site.strangers_new),
            inputs(site.strangers_worn),
            inputs(Taken.of_strangers(site.impostors.unseen)),
        )


@dataclass(frozen=True)
class Rates:
    """What was measured with one readout on one state of the sensor; fractions 0..1, None where there was nothing."""

    rank1: float
    eer: float
    tar_1e2: float
    """At the threshold fixed for FMR 1e-2."""
    tar_1e3: float
    """At the threshold fixed for FMR 1e-3, the accept score 30."""
    fmr_1e3: float | None
    """Measured FMR at that threshold, probes against other persons."""
    strangers: float | None
    """Share of stranger captures accepted as anybody, 1:N, at that threshold."""

    def as_json(self) -> dict[str, float | None]:
        """By name."""
        return asdict(self)


def student_vectors(student: Student, inputs: Floats) -> Vectors:
    """Vectors of every readout of a student."""
    return Recogniser.of(student, "fused").every_readout(inputs)


def rates(
    site: Site, references: Floats, probes: Floats, truth: Sequence[str], *, strangers: Floats, impostors: Floats
) -> Rates:
    """Rates of one readout.

    Args:
        site: whose persons they are.
        references: (R, D) unit vectors, one for each of the site's references, or adapted templates.
        probes: (N, D), made by `truth`.
        truth: (N,) person of each probe.
        strangers: (S, D).
        impostors: (I, D) of the calibration set.
    """
    calibration = calibrate(Features(impostors, "measured"), site.impostors.unseen.persons)
    at_2, at_3 = calibration.cosine_at(20.0), calibration.cosine_at(30.0)
    owners = np.asarray(site.references.persons)
    persons = np.unique(owners)
    similar = _by_person(probes @ references.T, owners, persons)
    own = np.asarray(truth)[:, None] == persons[None, :]
    genuine, others = similar[own], similar[~own]
    return Rates(
        rank1=float((persons[similar.argmax(1)] == np.asarray(truth)).mean()),
        eer=float(eer(genuine, others)),
        tar_1e2=float((genuine >= at_2).mean()),
        tar_1e3=float((genuine >= at_3).mean()),
        fmr_1e3=float((others >= at_3).mean()) if len(others) else None,
        strangers=float((_by_person(strangers @ references.T, owners, persons).max(1) >= at_3).mean())
        if len(strangers)
        else None,
    )


def _by_person(cosines: Floats, owners: npt.NDArray[np.str_], persons: npt.NDArray[np.str_]) -> Floats:
    """Best cosine over each person's references: (N, R) to (N, C)."""
    return np.stack([cosines[:, owners == person].max(1) for person in persons], axis=1)


def measure(
    site: Site, inputs: SiteInputs, student: Student, references: Vectors | None = None
) -> dict[str, dict[str, Rates]]:
    """Rates by sensor state (`new`, `worn`) and readout; `references` replace the site's where they were adapted."""
    enrolled = references or student_vectors(student, inputs.references)
    impostors = student_vectors(student, inputs.impostors)
    states = {
        "new": (inputs.probes_new, site.probes_new, inputs.strangers_new),
        "worn": (inputs.probes_worn, site.probes_worn, inputs.strangers_worn),
    }
    found: dict[str, dict[str, Rates]] = {}
    for state, (probe_inputs, probes, stranger_inputs) in states.items():
        vectors, strange = student_vectors(student, probe_inputs), student_vectors(student, stranger_inputs)
        found[state] = {
            readout: rates(
                site,
                enrolled[readout],
                vectors[readout],
                probes.persons,
                strangers=strange[readout],
                impostors=impostors[readout],
            )
            for readout in enrolled
        }
    return found
