"""A gRPC server that speaks both protocols of servers that run models, and answers what a test wants it to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import numpy as np
from safetensors.numpy import save

from teacher_inference.answers import FEATURES, NOTES, REASONS, SPACE, USABLE
from teacher_inference.wire import open_inference_pb2, open_inference_pb2_grpc, torchserve_pb2, torchserve_pb2_grpc

DIMENSION = 4
OWN_SPACE = "aaaaaaaaaaaaaaaaaaaaaaaa/teacher"
DATATYPES = {"float32": "FP32", "float64": "FP64", "bool": "BOOL", "uint8": "UINT8", "object": "BYTES"}
FIELDS = {"FP32": "fp32_contents", "FP64": "fp64_contents", "BOOL": "bool_contents", "BYTES": "bytes_contents"}
FIELDS["UINT8"] = "uint_contents"


def right(captures: int) -> dict[str, Any]:
    """A right answer: each capture's feature is an axis of the space."""
    vectors = np.eye(DIMENSION, dtype=np.float32)[np.arange(captures) % DIMENSION]
    nothing = [""] * captures
    return {FEATURES: vectors, USABLE: np.ones(captures, bool), REASONS: nothing, NOTES: nothing, SPACE: OWN_SPACE}


@dataclass
class Script:
    """What the server does from now on."""

    answer: Callable[[int], Mapping[str, Any]] = right
    """From the number of captures; what is absent there is not sent."""
    prediction: bytes | None = None
    """Sent by TorchServe's protocol in place of the answer."""
    status: grpc.StatusCode | None = None
    """Every call ends with it."""
    pause_s: float = 0.0
    raw: bool = False
    """Whether tensors travel raw, as Triton sends them."""
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...] = (("captures", "BYTES", (-1,)),)
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...] = ((FEATURES, "FP32", (-1, DIMENSION)),)
    health: str = '{"status": "Healthy"}'
    """What TorchServe's protocol says of the server."""
    ready: bool = True
    """What the other says of the model."""
    loading: bool = False
    """Whether it says that it is not ready whatever else it is asked ends with."""
    seen: list[Any] = field(default_factory=list)
    """Requests, and the metadata they came with."""


class ScriptedModelServer:
    """Serves from `start` to `close`, in the event loop of the test."""

    def __init__(self) -> None:
        self.script = Script()
        self._server = grpc.aio.server()
        torchserve_pb2_grpc.add_InferenceAPIsServiceServicer_to_server(_TorchServe(self), self._server)
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_OpenInference(self), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    async def start(self) -> None:
        await self._server.start()

    async def close(self) -> None:
        await self._server.stop(0)

    def now(self, **changed: Any) -> None:
        self.script = replace(Script(), **changed)

    async def play(self, request: Any, context: Any) -> None:
        self.script.seen.append((request, dict(context.invocation_metadata())))
        await asyncio.sleep(self.script.pause_s)
        if self.script.status is not None:
            await context.abort(self.script.status, "as the test wants it")


class _TorchServe(torchserve_pb2_grpc.InferenceAPIsServiceServicer):
    def __init__(self, server: ScriptedModelServer) -> None:
        self._server = server

    async def Ping(self, request, context):  # noqa: N802
        await self._server.play(request, context)
        return torchserve_pb2.TorchServeHealthResponse(health=self._server.script.health)

    async def Predictions(self, request, context):  # noqa: N802
        await self._server.play(request, context)
        script = self._server.script
        prediction = script.prediction if script.prediction is not None else packed(script.answer(len(request.input)))
        return torchserve_pb2.PredictionResponse(prediction=prediction)


def packed(answer: Mapping[str, Any]) -> bytes:
    """An answer as the handler packs it, right or wrong."""
    about = {"name": "scripted", **{name: answer[name] for name in (SPACE, REASONS, NOTES) if name in answer}}
    tensors = {name: np.ascontiguousarray(answer[name]) for name in (FEATURES, USABLE) if name in answer}
    return save(tensors, metadata={"answer": json.dumps(about)})


class _OpenInference(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, server: ScriptedModelServer) -> None:
        self._server = server

    async def ModelReady(self, request, context):  # noqa: N802
        script = self._server.script
        if not script.loading:
            await self._server.play(request, context)
        return open_inference_pb2.ModelReadyResponse(ready=script.ready and not script.loading)

    async def ModelMetadata(self, request, context):  # noqa: N802
        await self._server.play(request, context)
        kind = open_inference_pb2.ModelMetadataResponse.TensorMetadata
        script = self._server.script
        inputs = [kind(name=name, datatype=datatype, shape=shape) for name, datatype, shape in script.inputs]
        outputs = [kind(name=name, datatype=datatype, shape=shape) for name, datatype, shape in script.outputs]
        return open_inference_pb2.ModelMetadataResponse(name=request.name, inputs=inputs, outputs=outputs)

    async def ModelInfer(self, request, context):  # noqa: N802
        await self._server.play(request, context)
        captures = len(request.inputs[0].contents.bytes_contents)
        answer = self._server.script.answer(captures)
        texts = {name: answer[name] for name in (REASONS, NOTES) if name in answer}
        if SPACE in answer:
            texts[SPACE] = [answer[SPACE]] * captures
        arrays = {name: np.asarray(answer[name]) for name in (FEATURES, USABLE) if name in answer}
        arrays |= {name: np.array([text.encode() for text in texts[name]], dtype=object) for name in texts}
        return tensors(arrays, raw=self._server.script.raw)


def tensors(arrays: Mapping[str, np.ndarray], *, raw: bool) -> open_inference_pb2.ModelInferResponse:
    """A response that holds `arrays`."""
    response = open_inference_pb2.ModelInferResponse(model_name="teacher")
    for name, array in arrays.items():
        datatype = DATATYPES[array.dtype.name]
        output = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if not raw:
            getattr(output.contents, FIELDS[datatype]).extend(array.reshape(-1).tolist())
        elif datatype == "BYTES":
            response.raw_output_contents.append(b"".join(len(e).to_bytes(4, "little") + e for e in array.reshape(-1)))
        else:
            response.raw_output_contents.append(np.ascontiguousarray(array).tobytes())
    return response
