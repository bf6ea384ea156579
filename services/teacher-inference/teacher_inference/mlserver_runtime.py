"""What MLServer runs: a teacher that speaks the Open Inference Protocol, as `teacher_inference.open_inference` asks.

A folder with a `model-settings.json` makes a model of it; `docs/teachers/open-inference.md` shows one. The settings'
`parameters.extra` holds `teacher` (`fingerprint`, `face` or the path of a file) and may hold `threads`. Where MLServer
runs, the distribution `teacher-inference` is installed.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse

# Not the client of this protocol: MLServer has classes of its own for the same messages, and one process takes but one.
from teacher_inference.answers import CAPTURES, FEATURES, NOTES, REASONS, SPACE, USABLE
from teacher_inference.encoded_teacher import EncodedTeacher
from tutelage.nn.teacher_sources import open_teacher


class TeacherRuntime(MLModel):  # type: ignore[misc] # MLServer is not installed where types are checked
    """One teacher; extracts in a thread of its own, so that the server answers meanwhile."""

    async def load(self) -> bool:
        """Load the teacher that the settings name."""
        extra: dict[str, Any] = self.settings.parameters.extra or {}
        self._thread = ThreadPoolExecutor(1, "teacher")
        self._teacher = await self._in_thread(_load, str(extra["teacher"]), int(extra.get("threads", 0)))
        return True

    async def unload(self) -> bool:
        """Let the thread end."""
        self._thread.shutdown(wait=False)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """What the teacher sees in the captures of one request."""
        captures = next((tensor.data for tensor in payload.inputs if tensor.name == CAPTURES), None)
        if captures is None or not all(isinstance(capture, bytes) for capture in captures):
            raise InferenceError(f"a teacher takes one tensor {CAPTURES} of BYTES, over gRPC")
        seen = await self._in_thread(self._teacher.extract, list(captures))
        outputs = [
            NumpyCodec.encode_output(FEATURES, seen.features.vectors),
            NumpyCodec.encode_output(USABLE, np.asarray(seen.usable)),
            StringCodec.encode_output(REASONS, list(seen.reasons)),
            StringCodec.encode_output(NOTES, list(seen.notes)),
            StringCodec.encode_output(SPACE, [seen.features.space] * len(captures)),
        ]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)

    async def _in_thread(self, work: Any, *words: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *words)


def _load(word: str, threads: int) -> EncodedTeacher:
    if threads:
        torch.set_num_threads(threads)
    return EncodedTeacher(open_teacher(word))
