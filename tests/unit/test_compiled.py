"""A compiled student gives the features of the uncompiled one, in the same space; where it cannot, nothing is lost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
import torch
from structlog.testing import capture_logs
from toy_networks import TOY, look_at_images, toy_student

from tutelage.biometrics.features import cosines
from tutelage.nn import compiled as compiling
from tutelage.nn.compiled import BATCH, TOLERANCE, CompiledRecogniser, compiled
from tutelage.nn.student_graph import INPUTS, student_graph
from tutelage.nn.students import READOUTS, SMALL, TINY, Recogniser, Student, StudentSpec, save_weights

ODD = StudentSpec("odd", channels=(8, 8, 12, 16), blocks=(2, 1, 1, 2), squeeze=5, dimension=24, side=37)
"""Sides of maps 19, 10, 5, 3: none of them is halved without a rest."""


def student_of(spec: StudentSpec, seed: int = 0) -> Student:
    """Random weights, and batch norms that change what passes through them."""
    torch.manual_seed(seed)
    student = Student(spec)
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
    look_at_images(student)
    return student.eval()


def inputs(count: int, side: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 1, side, side), np.float32)


@pytest.mark.parametrize("spec", [TOY, ODD, TINY, SMALL], ids=lambda spec: spec.name)
@pytest.mark.parametrize("readout", READOUTS)
def test_its_features_are_those_of_the_uncompiled_student(spec: StudentSpec, readout: str):
    plain = Recogniser.of(student_of(spec), readout)
    fast, x = compiled(plain), inputs(5, spec.side)
    assert isinstance(fast, CompiledRecogniser)
    expected, found = plain.features(x), fast.features(x)
    assert found.space == expected.space == plain.space
    np.testing.assert_allclose(found.vectors, expected.vectors, rtol=0, atol=TOLERANCE)
    assert cosines(found, expected).diagonal() == pytest.approx(np.ones(5), abs=1e-6)


def test_half_precision_weights_compile_too():
    half = save_weights(toy_student().half())
    plain = Recogniser.of_weights(TOY, half, "fused")
    found = compiled(plain).features(inputs(3, TOY.side))
    np.testing.assert_allclose(found.vectors, plain.features(inputs(3, TOY.side)).vectors, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("count", [0, 1, BATCH, 2 * BATCH + 3])
def test_any_number_of_inputs_is_computed_in_parts(count: int):
    plain, x = Recogniser.of(toy_student(), "fused"), inputs(count, TOY.side)
    found = compiled(plain).features(x)
    assert found.vectors.shape == (count, 4 * TOY.dimension)
    np.testing.assert_allclose(found.vectors, plain.features(x).vectors, rtol=0, atol=TOLERANCE)


def test_arrays_that_are_read_only_or_strided_are_taken():
    fast, x = compiled(Recogniser.of(toy_student(), "exit4")), inputs(6, TOY.side)
    expected = fast.features(x[::-1].copy()).vectors
    frozen = x[::-1].copy()
    frozen.setflags(write=False)
    np.testing.assert_array_equal(fast.features(frozen).vectors, expected)
    np.testing.assert_array_equal(fast.features(x[::-1]).vectors, expected)


def test_every_readout_can_still_be_had():
    plain, x = Recogniser.of(toy_student(), "fused"), inputs(3, TOY.side)
    fast = compiled(plain).every_readout(x)
    assert tuple(fast) == READOUTS
    np.testing.assert_array_equal(fast["exit2"], plain.every_readout(x)["exit2"])


def test_training_the_student_further_does_not_change_it():
    recogniser, x = Recogniser.of(toy_student(), "exit4"), inputs(3, TOY.side)
    fast = compiled(recogniser)
    before = fast.features(x).vectors
    with torch.no_grad():
        recogniser.student.stem.weight += 1
    np.testing.assert_array_equal(fast.features(x).vectors, before)


def test_threads_share_one_compiled_student():
    fast, x = compiled(Recogniser.of(student_of(TINY), "exit4")), inputs(16, TINY.side)
    alone = [fast.features(x[i : i + 1]).vectors for i in range(16)]
    together = threading.Barrier(4)

    def run(first: int) -> list[np.ndarray]:
        together.wait()
        return [fast.features(x[i : i + 1]).vectors for i in range(first, 16)]

    with ThreadPoolExecutor(4) as pool:
        for first, found in zip(range(4), pool.map(run, range(4)), strict=True):
            np.testing.assert_array_equal(found, alone[first:])


@pytest.mark.parametrize("k", range(4))
def test_the_graph_holds_what_its_readout_needs_and_no_batch_norm(k: int):
    student = toy_student()
    graph = onnx.load_from_string(student_graph(student, READOUTS[k])).graph
    kinds = [node.op_type for node in graph.node]
    # The stem, two in the first stage, three in each further one, one of the adapter.
    assert kinds.count("Conv") == 1 + 2 + 3 * k + 1
    assert not [kind for kind in kinds if "Normalization" in kind and kind != "LpNormalization"]
    fused = onnx.load_from_string(student_graph(student, "fused")).graph
    assert [node.op_type for node in fused.node].count("LpNormalization") == 4
    assert [tensor.name for tensor in graph.input] == [INPUTS]


@pytest.mark.parametrize("graph", [b"no graph", b""])
def test_a_graph_that_the_runtime_refuses_leaves_the_uncompiled_student(graph: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiling, "student_graph", lambda *_: graph)
    plain = Recogniser.of(toy_student(), "fused")
    with capture_logs() as logs:
        assert compiled(plain) is plain
    (event,) = logs
    assert event["event"] == "a student recognises uncompiled"
    assert event["log_level"] == "warning"
    assert event["space"] == plain.space


def test_a_graph_that_cannot_be_written_leaves_the_uncompiled_student():
    plain = Recogniser.of(toy_student(), "fused")
    plain.student.stages[1] = torch.nn.Sequential(torch.nn.AvgPool2d(2))  # no residual block
    with capture_logs() as logs:
        assert compiled(plain) is plain
    assert [event["reason"] for event in logs] == ["AttributeError"]


def test_a_graph_of_other_weights_is_not_believed(monkeypatch: pytest.MonkeyPatch):
    other = student_graph(toy_student(5), "fused")
    monkeypatch.setattr(compiling, "student_graph", lambda *_: other)
    plain = Recogniser.of(toy_student(), "fused")
    with capture_logs() as logs:
        assert compiled(plain) is plain
    (event,) = logs
    assert event["reason"].startswith("features differ by")


def test_a_student_whose_features_are_no_numbers_stays_uncompiled():
    broken = toy_student()
    with torch.no_grad():
        broken.stem.weight[:] = float("nan")
    plain = Recogniser.of(broken, "fused")
    with capture_logs() as logs:
        assert compiled(plain) is plain
    assert [event["reason"] for event in logs] == ["InputError"]
