"""A teacher's answers as bytes and as tensors, and captures as the PNG files they travel as."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_persons import draw_captures

pytest.importorskip("grpc")

from teacher_inference.answers import Identity, decode_answer, encode_answer
from teacher_inference.encoded_teacher import EncodedTeacher
from teacher_inference.tensors import bytes_input, read_outputs
from teacher_inference.wire.open_inference_pb2 import ModelInferResponse
from tutelage.biometrics.features import Features
from tutelage.captures import encode_png
from tutelage.errors import Code, ServiceError
from tutelage.labelling import Extraction

SPACE = "aaaaaaaaaaaaaaaaaaaaaaaa/teacher"


class Choosy:
    """A teacher that cannot use every second capture it sees; the feature is an axis by the capture's side."""

    name, space = "choosy", SPACE

    def __init__(self):
        self.seen: list[tuple[int, ...]] = []

    def extract(self, captures):
        self.seen += [capture.shape for capture in captures]
        usable = np.arange(len(captures)) % 2 == 0
        vectors = np.eye(40, dtype=np.float32)[[capture.shape[0] for capture in captures]].reshape(-1, 40)
        reasons = tuple("" if fine else "no face found" for fine in usable)
        notes = tuple("borrowed" if fine else "" for fine in usable)
        return Extraction(Features(vectors * usable[:, None], SPACE), usable, reasons, notes)


def png(side: int) -> bytes:
    return encode_png(draw_captures(0, 1, side)[0])


def test_what_a_teacher_saw_comes_back_in_the_places_of_the_files():
    teacher = Choosy()
    found = EncodedTeacher(teacher).extract([b"x", png(10), png(11), b"", png(12)])
    assert teacher.seen == [(10, 10), (11, 11), (12, 12)]
    assert found.usable.tolist() == [False, True, False, False, True]
    assert found.reasons[1:3] == ("", "no face found")
    assert all("PNG" in found.reasons[row] for row in (0, 3))
    assert found.notes == ("", "borrowed", "", "", "borrowed")
    assert found.features.vectors.argmax(axis=1).tolist() == [0, 10, 0, 0, 12]
    assert found.features.space == SPACE


@pytest.mark.parametrize("files", [0, 1, 3])
def test_an_answer_survives_its_encoding(files: int):
    seen = EncodedTeacher(Choosy()).extract([png(10 + number) for number in range(files)])
    answer = decode_answer(encode_answer("choosy", seen))
    assert answer.identity == Identity("choosy", SPACE, 40)
    found = answer.extraction(answer.identity, files)
    np.testing.assert_array_equal(found.features.vectors, seen.features.vectors)
    assert (found.usable.tolist(), found.reasons, found.notes) == (seen.usable.tolist(), seen.reasons, seen.notes)


def test_an_encoded_answer_holds_no_more_than_it_says():
    seen = EncodedTeacher(Choosy()).extract([png(10)])
    data = bytearray(encode_answer("choosy", seen))
    for cut in range(0, len(data), 7):
        with pytest.raises(ServiceError) as raised:
            decode_answer(bytes(data[:cut])).extraction(Identity("choosy", SPACE, 40), 1)
        assert raised.value.code is Code.SERVICE_FAILED


def test_an_answer_with_any_byte_changed_is_an_answer_or_a_typed_error():
    data = encode_answer("choosy", EncodedTeacher(Choosy()).extract([png(10)]))
    header = int.from_bytes(data[:8], "little") + 8
    chance = np.random.default_rng(5)
    refused = 0
    for place in range(header):
        changed = bytearray(data)
        changed[place] ^= int(chance.integers(1, 256))
        try:
            answer = decode_answer(bytes(changed))
            answer.extraction(answer.identity, 1)
        except ServiceError as error:
            assert error.code is Code.SERVICE_FAILED  # noqa: PT017
            refused += 1
    assert refused > header / 2


@pytest.mark.parametrize(("rank", "shape"), [(1, [3]), (2, [3, 1])])
def test_captures_become_a_tensor_of_bytes(rank: int, shape: list[int]):
    tensor = bytes_input("captures", [b"a", b"", b"\0c\0"], rank)
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("captures", "BYTES", shape)
    assert list(tensor.contents.bytes_contents) == [b"a", b"", b"\0c\0"]


def test_raw_elements_are_read_whole():
    response = ModelInferResponse()
    response.outputs.add(name="features", datatype="FP32", shape=[2, 2])
    response.outputs.add(name="more", datatype="INT64", shape=[1])
    response.outputs.add(name="usable", datatype="BOOL", shape=[2])
    response.outputs.add(name="notes", datatype="BYTES", shape=[2, 1])
    elements = [np.arange(4, dtype="<f4").tobytes(), bytes(8), b"\1\0", b"\0\0\0\0\3\0\0\0a\0\0"]
    response.raw_output_contents.extend(elements)
    found = read_outputs(response, {"features", "usable", "notes"})
    assert found["features"].tolist() == [[0, 1], [2, 3]]
    assert found["usable"].tolist() == [True, False]
    assert found["notes"].tolist() == [[b""], [b"a\0\0"]]
    assert found.keys() == {"features", "usable", "notes"}
    assert read_outputs(response, set()) == {}


@pytest.mark.parametrize(
    ("datatype", "shape", "raw"),
    [
        ("FP32", [2], bytes(4)),
        ("FP32", [1], bytes(3)),
        ("FP32", [-1, 3], bytes(8)),
        ("BOOL", [1], b""),
        ("BYTES", [1], b"\5\0\0\0abc"),
        ("BYTES", [1], b"\1\0"),
        ("BYTES", [2], b"\1\0\0\0a"),
        ("INT8", [1], b"\0"),
    ],
)
def test_elements_that_are_not_what_is_said_of_them_are_refused(datatype: str, shape: list[int], raw: bytes):
    response = ModelInferResponse(raw_output_contents=[raw])
    response.outputs.add(name="x", datatype=datatype, shape=shape)
    with pytest.raises(ValueError, match=r"."):
        read_outputs(response, {"x"})
    del response.outputs[:]
    with pytest.raises(ValueError, match="more raw contents"):
        read_outputs(response, {"x"})
