"""A teacher at a server that speaks version 2 of the Open Inference Protocol over gRPC: Triton, KServe, MLServer.

The model's tensors, N captures at a time (`docs/teachers/open-inference.md` has the details):

- in: `captures` BYTES (N,) or (N, 1), PNG files;
- out: `features` FP32 (N, D). May be absent: `usable` BOOL, `reasons` and `notes` BYTES (UTF-8), `space` BYTES, each
  (N,) or (N, 1); then a capture is usable unless its feature is zero, nothing is said about it, and the settings have
  to say which space it is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from teacher_inference.answers import CAPTURES, FEATURES, NOTES, REASONS, SPACE, USABLE, Answer, Identity
from teacher_inference.backends import BackendKind, BackendSettings
from teacher_inference.model_server import ModelServer
from teacher_inference.tensors import Tensor, bytes_input, read_outputs
from teacher_inference.wire.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
)
from teacher_inference.wire.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tutelage.biometrics.features import Features
from tutelage.captures import encode_png
from tutelage.errors import Code, ServiceError, SettingsError
from tutelage.labelling import Extraction

__all__ = ["OpenInferenceBackend"]

OUTPUTS = frozenset({FEATURES, USABLE, REASONS, NOTES, SPACE})
"""Whatever else a model gives is passed over."""

CHECK_TIMEOUT_S = 5.0
"""More than the server's own health check waits; that is the limit that counts."""

PROBE_SIDE = 64

T = TypeVar("T")


class OpenInferenceBackend:
    """A `Backend`; made by `open`."""

    kind = BackendKind.OPEN_INFERENCE

    def __init__(self, model: _Model, teacher: Identity) -> None:
        """Ask `model`, which runs `teacher`."""
        self._model = model
        self._teacher = teacher
        self.name = teacher.name
        self.space = teacher.space

    @classmethod
    async def open(cls, settings: BackendSettings, *, timeout: float) -> OpenInferenceBackend:
        """Ask the server for the model's tensors, and the model for a feature of a drawn pattern.

        Raises:
            SettingsError: the server cannot be reached as `settings` say, its model has other tensors, or neither it
                nor `settings` tell the space.
            ServiceError: as `Backend.extract`.
        """
        model = _Model(settings)
        try:
            if not await model.is_ready(timeout):
                raise ServiceError(Code.SERVICE_UNAVAILABLE, f"model {settings.model} is not ready at its server")
            await model.learn_tensors(timeout)
            answer = await model.ask([_probe()], timeout)
            if not answer.space:
                raise SettingsError(f"model {settings.model} does not tell its space: set the space in the settings")
            return cls(model, answer.identity)
        except BaseException:
            await model.server.close()
            raise

    async def extract(self, captures: Sequence[bytes], *, timeout: float) -> Extraction:
        """See `Backend.extract`."""
        if not captures:  # which servers refuse
            none = np.zeros((0, self._teacher.dimension), dtype=np.float32)
            return Extraction(Features(none, self.space), np.zeros(0, dtype=np.bool_), (), ())
        return (await self._model.ask(captures, timeout)).extraction(self._teacher, len(captures))

    async def check(self) -> None:
        """See `Backend.check`."""
        if not await self._model.is_ready(CHECK_TIMEOUT_S):
            raise ServiceError(Code.SERVICE_UNAVAILABLE, f"model {self.name} is not ready at its server")

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._model.server.close()


class _Model:
    """One model at such a server."""

    def __init__(self, settings: BackendSettings) -> None:
        self.server = ModelServer(settings)
        self._stub = GRPCInferenceServiceStub(self.server.channel)
        self._name, self._version, self._space = settings.model, settings.model_version, settings.space
        self._rank = 1

    async def learn_tensors(self, timeout: float) -> None:
        request = ModelMetadataRequest(name=self._name, version=self._version)
        metadata = await self.server.call(self._stub.ModelMetadata, request, timeout)
        self._rank = _rank_of_captures(metadata)

    async def ask(self, captures: Sequence[bytes], timeout: float) -> Answer:
        request = ModelInferRequest(
            model_name=self._name,
            model_version=self._version,
            inputs=[bytes_input(CAPTURES, captures, self._rank)],
        )
        response = await self._infer(request, timeout)
        try:
            return self._answer(read_outputs(response, OUTPUTS), len(captures))
        except (LookupError, ValueError) as error:
            raise ServiceError(
                Code.SERVICE_FAILED, f"model {self._name} gave a wrong answer: its tensors are not those of a teacher"
            ) from error

    async def _infer(self, request: ModelInferRequest, timeout: float) -> ModelInferResponse:
        """A server that still loads the model may refuse in the same words as for a bad request, so it is asked."""
        until = time.monotonic() + timeout
        try:
            return await self.server.call(self._stub.ModelInfer, request, timeout)
        except ServiceError as error:
            left = until - time.monotonic()
            if error.code is not Code.SERVICE_FAILED or left <= 0 or await self.is_ready(left):
                raise
            raise ServiceError(Code.SERVICE_UNAVAILABLE, f"model {self._name} is not ready at its server") from error

    def _answer(self, outputs: dict[str, Tensor], captures: int) -> Answer:
        vectors = outputs[FEATURES]
        usable = outputs[USABLE].reshape(-1) if USABLE in outputs else np.atleast_1d(vectors.any(axis=-1))
        nothing = [""] * captures
        reasons, notes = (_texts(outputs[name]) if name in outputs else nothing for name in (REASONS, NOTES))
        return Answer(self._name, self._space_of(outputs), vectors, usable, reasons, notes)

    def _space_of(self, outputs: dict[str, Tensor]) -> str:
        """The space that the model tells, else that of the settings."""
        told = set(_texts(outputs[SPACE])) if SPACE in outputs else {self._space}
        if len(told) != 1:
            raise ValueError("the answer is in several spaces")
        return told.pop()

    async def is_ready(self, timeout: float) -> bool:
        request = ModelReadyRequest(name=self._name, version=self._version)
        return bool((await self.server.call(self._stub.ModelReady, request, timeout)).ready)


def _rank_of_captures(metadata: ModelMetadataResponse) -> int:
    """1 where the model takes captures (N,), 2 where (N, 1); servers need not know what their models take.

    Raises:
        SettingsError: the model takes something else, or gives no features.
    """
    inputs = {tensor.name: tensor for tensor in metadata.inputs}
    outputs = {tensor.name: tensor.datatype for tensor in metadata.outputs}
    takes = not inputs or (inputs.keys() == {CAPTURES} and inputs[CAPTURES].datatype == "BYTES")
    if not takes or (outputs and outputs.get(FEATURES) != "FP32"):
        raise SettingsError(
            f"model {metadata.name} takes {sorted(inputs)} and gives {sorted(outputs)}: "
            f"a teacher takes {CAPTURES} (BYTES) and gives {FEATURES} (FP32)"
        )
    return max(1, min(2, len(inputs[CAPTURES].shape))) if inputs else 1


def _texts(tensor: Tensor) -> list[str]:
    return [bytes(element).decode("utf-8") for element in tensor.reshape(-1)]


def _probe() -> bytes:
    """A capture of nobody: rings."""
    y, x = np.mgrid[:PROBE_SIDE, :PROBE_SIDE] - PROBE_SIDE / 2
    return encode_png(np.round(127.5 + 127.5 * np.cos(np.hypot(x, y))).astype(np.uint8))
