"""Our own teacher: its network, its file and what it says of captures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from toy_networks import TOY_TEACHER, look_at_images, toy_images

from tutelage.biometrics.features import cosines
from tutelage.captures import to_input
from tutelage.errors import Code, PackageError, StorageError
from tutelage.nn.teachers import ResidualTeacher, TeacherNetwork, TeacherSpec, teacher_file

MADE = {"steps": 3, "on": "toys"}


def network(seed: int = 0) -> TeacherNetwork:
    """A network whose batch norms have seen images."""
    torch.manual_seed(seed)
    made = TeacherNetwork(TOY_TEACHER)
    look_at_images(made)
    return made.eval()


def captures(rng: np.random.Generator, count: int = 5) -> list[np.ndarray]:
    """Grey and coloured captures of several sizes."""
    shapes = [(64, 64), (20, 90), (33, 41, 3), (256, 200), (8, 8)]
    return [rng.integers(0, 256, shapes[i % 5], dtype=np.uint8) for i in range(count)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "t.safetensors").write_bytes(teacher_file(network(), "toy", MADE))
    return tmp_path / "t.safetensors"


class TestNetwork:
    def test_features_are_of_unit_length(self):
        with torch.no_grad():
            found = network()(toy_images(7, 1)[0])
        assert found.shape == (7, TOY_TEACHER.dimension)
        np.testing.assert_allclose(found.norm(dim=1).numpy(), 1, atol=1e-5)

    def test_the_default_is_within_its_budgets(self):
        default = TeacherNetwork(TeacherSpec())
        assert 3e6 <= sum(p.numel() for p in default.parameters()) <= 13e6
        assert len(teacher_file(default, "fingerprint", MADE)) <= 8_000_000

    def test_features_stay_single_precision_in_half_precision_computation(self):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found = network()(toy_images(3, 1)[0])
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.norm(dim=1).numpy(), 1, atol=1e-5)


class TestFile:
    def test_a_teacher_comes_back_as_it_was_stored(self, file: Path):
        teacher = ResidualTeacher.load(file)
        assert teacher.name == "toy"
        assert teacher.made == MADE
        assert teacher.network.spec == TOY_TEACHER
        assert not teacher.network.training
        for name, tensor in network().state_dict().items():
            expected = tensor.half().float() if tensor.is_floating_point() else tensor
            assert torch.equal(teacher.network.state_dict()[name], expected), name

    def test_its_space_is_the_digest_of_the_file(self, file: Path):
        expected = hashlib.sha256(file.read_bytes()).hexdigest()[:24] + "/teacher"
        assert ResidualTeacher.load(file).space == expected

    def test_half_precision_costs_little(self, file: Path):
        inputs = toy_images(9, 1)[0]
        with torch.no_grad():
            original = network()(inputs)
        found = ResidualTeacher.load(file).vectors(inputs)
        assert float((found * original).sum(1).min()) > 0.999

    def test_equal_networks_are_equal_files(self):
        assert teacher_file(network(), "toy", MADE) == teacher_file(network(), "toy", MADE)
        assert teacher_file(network(), "toy", MADE) != teacher_file(network(1), "toy", MADE)


class TestRefusals:
    def refused(self, path: Path) -> PackageError:
        with pytest.raises(PackageError) as caught:
            ResidualTeacher.load(path)
        assert str(path) in caught.value.message
        return caught.value

    def test_a_file_that_is_not_there(self, tmp_path: Path):
        with pytest.raises(StorageError) as caught:
            ResidualTeacher.load(tmp_path / "absent")
        assert caught.value.code is Code.STORAGE_FAILED

    @pytest.mark.parametrize("data", [b"", b"no teacher", bytes(64)], ids=["empty", "text", "zeros"])
    def test_other_bytes(self, file: Path, data: bytes):
        file.write_bytes(data)
        assert self.refused(file).code is Code.PACKAGE_CORRUPT

    def test_a_cut_anywhere(self, file: Path):
        data = file.read_bytes()
        for end in np.linspace(0, len(data) - 1, 30).astype(int):
            file.write_bytes(data[:end])
            assert self.refused(file).code is Code.PACKAGE_CORRUPT

    @pytest.mark.parametrize(
        "about",
        [
            None,
            "{",
            "[]",
            {"name": "x", "spec": {}},
            {"name": "x", "made": {}},
            {"name": "x", "made": {}, "spec": {"depth": 3}},
            {"name": "x", "made": {}, "spec": {"channels": ["a"]}},
            {"name": "x", "made": {}, "spec": {"channels": [4, -4], "blocks": [1, 1]}},
            {"name": "x", "made": {}, "spec": {"channels": [4], "blocks": [1, 1]}},
            {"name": "x", "made": 3, "spec": {"channels": [4], "blocks": [1]}},
        ],
        ids=str,
    )
    def test_a_header_that_describes_no_teacher(self, file: Path, about: object):
        text = about if isinstance(about, str) else json.dumps(about)
        file.write_bytes(save({"a": torch.zeros(1)}, metadata=None if about is None else {"teacher": text}))
        assert self.refused(file).code is Code.PACKAGE_CORRUPT

    def test_tensors_of_another_architecture(self, file: Path):
        about = json.loads(_header(file)["teacher"])
        tensors = load(file.read_bytes())
        del tensors["out.weight"]
        file.write_bytes(save(tensors, metadata={"teacher": json.dumps(about)}))
        assert self.refused(file).code is Code.PACKAGE_INCOMPLETE
        about["spec"]["dimension"] = 25
        file.write_bytes(save(load(teacher_file(network(), "x", {})), metadata={"teacher": json.dumps(about)}))
        assert self.refused(file).code is Code.PACKAGE_INCOMPLETE


def _header(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


class TestExtract:
    def test_every_capture_gets_its_entry(self, file: Path, rng: np.random.Generator):
        teacher, seen = ResidualTeacher.load(file), captures(rng)
        found = teacher.extract(seen)
        assert found.features.space == teacher.space
        assert found.features.vectors.shape == (5, TOY_TEACHER.dimension)
        assert found.usable.tolist() == [True] * 5
        assert found.reasons == found.notes == ("",) * 5

    def test_features_are_the_networks_in_the_order_of_the_captures(self, file: Path, rng: np.random.Generator):
        teacher, seen = ResidualTeacher.load(file), captures(rng)
        with torch.no_grad():
            expected = teacher.network(torch.from_numpy(to_input(seen, 16)))
        np.testing.assert_allclose(teacher.extract(seen).features.vectors, expected.numpy(), atol=1e-5)
        backwards = teacher.extract(seen[::-1]).features
        same = cosines(backwards[::-1], teacher.extract(seen).features)
        np.testing.assert_allclose(np.diag(same), 1, atol=1e-5)

    def test_no_captures_give_no_entries(self, file: Path):
        found = ResidualTeacher.load(file).extract([])
        assert found.features.vectors.shape == (0, TOY_TEACHER.dimension)
        assert found.reasons == ()

    def test_vectors_do_not_depend_on_how_they_are_batched(self, file: Path):
        teacher, inputs = ResidualTeacher.load(file), toy_images(11, 1)[0]
        np.testing.assert_allclose(teacher.vectors(inputs, batch=4).numpy(), teacher.vectors(inputs).numpy(), atol=1e-5)
