"""How long a device takes to answer a capture, on one core, beside torch and beside ONNX Runtime on torch's own export.

    pip install -r benchmarks/requirements-recognition.txt
    python benchmarks/recognition.py [--json OUT] [--repeats N] [--calls N]

- `ways`: the forward alone, the answer end to end (from a capture's pixels to the decision: input, forward, 1:N, score)
  and from its PNG. Ours is what a device runs: the student compiled at its swap. `eager` is the bare `student(inputs)`
  of torch in `inference_mode`; `exported` is ONNX Runtime on what `torch.onnx.export` makes of the student. End to end
  all do the same around their forward. In each repeat every way answers the same captures, in another order each time,
  and ratios are of means of the same repeat.
- `persons`: what comparing with 10,000 persons adds to an answer.
- `swap`: seconds until a new student can recognise, and those that torch's exporter would take.
- `early_exit`: what believing an early exit saves, at a threshold that was chosen on held-back captures, and what it
  does to captures of others (`device_sim.evaluation.early_exit`): the released student and a generation of it.
- `training`: answers to people who come one by one while a worker trains beside them on the same core, as on a device
  that has only one, and while none does.

Everything of this process and its worker runs on one core, where the system lets a process choose.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from device_sim.activity import Activity
from device_sim.evaluation.early_exit import Answered, EarlyExit
from device_sim.job import Descent, TrainingJob
from device_sim.learning import Labelled, LearningRules, training_set
from device_sim.models import Models, shipped
from device_sim.provenance import made
from device_sim.recognition import Enrolled, RunningModel
from device_sim.sampling import SampleRules
from device_sim.site import Site, SiteSize, Taken, synthetic_site
from device_sim.training import Budget, Training
from tutelage.biometrics.features import Features
from tutelage.biometrics.matching import DecisionRule, Gallery
from tutelage.captures import Pixels, decode_png, encode_png, to_input
from tutelage.nn.compiled import compiled, open_graph
from tutelage.nn.packaging import calibrate
from tutelage.nn.self_distil import SelfDistillation, TrainingSet, self_distil
from tutelage.nn.students import Floats, Recogniser, Student, save_weights
from tutelage.package import StudentPackage, read_package

SEED = 83
PERSONS, REFERENCES, PROBES, STRANGERS = 16, 3, 24, 300
LEARNT = 6
"""Captures of each person that a generation learns from; half of the others choose thresholds, half measure."""
MANY = 10_000
WARM_UP = 10
"""Calls of each way in a repeat that are not counted."""
PAUSES_S = (0.25, 0.45)
"""Seconds between people who come one by one: long enough that a worker goes on in between."""
WANTED = {
    "end_to_end_ratio_most": 0.7,
    "persons_added_ms_most": 1.0,
    "early_exit_saves_least": 0.3,
    "training_p99_ratio_most": 1.1,
}

Call = Callable[[int], object]
"""Answers capture number i; kept are the seconds it takes."""


@dataclass(frozen=True)
class Ground:
    """A device's persons, students and captures."""

    models: Models
    package: StudentPackage
    site: Site
    enrolled: Enrolled

    @staticmethod
    def of(seed: int) -> Ground:
        models = shipped()
        size = SiteSize(PERSONS, REFERENCES, PROBES, STRANGERS, wear=0.5)
        site = synthetic_site(seed, 0, size, models.impostors)
        references = list(zip(site.references.persons, site.references.captures, strict=True))
        package = read_package(models.release.package, trusted=[models.release.trusted])
        return Ground(models, package, site, Enrolled.of(references, models.student.spec.side))

    @property
    def captures(self) -> Sequence[Pixels]:
        return self.site.probes_new.captures

    def taught(self) -> TrainingSet:
        """What a device on the worn sensor learns from."""
        rows = self.rows(self.site.probes_worn, range(LEARNT))
        labelled = [Labelled(c, p, taught=True) for p, c in zip(rows.persons, rows.captures, strict=True)]
        return training_set(labelled, self.enrolled.against(self.models.impostors.negatives), LearningRules())

    def rows(self, taken: Taken, wanted: range) -> Taken:
        """Captures number `wanted` of each person."""
        pairs = enumerate(zip(taken.persons, taken.captures, strict=True))
        return Taken.of(pair for i, pair in pairs if i % PROBES in wanted)


def timed(call: Call, calls: int, first: int) -> list[float]:
    """Seconds of each of `calls` calls, after some that are not counted."""
    found = []
    for i in range(first, first + WARM_UP + calls):
        started = time.perf_counter()
        call(i)
        found.append(time.perf_counter() - started)
    return found[WARM_UP:]


def rounds(ways: dict[str, Call], repeats: int, calls: int) -> dict[str, list[list[float]]]:
    """Seconds of the calls of every way, one list a repeat; the ways take turns in a changing order."""
    found: dict[str, list[list[float]]] = {name: [] for name in ways}
    for repeat in range(repeats):
        for place in np.random.default_rng([SEED, repeat]).permutation(len(ways)):
            name = list(ways)[place]
            found[name].append(timed(ways[name], calls, repeat * calls))
    return found


def latency(repeats: Sequence[Sequence[float]]) -> dict[str, float]:
    """Milliseconds over all repeats."""
    every = 1e3 * np.concatenate([np.asarray(seconds) for seconds in repeats])
    p50, p99 = np.percentile(every, [50, 99])
    return {"mean_ms": float(every.mean()), "p50_ms": float(p50), "p99_ms": float(p99), "calls": every.size}


def spread(values: Sequence[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": list(values)}


def ratio(own: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Means of the same repeats, one over the other."""
    return spread([statistics.fmean(a) / statistics.fmean(b) for a, b in zip(own, other, strict=True)])


def over(model: RunningModel | EarlyExit, captures: Sequence[Pixels]) -> Call:
    """Answers `captures`, again and again."""
    return lambda i: model.recognise(captures[i % len(captures)])


class LastExit(torch.nn.Module):
    """A student's last exit, for torch's exporter."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.student(inputs)[-1]
        return found


def exported(student: Student) -> bytes:
    """The student as torch exports it, read out at its last exit."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    inputs = torch.zeros(1, 1, student.spec.side, student.spec.side)
    program = torch.onnx.export(
        LastExit(copy.deepcopy(student)).eval(), (inputs,), dynamo=True, verbose=False, input_names=["inputs"]
    )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


@dataclass(frozen=True)
class ExportedRecogniser(Recogniser):
    """Recognises by torch's export."""

    session: Any

    def features(self, inputs: Floats, batch: int = 1) -> Features:
        assert batch == 1
        rows = [self.session.run(None, {"inputs": inputs[i : i + 1]})[0] for i in range(len(inputs))]
        return Features(np.concatenate(rows), self.space)


def ways(ground: Ground, model: RunningModel, graph: bytes) -> dict[str, Call]:
    """Everything that answers, by name."""
    captures, student = ground.captures, model.recogniser.student
    inputs = [to_input([capture]) for capture in captures]
    tensors = [torch.from_numpy(one) for one in inputs]
    files = [encode_png(capture) for capture in captures]
    parts = student, model.recogniser.readout, model.recogniser.space
    eager = replace(model, recogniser=Recogniser(*parts))
    other = replace(model, recogniser=ExportedRecogniser(*parts, open_graph(graph)))
    count = len(captures)

    def bare(i: int) -> object:
        with torch.inference_mode():
            return student(tensors[i % count])

    return {
        "forward, ours": lambda i: model.recogniser.features(inputs[i % count]),
        "forward, eager": bare,
        "forward, exported": lambda i: other.recogniser.features(inputs[i % count]),
        "end to end, ours": over(model, captures),
        "end to end, eager": over(eager, captures),
        "end to end, exported": over(other, captures),
        "from the PNG, ours": lambda i: model.recognise(decode_png(files[i % count])),
    }


def measured_ways(found: dict[str, list[list[float]]]) -> dict[str, Any]:
    """Latencies, and what ours is of the others."""
    pairs = [
        ("forward, ours", "forward, eager"),
        ("forward, ours", "forward, exported"),
        ("end to end, ours", "end to end, eager"),
        ("end to end, ours", "end to end, exported"),
        ("end to end, ours", "forward, eager"),
    ]
    ratios = {f"{own} / {other}": ratio(found[own], found[other]) for own, other in pairs}
    return {"latency": {name: latency(seconds) for name, seconds in found.items()}, "ratios": ratios}


def crowded(model: RunningModel, each: int) -> RunningModel:
    """`model` with `MANY` more persons of `each` made-up references."""
    own = model.gallery.features
    drawn = np.random.default_rng(SEED).standard_normal((MANY * each, own.vectors.shape[1])).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    names = (f"stranger-{i // each:05d}" for i in range(MANY * each))
    features = Features.concat([own, Features(drawn, own.space)])
    return replace(model, gallery=Gallery((*model.gallery.persons, *names), features))


def persons(model: RunningModel, ground: Ground, repeats: int, calls: int) -> dict[str, Any]:
    """Milliseconds that `MANY` persons add to an answer, by references each."""
    captures = ground.captures
    crowds = {each: crowded(model, each) for each in (1, 3)}
    found = rounds(
        {"few": over(model, captures), **{str(each): over(crowd, captures) for each, crowd in crowds.items()}},
        repeats,
        calls,
    )
    few = [statistics.fmean(seconds) for seconds in found["few"]]
    return {
        str(each): {
            **latency(found[str(each)]),
            "added_ms": spread([1e3 * (statistics.fmean(s) - f) for s, f in zip(found[str(each)], few, strict=True)]),
        }
        for each in crowds
    }


def swap(ground: Ground, repeats: int) -> tuple[dict[str, Any], bytes]:
    """Seconds of a swap, of compiling in it, and of torch's exporter; and what the last gave."""
    found: dict[str, list[float]] = {"whole": [], "compiling": [], "exporter": []}
    graph = b""
    for _ in range(repeats):
        started = time.perf_counter()
        model = RunningModel.of(ground.package, ground.enrolled, DecisionRule())
        found["whole"].append(time.perf_counter() - started)
        started = time.perf_counter()
        compiled(Recogniser.of_package(ground.package))
        found["compiling"].append(time.perf_counter() - started)
        started = time.perf_counter()
        graph = exported(model.recogniser.student)
        found["exporter"].append(time.perf_counter() - started)
    return {name: spread(seconds) for name, seconds in found.items()}, graph


def model_of(student: Student, ground: Ground, name: str) -> RunningModel:
    """`student` at work for the ground's persons, calibrated as in a package."""
    recogniser = compiled(Recogniser.of(student, ground.package.info.readout))
    unseen = ground.models.impostors.unseen
    calibration = calibrate(recogniser.features(to_input(unseen.captures)), unseen.persons)
    gallery = Gallery(ground.enrolled.persons, recogniser.features(ground.enrolled.inputs))
    return RunningModel(name, "", recogniser, calibration, gallery, DecisionRule())


def early_exits(ground: Ground, student: Student, name: str, repeats: int, calls: int) -> list[dict[str, Any]]:
    """Each early exit of one student, on captures of a new and of the worn sensor that nobody has seen."""
    model, site, rows = model_of(student, ground, name), ground.site, []
    middle = LEARNT + (PROBES - LEARNT) // 2
    chooses, measures = range(LEARNT, middle), range(middle, PROBES)
    held_back = Taken.of(
        pair
        for taken in (site.probes_new, site.probes_worn)
        for pair in zip(*(getattr(ground.rows(taken, chooses), part) for part in ("persons", "captures")), strict=True)
    )
    half = STRANGERS // 2
    choosing = [*site.strangers_new.captures[:half], *site.strangers_worn.captures[:half]]
    for readout in ("exit1", "exit2", "exit3"):
        never = EarlyExit.of(model, readout, ground.enrolled, ground.models.impostors)
        cascade = never.believed_from(held_back, choosing)
        for sensor, taken, strange in (
            ("new", site.probes_new, site.strangers_new),
            ("worn", site.probes_worn, site.strangers_worn),
        ):
            probes = ground.rows(taken, measures)
            answered = Answered.of(cascade, probes, strange.captures[half:], SampleRules())
            seconds = rounds(
                {"early": over(cascade, probes.captures), "full": over(model, probes.captures)}, repeats, calls
            )
            rows.append(
                {
                    "student": name,
                    "sensor": sensor,
                    "exit": readout,
                    "believed_from": cascade.accept_score,
                    **asdict(answered),
                    "captures": len(probes),
                    "strangers_measured": len(strange.captures[half:]),
                    "latency": {way: latency(found) for way, found in seconds.items()},
                    "ratio": ratio(seconds["early"], seconds["full"]),
                }
            )
    return rows


def generation(ground: Ground) -> Student:
    """The released student after one self-distillation with a device's default settings."""
    student = copy.deepcopy(ground.models.student)
    self_distil(student, ground.taught(), SelfDistillation(seed=SEED))
    return student.eval()


def one_by_one(model: RunningModel, ground: Ground, activity: Activity, calls: int, seed: int) -> list[float]:
    """Seconds of answers to people who come after pauses."""
    rng, found = np.random.default_rng(seed), []
    for i in range(calls):
        time.sleep(float(rng.uniform(*PAUSES_S)))
        started = time.perf_counter()
        with activity.busy():
            model.recognise(ground.captures[i % len(ground.captures)])
        found.append(time.perf_counter() - started)
    return found


def beside_training(model: RunningModel, ground: Ground, repeats: int, calls: int) -> dict[str, Any]:
    """Answers with no worker, with one that gives way, and with one that is only of the lowest priority."""
    student = ground.models.student
    settings = SelfDistillation(steps=100_000)
    job = TrainingJob(
        Descent("v1+1", "sha256:" + "0" * 64, 1),
        student.spec,
        save_weights(student),
        ground.taught(),
        settings,
        1,
        2**40,
    )
    found: dict[str, list[list[float]]] = {"idle": [], "gives way": [], "lowest priority": []}
    budget = Budget(seconds=3600.0, memory_bytes=2**40)
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            for place in np.random.default_rng([SEED, 1, repeat]).permutation(len(found)):
                name, activity = list(found)[place], Activity()
                training = Training.prepare(Path(folder) / "job", job, os.urandom(32), budget)
                if name != "idle":
                    training.start(activity if name == "gives way" else None)
                    while training.last.get("step", 0) < 2:
                        time.sleep(0.1)
                found[name].append(one_by_one(model, ground, activity, calls, repeat))
                if name != "idle" and not training.running():
                    raise SystemExit("the worker ended before it was measured beside")
                training.kill()
    idle = latency(found["idle"])
    return {
        name: {
            **latency(seconds),
            "p99_ratio": latency(seconds)["p99_ms"] / idle["p99_ms"],
            "mean_ratio": ratio(seconds, found["idle"]),
        }
        for name, seconds in found.items()
    }


def show(document: dict[str, Any]) -> None:
    console = Console(width=120)
    table = Table("way", "mean ms", "p50", "p99", title=f"load average {document['load']['before'][0]:.1f} before")
    for name, found in document["ways"]["latency"].items():
        table.add_row(name, *(f"{found[key]:.2f}" for key in ("mean_ms", "p50_ms", "p99_ms")))
    console.print(table)
    for name, found in document["ways"]["ratios"].items():
        console.print(f"{name}: {_cell(found)}")
    for each, found in document["persons"].items():
        console.print(f"{MANY} persons of {each}: adds {_cell(found['added_ms'])} ms")
    for name, found in document["swap"].items():
        console.print(f"swap, {name}: {_cell(found)} s")
    table = Table("student", "sensor", "exit", "from", "early", "TAR", "alone", "strangers", "alone", "lost", "time")
    for row in document["early_exit"]:
        shares = (
            f"{row[key]:.3f}" for key in ("early", "tar", "tar_alone", "strangers", "strangers_alone", "first_lost")
        )
        table.add_row(
            row["student"], row["sensor"], row["exit"], f"{row['believed_from']:.1f}", *shares, _cell(row["ratio"])
        )
    console.print(table)
    for name, found in document["training"].items():
        console.print(
            f"{name}: p99 {found['p99_ms']:.2f} ms, ratio {found['p99_ratio']:.2f}, mean {_cell(found['mean_ratio'])}"
        )


def _cell(found: dict[str, Any]) -> str:
    return f"{found['median']:.2f} ({found['min']:.2f} to {found['max']:.2f})"


def measure(repeats: int, calls: int) -> dict[str, Any]:
    """Everything, in one document."""
    ground = Ground.of(SEED)
    swapped, graph = swap(ground, 3)
    model = RunningModel.of(ground.package, ground.enrolled, DecisionRule())
    measured = measured_ways(rounds(ways(ground, model, graph), repeats, calls))
    crowd = persons(model, ground, repeats, calls)
    early = [
        row
        for student, name in ((ground.models.student, "released"), (generation(ground), "a generation"))
        for row in early_exits(ground, student, name, repeats, calls)
    ]
    training = beside_training(model, ground, repeats, calls)
    return {"ways": measured, "persons": crowd, "swap": swapped, "early_exit": early, "training": training}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--calls", type=int, default=100, help="counted calls of each way in a repeat (default 100)")
    words = parser.parse_args()
    if min(words.repeats, words.calls) < 1:
        parser.error("--repeats and --calls must be at least 1")
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    before = os.getloadavg()
    document = {
        "benchmark": "recognition",
        "made": asdict(made([SEED], datetime.now(UTC).isoformat(timespec="seconds"))),
        "versions": {name: version(name) for name in ("onnxruntime", "onnx", "numpy", "torch")},
        "load": {"before": before, "meaning": "1, 5 and 15 minutes"},
        "settings": {
            "persons": PERSONS,
            "references_a_person": REFERENCES,
            "repeats": words.repeats,
            "calls": words.calls,
            "many_persons": MANY,
            "pauses_s": PAUSES_S,
        },
        "wanted": WANTED,
        **measure(words.repeats, words.calls),
    }
    document["load"]["after"] = os.getloadavg()
    show(document)
    if words.json:
        words.json.parent.mkdir(parents=True, exist_ok=True)
        words.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
