"""Runs of the comparison over seeds, and what they show together: mean, spread and paired tests.

A *case* is a method with a share of wrong labels and with the sample rules on or off. All cases of a seed share one
site, one stream and one set of teacher's answers, so that differences between cases are paired by seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from device_sim.evaluation.measure import SiteInputs
from device_sim.evaluation.methods import METHODS, Comparison
from device_sim.evaluation.selection import Played, Selection, perfect, play, select
from device_sim.learning import LearningRules
from device_sim.recognition import Enrolled, RunningModel
from device_sim.sampling import SampleRules
from device_sim.site import Site
from tutelage.biometrics.error_rates import paired_test
from tutelage.biometrics.matching import DecisionRule, Gallery
from tutelage.labelling import AbstentionPolicy, GalleryLabeller, LabelAnswer, Teacher
from tutelage.nn.packaging import calibrate
from tutelage.nn.self_distil import SelfDistillation
from tutelage.nn.students import Recogniser, Student


@dataclass(frozen=True)
class Case:
    """One cell of the comparison."""

    method: str
    wrong: float = 0.0
    """Share of labels made wrong."""
    rules: bool = True
    """Sample rules, abstention and the check of plausibility on, or all off."""
    oracle: bool = False
    """Perfect labels instead of the teacher's."""
    learning: LearningRules | None = None
    """How labels are used; None as in the other cases."""
    negatives: bool = True
    """Whether the student is trained against the impostor set's negatives."""
    margin: float | None = None
    """Least lead of a teacher's label as a multiple of that of the ground's policy, at any cosine; None for the policy
    as it is."""
    title: str = ""
    """For tables and files; empty for one made of the method, the labels and the rules."""

    @property
    def name(self) -> str:
        """For tables and files."""
        if self.title:
            return self.title
        labels = "perfect labels" if self.oracle else f"{self.wrong:.0%} wrong"
        return f"{self.method}, {labels}, rules {'on' if self.rules else 'off'}"


@dataclass(frozen=True)
class Ground:
    """What every seed is measured on."""

    site: Site
    student: Student
    teacher: Teacher
    policy: AbstentionPolicy
    readout: str = "exit4"
    """What recognises while the stream is played."""


def cases(methods: Sequence[str], wrong: Sequence[float], *, rules: Sequence[bool] = (True, False)) -> list[Case]:
    """All cells for `methods`; those that do not learn appear once, perfect labels once for each that learns."""
    found = [Case("frozen")] if "frozen" in methods else []
    for method in methods:
        if method != "frozen":
            found += [Case(method, w, r) for r in rules for w in wrong]
    return found + [Case(m, oracle=True) for m in methods if m in ("classify", "patent")]


def run_seed(
    seed: int,
    make_ground: Callable[[int], Ground],
    wanted: Sequence[Case],
    settings: SelfDistillation,
    learning: LearningRules,
) -> list[dict[str, Any]]:
    """All `wanted` cases on the ground of one seed, one row each; computes with one thread."""
    torch.set_num_threads(1)
    ground = make_ground(seed)
    side = ground.student.spec.side
    comparison = Comparison(ground.site, SiteInputs.of(ground.site, side), ground.student, settings, learning)
    model = frozen_model(ground, comparison.inputs)
    streams = {on: play(ground.site, model, SampleRules() if on else None) for on in {case.rules for case in wanted}}
    answers = {c: _answers(ground, streams[c[0]], *c) for c in {(case.rules, case.margin) for case in wanted}}
    rows = []
    for case in wanted:
        played, rules = streams[case.rules], case.learning or learning
        rng = np.random.default_rng([seed, 14, round(1000 * case.wrong)])
        told = answers[case.rules, case.margin]
        selection = select(played, told, model, rules, wrong=case.wrong, checked=case.rules, rng=rng)
        samples = perfect(played, rules) if case.oracle else [o.labelled for o in selection.kept]
        found = replace(comparison, learning=rules, negatives=case.negatives).run(case.method, samples, seed)
        rates = {state: {r: v.as_json() for r, v in by.items()} for state, by in found.items()}
        rows.append(
            {"seed": seed, "case": asdict(case), "name": case.name, "rates": rates, **_account(selection, played, told)}
        )
    return rows


def frozen_model(ground: Ground, inputs: SiteInputs) -> RunningModel:
    """The student as it was released, calibrated and with the site's persons enrolled."""
    recogniser = Recogniser.of(ground.student, ground.readout)
    enrolled = Enrolled(ground.site.references.persons, inputs.references)
    return RunningModel(
        "v1",
        "",
        recogniser,
        calibrate(recogniser.features(inputs.impostors), ground.site.impostors.unseen.persons),
        Gallery(enrolled.persons, recogniser.features(enrolled.inputs)),
        DecisionRule(),
    )


def _answers(ground: Ground, played: Played, rules: bool, margin: float | None) -> list[LabelAnswer]:
    """The teacher's answers on the failures of a stream."""
    policy = ground.policy if rules else AbstentionPolicy(-1.0, 0.0, group=ground.policy.group)
    if margin is not None:
        policy = replace(policy, min_cosine=-1.0, min_margin=margin * ground.policy.min_margin)
    labeller = GalleryLabeller(ground.teacher, policy)
    references = ground.site.references
    for person in ground.site.persons:
        captures = [c for p, c in zip(references.persons, references.captures, strict=True) if p == person]
        labeller.enrol(person, captures)
    return labeller.label([captures for _, captures in played.attempts])


def _account(selection: Selection, played: Played, told: Sequence[LabelAnswer]) -> dict[str, Any]:
    """Numbers about labels and samples for a row."""
    named = [a.person == truth for (truth, _), a in zip(played.attempts, told, strict=True) if a.person is not None]
    return {
        "samples": len(selection.kept),
        "first": len(played.first),
        "asked": selection.asked,
        "abstained": selection.abstained,
        "quarantined": selection.quarantined,
        "precision": selection.precision,
        "coverage": len(named) / len(told) if told else None,
        "label_precision": float(np.mean(named)) if named else None,
    }


def run(
    seeds: Sequence[int],
    make_ground: Callable[[int], Ground],
    wanted: Sequence[Case],
    settings: SelfDistillation,
    learning: LearningRules,
    *,
    processes: int = 2,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> list[dict[str, Any]]:
    """Rows of all seeds, in the order of seeds and cases, computed by several processes."""
    found: dict[int, list[dict[str, Any]]] = {}
    # Not forked: a child that inherits an open gRPC channel waits for ever when it tidies that up.
    with ProcessPoolExecutor(min(processes, len(seeds)), mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(run_seed, s, make_ground, wanted, settings, learning): s for s in seeds}
        for job in as_completed(jobs):
            found[jobs[job]] = job.result()
            progress(len(found), len(seeds))
    return [row for seed in seeds for row in found[seed]]


def summarise(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """By case, state, readout and rate: mean, standard deviation and number of seeds."""
    values: dict[tuple[str, str, str, str], list[float]] = {}
    for row in rows:
        for state, by_readout in row["rates"].items():
            for readout, rates in by_readout.items():
                for rate, value in rates.items():
                    if value is not None:
                        values.setdefault((row["name"], state, readout, rate), []).append(value)
    table: dict[str, Any] = {}
    for (name, state, readout, rate), found in values.items():
        cell = {
            "mean": float(np.mean(found)),
            "sd": float(np.std(found, ddof=1)) if len(found) > 1 else 0.0,
            "n": len(found),
        }
        table.setdefault(name, {}).setdefault(state, {}).setdefault(readout, {})[rate] = cell
    return table


def against(
    rows: Sequence[Mapping[str, Any]],
    name: str,
    other: str,
    readout: str,
    *,
    rate: str = "tar_1e3",
    state: str = "worn",
) -> dict[str, Any]:
    """Paired test over seeds of case `name` minus case `other`."""

    def series(wanted: str) -> list[float]:
        return [row["rates"][state][readout][rate] for row in rows if row["name"] == wanted]

    return asdict(paired_test(series(name), series(other)))


__all__ = ["METHODS", "Case", "Ground", "against", "cases", "frozen_model", "run", "run_seed", "summarise"]
