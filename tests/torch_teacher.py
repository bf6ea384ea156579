"""A small real teacher behind the contract of teacher-inference, in a server of the test's own process."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import torch

from tutelage.api.teacher.v1 import teacher_pb2 as pb
from tutelage.api.teacher.v1 import teacher_pb2_grpc
from tutelage.captures import decode_png
from tutelage.nn.teachers import ResidualTeacher, TeacherNetwork, TeacherSpec, teacher_file
from tutelage.server import Server, ServerSettings, Service
from tutelage.settings import Address

NAME = "tutelage.api.teacher.v1.TeacherInferenceService"
LOOPBACK = Address("127.0.0.1", 0)


def write_teacher(path, seed: int = 0):
    """A teacher file nobody trained; random features are good enough to follow."""
    torch.manual_seed(seed)
    spec = TeacherSpec(channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1), dimension=16)
    path.write_bytes(teacher_file(TeacherNetwork(spec), "small", {"seed": seed}))
    return path


class TeacherServicer(teacher_pb2_grpc.TeacherInferenceServiceServicer):
    """Answers by a teacher; counts captures, can call itself another, and refuses those that `unusable` names."""

    def __init__(self, teacher: ResidualTeacher) -> None:
        self.teacher, self.space = teacher, teacher.space
        self.calls, self.captures = 0, 0
        self.fail = None
        self.unusable = lambda pixels: False

    async def GetTeacher(self, request, context):  # noqa: N802
        return pb.GetTeacherResponse(teacher=pb.Teacher(name=self.teacher.name, teacher_space=self.space))

    async def ExtractFeatures(self, request, context):  # noqa: N802
        self.calls += 1
        if self.fail is not None:
            raise self.fail
        captures = [decode_png(png) for png in request.captures]
        self.captures += len(captures)
        found = self.teacher.extract(captures)
        features = [
            pb.ExtractedFeature(reason="no finger") if self.unusable(capture) else pb.ExtractedFeature(vector=vector)
            for capture, vector in zip(captures, (row.tobytes() for row in found.features.vectors), strict=True)
        ]
        return pb.ExtractFeaturesResponse(features=features, teacher_space=self.space)


@asynccontextmanager
async def serving_teacher(teacher: ResidualTeacher, address: Address = LOOPBACK):
    """The servicer, and the address it answers at."""
    servicer = TeacherServicer(teacher)
    add = partial(teacher_pb2_grpc.add_TeacherInferenceServiceServicer_to_server, servicer)
    settings = ServerSettings(address=address, drain_notice=timedelta())
    async with Server(settings, [Service(NAME, add)]) as server:
        yield servicer, Address("127.0.0.1", server.port)
