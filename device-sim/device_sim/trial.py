"""The trial of a candidate: packaged as a generation, it answers the same captures as the running student.

The gate gets both their scores. What is judged is the very package that would be promoted, not the network it was made
of.

A calibration is fitted to comparisons of strangers with each other, and who is enrolled is learnt from: training may
bring strangers nearer to just those. So before it is judged a candidate meets the strangers at its own door, and where
they come nearer than they came to the released version, its scores are lowered by as much (docs/adr/0010).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from device_sim.device_settings import DeviceKeys
from device_sim.evidence import Evidence, best_scores
from device_sim.job import Descent
from device_sim.learning import Labelled
from device_sim.recognition import RunningModel
from device_sim.training import Trained
from tutelage.biometrics.calibration import MOST_LOWERED, Calibration
from tutelage.biometrics.features import cosines
from tutelage.captures import Pixels
from tutelage.impostors import open_impostors
from tutelage.nn.packaging import Origin, Strangers, package_student
from tutelage.nn.students import StudentSpec, load_student, part_way
from tutelage.package import StudentPackage, build_package

TIMED = 30
"""Recognitions timed for each student, in turns."""


def packaged(
    running: StudentPackage, descent: Descent, trained: Trained, keys: DeviceKeys, time_s: float, *, share: float = 1.0
) -> bytes:
    """A package of the student `share` of the way from the `running` one to the trained one, signed.

    It is calibrated in its own space on the impostors of `running`.

    Raises:
        PackageError: the trained tensors are no student of this architecture.
        InputError: `data-insufficient`, the student's features are no numbers.
        StorageError: `key-wrong`, the impostor set is sealed with another key.
    """
    info = running.info
    origin = Origin(
        name=info.name,
        version=descent.generation,
        teacher_space=info.teacher_space,
        created=datetime.fromtimestamp(time_s, UTC).isoformat(),
        parent=descent.parent,
        training={k: trained.summary[k] for k in ("settings", "losses", "seconds", "peak_bytes", "samples")}
        | {"share": share},
    )
    spec = StudentSpec.from_json(info.student)
    student = load_student(spec, trained.weights)
    if share < 1.0:
        student = part_way(load_student(spec, running.weights), student, share)
    strangers = Strangers(*open_impostors(running.impostors, keys.fleet))
    return package_student(student, info.readout, strangers, origin, signer=keys.signer, seal_key=keys.fleet)


def gather_evidence(
    running: RunningModel,
    candidate: RunningModel,
    held_back: Sequence[Labelled],
    strangers: Sequence[Pixels],
    clock: Callable[[], float] = time.thread_time,
) -> tuple[Evidence, Evidence]:
    """Evidence of both students, each in its own space, on the same captures.

    Args:
        running: the student at work.
        candidate: the one that wants to replace it.
        held_back: samples that no training has seen.
        strangers: captures of the sealed impostor set.
        clock: seconds, for the latency. By default those of this thread on a processor: whoever else keeps the
            machine busy would otherwise decide what the gate says.
    """
    timed = strangers[0]
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(2 * TIMED):
        # Each goes first in every other round: 0 1, 1 0, 0 1 ...
        which = (turn + turn // 2) % 2
        started = clock()
        (running, candidate)[which].recognise(timed)
        seconds[which].append(clock() - started)
    return (
        _evidence(running, held_back, strangers, seconds[0]),
        _evidence(candidate, held_back, strangers, seconds[1]),
    )


def stranger_scores(model: RunningModel, strangers: Sequence[Pixels]) -> tuple[float, ...]:
    """Best score of each capture of `strangers` over all references."""
    return best_scores(model.calibration, cosines(model.features(strangers), model.gallery.features))


def came_nearer(released: Sequence[float], candidate: Sequence[float], share: float) -> float:
    """How much higher the highest `share` of a `candidate`'s scores of strangers lie, in the mean; 0 where they do not.

    Scores are logarithms of rates, so a mean of many that come near tells what no count of the few who get in can.
    """
    count = round(share * len(candidate))
    if count == 0:
        return 0.0
    before, after = (float(np.sort(np.asarray(scores))[-count:].mean()) for scores in (released, candidate))
    return min(max(0.0, after - before), MOST_LOWERED)


def with_lower_scores(package: StudentPackage, by: float, keys: DeviceKeys) -> bytes:
    """The same student, signed anew, whose scores from 10 up are lower `by` so much."""
    info = package.info
    return build_package(
        weights=package.weights,
        calibration=Calibration.from_json(package.calibration).lowered(by).as_json(),
        impostors=package.impostors,
        info=replace(info, training={**info.training, "lowered": by}),
        signer=keys.signer,
    )


def _evidence(
    model: RunningModel, held_back: Sequence[Labelled], strangers: Sequence[Pixels], seconds: Sequence[float]
) -> Evidence:
    """Evidence of one student."""
    references = model.gallery.features
    probes, strange = model.features([s.capture for s in held_back]), model.features(strangers)
    return Evidence.measured(
        model.calibration,
        model.gallery.persons,
        cosines(references, references),
        held_back_persons=[s.person for s in held_back],
        held_back=cosines(probes, references),
        strangers=cosines(strange, references),
        latency_s=seconds,
    )
