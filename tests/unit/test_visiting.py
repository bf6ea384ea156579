"""How visits are counted, whatever a device answers; and what happens to persons while answers are lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("grpc")

from device_sim.patience import Patience
from device_sim.public import Public
from device_sim.visiting import Course, Seen, Visiting
from tutelage.api.device.v1 import device_pb2 as pb
from tutelage.errors import Code, PersonError, ServiceError

PUBLIC = Public(persons=2)


class ScriptedDevice:
    """Answers what a test says, and remembers what it was asked."""

    def __init__(self, recognise: Callable[[int], pb.RecognizeResponse] | None = None, lost: int = 0) -> None:
        self.recognise, self.lost = recognise, lost
        self.asked: list[tuple[str, Any]] = []
        self.known: dict[str, int] = {}

    def ask(self, method: str, request: Any) -> Any:
        self.asked.append((method, request))
        return getattr(self, method.lower())(request)

    def recognize(self, request: pb.RecognizeRequest) -> pb.RecognizeResponse:
        return self.recognise(len(self.tries()) - 1)

    def verify(self, request: pb.VerifyRequest) -> pb.VerifyResponse:
        if request.person not in self.known:
            raise PersonError(request.person)
        return pb.VerifyResponse()

    def enrol(self, request: pb.EnrolRequest) -> pb.EnrolResponse:
        self.known[request.person] = self.known.get(request.person, 0) + len(request.captures)
        if self.lost:
            self.lost -= 1
            raise ServiceError(Code.SERVICE_UNAVAILABLE, "the answer was lost")
        return pb.EnrolResponse(references=self.known[request.person])

    def tries(self) -> list[pb.RecognizeRequest]:
        return [request for method, request in self.asked if method == "Recognize"]

    def close(self) -> None:
        self.asked.append(("close", None))


def answer(person: str = "", **kept: Any) -> pb.RecognizeResponse:
    """Accepted as `person`; as nobody where there is none."""
    decision = pb.DECISION_ACCEPT if person else pb.DECISION_UNKNOWN
    seen = pb.Recognition(decision=decision, person=person, generation="v3+1")
    return pb.RecognizeResponse(recognition=seen, outcome=pb.Outcome(**kept))


def visited(device: ScriptedDevice, course: Course) -> Seen:
    seen = Seen()
    with Visiting(lambda: device, PUBLIC, Patience(0), pause=lambda: None) as visiting:
        visiting.come(course, seen, lambda *_: None)
    return seen


def test_whoever_is_not_accepted_tries_three_times_under_one_name():
    device = ScriptedDevice(lambda _: answer())
    seen = visited(device, Course(visits=2, strangers=0.0, first_visit=41))
    assert [request.attempt for request in device.tries()] == ["visit-0-41"] * 3 + ["visit-0-42"] * 3
    assert len({request.capture for request in device.tries()}) == 6
    assert (seen.visits, seen.genuine, seen.accepted, seen.misses) == (2, 2, 0, 1.0)
    assert device.asked[-1] == ("close", None)


def test_whoever_is_accepted_leaves_and_late_is_not_at_first():
    name = PUBLIC.visitor(0, 0.0).person
    at_second = visited(ScriptedDevice(lambda k: answer(name if k == 1 else "")), Course(visits=1, strangers=0.0))
    assert (at_second.at_first, at_second.accepted, at_second.misses) == (0, 1, 0.0)
    device = ScriptedDevice(lambda _: answer(name))
    at_first = visited(device, Course(visits=1, strangers=0.0))
    assert (at_first.at_first, at_first.accepted, len(device.tries())) == (1, 1, 1)
    assert at_first.generation_after == "v3+1"


def test_who_is_taken_for_somebody_else_is_missed_and_told():
    device = ScriptedDevice(lambda _: answer("somebody-else"))
    seen = visited(device, Course(visits=3, strangers=0.0))
    assert (seen.mistaken, seen.accepted, seen.at_first, seen.misses) == (3, 0, 0, 1.0)
    assert len(device.tries()) == 3  # the door opened


def test_strangers_are_no_misses_and_are_counted_where_they_get_in():
    out = visited(ScriptedDevice(lambda _: answer()), Course(visits=4, strangers=1.0))
    assert (out.visits, out.strangers, out.strangers_accepted, out.genuine, out.misses) == (4, 4, 0, 0, None)
    let_in = visited(ScriptedDevice(lambda _: answer("person-000")), Course(visits=4, strangers=1.0))
    assert (let_in.strangers_accepted, let_in.mistaken) == (4, 0)


def test_samples_are_counted_by_the_captures_that_are_kept():
    name = PUBLIC.visitor(0, 0.0).person
    first = ScriptedDevice(lambda _: answer(name, kind=pb.SAMPLE_KIND_FIRST))
    assert visited(first, Course(visits=1, strangers=0.0)).samples_kept == 1
    kinds = [pb.SAMPLE_KIND_NOTHING, pb.SAMPLE_KIND_NOTHING, pb.SAMPLE_KIND_SECOND]
    failed = ScriptedDevice(lambda k: answer(kind=kinds[k], run_decision_ids=range(k + 1)))
    assert visited(failed, Course(visits=1, strangers=0.0)).samples_kept == 3


def test_a_visit_that_is_cut_off_is_not_counted():
    def recognise(k: int) -> pb.RecognizeResponse:
        if k == 4:
            raise ServiceError(Code.SERVICE_UNAVAILABLE, "away")
        return answer()

    seen = Seen()
    with (
        Visiting(lambda: ScriptedDevice(recognise), PUBLIC, Patience(0), pause=lambda: None) as visiting,
        pytest.raises(ServiceError),
    ):
        visiting.come(Course(visits=9, strangers=0.0), seen, lambda *_: None)
    assert (seen.visits, seen.genuine) == (1, 1)


def test_an_answer_that_was_lost_doubles_no_references():
    device, seen = ScriptedDevice(lost=1), Seen()
    with Visiting(lambda: device, PUBLIC, Patience(60, sleep=lambda _: None), pause=lambda: None) as visiting:
        visiting.enrol(Course(references=3), seen, lambda *_: None)
        visiting.enrol(Course(references=3), seen, lambda *_: None)
    assert device.known == {"person-000": 3, "person-001": 3}
    assert seen.enrolled == 1  # the other one was known when it was looked up again


def test_wear_goes_from_the_first_visit_to_the_last():
    course = Course(visits=5, wear=0.2, until_wear=0.6)
    assert [course.condition(turn).wear for turn in range(5)] == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6])
    assert Course(visits=1, wear=0.2, until_wear=0.6).condition(0).wear == 0.2
    assert Course(visits=3, wear=0.4, until_wear=0.4).condition(2).wear == 0.4
