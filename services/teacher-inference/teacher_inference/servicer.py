"""The calls of TeacherInferenceService: checked, converted, handed to the domain, and converted back."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from teacher_inference import request_rules as rules
from teacher_inference.backends import BackendKind
from teacher_inference.deadlines import within
from teacher_inference.feature_callers import FeatureCallers
from teacher_inference.label_batches import Batch, BatchState, LabelBatches
from teacher_inference.labels import Labels
from teacher_inference.threads import in_thread
from tutelage.api.teacher.v1 import teacher_pb2, teacher_pb2_grpc
from tutelage.calls import current_call
from tutelage.errors import CATALOGUE, Code
from tutelage.labelling import LabelAnswer

__all__ = ["NAME", "TeacherInferenceServicer"]

NAME: str = teacher_pb2.DESCRIPTOR.services_by_name["TeacherInferenceService"].full_name

_KINDS = {
    BackendKind.IN_PROCESS: teacher_pb2.TEACHER_BACKEND_IN_PROCESS,
    BackendKind.TORCHSERVE: teacher_pb2.TEACHER_BACKEND_TORCHSERVE,
    BackendKind.OPEN_INFERENCE: teacher_pb2.TEACHER_BACKEND_OPEN_INFERENCE,
}
_STATES = {
    BatchState.QUEUED: teacher_pb2.LABEL_BATCH_STATE_QUEUED,
    BatchState.RUNNING: teacher_pb2.LABEL_BATCH_STATE_RUNNING,
    BatchState.DONE: teacher_pb2.LABEL_BATCH_STATE_DONE,
    BatchState.FAILED: teacher_pb2.LABEL_BATCH_STATE_FAILED,
    BatchState.EXPIRED: teacher_pb2.LABEL_BATCH_STATE_EXPIRED,
}

_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class TeacherInferenceServicer(teacher_pb2_grpc.TeacherInferenceServiceServicer):
    """Proto on one side, the domain on the other."""

    labels: Labels
    batches: LabelBatches
    callers: FeatureCallers
    threads: Executor
    """Where captures are decoded that no backend sees at once."""
    call_timeout_s: float
    """For calls without a deadline, and the most for those with one."""

    async def EnrolPerson(
        self, request: teacher_pb2.EnrolPersonRequest, context: _Context
    ) -> teacher_pb2.EnrolPersonResponse:
        """See teacher.proto."""
        site, person = rules.check_site(request.site), rules.check_person(request.person)
        captures = rules.check_captures(request.captures, rules.ENROL_CAPTURES)
        done = await self.labels.enrol(site, person, captures, timeout=self._left(context))
        unusable = [teacher_pb2.UnusableCapture(index=place, reason=reason) for place, reason in done.unusable]
        return teacher_pb2.EnrolPersonResponse(references=done.references, unusable=unusable, teacher_space=done.space)

    async def RemovePerson(
        self, request: teacher_pb2.RemovePersonRequest, context: _Context
    ) -> teacher_pb2.RemovePersonResponse:
        """See teacher.proto."""
        site, person = rules.check_site(request.site), rules.check_person(request.person)
        references = await self.labels.remove(site, person, timeout=self._left(context))
        return teacher_pb2.RemovePersonResponse(references=references)

    async def Label(self, request: teacher_pb2.LabelRequest, context: _Context) -> teacher_pb2.LabelResponse:
        """See teacher.proto."""
        site = rules.check_site(request.site)
        attempts = rules.check_attempts([attempt.captures for attempt in request.attempts], rules.LABEL_ATTEMPTS)
        judged = await self.labels.label(site, attempts, timeout=self._left(context))
        return teacher_pb2.LabelResponse(answers=[_answer(each.answer) for each in judged])

    async def SubmitLabelBatch(
        self, request: teacher_pb2.SubmitLabelBatchRequest, context: _Context
    ) -> teacher_pb2.SubmitLabelBatchResponse:
        """See teacher.proto."""
        site, key = rules.check_site(request.site), rules.check_idempotency_key(request.idempotency_key)
        attempts = rules.check_attempts([attempt.captures for attempt in request.attempts], rules.SUBMIT_ATTEMPTS)
        async with within(self._left(context)):
            await self._check_decodable(attempts)
            batch = await self.batches.submit(site, key, attempts)
        return teacher_pb2.SubmitLabelBatchResponse(batch=_batch(batch))

    async def GetLabelBatch(
        self, request: teacher_pb2.GetLabelBatchRequest, context: _Context
    ) -> teacher_pb2.GetLabelBatchResponse:
        """See teacher.proto."""
        site, batch_id = rules.check_site(request.site), rules.check_batch_id(request.batch_id)
        async with within(self._left(context)):
            return teacher_pb2.GetLabelBatchResponse(batch=_batch(await self.batches.get(site, batch_id)))

    async def ExtractFeatures(
        self, request: teacher_pb2.ExtractFeaturesRequest, context: _Context
    ) -> teacher_pb2.ExtractFeaturesResponse:
        """See teacher.proto."""
        call = current_call()
        self.callers.check(call.caller.names if call else ())
        captures = rules.check_captures(request.captures, rules.EXTRACT_CAPTURES)
        seen = await self.labels.extract(captures, timeout=self._left(context))
        vectors = seen.features.vectors.astype("<f4")
        features = [
            teacher_pb2.ExtractedFeature(vector=vector.tobytes() if usable else b"", reason=reason, note=note)
            for vector, usable, reason, note in zip(vectors, seen.usable, seen.reasons, seen.notes, strict=True)
        ]
        return teacher_pb2.ExtractFeaturesResponse(features=features, teacher_space=seen.features.space)

    async def GetTeacher(
        self,
        request: teacher_pb2.GetTeacherRequest,
        context: _Context,
    ) -> teacher_pb2.GetTeacherResponse:
        """See teacher.proto."""
        backend, policy = self.labels.backend, self.labels.policy
        abstention = teacher_pb2.AbstentionPolicy(
            min_cosine=policy.min_cosine,
            min_margin=policy.min_margin,
            group=policy.group,
            soft_temperature=policy.soft_temperature,
        )
        teacher = teacher_pb2.Teacher(
            name=backend.name, teacher_space=backend.space, backend=_KINDS[backend.kind], abstention=abstention
        )
        return teacher_pb2.GetTeacherResponse(teacher=teacher)

    async def _check_decodable(self, attempts: Sequence[Sequence[bytes]]) -> None:
        captures = [capture for attempt in attempts for capture in attempt]
        await in_thread(self.threads, rules.check_decodable, captures, rules.places(attempts))

    def _left(self, context: _Context) -> float:
        """Seconds that a call may take from now."""
        remaining = context.time_remaining()
        return self.call_timeout_s if remaining is None else max(min(remaining, self.call_timeout_s), 0.0)


def _answer(answer: LabelAnswer) -> teacher_pb2.LabelAnswer:
    soft = [teacher_pb2.SoftLabel(person=person, probability=share) for person, share in answer.soft.items()]
    return teacher_pb2.LabelAnswer(
        person=answer.person,
        confidence=answer.confidence,
        margin=answer.margin if soft else None,
        soft=soft,
        reason=answer.reason,
        teacher_space=answer.space,
    )


def _batch(batch: Batch) -> teacher_pb2.LabelBatch:
    made = teacher_pb2.LabelBatch(
        batch_id=batch.record.batch_id,
        state=_STATES[batch.state],
        answers=[_answer(answer) for answer in batch.answers],
        error=None if batch.error is None else _error(batch.error),
    )
    made.submit_time.FromMicroseconds(round(batch.record.submitted * 1e6))
    made.expire_time.FromMicroseconds(round(batch.record.expires * 1e6))
    return made


def _error(code: Code) -> teacher_pb2.LabelBatchError:
    entry = CATALOGUE[code]
    return teacher_pb2.LabelBatchError(code=code.value, message=entry.public_text(entry.summary))
