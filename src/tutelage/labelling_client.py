"""Labels from the service teacher-inference, for callers that wait for them: `ServiceLabeller` is a `Labeller`.

    with ServiceLabeller(ChannelSettings(address), site="gate-7", timeout=timedelta(seconds=30)) as labeller:
        labeller.enrol("anna", captures)
        answers = labeller.label(attempts)

Captures travel as PNG files at the sensor's resolution. What does not fit into one request is sent in several, one
after the other, each with the whole timeout. Failures are the catalogue's errors, as if the teacher ran here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from tutelage.api.teacher.v1 import teacher_pb2, teacher_pb2_grpc
from tutelage.captures import Pixels, encode_png
from tutelage.channel import ChannelSettings, idempotent_methods
from tutelage.errors import Code, InputError, UsageError
from tutelage.labelling import LabelAnswer
from tutelage.waiting_channel import WaitingChannel

__all__ = ["ServiceLabeller"]

MOST_EACH = 16
"""Captures of one attempt or one enrolment; the contract of TeacherInferenceService."""

MOST_CAPTURES = 256
"""Captures, and attempts, of one Label."""

MOST_BYTES = 12 << 20
"""Captures of one request: with all that frames them well below the 16 MiB of a message."""

_METHODS = idempotent_methods(teacher_pb2.DESCRIPTOR.services_by_name["TeacherInferenceService"])


class ServiceLabeller:
    """Names persons of one site through the service; any number of threads may use it; a context manager.

    Every method may raise what the service's catalogue has, among it `service-unavailable` and `deadline-exceeded`,
    after which it may be called again.
    """

    def __init__(self, settings: ChannelSettings, *, site: str, timeout: timedelta) -> None:
        """Call the service that `settings` lead to, with `timeout` for each request, tries included.

        Raises:
            SettingsError: the certificates cannot be used.
        """
        self._site, self._timeout, self._space = site, timeout, ""
        self._channel = WaitingChannel(settings, teacher_pb2_grpc.TeacherInferenceServiceStub, idempotent=_METHODS)
        self._stub = self._channel.stub

    @property
    def space(self) -> str:
        """Id of the teacher's embedding space, as the service tells it now."""
        answer = self._ask(self._stub.GetTeacher, teacher_pb2.GetTeacherRequest())
        self._space = str(answer.teacher.teacher_space)
        return self._space

    def enrol(self, person: str, captures: Sequence[Pixels]) -> None:
        """Make `person` known by the first 16 of these reference captures; they replace the former ones.

        Raises:
            UsageError: `person` is empty.
            InputError: `data-insufficient`, no capture is usable; nothing has changed.
        """
        if not person:
            raise UsageError("a person needs a name to be enrolled")
        if not captures:
            raise InputError(Code.DATA_INSUFFICIENT, f"there is no reference capture of person {person!r}: take one")
        encoded = [encode_png(capture) for capture in captures[:MOST_EACH]]
        request = teacher_pb2.EnrolPersonRequest(site=self._site, person=person, captures=encoded)
        self._space = str(self._ask(self._stub.EnrolPerson, request).teacher_space)

    def remove(self, person: str) -> None:
        """Forget everything about `person`.

        Raises:
            PersonError: nobody of that name is enrolled.
        """
        self._ask(self._stub.RemovePerson, teacher_pb2.RemovePersonRequest(site=self._site, person=person))

    def label(self, attempts: Sequence[Sequence[Pixels]]) -> list[LabelAnswer]:
        """One answer an attempt, in order; of an attempt of more than 16 captures the last 16 are looked at."""
        encoded = [[encode_png(capture) for capture in attempt[-MOST_EACH:]] for attempt in attempts]
        answers: list[LabelAnswer] = []
        for part in _parts([attempt for attempt in encoded if attempt]):
            request = teacher_pb2.LabelRequest(
                site=self._site, attempts=[teacher_pb2.Attempt(captures=captures) for captures in part]
            )
            answers += [_answer(sent) for sent in self._ask(self._stub.Label, request).answers]
        if answers:
            self._space = answers[-1].space
        answered = iter(answers)
        return [next(answered) if attempt else self._nothing() for attempt in encoded]

    def _nothing(self) -> LabelAnswer:
        return LabelAnswer(None, 0.0, 0.0, {}, "the attempt has no capture", self._space or self.space)

    def close(self) -> None:
        """End the connection; calls that still run fail as `call-cancelled`."""
        self._channel.close()

    def __enter__(self) -> ServiceLabeller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, method: Any, request: Any) -> Any:
        return self._channel.ask(method, request, timeout=self._timeout)


def _parts(attempts: Sequence[list[bytes]]) -> Iterator[list[list[bytes]]]:
    """`attempts` in as few parts, in their order, as fit into a request each."""
    part: list[list[bytes]] = []
    captures, size = 0, 0
    for attempt in attempts:
        captures, size = captures + len(attempt), size + sum(map(len, attempt))
        if part and (captures > MOST_CAPTURES or size > MOST_BYTES):
            yield part
            part, captures, size = [], len(attempt), sum(map(len, attempt))
        part.append(attempt)
    if part:
        yield part


def _answer(sent: teacher_pb2.LabelAnswer) -> LabelAnswer:
    return LabelAnswer(
        sent.person if sent.HasField("person") else None,
        sent.confidence,
        sent.margin,
        {soft.person: soft.probability for soft in sent.soft},
        sent.reason,
        sent.teacher_space,
    )
