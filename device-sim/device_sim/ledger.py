"""The books of a simulation: what happened by day and device, counted by one who knows the truth.

Devices do not know who really stood before them; the ledger does, and compares their labels with it afterwards.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from device_sim.events import Event, EventKind
from device_sim.fleet import DAY_S, EPOCH_S, Post
from device_sim.recognition import RunningModel
from device_sim.records import LabelSource, Sample, State
from device_sim.results import DayPoint, EventLine, KeptCapture, LabelCounts, SampleCounts, Training
from device_sim.sampling import Kind
from device_sim.site import Taken
from tutelage.biometrics.features import cosines
from tutelage.captures import encode_png

SHOWN = 4
"""Kept captures of each kind and device in a report."""
TOLD = frozenset(
    {
        EventKind.LABELS_ASKED,
        EventKind.TRAINING_STARTED,
        EventKind.TRAINING_RESUMED,
        EventKind.TRAINING_FAILED,
        EventKind.GATE_PASSED,
        EventKind.GATE_FAILED,
        EventKind.GENERATION_SWAPPED,
        EventKind.GENERATION_REVERTED,
        EventKind.SAMPLE_QUARANTINED,
        EventKind.WATCH_PASSED,
    }
)
KEPT = (State.FRESH, State.USED, State.HELD_BACK, State.QUARANTINED, State.DROPPED)


@dataclass
class Ledger:
    """Follows a simulation day by day."""

    posts: Sequence[Post]
    show_captures: bool
    frozen: list[RunningModel] = field(init=False)
    """Each device's model as it was shipped."""
    timeline: dict[str, tuple[DayPoint, ...]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Remember the models of day 0."""
        self.frozen = [post.device.model for post in self.posts]

    def on_day(self, day: int, posts: Sequence[Post]) -> None:
        """Measure frozen and live student on the day's probes, which are drifted as the day's sensor is."""
        for post, frozen in zip(posts, self.frozen, strict=True):
            probes = post.site.probes_on(day)
            live, wear = post.device.model, post.site.condition(day).wear
            point = DayPoint(day, wear, _misses(frozen, probes), _misses(live, probes), live.version)
            name = f"device {post.site.number}"
            self.timeline[name] = (*self.timeline.get(name, ()), point)

    def on_night(self, day: int, posts: Sequence[Post]) -> None:
        """Nothing to write down while trainings run."""

    def labels(self) -> LabelCounts:
        """Attempts asked about, answers, and the share of answers that name the right person."""
        asked = stored = abstained = right = 0
        for post in self.posts:
            for sample in self._attempts(post):
                label = sample.label
                assert label is not None  # noqa: S101 - `_attempts` chose those with one
                asked += 1
                if label.source is LabelSource.ABSTAINED:
                    abstained += 1
                else:
                    stored += 1
                    right += post.tally.truth.get(sample.decision_id) == label.person
        return LabelCounts(asked, stored, abstained, right / stored if stored else None)

    def _attempts(self, post: Post) -> list[Sample]:
        """One labelled second sample for each failed attempt the teacher was asked about."""
        found = {s.attempt_end: s for s in post.device.store.samples(*KEPT) if s.kind is Kind.SECOND and s.label}
        return list(found.values())

    def samples(self) -> SampleCounts:
        """Samples kept by kind, and captures not kept by the rule that decided."""
        kinds: Counter[Kind] = Counter()
        dropped: Counter[str] = Counter()
        for post in self.posts:
            kinds.update(s.kind for s in post.device.store.samples(*KEPT))
            decisions = post.device.store.decisions()
            dropped.update(d.outcome.rule.value for d in decisions if d.outcome.kind is Kind.NOTHING)
        return SampleCounts(kinds[Kind.FIRST], kinds[Kind.SECOND], dict(dropped.most_common()))

    def trainings(self) -> tuple[Training, ...]:
        """Every training with its verdict."""
        found = [t for post in self.posts for t in _trainings(post)]
        return tuple(sorted(found, key=lambda t: (t.day, t.device)))

    def events(self) -> tuple[EventLine, ...]:
        """What happened, by day and device."""
        lines = [
            EventLine(_day(event), post.site.number, event.kind.value, event.reason)
            for post in self.posts
            for event in post.device.store.events()
            if event.kind in TOLD
        ]
        return tuple(sorted(lines, key=lambda line: (line.day, line.device)))

    def kept(self) -> tuple[KeptCapture, ...]:
        """A few samples of each kind and device as pictures, spread over time; none unless asked for."""
        if not self.show_captures:
            return ()
        shown: list[KeptCapture] = []
        for post in self.posts:
            samples = post.device.store.samples(*(s for s in KEPT if s is not State.DROPPED))
            for kind in (Kind.FIRST, Kind.SECOND):
                of_kind = [s for s in samples if s.kind is kind and s.label is not None]
                places = np.unique(np.linspace(0, len(of_kind) - 1, min(SHOWN, len(of_kind))).astype(int))
                shown += [_picture(post, of_kind[i]) for i in places]
        return tuple(shown)


def _picture(post: Post, sample: Sample) -> KeptCapture:
    label = sample.label
    assert label is not None  # noqa: S101 - the caller chose labelled ones
    png = base64.b64encode(encode_png(post.device.store.sample_capture(sample.id))).decode()
    return KeptCapture(
        png=png,
        device=post.site.number,
        day=int((sample.time_s - EPOCH_S) // DAY_S),
        kind="first" if sample.kind is Kind.FIRST else "second",
        label=label.person or "",
        score=round(sample.score, 1) if np.isfinite(sample.score) else None,
        reason=str(label.answer.get("reason", "")) or f"{label.source.value}: {sample.state.value}",
    )


def _misses(model: RunningModel, probes: Taken) -> float | None:
    """Share of probes that do not reach the accept score with their own person."""
    if not len(probes):
        return None
    near = cosines(model.features(probes.captures), model.gallery.features)
    own = np.asarray(probes.persons)[:, None] == np.asarray(model.gallery.persons)[None, :]
    scores = model.calibration.score(np.where(own, near, -1.0).max(1))
    return float((scores < model.rule.accept_score).mean())


def _trainings(post: Post) -> list[Training]:
    """The trainings of one device, from its events."""
    found: list[Training] = []
    finished: Event | None = None
    for event in post.device.store.events():
        if event.kind is EventKind.TRAINING_FINISHED:
            finished = event
        elif event.kind in (EventKind.GATE_PASSED, EventKind.GATE_FAILED) and finished is not None:
            verdict = "passed" if event.kind is EventKind.GATE_PASSED else "failed"
            found.append(_training(post, event, finished, verdict))
            finished = None
        elif event.kind is EventKind.TRAINING_FAILED:
            found.append(_training(post, event, finished, "killed"))
            finished = None
    return found


def _training(post: Post, event: Event, finished: Event | None, verdict: str) -> Training:
    numbers = finished.numbers if finished is not None else {}
    return Training(
        device=post.site.number,
        day=_day(event),
        generation=event.generation,
        samples=int(numbers.get("samples", 0)),
        steps=int(numbers.get("steps_run", 0)),
        seconds=round(float(numbers.get("seconds", 0.0)), 2),
        peak_bytes=int(numbers.get("peak_bytes", 0)),
        verdict=verdict,  # type: ignore[arg-type]
        reasons=tuple(event.reason.split("; ")),
    )


def _day(event: Event) -> int:
    return int((event.time_s - EPOCH_S) // DAY_S)
