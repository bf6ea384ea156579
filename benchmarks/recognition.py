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
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _early_exits import EarlyExits
from _recognition_ground import (
    PERSONS,
    REFERENCES,
    Ground,
    generation,
    over,
)
from _times import Call, Times, means, rounds, spread
from rich.console import Console
from rich.table import Table

from device_sim.activity import Activity
from device_sim.job import Descent, TrainingJob
from device_sim.provenance import made
from device_sim.recognition import RunningModel
from device_sim.training import Budget, Training
from tutelage.biometrics.features import Features
from tutelage.biometrics.matching import DecisionRule
from tutelage.captures import decode_png, encode_png, to_input
from tutelage.nn.compiled import compiled, open_graph
from tutelage.nn.self_distil import SelfDistillation
from tutelage.nn.students import Floats, Recogniser, Student, save_weights

SEED = 83
MANY = 10_000
PAUSES_S = (0.25, 0.45)
"""Seconds between people who come one by one: long enough that a worker goes on in between."""
WANTED = {
    "end_to_end_ratio_most": 0.7,
    "persons_added_ms_most": 1.0,
    "early_exit_saves_least": 0.3,
    "training_p99_ratio_most": 1.1,
}


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


def measured_ways(found: dict[str, Times]) -> dict[str, Any]:
    """Latencies, and what ours is of the others."""
    pairs = [
        ("forward, ours", "forward, eager"),
        ("forward, ours", "forward, exported"),
        ("end to end, ours", "end to end, eager"),
        ("end to end, ours", "end to end, exported"),
        ("end to end, ours", "forward, eager"),
    ]
    ratios = {f"{own} / {other}": found[own].over(found[other]) for own, other in pairs}
    return {"latency": {name: times.latency() for name, times in found.items()}, "ratios": ratios}


def crowded(model: RunningModel, each: int) -> RunningModel:
    """`model` with `MANY` more persons of `each` made-up references."""
    own = model.gallery.features
    drawn = np.random.default_rng(SEED).standard_normal((MANY * each, own.vectors.shape[1])).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    names = (f"stranger-{i // each:05d}" for i in range(MANY * each))
    features = Features.concat([own, Features(drawn, own.space)])
    return replace(model, gallery=replace(model.gallery, persons=(*model.gallery.persons, *names), features=features))


def persons(model: RunningModel, ground: Ground, repeats: int, calls: int) -> dict[str, Any]:
    """Milliseconds that `MANY` persons add to an answer, by references each."""
    captures = ground.captures
    crowds = {each: crowded(model, each) for each in (1, 3)}
    found = rounds(
        {"few": over(model, captures), **{str(each): over(crowd, captures) for each, crowd in crowds.items()}},
        repeats,
        calls,
        SEED,
    )
    return {
        str(each): {**found[str(each)].latency(), "added_ms": found[str(each)].more_than(found["few"])}
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


def coming(model: RunningModel, ground: Ground, activity: Activity, seed: int) -> tuple[Call, Call]:
    """Somebody comes after a pause; and is answered."""
    rng = np.random.default_rng(seed)

    def answer(i: int) -> object:
        with activity.busy():
            return model.recognise(ground.captures[i % len(ground.captures)])

    return lambda _: time.sleep(float(rng.uniform(*PAUSES_S))), answer


def one_by_one(pause: Call, answer: Call, calls: int) -> list[float]:
    """Seconds of answers to people who come one by one."""
    found = []
    for i in range(calls):
        pause(i)
        started = time.perf_counter()
        answer(i)
        found.append(time.perf_counter() - started)
    return found


def endless(ground: Ground) -> TrainingJob:
    """A training that outlasts all that is measured beside it."""
    student = ground.models.student
    descent, settings = Descent("v1+1", "sha256:" + "0" * 64, 1), SelfDistillation(steps=100_000)
    return TrainingJob(descent, student.spec, save_weights(student), ground.taught(), settings, 1, 2**40)


def beside_training(model: RunningModel, ground: Ground, repeats: int, calls: int) -> dict[str, Any]:
    """Answers with no worker, with one that gives way, and with one that is only of the lowest priority."""
    job, budget = endless(ground), Budget(seconds=3600.0, memory_bytes=2**40)
    found: dict[str, list[list[float]]] = {"idle": [], "gives way": [], "lowest priority": []}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            for place in np.random.default_rng([SEED, 1, repeat]).permutation(len(found)):
                name, activity = list(found)[place], Activity()
                training = Training.prepare(Path(folder) / "job", job, os.urandom(32), budget)
                if name != "idle":
                    training.start(activity if name == "gives way" else None)
                    while training.last.get("step", 0) < 2:
                        time.sleep(0.1)
                found[name].append(one_by_one(*coming(model, ground, activity, repeat), calls))
                if name != "idle" and not training.running():
                    raise SystemExit("the worker ended before it was measured beside")
                training.kill()
    return {name: beside(seconds, found["idle"]) for name, seconds in found.items()}


def beside(seconds: list[list[float]], idle: list[list[float]]) -> dict[str, Any]:
    """Milliseconds, and ratios to those without a worker: p99 over all, means by repeat."""
    own, alone = (np.concatenate([np.asarray(repeat) for repeat in found]) for found in (seconds, idle))
    p50, p99 = np.percentile(own, [50, 99])
    return {
        "mean_ms": 1e3 * float(own.mean()),
        "p50_ms": 1e3 * float(p50),
        "p99_ms": 1e3 * float(p99),
        "calls": own.size,
        "p99_ratio": float(p99 / np.percentile(alone, 99)),
        "mean_ratio": spread([a / b for a, b in zip(means(seconds), means(idle), strict=True)]),
    }


def show(document: dict[str, Any]) -> None:
    console = Console(width=150)
    table = Table(title=f"load average {document['load']['before'][0]:.1f} before")
    for heading in ("way", "mean ms", "p50", "p99", "processor"):
        table.add_column(heading)
    for name, found in document["ways"]["latency"].items():
        table.add_row(name, *(f"{found[key]:.2f}" for key in ("mean_ms", "p50_ms", "p99_ms", "processor_ms")))
    console.print(table)
    for name, found in document["ways"]["ratios"].items():
        console.print(f"{name}: {_cell(found['wall'])}, of processor time {_cell(found['processor'])}")
    for each, found in document["persons"].items():
        added = found["added_ms"]
        console.print(
            f"{MANY} persons of {each}: adds {_cell(added['wall'])} ms, processor {_cell(added['processor'])}"
        )
    for name, found in document["swap"].items():
        console.print(f"swap, {name}: {_cell(found)} s")
    show_early(console, document["early_exit"])
    for name, found in document["training"].items():
        console.print(
            f"{name}: p50 {found['p50_ms']:.2f}, p99 {found['p99_ms']:.2f} ms, {found['p99_ratio']:.2f} of idle; "
            f"mean {_cell(found['mean_ratio'])} of idle"
        )


def show_early(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    shares = ("early", "tar", "tar_alone", "strangers", "strangers_alone", "first_lost")
    table = Table()
    for heading in ("student", "sensor", "exit", "from", *shares, "time", "everybody", "nobody"):
        table.add_column(heading.replace("_", " "))
    for row in rows:
        times = (f"{row['ratios'][way]['processor']['median']:.2f}" for way in ("early", "everybody", "nobody"))
        named = (row["student"], row["sensor"], row["exit"], f"{row['believed_from']:.1f}")
        table.add_row(*named, *(f"{row[key]:.3f}" for key in shares), *times)
    console.print(table)


def _cell(found: dict[str, Any]) -> str:
    return f"{found['median']:.2f} ({found['min']:.2f} to {found['max']:.2f})"


def measure(repeats: int, calls: int) -> dict[str, Any]:
    """Everything, in one document."""
    ground = Ground.of(SEED)
    swapped, graph = swap(ground, 3)
    model = RunningModel.of(ground.package, ground.enrolled, DecisionRule())
    measured = measured_ways(rounds(ways(ground, model, graph), repeats, calls, SEED))
    crowd = persons(model, ground, repeats, calls)
    early = [
        row
        for student, name in ((ground.models.student, "released"), (generation(ground, SEED), "a generation"))
        for row in EarlyExits.of(ground, student, name).rows(repeats, calls, SEED)
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
