"""What a result comes to, in sentences made from its numbers alone.

The sentences are as ready to say that self-distillation did not help, or that nothing was measured, as they are to say
that it did: they are what most readers will take away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from device_sim.results import FROZEN, SELF_DISTILLED, TEACHER, Result, Verdict
from device_sim.wording import coarse_percent, percent, plural

WORTH_SAYING = 0.005
"""Differences of rates below half a point are called none: no simulation here has attempts enough to tell them."""


def headline(result: Result) -> str:
    """One sentence on what drift cost and what self-distillation gave back."""
    frozen, live = result.row(FROZEN), result.row(SELF_DISTILLED)
    if frozen is None or live is None:
        return "Whether self-distillation helped was not measured: the table lacks a student."
    began, worn, ended = frozen.before.fnmr, frozen.after.fnmr, live.after.fnmr
    if began is None or worn is None or ended is None:
        return "Whether self-distillation helped was not measured: misses are missing from the table."
    return f"{_cost(began, worn)}; {_gain(began, worn, ended)}."


def findings(result: Result) -> tuple[str, ...]:
    """Further sentences, from rank-1 to trainings; what was not measured is not spoken of."""
    return (*_rank1(result), *_strangers(result), *_teacher(result), *_labels(result), _trainings(result))


def _cost(began: float, worn: float) -> str:
    if worn - began >= WORTH_SAYING:
        return f"Drift raised the frozen student's misses from {percent(began)} to {percent(worn)}"
    if began - worn >= WORTH_SAYING:
        return f"The frozen student's misses fell from {percent(began)} to {percent(worn)} in spite of the drift"
    return f"Drift cost the frozen student nothing: its misses were {percent(began)} before and {percent(worn)} after"


def _gain(began: float, worn: float, ended: float) -> str:
    gained, lost = worn - ended, worn - began
    if gained <= -WORTH_SAYING:
        return f"self-distillation did not help but harmed: {percent(ended)} with it"
    if gained < WORTH_SAYING:
        return f"self-distillation did not help: {percent(ended)} with it"
    back = f"self-distillation on the devices brought them down to {percent(ended)}"
    if lost < WORTH_SAYING:
        return back
    if abs(ended - began) < WORTH_SAYING:
        return f"{back}, where they began"
    if ended < began:
        return f"{back}, below where they began"
    return f"{back}, which is {coarse_percent(gained / lost)} of what was lost"


def _rank1(result: Result) -> Iterator[str]:
    frozen, live = result.row(FROZEN), result.row(SELF_DISTILLED)
    if frozen and live and frozen.after.rank1 is not None and live.after.rank1 is not None:
        yield (
            f"After the drift the nearest person is the right one in {percent(frozen.after.rank1)} of attempts with "
            f"the frozen student and in {percent(live.after.rank1)} with the self-distilled one."
        )


def _strangers(result: Result) -> Iterator[str]:
    frozen, live = result.row(FROZEN), result.row(SELF_DISTILLED)
    if not frozen or not live or frozen.before.strangers is None or live.after.strangers is None:
        return
    was, now = frozen.before.strangers, live.after.strangers
    judged = "no more than" if now <= was else "MORE than"
    after = "" if frozen.after.strangers is None else f" and {percent(frozen.after.strangers)} after it"
    yield (
        f"Strangers are accepted in {percent(now)} of their attempts after self-distillation, {judged} by the frozen "
        f"student: {percent(was)} before the drift{after}."
    )


def _teacher(result: Result) -> Iterator[str]:
    teacher = result.row(TEACHER)
    if teacher and teacher.after.fnmr is not None:
        yield f"The teacher itself misses {percent(teacher.after.fnmr)} after the drift."


def _labels(result: Result) -> Iterator[str]:
    labels = result.labels
    if not labels.asked:
        yield "The teacher was never asked for a label."
        return
    right = "" if labels.precision is None else f"; {percent(labels.precision)} of the stored labels are right"
    yield (
        f"Asked for {plural(labels.asked, 'label')}, the teacher named a person {plural(labels.stored, 'time')} "
        f"and abstained {plural(labels.abstained, 'time')}{right}."
    )


def _trainings(result: Result) -> str:
    if not result.trainings:
        return "No training ran."
    verdicts = Counter(training.verdict for training in result.trainings)
    said: dict[Verdict, str] = {"passed": "passed the gate", "failed": "failed it", "killed": "ended before it"}
    parts = [f"{verdicts[verdict]} {words}" for verdict, words in said.items()]
    return f"Of {plural(len(result.trainings), 'training')} on the devices {', '.join(parts)}."
