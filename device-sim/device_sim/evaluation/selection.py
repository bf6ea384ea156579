"""What a device would have kept of a site's stream, and with which labels.

The stream is played against the frozen student: with the sample rules on, exactly as a device samples it; with the
rules off, everything is kept and every failure is labelled by the teacher's first choice. A share of the labels can
then be made wrong, to see what the protection is worth. Recognition does not change while a stream is played, so that
all methods learn from the same captures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from device_sim.learning import Labelled, LearningRules, plausible
from device_sim.recognition import Recognition, RunningModel
from device_sim.sampling import Kind, Observation, Sampler, SampleRules
from device_sim.site import STRANGER, Attempt, Site
from tutelage.biometrics.matching import Decision
from tutelage.captures import Pixels
from tutelage.labelling import LabelAnswer

SECONDS_BETWEEN = 3.0


@dataclass(frozen=True)
class Offered:
    """One candidate for learning: its capture, its label, and who it really was."""

    labelled: Labelled
    truth: str


@dataclass(frozen=True)
class Selection:
    """What is learnt from, and what became of the rest."""

    kept: tuple[Offered, ...]
    offered: int
    """Labels offered before plausibility was checked."""
    asked: int
    """Attempts the teacher was asked about."""
    abstained: int
    quarantined: int

    @property
    def precision(self) -> float | None:
        """Share of the kept labels that are right; None where nothing was kept."""
        right = [o.truth == o.labelled.person for o in self.kept]
        return float(np.mean(right)) if right else None


@dataclass(frozen=True)
class Played:
    """A stream as the frozen student met it."""

    first: tuple[Offered, ...]
    """Accepted captures, labelled with the person matched."""
    attempts: tuple[tuple[str, tuple[Pixels, ...]], ...]
    """Failed attempts: who it was, and the captures, oldest first."""


def play(site: Site, model: RunningModel, rules: SampleRules | None) -> Played:
    """Meet the whole stream of `site`; without `rules` every acceptance and every failed attempt is kept."""
    met = _Meeting(Sampler(rules or SampleRules()), checked=rules is not None)
    for day in range(site.days):
        met.kept_today.clear()
        for turn, attempt in enumerate(site.attempts(day)):
            met.meet(attempt, model, day * 86_400.0 + turn * 60, f"{day}.{turn}")
    return Played(tuple(met.first), tuple(met.failed))


@dataclass
class _Meeting:
    """One device's day-to-day meeting with its stream."""

    sampler: Sampler
    checked: bool
    """Whether the sample rules decide; else everything is kept."""
    first: list[Offered] = field(default_factory=list)
    failed: list[tuple[str, tuple[Pixels, ...]]] = field(default_factory=list)
    kept_today: dict[str, int] = field(default_factory=dict)
    number: int = 0

    def meet(self, attempt: Attempt, model: RunningModel, time_s: float, name: str) -> None:
        """Let one person try, and keep what is to be kept."""
        captures, seen = _try(attempt, model, self.sampler.rules.retries)
        for k, (capture, answer) in enumerate(zip(captures, seen, strict=True)):
            kind = self._judge(answer, time_s + k * SECONDS_BETWEEN, name)
            if not self.checked:
                kind = _without_rules(answer, last=k == len(captures) - 1)
            person = answer.match.person or ""
            if kind is Kind.FIRST:
                self.kept_today[person] = self.kept_today.get(person, 0) + 1
                self.first.append(Offered(Labelled(capture, person), attempt.person))
            elif kind is Kind.SECOND:
                self.failed.append((attempt.person, tuple(captures)))

    def _judge(self, answer: Recognition, time_s: float, name: str) -> Kind:
        """The sample rules' verdict on one capture."""
        self.number += 1
        observation = Observation(
            id=self.number,
            time_s=time_s,
            attempt=name,
            person=answer.match.person,
            score=answer.score,
            extrapolated=answer.extrapolated,
            decision=answer.decision,
            reference_score=answer.score,
            kept_today=self.kept_today.get(answer.match.person or "", 0),
        )
        return self.sampler.observe(observation).kind


def _try(attempt: Attempt, model: RunningModel, retries: int) -> tuple[list[Pixels], list[Recognition]]:
    """Captures of one attempt until accepted or out of retries, and what the student said of each."""
    captures: list[Pixels] = []
    seen: list[Recognition] = []
    while len(captures) < retries and not (seen and seen[-1].decision is Decision.ACCEPT):
        captures.append(attempt.tries(len(captures)))
        seen.append(model.recognise(captures[-1]))
    return captures, seen


def _without_rules(answer: Recognition, *, last: bool) -> Kind:
    """Keep everything: acceptances at once, failures when the attempt is over."""
    if answer.decision is Decision.ACCEPT:
        return Kind.FIRST
    return Kind.SECOND if last else Kind.NOTHING


def select(
    played: Played,
    answers: Sequence[LabelAnswer],
    model: RunningModel,
    learning: LearningRules,
    *,
    wrong: float = 0.0,
    checked: bool = True,
    rng: np.random.Generator,
) -> Selection:
    """Label what was played.

    Args:
        played: the stream.
        answers: the teacher's answer on each failed attempt.
        model: the frozen student, which judges plausibility.
        learning: how labels are used.
        wrong: share of all labels that are replaced by another person's, 0..1.
        checked: whether implausible labels are quarantined.
        rng: decides which labels are made wrong.
    """
    offered = list(played.first)
    for (truth, captures), answer in zip(played.attempts, answers, strict=True):
        if answer.person is None:
            continue
        used = captures if learning.whole_attempts else captures[-1:]
        offered += [
            Offered(Labelled(c, answer.person, dict(answer.soft), answer.confidence, taught=True), truth) for c in used
        ]
    offered = _made_wrong(offered, sorted(set(model.gallery.persons)), wrong, rng)
    believed = (
        plausible(model, [o.labelled for o in offered], learning.plausible_rank) if checked else np.ones(len(offered))
    )
    kept = [o for o, ok in zip(offered, believed, strict=True) if ok]
    return Selection(
        kept=tuple(kept),
        offered=len(offered),
        asked=len(answers),
        abstained=sum(a.person is None for a in answers),
        quarantined=len(offered) - len(kept),
    )


def _made_wrong(
    offered: Sequence[Offered], persons: Sequence[str], share: float, rng: np.random.Generator
) -> list[Offered]:
    """Replace the label of a `share` of samples by another enrolled person, hard and soft alike."""
    changed = []
    for one in offered:
        if rng.random() < share:
            other = str(rng.choice([p for p in persons if p != one.labelled.person]))
            changed.append(replace(one, labelled=replace(one.labelled, person=other, soft={other: 1.0})))
        else:
            changed.append(one)
    return changed


def perfect(played: Played, learning: LearningRules) -> tuple[Labelled, ...]:
    """What would be learnt if an oracle labelled: every sample with its true person, strangers left out."""
    known = [o for o in played.first if o.truth != STRANGER]
    samples = [replace(o.labelled, person=o.truth) for o in known]
    for truth, captures in played.attempts:
        used = captures if learning.whole_attempts else captures[-1:]
        samples += [Labelled(c, truth, taught=True) for c in used if truth != STRANGER]
    return tuple(samples)
