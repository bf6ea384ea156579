"""Our contracts of servers that run models are parts of those that an installed server has, number by number."""

from __future__ import annotations

import importlib.util
import os
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("grpc")

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from teacher_inference.wire import open_inference_pb2, torchserve_pb2

# The second is the Open Inference Protocol as its project publishes it, but for the package.
THEIRS = {"inference.proto": torchserve_pb2, "open_inference_grpc.proto": open_inference_pb2}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FileDescriptorProto]:
    """The contracts inside the installed TorchServe, compiled."""
    found = importlib.util.find_spec("ts")
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("TorchServe is not installed")
    folder = tmp_path_factory.mktemp("protos")
    with zipfile.ZipFile(Path(found.origin).parent / "frontend/model-server.jar") as jar:
        for name in THEIRS:
            folder.joinpath(name).write_bytes(jar.read(name))
    includes = [f"-I{folder}", f"-I{Path(protoc.__file__).parent / '_proto'}", f"-I{sysconfig.get_path('purelib')}"]
    out = folder / "out"
    assert protoc.main(["protoc", *includes, f"--descriptor_set_out={out}", *THEIRS]) == 0
    return {file.name: file for file in FileDescriptorSet.FromString(out.read_bytes()).file}


def fields(messages, prefix: str = "") -> dict[str, tuple]:
    """What matters on the wire of every field, by message and field; types without their package."""
    found = {}
    for message in messages:
        name = f"{prefix}{message.name}"
        for field in message.field:
            found[f"{name}.{field.name}"] = (field.number, field.type, field.label, _within_package(field.type_name))
        found |= fields(message.nested_type, f"{name}.")
    return found


def _within_package(name: str) -> str:
    return ".".join(part for part in name.split(".") if part[:1].isupper())


def calls(file: FileDescriptorProto) -> dict[str, tuple]:
    return {
        f"{service.name}.{call.name}": (_within_package(call.input_type), _within_package(call.output_type))
        for service in file.service
        for call in service.method
    }


@pytest.mark.parametrize("name", THEIRS)
def test_every_field_and_call_of_ours_is_theirs(name: str, theirs):
    ours, file = FileDescriptorProto(), theirs[name]
    THEIRS[name].DESCRIPTOR.CopyToProto(ours)
    assert fields(ours.message_type).items() <= fields(file.message_type).items()
    assert calls(ours).items() <= calls(file).items()
    assert len(fields(ours.message_type)) > 4
    packages = {"inference.proto": file.package, "open_inference_grpc.proto": "inference"}
    assert ours.package == packages[name]


def test_a_field_with_another_number_would_be_found():
    ours = DescriptorProto(name="M")
    ours.field.add(name="x", number=1)
    before = fields([ours])
    ours.field[0].number = 2
    assert before.items() - fields([ours]).items()
