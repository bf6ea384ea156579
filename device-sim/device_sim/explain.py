"""Why a sample was kept and what became of it, in plain words and from the record alone.

The decision is not only told but made again: the sample rules of that time are applied to the numbers of that time, and
the last line says whether they give the same answer.
"""

from __future__ import annotations

from datetime import UTC, datetime

from device_sim.records import DecisionRecord, Label, LabelSource, Sample, State
from device_sim.sampling import NO_NEIGHBOUR, Kind, Outcome, replay
from device_sim.store import Store

_STATES = {
    State.FRESH: "It is fresh: no training has seen it yet.",
    State.USED: "A training has learnt from it.",
    State.HELD_BACK: "It is held back from training, for the gate to judge with.",
    State.QUARANTINED: "It is quarantined: kept, but neither learnt from nor judged with.",
    State.DROPPED: "Its capture was dropped and cannot be restored.",
}


def explain_sample(store: Store, sample_id: int) -> list[str]:
    """Lines that say when and why a sample was kept, whose it is, who said so, and what became of it.

    Raises:
        UsageError: there is no such sample, or it is no longer kept.
        StorageError: `store-corrupt`, `storage-failed`.
    """
    sample = store.sample(sample_id)
    own, end = store.decision(sample.decision_id), store.decision(sample.attempt_end)
    return [
        f"Sample {sample.id} was captured on {_when(sample.time_s)} and kept as a {sample.kind.value} sample.",
        _recognised(own),
        *_ruled(sample, end),
        _limits(sample, end.outcome),
        _label(sample.label),
        *_fate(sample),
        _replayed(end),
    ]


def explain_decision(store: Store, decision_id: int) -> list[str]:
    """Lines that say what a capture was answered and why it was or was not kept.

    Raises:
        UsageError: there is no such decision, or it is no longer kept.
        StorageError: `store-corrupt`, `storage-failed`.
    """
    decision = store.decision(decision_id)
    outcome = decision.outcome
    kept = "Not kept" if outcome.kind is Kind.NOTHING else f"Kept as a {outcome.kind.value} sample"
    return [
        f"Decision {decision_id} was made on {_when(decision.observation.time_s)}.",
        _recognised(decision),
        f"{kept} by the rule {outcome.rule.value}: {outcome.reason}.",
        _replayed(decision),
    ]


def _recognised(decision: DecisionRecord) -> str:
    seen = decision.observation
    attempt = f" in attempt {seen.attempt}" if seen.attempt else ""
    where = f"Generation {decision.generation}" if decision.generation else f"Space {decision.space}"
    if seen.person is None:
        return f"{where} answered {seen.decision.value}{attempt}: nobody was enrolled."
    measured = "extrapolated beyond what was measured" if seen.extrapolated else "within what was measured"
    return (
        f"{where} answered {seen.decision.value}{attempt}: nearest was {seen.person} with cosine "
        f"{decision.cosine:.4f}, score {seen.score:.1f} ({measured})."
    )


def _ruled(sample: Sample, end: DecisionRecord) -> list[str]:
    rule = f"Rule {end.outcome.rule.value}: {end.outcome.reason}."
    if sample.kind is Kind.FIRST:
        return [rule]
    run = ", ".join(map(str, end.outcome.captures))
    return [rule, f"The captures of that failed attempt, all of one person, are those of decisions {run}."]


def _limits(sample: Sample, outcome: Outcome) -> str:
    numbers = outcome.numbers
    if sample.kind is Kind.SECOND:
        return f"Limits: {_of_day(numbers['second_today'], numbers['rules.second_per_day'])} second samples that day."
    nearest = numbers["duplicate_cosine"]
    neighbour = (
        f"the nearest kept sample had cosine {nearest:.4f}" if nearest > NO_NEIGHBOUR else "no kept sample was near"
    )
    return (
        f"Limits: {_of_day(numbers['kept_today'], numbers['rules.per_person_per_day'])} samples of the person that "
        f"day; {neighbour} (limit {numbers['rules.max_duplicate_cosine']:g}); score against the original references "
        f"{numbers['reference_score']:.1f} (limit {numbers['rules.sample_low']:g})."
    )


def _of_day(before: float, allowed: float) -> str:
    return f"{before:g} of {allowed:g} allowed"


def _label(label: Label | None) -> str:
    if label is None:
        return "Label: none yet; the teacher has not answered."
    if label.source is LabelSource.MATCHED:
        return f"Label: {label.person}, said by the device itself, which matched that person."
    reason = f": {label.answer['reason']}" if label.answer["reason"] else ""
    if label.source is LabelSource.ABSTAINED:
        return f"Label: none; the teacher of space {label.answer['space']} abstained{reason}."
    return (
        f"Label: {label.person}, said by the teacher of space {label.answer['space']} with confidence "
        f"{label.confidence:.2f} and margin {label.margin:.2f}{reason}."
    )


def _fate(sample: Sample) -> list[str]:
    lines = [_STATES[sample.state]]
    if sample.training_set is not None:
        lines.append(f"It belongs to training set {sample.training_set}.")
    if sample.note:
        lines.append(f"Reason given: {sample.note}.")
    return lines


def _replayed(decision: DecisionRecord) -> str:
    again, recorded = replay(decision.observation, decision.outcome), decision.outcome
    if _said(again) == _said(recorded):
        return "Made again from the recorded numbers, the rules give the same answer."
    return f"Made again from the recorded numbers, the rules say {again.rule.value}: the record was changed."


def _said(outcome: Outcome) -> tuple[object, ...]:
    return outcome.kind, outcome.rule, outcome.reason, outcome.captures


def _when(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
