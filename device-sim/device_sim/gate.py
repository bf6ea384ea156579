"""The gate: what a new generation must show before it may recognise anybody.

A candidate is judged against the running student on evidence that neither was trained on, references apart, at an
accept score fixed before training, each student in its own space by its own calibration. All checks must hold. A wrong
refusal costs one training, a wrong pass costs people who rely on the device, so in doubt a candidate is refused where
it could harm; but a check asks for no proof that so few captures cannot give.

**held-back**: misses not above the running student's. The comparison is paired, so only captures on which the two
differ count, and a single net loss is enough to refuse: there is no allowance for tiny counts, since a training that
gains nothing on samples chosen for being worth learning from is worth no swap. An exact test (McNemar 1947) would let
four net losses in a row pass (five give p = 0.03); it is reported, not decided by. What is not shown: with n samples
and none lost, up to 3 / n of such captures may still be lost (rule of 3, ISO/IEC 19795-1). And these samples were
*chosen by the running student*: second samples are its misses and can only be gained, first samples its acceptances
and can only be lost. So gains are overstated, and hold back from both kinds in the shares they occur.

**persons**: nobody clearly worse. A person with two samples cannot be told from chance by McNemar's test, whatever
happens, so losses are compared with `chance_loss`, the share of recognised captures that a sound change of students
may lose: an exact one-sided binomial test per person. By default 2 of 2, 3 of 6 or 4 of 10 lost are too many; one
lost capture never is. All persons are looked at, so `person_confidence` is per person and not for all of them. Captures
of one attempt resemble each other, here and above: where all of an attempt are held back, counts are less sure.

**references**: none that the running student recognises, compared with the person's other references, may be missed.
One that it misses already (a bad enrolment) does not block for ever, nor does one that falls short by no more than
`reference_slack`: of three dozen references one lies near the accept score, and any change of students moves it. By
default the slack is what a calibration is uncertain by at that score. It is not added up over generations, so a
reference may leave the accept score in small steps; the person is still held by the others and by what is held back. A
person's only reference has nothing to be compared with but other persons' references: those accepted as somebody else
may not become more.

**strangers**: captures of the sealed impostor set accepted as *any* enrolled person. The candidate's calibration is
fitted on this set too, but on comparisons of impostors with *each other*; here they meet the enrolled persons'
references, which that fit never sees and which training moved. A calibration cannot hide that strangers came nearer
to those; impostors that are unusual among themselves do affect both. The nominal rate of a capture that meets M
references is 1 - (1 - FMR)^M, 1.6 % for 16 references at score 30, or 2.5 acceptances in 160. To *prove* a rate not
above it would take hundreds of captures without any acceptance, so the check refuses what is *clearly* above: more
than the running student's exact upper bound (Clopper & Pearson 1934), or more than chance explains at the nominal
rate. The first alone would let the rate creep up from generation to generation, the second stops that; a candidate
with no more acceptances than the running student is never refused by the second. In the example 5 are allowed, or 3
where the running student accepted none: twice the nominal rate is refused in two of five cases, three times in four of
five, four times nearly always. Below that rate a chain of students could walk up, each within the bound of the one
before: so the upper bound of the *released version*, which all of them were made of, is a ceiling too: 3 where it
accepts none of 150, 8 at 3. Captures of one impostor resemble each other, which makes counts vary more than these
bounds assume: that errs towards refusing. Counts this small tell a rate from twice the rate by chance alone; what keeps
strangers out below these bounds is that a candidate's scores are lowered by what the nearest `anchor_share` of them
came nearer by (`trial`), before anything here is counted.

**strangers-near**: the same set at a score lower by 10, which ten times as many strangers reach: a general approach
shows there long before it shows at the accept score. The running student's bound and the released version's apply, for
a calibration is not exact enough (some 2.6 at score 30) to hold a rate of this size to its nominal value.

**other-persons**: held-back samples accepted as *another* enrolled person, judged like strangers: the only impostor
comparisons made with the sensor as it is today. A wrongly labelled sample counts against both students alike.

**latency**: the candidate's fastest recognition within `max_latency_ratio` of the running student's. Whatever else the
device does only ever adds time, so the fastest of some is what the student itself needs, also on a busy device.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from device_sim.evidence import Evidence, ScoredCapture
from tutelage.biometrics.error_rates import clopper_pearson
from tutelage.errors import UsageError

__all__ = ["Check", "Evidence", "GateRules", "ScoredCapture", "Verdict", "judge_gate"]


@dataclass(frozen=True)
class GateRules:
    """Thresholds of the gate, fixed before a training starts.

    Raises:
        UsageError: a field is out of its range.
    """

    accept_score: float = 30.0
    """Score at which a device accepts, -10·log10(FMR)."""
    confidence: float = 0.95
    """Of all bounds but those per person."""
    person_confidence: float = 0.975
    """Of the test per person; with 0.975 two of two captures lost are too many, one of one is not."""
    chance_loss: float = 0.1
    """Share of a person's recognised captures that a sound change of students may lose."""
    reference_slack: float = 2.6
    """Score by which a reference may fall short of the accept score before it counts as missed by the candidate. By
    default the standard deviation of a calibration at score 30 (`tutelage.biometrics.calibration`): there the false
    match rate is 1.8 in 1,000 instead of one."""
    anchor_share: float = 0.2
    """Share of strangers, the nearest, whose mean score may not lie above the released version's: where it does, the
    candidate's scores are lowered by as much before it is judged. 0: never."""
    max_latency_ratio: float = 1.1
    """Candidate's least latency over the running student's."""
    min_held_back: int = 5
    """Held-back samples: with fewer, a candidate that loses every second capture passes in more than 1 of 20 cases."""
    min_strangers: int = 30
    """Captures of strangers: none accepted of 30 bounds their rate at 10 % (rule of 3)."""
    nominal: bool = True
    """Whether scores claim a false match rate; a linear score does not, and strangers are then held to the running
    student's bound alone."""

    def __post_init__(self) -> None:
        """Refuse rules that no candidate or every candidate would pass."""
        shares = (self.confidence, self.person_confidence, self.chance_loss)
        if not all(0.0 < share < 1.0 for share in shares):
            raise UsageError(f"confidence, person_confidence and chance_loss lie between 0 and 1, got {shares}")
        if not (np.isfinite(self.accept_score) and self.max_latency_ratio > 0.0):
            raise UsageError("accept_score must be a number and max_latency_ratio above 0")
        if not 0.0 <= self.reference_slack <= 10.0:
            raise UsageError(
                f"reference_slack lies between 0 and 10, a tenth of the acceptances, got {self.reference_slack}"
            )
        if not 0.0 <= self.anchor_share <= 1.0:
            raise UsageError(f"anchor_share lies between 0 and 1, got {self.anchor_share}")
        if self.min_held_back < 1 or self.min_strangers < 1:
            raise UsageError("min_held_back and min_strangers must be 1 or more: without evidence nothing is judged")


@dataclass(frozen=True)
class Check:
    """One thing the gate looked at."""

    name: str
    """As in the list at the top of this module."""
    passed: bool
    reason: str
    """The finding in words; names nobody."""
    numbers: Mapping[str, float]
    """What the finding rests on."""


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a candidate, with everything needed to say it again."""

    passed: bool
    """Whether all checks hold."""
    checks: tuple[Check, ...]
    """In the order of the list at the top of this module."""
    rules: GateRules

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the candidate was refused; empty where it passed."""
        return tuple(f"{check.name}: {check.reason}" for check in self.checks if not check.passed)

    @property
    def numbers(self) -> dict[str, float]:
        """All numbers, for an event: `held-back` is 1 where that check holds, `held-back.lost` is a count."""
        told: dict[str, float] = {}
        for check in self.checks:
            told[check.name] = float(check.passed)
            told |= {f"{check.name}.{name}": value for name, value in check.numbers.items()}
        return told

    def lines(self) -> tuple[str, ...]:
        """The verdict for a person to read: the outcome, then a line a check."""
        marks = {True: "holds", False: "FAILS"}
        head = "passed the gate" if self.passed else "refused by the gate"
        return (head, *(f"{marks[check.passed]}  {check.name}: {check.reason}" for check in self.checks))


def judge_gate(
    running: Evidence, candidate: Evidence, rules: GateRules, *, released: Sequence[float] | None = None
) -> Verdict:
    """Whether `candidate` may replace `running`.

    Args:
        running: Of the student at work.
        candidate: Of the one that wants to replace it.
        rules: Thresholds.
        released: Scores of the same strangers by the released version that both were made of; None: no ceiling.

    Raises:
        UsageError: the two were not measured on the same captures, or one has no latency.
    """
    _check_paired(running, candidate, released)
    checks = (
        _held_back(running, candidate, rules),
        _persons(running, candidate, rules),
        _references(running, candidate, rules),
        _strangers(running, candidate, rules, released),
        _strangers_near(running, candidate, rules, released),
        _other_persons(running, candidate, rules),
        _latency(running, candidate, rules),
    )
    return Verdict(all(check.passed for check in checks), checks, rules)


def _held_back(running: Evidence, candidate: Evidence, rules: GateRules) -> Check:
    n = len(running.held_back)
    lost, gained, missed_before = _changes(running.held_back, candidate.held_back, rules)
    missed = missed_before + lost - gained
    numbers = {
        "samples": n,
        "running_missed": missed_before,
        "candidate_missed": missed,
        "lost": lost,
        "gained": gained,
        "p_not_worse": _mcnemar(lost, gained),
        "running_high": clopper_pearson(missed_before, n, rules.confidence)[1],
        "candidate_high": clopper_pearson(missed, n, rules.confidence)[1],
        "lost_high": clopper_pearson(lost, n, rules.confidence)[1],
    }
    said = (
        f"{missed} of {n} held-back samples missed, before {missed_before}; {lost} lost and {gained} gained "
        f"(p {numbers['p_not_worse']:.2g} if no worse); up to {numbers['lost_high']:.0%} of such captures may be lost"
    )
    if n < rules.min_held_back:
        return Check(
            "held-back", False, f"{n} held-back samples are too few, {rules.min_held_back} are needed", numbers
        )
    return Check("held-back", lost <= gained, said, numbers)


def _persons(running: Evidence, candidate: Evidence, rules: GateRules) -> Check:
    persons = sorted({capture.person for capture in running.held_back})
    found = [_person(running, candidate, person, rules) for person in persons]
    worse = [lost for lost, _, is_worse in found if is_worse]
    numbers = {
        "persons": len(persons),
        "worse": len(worse),
        "smallest_p": min((p for _, p, _ in found), default=1.0),
        "most_lost": max((lost for lost, _, _ in found), default=0),
    }
    said = f"{len(worse)} of {len(persons)} persons clearly worse"
    if worse:
        said += f"; the most lost by one of them are {max(worse)} captures"
    return Check("persons", not worse, said, numbers)


def _person(running: Evidence, candidate: Evidence, person: str, rules: GateRules) -> tuple[int, float, bool]:
    """Captures of `person` lost, the chance of so many among those recognised before, and whether that is too many."""
    pairs = zip(running.held_back, candidate.held_back, strict=True)
    before, after = zip(*((old, new) for old, new in pairs if old.person == person), strict=True)
    lost, gained, missed = _changes(before, after, rules)
    p = float(stats.binom.sf(lost - 1, len(before) - missed, rules.chance_loss))
    return lost, p, lost > gained and p <= 1.0 - rules.person_confidence


def _references(running: Evidence, candidate: Evidence, rules: GateRules) -> Check:
    _, _, missed_before = _changes(running.references, candidate.references, rules)
    lost = _references_lost(running, candidate, rules)
    before, after = (_mistaken_only(evidence, rules) for evidence in (running, candidate))
    numbers = {
        "references": len(running.references),
        "compared_with_own": sum(reference.own is not None for reference in running.references),
        "running_missed": missed_before,
        "newly_missed": lost,
        "running_mistaken": before,
        "candidate_mistaken": after,
    }
    said = (
        f"{lost} of {numbers['references']} references newly missed, {missed_before} were missed before; "
        f"{after} that are their person's only one mistaken for another's, before {before}"
    )
    return Check("references", lost == 0 and after <= before, said, numbers)


def _references_lost(running: Evidence, candidate: Evidence, rules: GateRules) -> int:
    """References that the running student recognises and the candidate misses by more than the slack."""
    enough = rules.accept_score - rules.reference_slack
    pairs = zip(running.references, candidate.references, strict=True)
    return sum(old.recognised(rules.accept_score) and not new.recognised(enough) for old, new in pairs)


def _mistaken_only(evidence: Evidence, rules: GateRules) -> int:
    """References that are their person's only one and would be accepted as somebody else's."""
    return sum(r.mistaken(rules.accept_score) for r in evidence.references if r.own is None)


def _strangers(running: Evidence, candidate: Evidence, rules: GateRules, released: Sequence[float] | None) -> Check:
    if len(running.strangers) < rules.min_strangers:
        n = len(running.strangers)
        said = f"{n} captures of strangers are too few, {rules.min_strangers} are needed"
        return Check("strangers", False, said, {"captures": n})
    before, after = (_reach(evidence.strangers, rules.accept_score) for evidence in (running, candidate))
    rate = _any_match(rules, len(running.references)) if rules.nominal else None
    anchor = None if released is None else _reach(released, rules.accept_score)
    return _not_above("strangers", before, after, rules, rate=rate, what="strangers' captures accepted", anchor=anchor)


def _strangers_near(
    running: Evidence, candidate: Evidence, rules: GateRules, released: Sequence[float] | None
) -> Check:
    near = rules.accept_score - 10.0
    before, after = (_reach(evidence.strangers, near) for evidence in (running, candidate))
    anchor = None if released is None else _reach(released, near)
    what = f"strangers' captures at score {near:g} or more"
    return _not_above("strangers-near", before, after, rules, rate=None, what=what, anchor=anchor)


def _other_persons(running: Evidence, candidate: Evidence, rules: GateRules) -> Check:
    before, after = ([c.mistaken(rules.accept_score) for c in e.held_back] for e in (running, candidate))
    owned = Counter(reference.person for reference in running.references)
    others = [len(running.references) - owned[capture.person] for capture in running.held_back]
    rates = [_any_match(rules, references) for references in others]
    # The mean of unequal rates has the wider spread (Hoeffding 1956), so chance is not allowed too little.
    rate = statistics.fmean(rates) if rates and rules.nominal else None
    return _not_above(
        "other-persons", before, after, rules, rate=rate, what="held-back samples accepted as another person"
    )


def _latency(running: Evidence, candidate: Evidence, rules: GateRules) -> Check:
    before, after = min(running.latency_s), min(candidate.latency_s)
    ratio = after / before
    said = (
        f"{after * 1e3:.2f} ms at best, before {before * 1e3:.2f} ms: {ratio:.2f} times, "
        f"{rules.max_latency_ratio:g} allowed"
    )
    numbers = {"running_s": before, "candidate_s": after, "ratio": ratio, "measured": len(candidate.latency_s)}
    return Check("latency", ratio <= rules.max_latency_ratio, said, numbers)


def _not_above(
    name: str,
    before: Sequence[bool],
    after: Sequence[bool],
    rules: GateRules,
    *,
    rate: float | None,
    what: str,
    anchor: Sequence[bool] | None = None,
) -> Check:
    """Whether `after` is true no more often than the upper bound of `before` allows, and ceilings that do not move.

    These are chance at a nominal `rate`, and the upper bound of the `anchor`; either may be missing. What is no more
    than `before` is never above them.
    """
    n, k, former = len(before), sum(after), sum(before)
    high = clopper_pearson(former, n, rules.confidence)[1]
    numbers = {
        "captures": n,
        "running_accepted": former,
        "candidate_accepted": k,
        "running_high": high,
        "newly_accepted": sum(new and not old for old, new in zip(before, after, strict=True)),
        "candidate_high": clopper_pearson(k, n, rules.confidence)[1],
    }
    ceilings = []
    if rate is not None:
        by_chance = int(stats.binom.ppf(rules.confidence, n, rate)) if n else 0
        ceilings.append(by_chance)
        numbers |= {"nominal_rate": rate, "nominal_allowed": by_chance}
    if anchor is not None:
        anchored = int(clopper_pearson(sum(anchor), n, rules.confidence)[1] * n)
        ceilings.append(anchored)
        numbers |= {"released_accepted": sum(anchor), "released_allowed": anchored}
    allowed = int(high * n)
    if ceilings:
        allowed = min(allowed, max(min(ceilings), former))
    said = f"{k} of {n} {what}, before {former}; {allowed} allowed"
    return Check(name, k <= allowed, said, {**numbers, "allowed": allowed})


def _reach(scores: Sequence[float], mark: float) -> list[bool]:
    return [score >= mark for score in scores]


def _any_match(rules: GateRules, references: int) -> float:
    """Nominal chance that a stranger's capture is accepted by any of so many `references`."""
    fmr = min(1.0, 10.0 ** (-rules.accept_score / 10.0))
    return float(1.0 - (1.0 - fmr) ** references)


def _changes(before: Sequence[ScoredCapture], after: Sequence[ScoredCapture], rules: GateRules) -> tuple[int, int, int]:
    """Captures lost and gained, and missed before."""
    pairs = [
        (old.recognised(rules.accept_score), new.recognised(rules.accept_score))
        for old, new in zip(before, after, strict=True)
    ]
    return pairs.count((True, False)), pairs.count((False, True)), sum(not old for old, _ in pairs)


def _mcnemar(lost: int, gained: int) -> float:
    """Chance of so many losses among all changes, or more, if a loss were no likelier than a gain (McNemar 1947)."""
    return float(stats.binom.sf(lost - 1, lost + gained, 0.5))


def _check_paired(running: Evidence, candidate: Evidence, released: Sequence[float] | None) -> None:
    same: Mapping[str, Callable[[Evidence], object]] = {
        "held-back samples": lambda evidence: [c.person for c in evidence.held_back],
        "references": lambda evidence: [(c.person, c.own is None) for c in evidence.references],
        "strangers": lambda evidence: len(evidence.strangers),
    }
    for what, of in same.items():
        if of(running) != of(candidate):
            raise UsageError(f"both students must be measured on the same {what}, in the same order")
    if released is not None and len(released) != len(running.strangers):
        raise UsageError("the released version must be measured on the same strangers")
    if not (running.latency_s and candidate.latency_s):
        raise UsageError("the gate needs a latency of both students")
