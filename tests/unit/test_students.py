"""Students: early exits, fusion, heads, budgets, their bytes, and what recognises by them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional
from toy_networks import TOY, toy_images, toy_student

from tutelage.biometrics.features import cosines
from tutelage.errors import Code, PackageError, SpaceMismatchError, UsageError
from tutelage.nn.students import (
    EXITS,
    READOUTS,
    SMALL,
    SPECS,
    TINY,
    CosineHeads,
    Recogniser,
    Student,
    StudentSpec,
    freeze_batch_statistics,
    fuse,
    load_student,
    load_weights,
    part_way,
    save_weights,
)
from tutelage.package import PackageInfo, build_package, read_package, space_of


class Untouchable(nn.Module):
    """Stands for a stage that must not be computed."""

    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("a later stage was computed")


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def inputs(count: int = 5, seed: int = 0) -> Tensor:
    return toy_images(count, 1, seed)[0]


class TestArchitecture:
    @pytest.mark.parametrize(("spec", "most"), [(TINY, 250_000), (SMALL, 700_000)], ids=["tiny", "small"])
    def test_a_size_keeps_its_budget(self, spec: StudentSpec, most: int):
        assert most / 2 < parameters(Student(spec)) <= most

    def test_a_tiny_student_fits_the_package_that_ships(self):
        assert len(save_weights(Student(TINY))) < 1_000_000

    @pytest.mark.parametrize("spec", [*SPECS.values(), TOY], ids=lambda s: s.name)
    def test_every_exit_gives_unit_features_of_one_length(self, spec: StudentSpec):
        student = Student(spec).eval()
        with torch.no_grad():
            found = student(torch.randn(3, 1, spec.side, spec.side, generator=torch.Generator().manual_seed(0)))
        assert [tuple(u.shape) for u in found] == [(3, spec.dimension)] * EXITS
        for u in found:
            np.testing.assert_allclose(u.norm(dim=1).numpy(), 1, atol=1e-5)

    def test_sizes_are_named_as_they_are(self):
        assert SPECS == {"tiny": TINY, "small": SMALL}
        assert TINY.dimension == SMALL.dimension == 128
        assert TINY.side == SMALL.side == 64

    @pytest.mark.parametrize("side", [16, 33, 48])
    def test_any_side_will_do(self, side: int):
        with torch.no_grad():
            found = toy_student()(torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(0)))
        assert found[-1].shape == (2, TOY.dimension)


class TestEarlyExits:
    @pytest.mark.parametrize("exits", range(1, EXITS + 1))
    def test_an_early_exit_needs_no_later_stage(self, exits: int):
        student, x = toy_student(), inputs()
        with torch.no_grad():
            every = student(x)
            for later in range(exits, EXITS):
                student.stages[later] = Untouchable()
                student.adapters[later] = Untouchable()
            early = student(x, exits)
        assert len(early) == exits
        assert all(torch.equal(a, b) for a, b in zip(early, every, strict=False))

    def test_the_full_forward_does_compute_the_later_stages(self):
        student = toy_student()
        student.stages[3] = Untouchable()
        with pytest.raises(AssertionError, match="later stage"):
            student(inputs())

    def test_an_early_exits_gradient_stays_in_its_stages(self):
        student = toy_student()
        student(inputs())[0].sum().backward()
        moved = {name for name, p in student.named_parameters() if p.grad is not None}
        assert moved
        assert all(name.startswith(("stem.", "norm.", "stages.0.", "adapters.0.")) for name in moved)


class TestFusion:
    def test_its_cosine_is_the_mean_of_the_exits(self):
        with torch.no_grad():
            a, b = toy_student()(inputs(6)), toy_student(1)(inputs(6, seed=4))
        fused = (fuse(a) * fuse(b)).sum(1)
        for i in range(6):
            each = [float((u[i] * v[i]).sum()) for u, v in zip(a, b, strict=True)]
            assert fused[i].item() == pytest.approx(sum(each) / EXITS, abs=1e-6)

    def test_it_is_of_unit_length(self):
        with torch.no_grad():
            fused = fuse(toy_student()(inputs()))
        assert fused.shape == (5, EXITS * TOY.dimension)
        np.testing.assert_allclose(fused.norm(dim=1).numpy(), 1, atol=1e-6)


class TestHeads:
    def test_logits_are_scaled_cosines_with_the_rows(self):
        generator = torch.Generator().manual_seed(0)
        heads = CosineHeads(5 * torch.randn(3, 4, 6, generator=generator), scale=16.0)
        features = [functional.normalize(torch.randn(2, 6, generator=generator), dim=1) for _ in range(3)]
        for k, z in enumerate(heads(features)):
            for i in range(2):
                for c in range(4):
                    row = heads.weights[k, c]
                    cosine = sum(features[k][i, d] * row[d] for d in range(6)) / sum(w * w for w in row) ** 0.5
                    assert z[i, c].item() == pytest.approx(16 * cosine.item(), abs=1e-4)

    def test_they_start_at_the_weights_given_and_do_not_share_them(self):
        start = torch.ones(EXITS, 3, 4)
        heads = CosineHeads(start)
        with torch.no_grad():
            heads.weights += 1
        assert start.eq(1).all()
        assert heads.scale == 16.0

    def test_fewer_features_use_the_first_heads(self):
        heads = CosineHeads.drawn(3, TOY.dimension, 16.0, torch.Generator().manual_seed(0))
        with torch.no_grad():
            features = toy_student()(inputs())
            assert torch.equal(heads(features[:2])[1], heads(features)[1])
        assert len(heads(features[:2])) == 2

    def test_drawn_heads_follow_their_generator(self):
        drawn = [CosineHeads.drawn(3, 4, 16.0, torch.Generator().manual_seed(seed)).weights for seed in (1, 1, 2)]
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])


def test_frozen_statistics_neither_follow_the_batch_nor_change():
    student, x = toy_student(), inputs(3)
    with torch.no_grad():
        calm = student(x)
        before = {k: v.clone() for k, v in student.state_dict().items()}
        student.train()
        freeze_batch_statistics(student)
        again = student(x)
    assert all(torch.equal(a, b) for a, b in zip(calm, again, strict=True))
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())
    assert student.training, "only the normalisations are frozen"


class TestPartOfAWay:
    def test_it_begins_and_ends_at_its_ends(self):
        start, end = toy_student(1), toy_student(2)
        assert save_weights(part_way(start, end, 0.0)) == save_weights(start)
        assert save_weights(part_way(start, end, 1.0)) == save_weights(end)

    def test_every_tensor_statistics_too_lies_between(self):
        start, end = toy_student(1), toy_student(2)
        student = part_way(start, end, 0.25)
        assert not student.training
        ends = end.state_dict()
        for name, tensor in student.state_dict().items():
            if tensor.is_floating_point():
                torch.testing.assert_close(tensor, 0.75 * start.state_dict()[name] + 0.25 * ends[name])

    def test_neither_end_is_changed(self):
        start, end = toy_student(1), toy_student(2)
        before = save_weights(start), save_weights(end)
        part_way(start, end, 0.5).stem.weight.data.zero_()
        assert (save_weights(start), save_weights(end)) == before


class TestBytes:
    def test_weights_come_back(self):
        student = toy_student()
        back = load_student(TOY, save_weights(student))
        assert not back.training
        assert set(back.state_dict()) == set(student.state_dict())
        for name, tensor in student.state_dict().items():
            assert torch.equal(back.state_dict()[name], tensor), name

    def test_equal_weights_are_equal_bytes(self):
        assert save_weights(toy_student()) == save_weights(toy_student())
        assert save_weights(toy_student()) != save_weights(toy_student(1))

    def test_layout_in_memory_does_not_change_the_bytes(self):
        student = toy_student()
        assert save_weights(student.to(memory_format=torch.channels_last)) == save_weights(toy_student())

    def test_half_precision_is_widened(self):
        student = load_student(TOY, halved(toy_student()))
        assert {v.dtype for k, v in student.state_dict().items() if "num_batches" not in k} == {torch.float32}
        expected = toy_student().stem.weight.half().float()
        assert torch.equal(student.stem.weight, expected)

    @pytest.mark.parametrize("data", [b"", b"not weights", bytes(100)], ids=["empty", "text", "zeros"])
    def test_bytes_of_another_kind_are_refused(self, data: bytes):
        with pytest.raises(PackageError) as caught:
            load_student(TOY, data)
        assert caught.value.code is Code.PACKAGE_CORRUPT

    def test_a_cut_anywhere_is_noticed(self):
        data = save_weights(toy_student())
        for end in np.linspace(0, len(data) - 1, 40).astype(int):
            with pytest.raises(PackageError) as caught:
                load_student(TOY, data[:end])
            assert caught.value.code is Code.PACKAGE_CORRUPT

    @pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "kind"])
    def test_tensors_that_do_not_fit_are_named_and_change_nothing(self, fault: str):
        tensors = load(save_weights(toy_student()))
        if fault == "missing":
            del tensors["stem.weight"]
        elif fault == "unknown":
            tensors["stem.bias"] = torch.zeros(8)
        elif fault == "shape":
            tensors["stem.weight"] = torch.zeros(8, 1, 3, 3)
        else:
            tensors["stem.weight"] = torch.zeros(8, 1, 5, 5, dtype=torch.int64)
        student = toy_student(7)
        before = save_weights(student)
        with pytest.raises(PackageError, match="stem") as caught:
            load_weights(student, save(tensors))
        assert caught.value.code is Code.PACKAGE_INCOMPLETE
        assert save_weights(student) == before

    def test_another_sizes_weights_are_refused(self):
        wider = replace(TOY, dimension=20)
        with pytest.raises(PackageError) as caught:
            load_student(wider, save_weights(toy_student()))
        assert caught.value.code is Code.PACKAGE_INCOMPLETE


class TestSpecAsJson:
    @pytest.mark.parametrize("spec", [TINY, SMALL, TOY], ids=lambda s: s.name)
    def test_it_comes_back_from_text(self, spec: StudentSpec):
        assert StudentSpec.from_json(json.loads(json.dumps(spec.as_json()))) == spec

    @pytest.mark.parametrize(
        "change",
        [
            {"channels": [16, 32, 48]},
            {"channels": 16},
            {"blocks": [1, 1, 1, 0]},
            {"blocks": [1, 1, 1, True]},
            {"squeeze": "14"},
            {"dimension": 128.0},
            {"side": -64},
            {"attention": True},
        ],
        ids=str,
    )
    def test_what_no_student_is_built_like_is_refused(self, change: dict[str, object]):
        with pytest.raises(PackageError) as caught:
            StudentSpec.from_json({**TINY.as_json(), **change})
        assert caught.value.code is Code.PACKAGE_CORRUPT

    def test_a_missing_field_is_refused(self):
        without = {k: v for k, v in TINY.as_json().items() if k != "squeeze"}
        with pytest.raises(PackageError):
            StudentSpec.from_json(without)


def halved(student: Student) -> bytes:
    return save({k: v.half() if v.is_floating_point() else v for k, v in student.state_dict().items()})


def packaged(weights: bytes, readout: str, student: dict[str, object] | None = None):
    signer = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    info = PackageInfo(
        name="toy",
        version="v1",
        student=student or TOY.as_json(),
        readout=readout,
        teacher_space="t",
        created="2024-05-06T07:08:09+00:00",
    )
    data = build_package(weights=weights, calibration={}, impostors=b"", info=info, signer=signer)
    return read_package(data, trusted=[signer.public_key()])


class TestRecogniser:
    @pytest.mark.parametrize("readout", READOUTS)
    def test_its_features_are_those_of_the_full_forward(self, readout: str):
        student, x = toy_student(), inputs(7)
        with torch.no_grad():
            found = student(x)
        expected = dict(zip(READOUTS, [*found, fuse(found)], strict=True))
        features = Recogniser.of(student, readout).features(x.numpy(), batch=3)
        np.testing.assert_allclose(features.vectors, expected[readout].numpy(), atol=1e-5)

    @pytest.mark.parametrize("k", range(EXITS))
    def test_an_early_readout_stops_early(self, k: int):
        recogniser = Recogniser.of(toy_student(), READOUTS[k])
        for later in range(k + 1, EXITS):
            recogniser.student.stages[later] = Untouchable()
        assert len(recogniser.features(inputs().numpy())) == 5

    def test_it_gives_every_readout_that_it_computed(self):
        student, x = toy_student(), inputs().numpy()
        assert tuple(Recogniser.of(student, "fused").every_readout(x)) == READOUTS
        assert tuple(Recogniser.of(student, "exit2").every_readout(x)) == READOUTS[:2]

    @pytest.mark.parametrize("readout", READOUTS)
    def test_no_inputs_give_no_rows_of_the_right_length(self, readout: str):
        recogniser = Recogniser.of(toy_student(), readout)
        none, some = recogniser.features(inputs().numpy()[:0]), recogniser.features(inputs().numpy())
        assert none.vectors.shape == (0, some.vectors.shape[1])

    def test_arrays_that_torch_cannot_share_are_copied(self):
        recogniser, x = Recogniser.of(toy_student(), "exit4"), inputs().numpy()
        expected = recogniser.features(x[::-1].copy()).vectors
        frozen = x[::-1].copy()
        frozen.setflags(write=False)
        np.testing.assert_array_equal(recogniser.features(frozen).vectors, expected)
        np.testing.assert_array_equal(recogniser.features(x[::-1]).vectors, expected)

    def test_training_the_student_further_does_not_change_it(self):
        student = toy_student()
        recogniser, x = Recogniser.of(student, "exit4"), inputs().numpy()
        before = recogniser.features(x).vectors
        with torch.no_grad():
            student.train()(inputs(12, 9))
            student.stem.weight += 1
        np.testing.assert_array_equal(recogniser.features(x).vectors, before)

    def test_two_readouts_are_two_spaces(self):
        student, x = toy_student(), inputs().numpy()
        first, last = (Recogniser.of(student, readout).features(x) for readout in ("exit1", "exit4"))
        with pytest.raises(SpaceMismatchError):
            cosines(first, last)

    @pytest.mark.parametrize("precision", [save_weights, halved], ids=["single", "half"])
    def test_it_lives_in_the_space_of_its_package(self, precision):
        weights = precision(toy_student())
        package = packaged(weights, "exit2")
        recogniser = Recogniser.of_package(package)
        assert recogniser.space == package.space == space_of(weights, "exit2")
        assert recogniser.space == Recogniser.of_weights(TOY, weights, "exit2").space
        assert recogniser.features(inputs().numpy()).space == package.space

    def test_a_student_at_hand_is_in_the_space_its_package_will_have(self):
        student = toy_student()
        assert Recogniser.of(student, "fused").space == packaged(save_weights(student), "fused").space

    def test_half_precision_is_a_space_of_its_own(self):
        student = toy_student()
        half = Recogniser.of_weights(TOY, halved(student), "fused")
        assert half.space != Recogniser.of(student, "fused").space
        assert half.space != Recogniser.of(half.student, "fused").space

    def test_weights_that_are_not_of_the_packages_architecture_are_refused(self):
        package = packaged(save_weights(toy_student()), "fused", TINY.as_json())
        with pytest.raises(PackageError) as caught:
            Recogniser.of_package(package)
        assert caught.value.code is Code.PACKAGE_INCOMPLETE

    @pytest.mark.parametrize("readout", ["exit0", "exit5", "", "last"])
    def test_a_readout_that_no_student_has_is_refused(self, readout: str):
        with pytest.raises(UsageError, match="exit1, exit2"):
            Recogniser.of(toy_student(), readout)
