"""What a device answers, as tables for people; the same answers are JSON where a program reads them.

Whatever comes from elsewhere, names and reasons among it, is shown with nothing in it that could move a cursor.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from device_sim.wording import NOT_MEASURED, percent, printable, seconds, size
from tutelage.api.device.v1 import device_pb2 as pb

if TYPE_CHECKING:
    from device_sim.visiting import Seen

__all__ = [
    "as_json",
    "erased_table",
    "event_line",
    "recognition_table",
    "samples_table",
    "status_table",
    "visits_table",
    "word",
]


def as_json(message: Message) -> str:
    """A message as one line of JSON, with the fields' names of the contract; those without a value are left out."""
    fields: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return json.dumps(fields, ensure_ascii=False)


def word(enum: Any, value: int) -> str:
    """A member of an enumeration as people write it: `held-back` of SAMPLE_STATE_HELD_BACK."""
    prefix = f"{_shouted(enum.DESCRIPTOR.name)}_"
    return str(enum.Name(value)).removeprefix(prefix).lower().replace("_", "-")


def _shouted(name: str) -> str:
    """`SAMPLE_STATE` of `SampleState`."""
    return "".join(f"_{letter}" if letter.isupper() and i else letter for i, letter in enumerate(name)).upper()


def status_table(status: pb.DeviceStatus) -> RenderableType:
    """How a device stands, a line a thing."""
    table = _table()
    for name, text in _status_rows(status):
        table.add_row(name, Text(text))
    return table


def _status_rows(status: pb.DeviceStatus) -> Iterable[tuple[str, str]]:
    watched = ", being watched" if status.watching else ""
    yield "student", f"{status.student.generation}{watched}"
    yield "digest", status.student.digest
    yield "made of", status.released.generation
    yield "falls back on", status.previous.generation if status.HasField("previous") else status.released.generation
    yield "space", status.space
    yield "accepts from score", f"{status.accept_score:g}"
    yield "persons", f"{status.persons:,}"
    yield "samples", _counts(status.samples)
    yield "store", f"{size(status.store_bytes)} of {size(status.max_store_bytes)}"
    yield "labels wait for", _missing(status.labels_missing)
    yield "training waits for", _missing(status.training_missing)
    if status.HasField("training"):
        yield "training", _progress(status.training)
    if status.pending_erasures:
        yield "erasures", f"{status.pending_erasures:,} not done: the teacher has to be told, or the disk is full"
    for name in ("teacher", "registry"):
        if status.HasField(name):
            yield name, _contact(getattr(status, name))
    yield "latest event", str(status.latest_event_id)


def _contact(contact: pb.Contact) -> str:
    last = f"answered last at {when(contact.answer_time)}" if contact.HasField("answer_time") else "never answered yet"
    return last if contact.reached or not contact.HasField("answer_time") else f"does not answer; {last}"


def _counts(counts: Sequence[pb.SampleCount]) -> str:
    return (
        ", ".join(f"{c.count:,} {word(pb.SampleKind, c.kind)} {word(pb.SampleState, c.state)}" for c in counts) or "0"
    )


def _missing(missing: Sequence[str]) -> str:
    return "\n".join(map(printable, missing)) or "nothing: it is due"


def _progress(training: pb.TrainingProgress) -> str:
    took = seconds(training.elapsed.ToTimedelta().total_seconds())
    said = f"{training.generation}, step {training.step} of {training.steps or '?'}, {took}"
    if "loss" in training.losses:
        said += f", loss {training.losses['loss']:.3f}"
    return f"{said}, {size(training.memory_bytes)}" if training.HasField("memory_bytes") else said


def recognition_table(answers: Sequence[tuple[str, pb.RecognizeResponse]]) -> RenderableType:
    """What captures were answered, each with the name of its file."""
    table = _table("capture", "answer", "person", "score", "student", "kept as", "why")
    for name, answer in answers:
        seen, kept = answer.recognition, answer.HasField("outcome")
        table.add_row(
            Text(printable(name)),
            word(pb.Decision, seen.decision),
            Text(printable(seen.person) if seen.HasField("person") else NOT_MEASURED),
            _score(seen),
            seen.generation,
            word(pb.SampleKind, answer.outcome.kind) if kept else "not recorded",
            Text(printable(answer.outcome.reason) if kept else "the store failed"),
        )
    return table


def _score(seen: pb.Recognition) -> str:
    """The score, with a mark where it lies beyond what was measured."""
    return _number(seen, "score", "{:.1f}") + ("*" if seen.extrapolated and seen.HasField("score") else "")


def _number(message: Any, field: str, form: str) -> str:
    return form.format(getattr(message, field)) if message.HasField(field) else NOT_MEASURED


def samples_table(samples: Sequence[pb.Sample]) -> RenderableType:
    """Kept samples, a line each."""
    table = _table("sample", "captured", "kind", "score", "person", "said by", "state", "note")
    for sample in samples:
        label = sample.label
        table.add_row(
            str(sample.sample_id),
            when(sample.capture_time)[5:-3],
            word(pb.SampleKind, sample.kind),
            _number(sample, "score", "{:.1f}"),
            Text(printable(label.person) if label.HasField("person") else NOT_MEASURED),
            word(pb.LabelSource, label.source) if sample.HasField("label") else "nobody yet",
            word(pb.SampleState, sample.state),
            Text(printable(sample.note)),
        )
    return table


def erased_table(answer: pb.ErasePersonResponse, kept: str) -> RenderableType:
    """What was erased, a line a thing; `kept` is the file of the receipt, empty where it was not asked for."""
    table = _table()
    table.add_row("references", f"{answer.references:,}")
    table.add_row("samples", f"{answer.samples:,}")
    table.add_row("decisions without the name", f"{answer.decisions:,}")
    table.add_row("students deleted", ", ".join(answer.deleted_generations) or "none")
    table.add_row("recognises now", answer.student.generation)
    table.add_row("at the teacher", "removed" if answer.teacher_knew else "nobody of that name")
    table.add_row("receipt", f"signed by the device: {kept or 'ask again with --receipt FILE to keep it'}")
    return table


def visits_table(seen: Seen) -> RenderableType:
    """What was seen of a run of visits, a line a thing."""
    table = _table()
    for name, text in _seen_rows(seen):
        table.add_row(name, text)
    return table


def _seen_rows(seen: Seen) -> Iterable[tuple[str, str]]:
    yield "persons enrolled", f"{seen.enrolled:,}"
    yield "visits", f"{seen.visits:,}, from number {seen.first_visit:,} on"
    yield "accepted at first capture", f"{seen.at_first:,} of {seen.genuine:,}"
    yield "accepted in the end", f"{seen.accepted:,} of {seen.genuine:,}"
    yield "misses", percent(seen.misses)
    yield "taken for somebody else", f"{seen.mistaken:,}"
    yield "strangers accepted", f"{seen.strangers_accepted:,} of {seen.strangers:,}"
    yield "samples kept", f"{seen.samples_kept:,}"
    yield "student before, after", f"{seen.generation_before or NOT_MEASURED}, {seen.generation_after or NOT_MEASURED}"


def event_line(event: pb.Event) -> str:
    """One event on one line."""
    generation = event.generation if event.HasField("generation") else NOT_MEASURED
    kind = word(pb.EventKind, event.kind)
    return f"{event.event_id:<6} {when(event.time)}  {generation:<6}  {kind:<20}  {printable(event.reason)}"


def when(moment: Timestamp) -> str:
    """A time in UTC, to the second."""
    return moment.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")


_FOLDED = frozenset({"capture", "person", "note", "why"})
"""Columns of words from elsewhere, which may be long."""


def _table(*columns: str) -> Table:
    """A table whose cells are folded where the terminal is too narrow, never cut: digests are there to be copied."""
    table = Table(
        box=box.SIMPLE_HEAD if columns else None, show_header=bool(columns), pad_edge=False, collapse_padding=True
    )
    for name in columns or ("", ""):
        folded = name in _FOLDED
        table.add_column(name, overflow="fold", no_wrap=bool(name) and not folded, min_width=8 if folded else None)
    return table
