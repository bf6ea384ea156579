"""How the shipped fingerprint teacher and students are made: `python -m device_sim.release --out DIR`.

Masters 0.. of a seed train the teacher, the next ones the students, and persons that neither has seen measure both. A
run goes on from its checkpoints.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from device_sim.drift import conditions_at_wear
from device_sim.masters import grow_masters
from device_sim.provenance import made
from device_sim.sensor import Presses, Sensor
from device_sim.site import impostor_set
from device_sim.synthetic import FULL_RANGE, GOOD_SENSORS, FingerprintBatches, FingerprintTeaching
from tutelage.captures import to_input
from tutelage.files import atomic_write
from tutelage.nn.distil import Distillation, distil
from tutelage.nn.packaging import Origin, package_student
from tutelage.nn.students import SPECS, Student, fuse, load_student, save_weights
from tutelage.nn.teachers import ResidualTeacher, TeacherSpec, teacher_file
from tutelage.nn.train_teacher import TeacherTraining, train_teacher
from tutelage.package import write_package
from tutelage.sealing import make_key, read_key
from tutelage.signing import make_signer, public_pem, read_signer

SEED = 2026
"""Masters of this seed made the shipped models; simulations use other seeds."""
RELEASED_READOUT = "exit4"
"""What the released student recognises by: on good sensors alone its early exits are too weak to be fused with."""
UNSEEN_FIRST = 900_000
"""First person number of those that measure."""


def train_release_teacher(out: Path, device: str, persons: int, training: TeacherTraining) -> ResidualTeacher:
    """Train, or load from `out`, the teacher."""
    path = out / "teacher-fingerprint.safetensors"
    if not path.exists():
        source = FingerprintBatches(SEED, persons, FULL_RANGE, device)
        network = train_teacher(
            source, training, TeacherSpec(), device=device, checkpoint=out / "teacher.checkpoint", progress=_say
        )
        made = {**asdict(training), "persons": persons, "conditions": asdict(FULL_RANGE), "master_seed": SEED}
        path.write_bytes(teacher_file(network, "fingerprint", made))
    return ResidualTeacher.load(path, device)


def distil_release_student(
    out: Path,
    device: str,
    name: str,
    teacher: ResidualTeacher,
    *,
    persons: int,
    first: int,
    stages: Sequence[Distillation],
) -> Student:
    """Distil, or load from `out`, the student called `name`: one stage after the other, other persons in each."""
    student = Student(SPECS[name])
    for number, settings in enumerate(stages):
        path = out / f"student-{name}.stage{number + 1}.safetensors"
        if not path.exists():
            source = FingerprintBatches(SEED, persons, GOOD_SENSORS, device, first=first + number * persons)
            teaching = FingerprintTeaching.of(source, teacher)
            checkpoint = out / f"student-{name}.stage{number + 1}.checkpoint"
            distil(student, teaching, settings, device=device, checkpoint=checkpoint, progress=_say)
            path.write_bytes(save_weights(student))
        student = load_student(SPECS[name], path.read_bytes()).to(device)
    return student


def package_release(out: Path, student: Student, teacher: ResidualTeacher, created: str) -> Path:
    """Sign and seal `student` with keys kept in `out`, made there if absent; their public parts lie beside the package.

    The key of the impostor set is public too: its captures are of nobody.
    """
    signing, sealing = out / "release.key", out / "impostors.key"
    signer = read_signer(signing) if signing.exists() else make_signer(signing)
    seal_key = read_key(sealing) if sealing.exists() else make_key(sealing)
    atomic_write(out / "release.pub", public_pem(signer.public_key()))
    data = package_student(
        student.to("cpu"),
        RELEASED_READOUT,
        impostor_set(SEED),
        Origin(f"fingerprint-{student.spec.name}", "v1", teacher.space, created, training={"master_seed": SEED}),
        signer=signer,
        seal_key=seal_key,
    )
    path = out / f"student-fingerprint-{student.spec.name}.tutelage"
    write_package(data, path)
    return path


def unseen_inputs(masters: Tensor, wear: float, each: int) -> Tensor:
    """Inputs (len(masters) * each, 1, 64, 64) at `wear` of the persons whose `masters` (N, 128, 128) these are."""
    condition, captures = conditions_at_wear(wear), []
    for number, master in enumerate(masters):
        presses = Presses.of(SEED + round(wear * 1000), UNSEEN_FIRST + number, range(each))
        captures += Sensor(SEED + 1, number % 16).capture(master.expand(each, -1, -1), presses, condition)
    return torch.from_numpy(to_input(captures, 64))


def measure(
    references: npt.NDArray[np.float32], probes: npt.NDArray[np.float32], persons: npt.NDArray[np.int64]
) -> dict[str, float]:
    """Rank-1 and TAR in percent of unit vectors, one comparison for each pair of a reference and a probe."""
    cosines = references @ probes.T
    same = persons[:, None] == persons[None, :]
    impostor, genuine = np.sort(cosines[~same]), cosines[same]
    best = persons[cosines.argmax(0)]
    rates = {f"tar@{f:g}": float((genuine >= np.quantile(impostor, 1 - f)).mean() * 100) for f in (1e-2, 1e-3, 1e-4)}
    return {"rank1": float((best == persons).mean() * 100), **rates}


def evaluate(models: dict[str, Any], device: str, persons: int, each: int = 3) -> dict[str, Any]:
    """Error rates of every model and exit at several wears, references always from a good sensor."""
    masters = grow_masters(SEED, range(UNSEEN_FIRST, UNSEEN_FIRST + persons), device=device, batch=32).cpu()
    clean, numbers = unseen_inputs(masters, 0.0, each), np.repeat(np.arange(persons), each)
    table: dict[str, Any] = {}
    for wear in (0.0, 0.2, 0.4, 0.6, 0.8):
        worn = unseen_inputs(masters, wear + 0.001, each)
        for name, model in models.items():
            before, after = _readouts(model, clean), _readouts(model, worn)
            rows = {r: measure(before[r], after[r], numbers) for r in before}
            table.setdefault(name, {})[f"{wear:g}"] = rows
    return table


def _readouts(model: Any, inputs: Tensor) -> dict[str, npt.NDArray[np.float32]]:
    """Unit vectors of each readout of a teacher or student."""
    if isinstance(model, ResidualTeacher):
        return {"teacher": model.vectors(inputs).cpu().numpy()}
    where = next(model.parameters()).device
    with torch.inference_mode():
        found = [u.float() for u in model(inputs.to(where))]
    return {f"exit{k + 1}": u.cpu().numpy() for k, u in enumerate(found)} | {"fused": fuse(found).cpu().numpy()}


def _say(step: int, steps: int, losses: dict[str, float]) -> None:
    """One line of progress now and then, for logs."""
    if step == 1 or step % 200 < 20 or step == steps:
        words = " ".join(f"{k} {v:.3f}" for k, v in losses.items())
        print(f"step {step}/{steps} {words}", file=sys.stderr, flush=True)  # noqa: T201


def main() -> None:
    """Train, distil, measure; writes files into the folder `--out`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--persons", type=int, default=2500)
    parser.add_argument("--student-persons", type=int, default=1500)
    parser.add_argument("--teacher-steps", type=int, default=4500)
    parser.add_argument("--teacher-batch", type=int, default=128)
    parser.add_argument("--student-steps", type=int, default=2000)
    parser.add_argument("--student-batch", type=int, default=64)
    parser.add_argument("--students", default=",".join(SPECS), help="sizes, comma-separated")
    parser.add_argument("--measured", type=int, default=300)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    training = TeacherTraining(steps=args.teacher_steps, batch=args.teacher_batch)
    teacher = train_release_teacher(args.out, args.device, args.persons, training)
    first = Distillation(steps=args.student_steps, batch=args.student_batch)
    second = replace(first, steps=3 * args.student_steps // 4, direction=60.0, learning_rate=2e-3, seed=1)
    students = {
        name: distil_release_student(
            args.out,
            args.device,
            name,
            teacher,
            persons=args.student_persons,
            first=args.persons,
            stages=(first, second),
        )
        for name in args.students.split(",")
    }
    created = datetime.now(UTC).isoformat(timespec="seconds")
    for student in students.values():
        package_release(args.out, student, teacher, created)
    rates = evaluate({"teacher": teacher, **students}, args.device, args.measured)
    about = asdict(made([SEED], created))
    document = {"made": about, "persons": args.measured, "settings": vars(args) | {"out": args.out.name}, **rates}
    (args.out / "release.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
