"""The words of a device as messages of DeviceService, and back; each enumeration is mapped by name, none is left out.

A number that is none is absent in a message where its field may be, else NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from device_sim.contact import Contact
from device_sim.erasure import Erased
from device_sim.events import Event, EventKind
from device_sim.generations import Booted
from device_sim.node import DeviceStatus, Explained, Verified
from device_sim.pointer import Entry
from device_sim.reception import Answer
from device_sim.records import DecisionRecord, Label, LabelSource, Sample, State
from device_sim.sampling import Kind, Outcome, Rule
from device_sim.training import Training
from tutelage.api.device.v1 import device_pb2 as pb
from tutelage.biometrics.matching import Decision
from tutelage.errors import RequestError

_Word = TypeVar("_Word", bound=StrEnum)

_NOT_LOSSES = frozenset({"step", "steps", "bytes", "error", "message"})


def _numbers(words: type[StrEnum], prefix: str, enum: Any) -> dict[Any, Any]:
    """The message's number of each member of `words`."""
    return {word: enum.Value(f"{prefix}_{word.value.upper().replace('-', '_')}") for word in words}


DECISIONS = _numbers(Decision, "DECISION", pb.Decision)
KINDS = _numbers(Kind, "SAMPLE_KIND", pb.SampleKind)
RULES = _numbers(Rule, "SAMPLE_RULE", pb.SampleRule)
STATES = _numbers(State, "SAMPLE_STATE", pb.SampleState)
SOURCES = _numbers(LabelSource, "LABEL_SOURCE", pb.LabelSource)
EVENTS = _numbers(EventKind, "EVENT_KIND", pb.EventKind)


def words_of(numbers: Iterable[int], known: dict[_Word, Any], field: str) -> frozenset[_Word]:
    """The members of an enumeration that a request names by their numbers.

    Raises:
        RequestError: One of them is none that selects anything.
    """
    by_number = {number: word for word, number in known.items()}
    numbers = list(numbers)
    if unknown := [number for number in numbers if number not in by_number]:
        raise RequestError(f"{field} holds {unknown[0]}, which selects nothing: leave it out, or name what to select")
    return frozenset(by_number[number] for number in numbers)


def recognition(answer: Answer) -> pb.Recognition:
    """What a capture was answered."""
    seen = answer.recognition
    match = seen.match
    known = match.person is not None
    return pb.Recognition(
        decision=DECISIONS[seen.decision],
        person=match.person,
        score=seen.score if known else None,
        extrapolated=seen.extrapolated,
        cosine=match.cosine if known else None,
        margin=match.margin if known else None,
        space=seen.features.space,
        generation=answer.generation,
    )


def recorded(decision: DecisionRecord) -> pb.Recognition:
    """What a capture was answered, from the record."""
    seen = decision.observation
    known = seen.person is not None
    return pb.Recognition(
        decision=DECISIONS[seen.decision],
        person=seen.person,
        score=seen.score if known else None,
        extrapolated=seen.extrapolated,
        cosine=_real(decision.cosine),
        margin=_real(decision.margin),
        space=decision.space,
        generation=decision.generation,
    )


def outcome(decision_id: int, kept: Outcome) -> pb.Outcome:
    """The verdict of the sample rules on one capture."""
    return pb.Outcome(
        decision_id=decision_id,
        kind=KINDS[kept.kind],
        rule=RULES[kept.rule],
        reason=kept.reason,
        numbers={name: float(value) for name, value in kept.numbers.items()},
        run_decision_ids=kept.captures,
    )


def verified(answer: Verified) -> pb.VerifyResponse:
    """What a claimed person's capture was answered."""
    return pb.VerifyResponse(
        decision=DECISIONS[answer.decision],
        score=answer.score,
        extrapolated=answer.extrapolated,
        generation=answer.generation,
    )


def sample(kept: Sample) -> pb.Sample:
    """One sample, without its capture."""
    return pb.Sample(
        sample_id=kept.id,
        decision_id=kept.decision_id,
        attempt_end_decision_id=kept.attempt_end,
        capture_time=time(kept.time_s),
        kind=KINDS[kept.kind],
        score=_real(kept.score),
        label=None if kept.label is None else _label(kept.label),
        state=STATES[kept.state],
        training_set=kept.training_set,
        note=kept.note,
    )


def _label(label: Label) -> pb.Label:
    return pb.Label(
        person=label.person,
        source=SOURCES[label.source],
        confidence=label.confidence,
        margin=_real(label.margin),
        reason=str(label.answer.get("reason", "")),
        teacher_space=label.answer.get("space"),
    )


def explained(found: Explained) -> pb.ExplainSampleResponse:
    """Why a sample was kept and what became of it."""
    return pb.ExplainSampleResponse(
        sample=sample(found.sample),
        recognition=recorded(found.own),
        outcome=outcome(found.end.observation.id, found.end.outcome),
        lines=found.lines,
    )


def status(now: DeviceStatus) -> pb.DeviceStatus:
    """How the device stands."""
    return pb.DeviceStatus(
        student=student(now.student),
        released=student(now.released),
        previous=None if now.previous is None else student(now.previous),
        space=now.space,
        accept_score=now.accept_score,
        persons=now.persons,
        samples=[
            pb.SampleCount(kind=KINDS[kind], state=STATES[state], count=count)
            for (kind, state), count in sorted(now.samples.items())
        ],
        store_bytes=now.store_bytes,
        max_store_bytes=now.max_store_bytes,
        labels_missing=now.labels_missing,
        training_missing=now.training_missing,
        training=None if now.training is None else _progress(now.training),
        watching=now.watching,
        latest_event_id=now.latest_event_id,
        pending_erasures=now.pending_erasures,
        teacher=None if now.teacher is None else _contact(now.teacher),
        registry=None if now.registry is None else _contact(now.registry),
    )


def _contact(with_: Contact) -> pb.Contact:
    last_s = with_.answered_s
    return pb.Contact(reached=with_.reached, answer_time=None if last_s is None else time(last_s))


def _progress(training: Training) -> pb.TrainingProgress:
    last = training.last
    losses = {name: float(value) for name, value in last.items() if name not in _NOT_LOSSES}
    elapsed = Duration()
    elapsed.FromMilliseconds(round(1000 * training.elapsed_s))
    return pb.TrainingProgress(
        generation=training.descent.generation,
        step=int(last.get("step", 0)),
        steps=int(last.get("steps", 0)),
        losses=losses,
        memory_bytes=last.get("bytes"),
        elapsed=elapsed,
    )


def student(entry: Entry) -> pb.Student:
    """A student package on the device."""
    return pb.Student(generation=entry.generation, digest=entry.digest)


def rolled_back(booted: Booted) -> pb.RollbackResponse:
    """The student that recognises after a device went back, and what it stepped over."""
    package = booted.package
    return pb.RollbackResponse(
        student=pb.Student(generation=package.info.version, digest=package.digest),
        skipped=[pb.SkippedStudent(generation=s.name, reason=s.reason, damaged=s.damaged) for s in booted.skipped],
    )


def erased(done: Erased) -> pb.ErasePersonResponse:
    """What was erased."""
    return pb.ErasePersonResponse(
        references=done.references,
        samples=done.samples,
        decisions=done.decisions,
        student=pb.Student(generation=done.generation, digest=done.digest),
        deleted_generations=done.deleted,
        teacher_knew=done.teacher_knew,
        receipt=done.receipt,
    )


def event(happened: Event) -> pb.Event:
    """One thing that happened."""
    return pb.Event(
        event_id=happened.id,
        time=time(happened.time_s),
        kind=EVENTS[happened.kind],
        reason=happened.reason,
        numbers={name: float(value) for name, value in happened.numbers.items()},
        generation=happened.generation or None,
    )


def time(seconds: float) -> Timestamp:
    """Seconds since the epoch, to the microsecond."""
    moment = Timestamp()
    moment.FromMicroseconds(round(seconds * 1e6))
    return moment


def _real(value: float) -> float | None:
    return None if math.isnan(value) else value
