"""The service teacher-inference for tests: captures, requests, and the real service over a small teacher of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from drawn_persons import draw_captures

from teacher_inference.abstention import AbstentionSettings
from teacher_inference.backends import BackendKind
from teacher_inference.encoded_teacher import EncodedTeacher
from teacher_inference.service import PART, BatchSettings, TeacherInferenceSettings, serving_backend
from teacher_inference.vault import Vault
from tutelage.api.teacher.v1 import teacher_pb2 as pb
from tutelage.biometrics.features import Features
from tutelage.captures import Pixels, encode_png
from tutelage.errors import Code, ServiceError
from tutelage.labelling import Extraction
from tutelage.serving import Part
from tutelage.settings import Secret

KEY = Secret(b"5a" * 32)
SITE = "gate-7"
SECONDS = 20.0


@cache
def png(person: int, number: int = 0) -> bytes:
    """A capture of a drawn person."""
    return encode_png(draw_captures(person, number + 1)[number])


class SpectrumTeacher:
    """A feature is how much of each wave is in a capture, whatever its phase; a black corner makes it unusable."""

    name = "spectrum"

    def __init__(self, space: str = "spectrum-1") -> None:
        self.space = space

    def extract(self, captures: Sequence[Pixels]) -> Extraction:
        rows = np.zeros((len(captures), 200), dtype=np.float64)
        usable = np.ones(len(captures), dtype=bool)
        for number, capture in enumerate(captures):
            grey = np.asarray(capture, dtype=np.float64).reshape(*capture.shape[:2], -1).mean(axis=2)
            waves = np.abs(np.fft.rfft2(grey - grey.mean(), s=(32, 32)))[:20, :10].ravel()
            usable[number] = bool(capture[:3, :3].any()) and bool(waves.any())
            rows[number] = waves / np.linalg.norm(waves) if usable[number] else 0.0
        reasons = tuple("" if ok else "nothing to see" for ok in usable)
        return Extraction(Features(rows.astype(np.float32), self.space), usable, reasons, ("",) * len(captures))


@dataclass
class ScriptedBackend:
    """A backend in this process that answers at once, late, never, or with an error."""

    teacher: SpectrumTeacher = field(default_factory=SpectrumTeacher)
    error: Code | None = None
    delay_s: float = 0.0
    kind = BackendKind.IN_PROCESS
    extracted: int = 0

    @property
    def name(self) -> str:
        return self.teacher.name

    @property
    def space(self) -> str:
        return self.teacher.space

    async def extract(self, captures: Sequence[bytes], *, timeout: float) -> Extraction:
        await self.check()
        if self.delay_s:
            try:
                await asyncio.wait_for(asyncio.sleep(self.delay_s), timeout)
            except TimeoutError as error:
                raise ServiceError(Code.DEADLINE_EXCEEDED, "the teacher is slow: allow more time") from error
        self.extracted += len(captures)
        return EncodedTeacher(self.teacher).extract(captures)

    async def check(self) -> None:
        if self.error is not None:
            raise ServiceError(self.error, "the teacher does not answer: start it")

    async def close(self) -> None:
        pass


OPEN = AbstentionSettings(min_cosine=-1.0, min_margin=0.0)


def settings(**changed) -> TeacherInferenceSettings:
    return TeacherInferenceSettings(KEY, **{"abstention": OPEN, "feature_callers": ("anonymous",), **changed})


def batches(**changed) -> BatchSettings:
    return BatchSettings(**changed)


def part(backend: ScriptedBackend) -> Part:
    """The part, with `backend` in the place of the one that settings describe."""

    def open_with(own, context):
        return serving_backend(backend, Vault.of(own.gallery_key, "gallery_key"), own, context)

    return Part(PART.name, PART.prefix, PART.settings, open_with)


def enrol(person: str, *captures: bytes, site: str = SITE) -> pb.EnrolPersonRequest:
    return pb.EnrolPersonRequest(site=site, person=person, captures=captures)


def label(*attempts: Sequence[bytes], site: str = SITE) -> pb.LabelRequest:
    return pb.LabelRequest(site=site, attempts=[pb.Attempt(captures=attempt) for attempt in attempts])


def submit(key: str, *attempts: Sequence[bytes], site: str = SITE) -> pb.SubmitLabelBatchRequest:
    return pb.SubmitLabelBatchRequest(
        site=site, idempotency_key=key, attempts=[pb.Attempt(captures=attempt) for attempt in attempts]
    )


async def ended(stub, batch: pb.LabelBatch, site: str = SITE, within_s: float = 60.0) -> pb.LabelBatch:
    """The batch once it is done, failed or expired."""
    async with asyncio.timeout(within_s):
        while batch.state in (pb.LABEL_BATCH_STATE_QUEUED, pb.LABEL_BATCH_STATE_RUNNING):
            await asyncio.sleep(0.05)
            request = pb.GetLabelBatchRequest(site=site, batch_id=batch.batch_id)
            batch = (await stub.GetLabelBatch(request, timeout=SECONDS)).batch
    return batch
