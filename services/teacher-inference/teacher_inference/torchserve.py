"""A teacher at a TorchServe server: a batch is one prediction of the model that `teacher_inference.archive` packed.

Each capture is one input of the request, under a name in the order of the captures; the prediction is an answer as
`teacher_inference.answers` encodes it. A request without captures asks which teacher the server runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from google.protobuf.empty_pb2 import Empty

from teacher_inference.answers import Answer, Identity, decode_answer
from teacher_inference.backends import BackendKind, BackendSettings
from teacher_inference.model_server import ModelServer
from teacher_inference.wire.torchserve_pb2 import PredictionsRequest
from teacher_inference.wire.torchserve_pb2_grpc import InferenceAPIsServiceStub
from tutelage.errors import Code, ServiceError
from tutelage.labelling import Extraction

__all__ = ["TorchServeBackend"]

CHECK_TIMEOUT_S = 5.0
"""More than the server's own health check waits; that is the limit that counts."""

MAY_PASS = ("has no worker to serve inference request", "Worker died")
"""What TorchServe says, with the status INTERNAL, where its queue is full or a worker is replaced. No later version
will say it in another way: there will be none."""

UNHEALTHY = "Unhealthy"
"""What TorchServe says of itself while no worker of a model lives."""


class TorchServeBackend:
    """A `Backend`; made by `open`."""

    kind = BackendKind.TORCHSERVE

    def __init__(self, model: _Model, teacher: Identity) -> None:
        """Ask `model`, which runs `teacher`."""
        self._model = model
        self._teacher = teacher
        self.name = teacher.name
        self.space = teacher.space

    @classmethod
    async def open(cls, settings: BackendSettings, *, timeout: float) -> TorchServeBackend:
        """Ask the server which teacher it runs.

        Raises:
            SettingsError: the server cannot be reached as `settings` say.
            ServiceError: as `Backend.extract`.
        """
        model = _Model(settings)
        try:
            return cls(model, (await model.ask((), timeout)).identity)
        except BaseException:
            await model.server.close()
            raise

    async def extract(self, captures: Sequence[bytes], *, timeout: float) -> Extraction:
        """See `Backend.extract`."""
        return (await self._model.ask(captures, timeout)).extraction(self._teacher, len(captures))

    async def check(self) -> None:
        """See `Backend.check`; TorchServe answers for all models that it has."""
        status = await self._model.ping()
        if status == UNHEALTHY:
            raise ServiceError(Code.SERVICE_UNAVAILABLE, "TorchServe has no worker for a model: see its log")

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._model.server.close()


class _Model:
    """One model at a TorchServe server."""

    def __init__(self, settings: BackendSettings) -> None:
        self.server = ModelServer(settings)
        self._stub = InferenceAPIsServiceStub(self.server.channel)
        self._name, self._version = settings.model, settings.model_version

    async def ask(self, captures: Sequence[bytes], timeout: float) -> Answer:
        inputs = {f"{number:06d}": capture for number, capture in enumerate(captures)}
        request = PredictionsRequest(model_name=self._name, model_version=self._version, input=inputs)
        try:
            response = await self.server.call(self._stub.Predictions, request, timeout)
        except ServiceError as error:
            if error.code is Code.SERVICE_FAILED and any(words in error.message for words in MAY_PASS):
                raise ServiceError(Code.SERVICE_UNAVAILABLE, error.message) from error
            raise
        return decode_answer(response.prediction)

    async def ping(self) -> str:
        """What the server says of its health."""
        response = await self.server.call(self._stub.Ping, Empty(), CHECK_TIMEOUT_S)
        try:
            return str(json.loads(response.health)["status"])
        except (LookupError, TypeError, ValueError) as error:
            raise ServiceError(Code.SERVICE_FAILED, "what answers Ping is not TorchServe") from error
