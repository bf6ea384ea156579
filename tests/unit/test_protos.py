"""The contracts say what everything in them means and speak the code's words; the generated code is made of them."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodOptions,
    ServiceDescriptorProto,
)
from grpc_tools import protoc
from source_tree import GENERATED, ROOT

from device_sim.events import EventKind
from device_sim.records import LabelSource, State
from device_sim.sampling import Kind, Rule
from tutelage.biometrics.matching import Decision
from tutelage.captures import MAX_SIDE, MIN_SIDE
from tutelage.commands.distil import Size
from tutelage.labelling import SOFT_PERSONS
from tutelage.package import MAX_PACKAGE_BYTES

PROTOS = ROOT / "protos"
CONTRACTS = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.glob("tutelage/**/*.proto"))
CALLS = {
    "TeacherInferenceService": {"EnrolPerson", "RemovePerson", "Label", "SubmitLabelBatch", "GetLabelBatch"}
    | {"GetTeacher", "ExtractFeatures"},
    "StudentDistillerService": {"SubmitJob", "GetJob", "ListJobs", "WatchJob", "CancelJob"},
    "ModelRegistryService": {"CreateVersion", "GetVersion", "ListVersions", "DownloadVersion", "SetChannel"}
    | {"GetChannel", "ListChannelHistory", "CheckIn"},
    "DeviceService": {"Enrol", "Recognize", "Verify", "GetStatus", "ListSamples", "ExplainSample", "ErasePerson"}
    | {"TrainNow", "Rollback", "WatchEvents"},
}
# Calls that a client may not repeat by itself: a second one finds what the first has done.
NOT_REPEATED = {"RemovePerson", "CreateVersion", "SetChannel"}
NOT_REPEATED |= {"Enrol", "Recognize", "Verify", "ErasePerson", "TrainNow", "Rollback"}
STREAMS_IN = {"CreateVersion"}
STREAMS_OUT = {"WatchJob", "DownloadVersion", "WatchEvents"}
# Numbers of fields in descriptor.proto, of which the paths of comments are made.
MESSAGE, ENUM, SERVICE = 4, 5, 6
FIELD, NESTED, NESTED_ENUM, ONEOF = 2, 3, 4, 8
MEMBER = 2  # the values of an enum, the calls of a service


def compiled(protos: Path, contracts: list[str]) -> dict[str, FileDescriptorProto]:
    """Descriptors of `contracts` by their name, with their comments."""
    out = protos / "contracts.descriptors"
    include = Path(protoc.__file__).parent / "_proto"
    flags = [f"-I{protos}", f"-I{include}", "--include_source_info", f"--descriptor_set_out={out}"]
    assert protoc.main(["protoc", *flags, *contracts]) == 0
    return {file.name: file for file in FileDescriptorSet.FromString(out.read_bytes()).file}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FileDescriptorProto]:
    copy = tmp_path_factory.mktemp("contracts") / "protos"
    shutil.copytree(PROTOS, copy)
    return compiled(copy, CONTRACTS)


def named(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Path and name of everything in a contract that has a name and is written down."""
    for i, message in enumerate(file.message_type):
        yield from in_message((MESSAGE, i), message)
    for i, enum in enumerate(file.enum_type):
        yield from with_members((ENUM, i), enum, [value.name for value in enum.value])
    for i, service in enumerate(file.service):
        yield from with_members((SERVICE, i), service, [call.name for call in service.method])


def in_message(path: tuple[int, ...], message: DescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    if message.options.map_entry:
        return
    yield path, message.name
    synthetic = {field.oneof_index for field in message.field if field.proto3_optional}
    for i, field in enumerate(message.field):
        yield (*path, FIELD, i), f"{message.name}.{field.name}"
    for i, oneof in enumerate(message.oneof_decl):
        if i not in synthetic:
            yield (*path, ONEOF, i), f"{message.name}.{oneof.name}"
    for i, nested in enumerate(message.nested_type):
        yield from in_message((*path, NESTED, i), nested)
    for i, enum in enumerate(message.enum_type):
        yield from with_members((*path, NESTED_ENUM, i), enum, [value.name for value in enum.value])


def with_members(
    path: tuple[int, ...], owner: EnumDescriptorProto | ServiceDescriptorProto, members: list[str]
) -> Iterator[tuple[tuple[int, ...], str]]:
    yield path, owner.name
    for i, name in enumerate(members):
        yield (*path, MEMBER, i), f"{owner.name}.{name}"


def comments(file: FileDescriptorProto) -> dict[str, str]:
    """What stands before each named thing of a contract, on one line; empty where nothing does."""
    written = {tuple(where.path): " ".join(where.leading_comments.split()) for where in file.source_code_info.location}
    return {name: written.get(path, "") for path, name in named(file)}


@cache
def module_of(contract: str, suffix: str = "_pb2"):
    return importlib.import_module(contract.removesuffix(".proto").replace("/", ".") + suffix)


def test_there_is_one_contract_for_each_area():
    assert [contract.split("/")[2] for contract in CONTRACTS] == ["device", "distiller", "registry", "teacher"]
    assert all(contract == "tutelage/api/{0}/v1/{0}.proto".format(contract.split("/")[2]) for contract in CONTRACTS)


@pytest.mark.parametrize("contract", CONTRACTS)
def test_everything_in_a_contract_says_what_it_means(contract: str, files: dict[str, FileDescriptorProto]):
    said = comments(files[contract])
    assert len(said) > 50
    assert [name for name, text in said.items() if len(text.split()) < 2 or not text.endswith(".")] == []


def test_what_says_nothing_is_found(tmp_path: Path):
    source = """syntax = "proto3";
        // Spoken of.
        message A {
          int32 x = 1;
          optional int32 y = 2;
          map<string, int32> z = 3;
          oneof o { int32 p = 4; }
          enum E { V = 0; }
        }
        enum F { W = 0; }
        service S { rpc C(A) returns (A); }
        """
    tmp_path.joinpath("a.proto").write_text(source)
    said = comments(compiled(tmp_path, ["a.proto"])["a.proto"])
    assert said.pop("A") == "Spoken of."
    assert said == dict.fromkeys(("A.x", "A.y", "A.z", "A.p", "A.o", "E", "E.V", "F", "F.W", "S", "S.C"), "")


@pytest.mark.parametrize("contract", CONTRACTS)
def test_package_path_and_import_are_one(contract: str, files: dict[str, FileDescriptorProto]):
    assert files[contract].package.replace(".", "/") == contract.rpartition("/")[0]
    for suffix in ("_pb2", "_pb2_grpc"):
        path = ROOT / "src" / contract.replace(".proto", f"{suffix}.py")
        assert Path(module_of(contract, suffix).__file__).resolve() == path
        assert path.with_suffix(".pyi").is_file()


@pytest.mark.parametrize("contract", CONTRACTS)
def test_the_generated_code_was_made_of_the_contract(contract: str, files: dict[str, FileDescriptorProto]):
    generated, written = FileDescriptorProto(), FileDescriptorProto.FromString(files[contract].SerializeToString())
    module_of(contract).DESCRIPTOR.CopyToProto(generated)
    written.ClearField("source_code_info")
    for message in (*written.message_type, *(n for m in written.message_type for n in m.nested_type)):
        for field in message.field:
            field.ClearField("json_name")
    assert generated == written


def test_services_have_the_agreed_calls(files: dict[str, FileDescriptorProto]):
    services = [service for file in files.values() for service in file.service]
    assert {service.name: {call.name for call in service.method} for service in services} == CALLS
    calls = [call for service in services for call in service.method]
    assert {call.name for call in calls if call.client_streaming} == STREAMS_IN
    assert {call.name for call in calls if call.server_streaming} == STREAMS_OUT
    for call in calls:
        ends = (call.input_type.rpartition(".")[2], call.output_type.rpartition(".")[2])
        assert ends == (f"{call.name}Request", f"{call.name}Response")


@pytest.mark.parametrize("contract", CONTRACTS)
def test_generated_services_offer_every_call(contract: str, files: dict[str, FileDescriptorProto]):
    (service,) = files[contract].service
    servicer = getattr(module_of(contract, "_pb2_grpc"), f"{service.name}Servicer")
    assert {call.name for call in service.method} <= set(vars(servicer))


@pytest.mark.parametrize("contract", CONTRACTS)
def test_lists_come_in_pages(contract: str, files: dict[str, FileDescriptorProto]):
    messages = {message.name: {field.name for field in message.field} for message in files[contract].message_type}
    for name, fields in messages.items():
        if name.startswith("List") and name.endswith("Request"):
            assert {"page_size", "page_token"} <= fields
            assert "next_page_token" in messages[name.replace("Request", "Response")]


@pytest.mark.parametrize(
    ("area", "enum", "words"),
    [
        ("device", "EventKind", EventKind),
        ("device", "Decision", Decision),
        ("device", "SampleKind", Kind),
        ("device", "SampleRule", Rule),
        ("device", "SampleState", State),
        ("device", "LabelSource", LabelSource),
        ("distiller", "StudentSize", Size),
    ],
)
def test_an_enum_has_the_words_of_the_code(area: str, enum: str, words: type[StrEnum]):
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum).upper()
    values = module_of(f"tutelage/api/{area}/v1/{area}.proto").DESCRIPTOR.enum_types_by_name[enum].values_by_name
    expected = {f"{prefix}_{word.value.replace('-', '_').upper()}" for word in words}
    assert set(values) - {f"{prefix}_UNSPECIFIED"} == expected


@pytest.mark.needs("torch")
@pytest.mark.parametrize("message", ["Training", "LossWeights"])
def test_defaults_that_are_stated_are_those_of_a_distillation(message: str, files: dict[str, FileDescriptorProto]):
    settings = importlib.import_module("tutelage.nn.distil").Distillation()
    said = comments(files["tutelage/api/distiller/v1/distiller.proto"])
    stated = {
        name.partition(".")[2]: float(re.search(r"[Aa]bsent: ([\d.]+)\.$", text).group(1))
        for name, text in said.items()
        if name.startswith(f"{message}.")
    }
    assert stated == {name: getattr(settings, name) for name in stated}
    assert stated


def test_limits_that_are_stated_are_those_of_the_code():
    text = {path.stem: " ".join(path.read_text().replace("//", " ").split()) for path in PROTOS.rglob("*.proto")}
    for area in ("teacher", "device"):
        assert f"{MIN_SIDE} to {MAX_SIDE} pixels a side" in text[area]
    assert f"at most {SOFT_PERSONS}, summing to 1" in text["teacher"]
    assert f"1 to {MAX_PACKAGE_BYTES} (256 MiB)" in text["registry"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of all that the drift check looks at."""
    for name in ("protos", *GENERATED):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(tree / "protos/generate.py"), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def snapshot(tree: Path) -> dict[str, bytes]:
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def test_the_generated_code_is_current(tree: Path):
    checked = run(tree, "--check")
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_changed_contract_fails_the_check_which_changes_nothing_until_it_is_generated(tree: Path):
    contract = tree / "protos/tutelage/api/teacher/v1/teacher.proto"
    contract.write_text(contract.read_text().replace("optional string person = 1;", "optional string name = 1;"))
    before = snapshot(tree)
    checked = run(tree, "--check")
    assert checked.returncode == 1
    assert "src/tutelage/api/teacher/v1/teacher_pb2.py is out of date: run `make proto`" in checked.stderr
    assert snapshot(tree) == before
    assert run(tree).returncode == 0
    assert run(tree, "--check").returncode == 0


def test_code_without_a_contract_fails_the_check_and_is_deleted(tree: Path):
    left = tree / GENERATED[0] / "teacher/v1/left_pb2.py"
    left.write_text("")
    assert "left_pb2.py is out of date" in run(tree, "--check").stderr
    assert run(tree).returncode == 0
    assert not left.exists()


def test_a_contract_that_does_not_compile_leaves_the_generated_code(tree: Path):
    contract = tree / "protos/tutelage/api/teacher/v1/teacher.proto"
    contract.write_text("syntax = 'proto3'; message {")
    before = snapshot(tree)
    assert run(tree).returncode == run(tree, "--check").returncode == 1
    assert snapshot(tree) == before


def test_a_generator_of_another_version_is_refused(tree: Path):
    project = tree / "pyproject.toml"
    project.write_text(re.sub(r'"grpcio-tools==[\d.]+"', '"grpcio-tools==1.0.0"', project.read_text()))
    refused = run(tree, "--check")
    assert refused.returncode == 1
    assert "1.0.0 is pinned" in refused.stderr


def test_a_call_that_may_be_repeated_says_so(files: dict[str, FileDescriptorProto]):
    levels = {
        call.name: call.options.idempotency_level
        for file in files.values()
        for service in file.service
        if service.name in CALLS
        for call in service.method
    }
    assert {name for name, level in levels.items() if level == MethodOptions.IDEMPOTENCY_UNKNOWN} == NOT_REPEATED
    changing = {"EnrolPerson", "SubmitLabelBatch", "SubmitJob", "CancelJob", "CheckIn"}
    assert {name for name, level in levels.items() if level == MethodOptions.IDEMPOTENT} == changing
