"""DeviceService: requests checked and turned into words of the device, and its answers into messages.

Recognitions have threads of their own, so that none waits for a call that is slow; what is slow has others.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from device_sim import device_messages as said
from device_sim.device_metrics import DeviceMetrics
from device_sim.node import Node
from tutelage.api.device.v1 import device_pb2 as pb
from tutelage.api.device.v1.device_pb2_grpc import DeviceServiceServicer as Servicer
from tutelage.calls import current_call
from tutelage.captures import Pixels, decode_png
from tutelage.errors import CaptureError, Code, RequestError, ServiceError
from tutelage.paging import page_size, page_token, place_in
from tutelage.sent_captures import check_capture, check_captures, check_person

__all__ = ["NAME", "DeviceServicer"]

NAME: str = pb.DESCRIPTOR.services_by_name["DeviceService"].full_name

ENROL_CAPTURES = 16
"""Reference captures of one Enrol, at most."""

MAX_ATTEMPT_CHARACTERS = 64
MAX_REASON_CHARACTERS = 500

LOOK_S = 0.2
"""How often a stream looks for new events: nobody reads them faster."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class DeviceServicer(Servicer):
    """Converts; `Node` and its device decide."""

    node: Node
    answering: Executor
    """Threads of recognitions."""
    working: Executor
    """Threads of everything else."""
    owners: Collection[str]
    """Names in certificates of callers that may do more than recognise; all callers may where there are none."""
    metrics: DeviceMetrics

    async def Enrol(self, request: pb.EnrolRequest, context: Any) -> pb.EnrolResponse:
        self._admit()
        person = check_person(request.person)
        sent = check_captures(request.captures, ENROL_CAPTURES)
        captures = [await self._fast(_decoded, capture, f"captures[{place}]") for place, capture in enumerate(sent)]
        return pb.EnrolResponse(references=await self._slow(self.node.device.enrol, person, captures))

    async def Recognize(self, request: pb.RecognizeRequest, context: Any) -> pb.RecognizeResponse:
        if len(request.attempt) > MAX_ATTEMPT_CHARACTERS:
            raise RequestError(f"attempt must have at most {MAX_ATTEMPT_CHARACTERS} characters")
        check_capture(request.capture)
        with self.metrics.recognising():
            answer = await self._fast(
                lambda: self.node.device.answer(_decoded(request.capture, "capture"), request.attempt)
            )
        self.metrics.recognised(answer.recognition.decision)
        record = answer.record
        kept = None if record is None else said.outcome(record.observation.id, record.outcome)
        return pb.RecognizeResponse(recognition=said.recognition(answer), outcome=kept)

    async def Verify(self, request: pb.VerifyRequest, context: Any) -> pb.VerifyResponse:
        person = check_person(request.person)
        check_capture(request.capture)
        with self.metrics.recognising():
            answer = await self._fast(lambda: self.node.verify(person, _decoded(request.capture, "capture")))
        return said.verified(answer)

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        return pb.GetStatusResponse(status=said.status(await self._slow(self.node.status)))

    async def ListSamples(self, request: pb.ListSamplesRequest, context: Any) -> pb.ListSamplesResponse:
        self._admit()
        states = said.words_of(request.states, said.STATES, "states")
        kinds = said.words_of(request.kinds, said.KINDS, "kinds")
        question = (sorted(states), sorted(kinds))
        after = _sample_place(place_in(request.page_token, *question))
        limit = page_size(request.page_size)
        found, more = await self._slow(lambda: self.node.samples(states, kinds, after=after, limit=limit))
        token = page_token(str(found[-1].id), *question) if more else ""
        return pb.ListSamplesResponse(samples=map(said.sample, found), next_page_token=token)

    async def ExplainSample(self, request: pb.ExplainSampleRequest, context: Any) -> pb.ExplainSampleResponse:
        self._admit()
        if request.sample_id < 1:
            raise RequestError("sample_id must be 1 or more")
        return said.explained(await self._slow(self.node.explain, request.sample_id))

    async def ErasePerson(self, request: pb.ErasePersonRequest, context: Any) -> pb.ErasePersonResponse:
        self._admit()
        return said.erased(await self._slow(self.node.device.erase, check_person(request.person)))

    async def TrainNow(self, request: pb.TrainNowRequest, context: Any) -> pb.TrainNowResponse:
        self._admit()
        generation, missing = await self._slow(self.node.train_now)
        return pb.TrainNowResponse(generation=generation or None, missing=missing)

    async def Rollback(self, request: pb.RollbackRequest, context: Any) -> pb.RollbackResponse:
        self._admit()
        if not request.reason.strip() or len(request.reason) > MAX_REASON_CHARACTERS:
            raise RequestError(f"reason must say why, in 1 to {MAX_REASON_CHARACTERS} characters")
        return said.rolled_back(await self._slow(self.node.rollback, request.reason))

    async def WatchEvents(self, request: pb.WatchEventsRequest, context: Any) -> AsyncIterator[pb.WatchEventsResponse]:
        self._admit()
        kinds = said.words_of(request.kinds, said.EVENTS, "kinds")
        if request.after_event_id < 0:
            raise RequestError("after_event_id must be 0 or more")
        store = self.node.device.store
        last = request.after_event_id
        if not request.HasField("after_event_id"):
            last = await self._slow(store.latest_event_id)
        while True:
            events = await self._slow(lambda: store.events(after=last))  # noqa: B023 - awaited before `last` changes
            for event in events:
                last = event.id
                if not kinds or event.kind in kinds:
                    yield pb.WatchEventsResponse(event=said.event(event))
            if not events:
                await asyncio.sleep(LOOK_S)

    def _admit(self) -> None:
        """Let the owners of the device alone go on.

        Raises:
            ServiceError: `caller-refused`.
        """
        call = current_call()
        names = call.caller.names if call else ()
        if self.owners and not set(self.owners) & set(names):
            raise ServiceError(Code.CALLER_REFUSED, "only the device's owners may do this: call with their certificate")

    async def _fast(self, work: Callable[..., _Result], *words: Any) -> _Result:
        return await _in_thread(self.answering, work, *words)

    async def _slow(self, work: Callable[..., _Result], *words: Any) -> _Result:
        return await _in_thread(self.working, work, *words)


async def _in_thread(threads: Executor, work: Callable[..., _Result], *words: Any) -> _Result:
    """What `work` returns in one of the `threads`, where it knows which call it is part of."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(threads, context.run, work, *words)


def _decoded(capture: bytes, name: str) -> Pixels:
    try:
        return decode_png(capture)
    except CaptureError as error:
        raise CaptureError(error.code, f"{name}: {error.message}") from error


def _sample_place(place: str) -> int:
    if place and not (place.isascii() and place.isdecimal()):
        raise RequestError("page_token is not one that this device gave: begin with an empty one")
    return int(place or 0)
