"""`tutelage evaluate`: ways to learn compared on a folder of images, one of which is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drawn_persons import draw_captures
from PIL import Image
from rich.console import Console

from device_sim.evaluate_command import compare_on_images
from device_sim.models import ImageTraining
from tutelage.errors import Code, InputError, UsageError
from tutelage.manifest import split_folder
from tutelage.nn.self_distil import SelfDistillation

PERSONS = 12
QUICK = ImageTraining(teacher_steps=4, teacher_batch=8, student_steps=4, student_batch=8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for person in range(PERSONS):
        (folder / f"someone-{person:02d}").mkdir(parents=True)
        for number, capture in enumerate(draw_captures(person, 12)):
            Image.fromarray(capture).save(folder / f"someone-{person:02d}" / f"{number}.png")
    (folder / "someone-03" / "2.png").write_bytes(b"no image")
    return folder


def compare(folder: Path, out: Path, methods: tuple[str, ...], seeds: int = 2) -> str:
    console = Console(record=True, width=200, quiet=False)
    compare_on_images(
        console,
        split_folder(folder),
        out,
        teacher="train",
        methods=methods,
        seeds=seeds,
        wrong=(0.0, 0.5),
        wear=0.2,
        as_json=False,
        training=QUICK,
        settings=SelfDistillation(steps=3, batch=16),
    )
    return console.export_text()


@pytest.mark.slow
def test_ways_to_learn_are_compared_and_written(images: Path, tmp_path: Path):
    said = compare(images, tmp_path / "out", ("frozen", "template", "classify"))
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    names = [f"{m}, {w} wrong, rules on" for m in ("template", "classify") for w in ("0%", "50%")]
    assert set(found["summary"]) == {"frozen, 0% wrong, rules on", *names, "classify, perfect labels, rules on"}
    assert [row["seed"] for row in found["rows"]] == [0] * 6 + [1] * 6
    assert found["left_out"] == {str(images / "someone-03" / "2.png"): next(iter(found["left_out"].values()))}
    assert f"left out: {images / 'someone-03' / '2.png'}: " in said.replace("\n", "")
    for row in found["rows"]:
        assert set(row["rates"]["worn"]) == {"exit1", "exit2", "exit3", "exit4", "fused"}
        assert row["rates"]["worn"]["fused"]["rank1"] > 0.5  # 4 persons are enrolled: chance is 0.25
    assert "| frozen, 0% wrong, rules on |" in (tmp_path / "out" / "comparison.md").read_text()
    assert (tmp_path / "out" / "comparison.svg").read_text().count("<svg") == 1


def test_too_few_images_are_a_typed_error_also_from_another_process(tmp_path: Path):
    for person in range(20):
        (tmp_path / f"someone-{person:02d}").mkdir()
        for number, capture in enumerate(draw_captures(person, 4)):
            Image.fromarray(capture).save(tmp_path / f"someone-{person:02d}" / f"{number}.png")
    with pytest.raises(InputError, match="a calibration needs 100 impostor comparisons") as raised:
        compare(tmp_path, tmp_path / "out", ("frozen",), seeds=1)
    assert raised.value.code is Code.DATA_INSUFFICIENT


def test_an_unknown_method_is_refused_before_anything_is_read(images: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="unknown method 'magic'"):
        compare(images, tmp_path / "out", ("magic",))
    assert not (tmp_path / "out").exists()
